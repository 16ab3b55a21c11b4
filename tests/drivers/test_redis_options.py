"""What settings and options of Celery's become of ``redis://``."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
from tests.servers import RedisServer

from celeriac import Celeriac
from celeriac.drivers.redis import option_readers
from celeriac.drivers.redis.broker import RedisBroker
from celeriac.drivers.redis.bus import RedisEventBus
from celeriac.drivers.redis.options import Tls, read_options
from celeriac.drivers.redis.results import RedisResultBackend
from celeriac.exceptions import ImproperlyConfigured


def parts_of(**settings: Any) -> tuple[RedisBroker, RedisResultBackend, RedisEventBus]:
    settings.setdefault("broker_url", "redis://broker/1")
    settings.setdefault("result_backend", "redis://")
    app = Celeriac("shop", set_as_current=False)
    app.conf.update(settings)
    broker, results, bus = app.make_broker(), app.make_results(), app.make_bus()
    assert isinstance(broker, RedisBroker)
    assert isinstance(results, RedisResultBackend)
    assert isinstance(bus, RedisEventBus)
    return broker, results, bus


def test_settings_for_results_stand_in_for_the_url() -> None:
    given = {
        "redis_host": "results",
        "redis_port": 7000,
        "redis_db": 4,
        "redis_username": "shop",
        "redis_password": "secret",
        "redis_socket_timeout": 9,
        "redis_socket_connect_timeout": 2.5,
        "redis_socket_keepalive": False,
        "redis_client_name": "till",
    }
    broker, results, _ = parts_of(**given)
    found = results.options
    assert found.addresses == (("results", 7000),)
    assert (found.db, found.username, found.password) == (4, "shop", "secret")
    assert (found.socket_timeout, found.socket_connect_timeout) == (9.0, 2.5)
    assert (found.socket_keepalive, found.client_name) == (False, "till")
    assert broker.options == read_options("redis://broker/1", {})


def test_the_url_goes_first() -> None:
    given = {
        "redis_host": "results",
        "redis_port": 7000,
        "redis_db": 4,
        "redis_username": "shop",
        "redis_password": "secret",
    }
    url = "redis://u:p@there/2?socket_timeout=7"
    _, results, _ = parts_of(result_backend=url, redis_socket_timeout=1, **given)
    found = results.options
    assert found.addresses == (("there", 6379),)
    assert (found.db, found.username, found.password) == (2, "u", "p")
    assert found.socket_timeout == 7.0


def test_transport_options_go_before_settings() -> None:
    _, results, _ = parts_of(
        redis_socket_timeout=1, result_backend_transport_options={"socket_timeout": 2}
    )
    assert results.options.socket_timeout == 2.0


def test_defaults_need_no_settings() -> None:
    _, results, _ = parts_of()
    assert results.options == read_options("redis://", {}, results=True)
    assert results.options.tls is None
    assert read_options("redis://", {}).shown == "redis://localhost:6379/0"
    assert read_options("sentinel://", {"master_name": "m"}).addresses == (("localhost", 26379),)


@pytest.mark.parametrize(
    ("given", "tls"),
    [
        (True, Tls()),
        ({"ssl_cert_reqs": ssl.CERT_NONE}, Tls(cert_reqs="none")),
        (
            {"cert_reqs": "optional", "ca_certs": "/ca.pem", "keyfile": "/k", "certfile": "/c"},
            Tls(cert_reqs="optional", ca_certs="/ca.pem", keyfile="/k", certfile="/c"),
        ),
        ({"ssl_check_hostname": False}, Tls(check_hostname=False)),
        (False, None),
    ],
)
def test_tls_by_settings(given: Any, tls: Tls | None) -> None:
    """Also where the URL says only redis://: nothing is sent in the clear that was not to be."""
    broker, results, bus = parts_of(broker_use_ssl=given, redis_backend_use_ssl=given)
    assert broker.options.tls == results.options.tls == bus._options.tls == tls
    other = Tls(ca_certs="/other")
    broker, results, _ = parts_of(
        broker_use_ssl=given, result_backend="rediss://there/0?ssl_ca_certs=/other"
    )
    assert (broker.options.tls, results.options.tls) == (tls, other)


def test_options_that_mean_nothing(caplog: pytest.LogCaptureFixture) -> None:
    option_readers._told.clear()
    given: dict[str, Any] = {
        "visibility_timeout": 3600,
        "retry_policy": {"timeout": 5.0},
        "result_chord_ordered": True,
    }
    with caplog.at_level(logging.INFO, "celeriac.drivers.redis"):
        for _ in range(2):
            parts_of(broker_transport_options=given, result_backend_transport_options=given)
    assert sorted(message.split()[3] for message in caplog.messages) == sorted(given)
    assert all("accepted and not used: " in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"socket_timeout": "soon"}, "socket_timeout='soon'"),
        ({"max_connections": 1}, "at least 3"),
        ({"db": "x"}, "db='x'"),
        ({"visibility_timout": 1}, "Did you mean visibility_timeout"),
        ({"credential_provider": "no.such.Class"}, "no such class"),
        ({"credential_provider": object()}, "get_credentials"),
        ({"ssl": {"cert_reqs": "maybe"}}, "required, optional or none"),
    ],
)
def test_what_is_not_understood(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        read_options("redis://:secret@localhost", given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "db"),
    [
        ("redis://", "redis://localhost:6379", 0),
        ("redis://h", "redis://h:6379", 0),
        ("redis://h:7/3", "redis://h:7", 3),
        ("redis://[::1]:7/3", "redis://::1:7", 3),
        ("redis://u:p@h:7?db=4", "redis://h:7", 4),
        ("redis://:p%40@h/", "redis://h:6379", 0),
        ("redis+socket:///tmp/s?virtual_host=2", "redis+socket:///tmp/s", 2),
        ("sentinel://a;sentinel://b:5/1?master_name=m", "sentinel://a:26379,b:5/m", 1),
    ],
)
def test_urls(url: str, shown: str, db: int) -> None:
    found = read_options(url, {})
    assert (found.place, found.db) == (shown, db)


class Rotating:
    """A provider as redis-py's are."""

    asked = 0

    def get_credentials(self) -> tuple[str, str]:
        Rotating.asked += 1
        return "shop", f"pw{Rotating.asked}"


def test_a_credential_provider_is_asked_at_every_log_in() -> None:
    with RedisServer("user shop on >pw1 >pw2 >pw3 ~* &* +@all", "user default off") as server:
        app = Celeriac("shop", broker=server.url, backend=server.url, set_as_current=False)
        path = f"{Rotating.__module__}:Rotating"
        app.conf.broker_transport_options = {"credential_provider": path}
        app.conf.redis_backend_credential_provider = Rotating()
        sent = app.send_task("shop.sell")
        assert sent.state == "PENDING"
        app.close()
        assert Rotating.asked == 2
