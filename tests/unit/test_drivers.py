"""URL schemes and the drivers behind them."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from celeriac import drivers
from celeriac.contracts import Broker
from celeriac.drivers import (
    admin_of,
    driver_for,
    known_schemes,
    one_store,
    open_broker,
    open_bus,
    open_results,
    safe_url,
)
from celeriac.drivers.memory import forget
from celeriac.exceptions import (
    ImproperlyConfigured,
    MissingDependency,
    NotCapable,
    OperationalError,
    UnknownScheme,
)
from celeriac.message import Owner, Worker
from celeriac.testing import FakeClock
from celeriac.testing.samples import ids, message, messages


def opened(url: str, options: dict[str, Any] | None = None) -> Broker:
    broker = open_broker(url, options)
    broker.open()
    return broker


def a_driver(**parts: Any) -> types.SimpleNamespace:
    """A driver that lacks every part that is not given."""
    lacking = dict.fromkeys(("broker", "results", "bus"), lambda url, options: None)
    return types.SimpleNamespace(**{**lacking, "admin": lambda broker: None, **parts})


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A driver made elsewhere, found by its entry point ``carrier``."""
    driver = a_driver(broker=lambda url, options: types.SimpleNamespace(store=url, o=options))
    module = types.ModuleType("pigeons")
    module.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pigeons", module)
    point = EntryPoint("carrier", "pigeons:driver", drivers.ENTRY_POINTS)
    monkeypatch.setattr(drivers, "entry_points", lambda group: [point])
    return driver


def test_memory_parts() -> None:
    for url in ("memory://", "memory://name", "MEMORY://name"):
        broker = open_broker(url)
        broker.open()
        assert one_store(broker, open_results(url))
        assert admin_of(broker).queues() == []
        assert open_bus(url).listen(["t"], 0) == []
        broker.close()
        forget(url)


def test_memory_says_what_it_cannot() -> None:
    capabilities = open_broker("memory://").capabilities
    assert not capabilities.survives_process
    assert not capabilities.shared
    assert "gone" in capabilities.durability


def test_memory_stores_go_by_name() -> None:
    one, same, other = (opened(f"memory://{name}") for name in ("one", "one/", "other"))
    one.register(Worker(lease="w", ttl=10))
    other.register(Worker(lease="w", ttl=10))
    one.publish(messages("a"))
    assert not one_store(one, open_results("memory://other"))
    assert other.claim(Owner("w", 1, 1), ["celery"], 10) == []
    assert ids(same.claim(Owner("w", 1, 1), ["celery"], 10)) == ["a"]
    forget("memory://one")
    forget("memory://other")
    assert admin_of(opened("memory://one")).queues() == []


def test_memory_in_a_forked_child() -> None:
    """A child has a store of its own, whatever lock the parent's threads held at the fork."""
    code = """if 1:
        import os, sys
        from celeriac.drivers import admin_of, open_broker
        from celeriac.drivers.memory.store import Store
        from celeriac.testing.samples import message
        broker = open_broker("memory://")
        broker.open()
        broker.publish([message("a")])
        with Store.at("memory://").lock, Store._all_lock:
            child = os.fork()
        broker = open_broker("memory://")
        broker.open()
        broker.publish([message("b")])
        found = sorted(p.message.id for p in admin_of(broker).find(["a", "b"]))
        if child == 0:
            os._exit(0 if found == ["b"] else 1)
        assert found == ["a", "b"], found
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0


def test_clock_is_an_option() -> None:
    clock = FakeClock()
    broker = opened("memory://clocked", {"clock": clock})
    broker.register(Worker(lease="w", ttl=10))
    broker.publish([message("a", due_at=clock() + 5)])
    assert broker.claim(Owner("w", 1, 1), ["celery"], 10) == []
    clock.advance(5)
    assert ids(broker.claim(Owner("w", 1, 1), ["celery"], 10)) == ["a"]
    forget("memory://clocked")


def test_unknown_scheme_lists_what_is_known() -> None:
    with pytest.raises(UnknownScheme) as caught:
        open_broker("gopher://user:secret@host/")
    text = str(caught.value)
    assert "gopher://" in text
    assert "memory://" in text
    assert "sqlite://" in text
    assert "secret" not in text
    assert "Did you mean" not in text


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UnknownScheme, match=r"Did you mean sqlite://\?"):
        open_broker("sqlit3:///file.db")
    with pytest.raises(UnknownScheme, match=r"Did you mean memory://\?"):
        open_results("memmory://")


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("redis://localhost/0", "redis"),
        ("rediss://localhost/0", "redis"),
        ("amqp://guest@localhost//", "rabbitmq"),
    ],
)
def test_known_but_not_installed(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "BUILT_IN", {"memory": "celeriac.drivers.memory"})
    monkeypatch.setattr(drivers, "entry_points", lambda group: [])
    with pytest.raises(UnknownScheme, match=rf"pip install celeriac\[{extra}\]"):
        open_broker(url)


@pytest.mark.parametrize("url", ["", "localhost", "celeriac.db", "://x", "memory"])
def test_not_a_url(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="memory://"):
        open_broker(url)


def test_driver_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="redis.client")

    monkeypatch.setitem(drivers.BUILT_IN, "redis", "celeriac.drivers.redis")
    monkeypatch.setattr(drivers.importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=r"pip install celeriac\[redis\]"):
        open_broker("redis://localhost")


def test_driver_that_is_broken_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(drivers.BUILT_IN, "broken", "celeriac.drivers.no_such_module")
    with pytest.raises(ModuleNotFoundError) as caught:
        open_broker("broken://")
    assert not isinstance(caught.value, ImproperlyConfigured)


def test_entry_points(foreign: types.SimpleNamespace) -> None:
    assert driver_for("carrier://loft") is foreign
    broker: Any = open_broker("carrier://loft", {"speed": 80})
    assert broker.o == {"speed": 80}
    assert {"carrier", "memory", "sqlite"} <= set(known_schemes())


def test_part_that_a_driver_lacks(foreign: types.SimpleNamespace) -> None:
    with pytest.raises(NotCapable, match="result backend") as caught:
        open_results("carrier://user:secret@loft")
    assert "sqlite://" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(NotCapable, match="event bus"):
        open_bus("carrier://loft")
    with pytest.raises(NotCapable, match="queue administration"):
        admin_of(open_broker("carrier://loft"))


def test_drivers_are_imported_when_asked_for() -> None:
    code = (
        "import sys, celeriac.drivers as d\n"
        "loaded = [m for m in sys.modules if m.startswith('celeriac.drivers.')]\n"
        "assert loaded == [], loaded\n"
        "d.open_broker('memory://')\n"
        "assert 'celeriac.drivers.memory' in sys.modules\n"
        "assert 'celeriac.drivers.sqlite' not in sys.modules\n"
        "assert 'pytest' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, env=environment)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@host:6379/0", "redis://:**@host:6379/0"),
        ("amqp://user:pa@ss:w@host//v", "amqp://user:**@host//v"),
        ("amqp://user@host//", "amqp://user@host//"),
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("sqlite:///relative.db", "sqlite:///relative.db"),
        ("sqlite:////absolute/a@b:c.db", "sqlite:////absolute/a@b:c.db"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=**&db=1"),
        ("amqp://u:one@a//;amqp://u:two@b//", "amqp://u:**@a//;amqp://u:**@b//"),
        ("memory://", "memory://"),
        ("no url at all", "no url at all"),
    ],
)
def test_safe_url(url: str, shown: str) -> None:
    assert safe_url(url) == shown


def test_errors_of_closed_stores_are_operational() -> None:
    broker, results = open_broker("memory://closed"), open_results("memory://closed")
    with pytest.raises(OperationalError, match=r"open\(\)"):
        broker.publish(messages("a"))
    for part in (broker, results):
        part.open()
        part.close()
        part.close()
    with pytest.raises(OperationalError, match="memory://closed"):
        broker.publish(messages("a"))
    with pytest.raises(OperationalError, match="memory://closed"):
        results.get(["a"])
    broker.open()
    assert broker.publish(messages("a")) == 1
    forget("memory://closed")
