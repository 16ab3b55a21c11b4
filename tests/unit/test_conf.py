"""Settings: names, types, sources, precedence, secrets."""

from __future__ import annotations

import logging
import sys
import timeit
import types
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.conf import SETTINGS, Change, Settings, hide, hide_in_url, markdown_table
from celeriac.conf import settings as settings_module
from celeriac.conf.kinds import (
    ANY,
    BOOL,
    CLASS,
    CONCURRENCY,
    GRACE,
    INT,
    LEVEL,
    MAPPING,
    NAMES,
    NUMBER,
    QUEUES,
    RATE,
    SECONDS,
    SECRET,
    SSL,
    TEXT,
    TIMEZONE,
    URLS,
    WEIGHTS,
    Kind,
    at_least,
    maybe,
    one_of,
    seconds,
)
from celeriac.conf.setting import ACCEPTED, LATER, USED
from celeriac.conf.table import ENVIRONMENT, OLD_NAMES
from celeriac.exceptions import CeleriacWarning, ImproperlyConfigured, UnknownSetting

ROOT = Path(__file__).parents[2]


def make(values: dict[str, Any] | None = None, **environ: str) -> Settings:
    """Settings that don't see the environment of whoever runs the tests."""
    return Settings(values, environ=environ)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    found = types.ModuleType("shopconfig")
    monkeypatch.setitem(sys.modules, "shopconfig", found)
    return found


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "_told", set())


class TestTable:
    def test_every_setting_is_complete(self) -> None:
        for row in SETTINGS.values():
            assert row.doc.endswith("."), row
            assert row.group, row
            assert row.status in (USED, ACCEPTED, LATER), row
            assert bool(row.reason) == (row.status == ACCEPTED), row
            assert row.environment[0] == f"CELERIAC_{row.name.upper()}"

    def test_every_default_is_of_its_own_type(self) -> None:
        for row in SETTINGS.values():
            assert row.convert(row.default) == row.default, row

    def test_no_name_means_two_settings(self) -> None:
        old = [name for row in SETTINGS.values() for name in row.old]
        assert len(old) == len(set(old))
        variables = [name for row in SETTINGS.values() for name in row.environment]
        assert len(variables) == len(set(variables))
        assert not set(old) & set(SETTINGS)

    def test_all_of_celerys_settings_are_known(self) -> None:
        ours = {name for name, row in SETTINGS.items() if row.own}
        assert ours == {
            "broker_publish_timeout",
            "dead_letter_expires",
            "dead_letter_max",
            "result_chord_sweep_interval",
            "revoke_expires",
            "task_max_deliveries",
            "unknown_task_wait",
            "worker_heartbeat_interval",
            "worker_lease",
            "worker_log_json",
            "worker_queue_weights",
            "worker_shutdown_grace",
        }
        # 207 of the defaults table of Celery 5.7, and 5 that it honours besides.
        assert len(SETTINGS) - len(ours) == 212

    def test_no_setting_hides_a_method(self) -> None:
        for name in SETTINGS:
            assert vars(Settings).get(name) is None, name

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("BROKER_URL", "broker_url"),
            ("CELERY_RESULT_BACKEND", "result_backend"),
            ("CELERYD_CONCURRENCY", "worker_concurrency"),
            ("CELERY_ALWAYS_EAGER", "task_always_eager"),
            ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
            ("CELERYBEAT_SCHEDULE", "beat_schedule"),
            ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
            ("CELERY_SEND_EVENTS", "worker_send_task_events"),
            ("CELERY_RESULT_DBURI", "database_url"),
        ],
    )
    def test_old_names(self, old: str, new: str) -> None:
        assert OLD_NAMES[old] == new

    def test_differences_from_celery_are_on_purpose(self) -> None:
        conf = make()
        assert conf.task_acks_late is None
        assert conf.broker_url is None
        assert conf.result_backend is None
        assert tuple(conf.accept_content) == ("json",)

    def test_our_defaults(self) -> None:
        conf = make()
        assert conf.worker_lease == 15.0
        assert conf.worker_heartbeat_interval == 5.0
        assert conf.task_max_deliveries == 3
        assert conf.unknown_task_wait == 30.0
        assert conf.worker_shutdown_grace == 25.0
        assert conf.dead_letter_expires == 30 * 86400
        assert conf.dead_letter_max == 100_000
        assert conf.revoke_expires == 7 * 86400
        assert conf.broker_publish_timeout == 5.0
        assert conf.worker_log_json is False
        assert conf.worker_queue_weights == {}


class TestReading:
    def test_by_attribute_item_and_get(self) -> None:
        conf = make({"task_default_queue": "shop"})
        assert conf.task_default_queue == "shop"
        assert conf["task_default_queue"] == "shop"
        assert conf.get("task_default_queue") == "shop"

    def test_by_old_name(self) -> None:
        conf = make()
        conf.CELERY_DEFAULT_QUEUE = "shop"
        assert conf.task_default_queue == "shop"
        assert conf.CELERY_DEFAULT_QUEUE == "shop"
        assert conf["CELERY_DEFAULT_QUEUE"] == "shop"
        assert conf.get("CELERY_DEFAULT_QUEUE") == "shop"

    def test_membership_and_iteration(self) -> None:
        conf = make()
        assert "task_routes" in conf
        assert "CELERY_ROUTES" in conf
        assert "nonsense" not in conf
        assert 3 not in conf
        assert list(conf) == list(SETTINGS)
        assert len(conf) == len(SETTINGS)
        assert dict(conf.items())["task_default_queue"] == "celery"
        assert "celery" in conf.values()
        assert conf.keys() == SETTINGS.keys()
        assert dict(conf) == dict(conf.items())

    def test_unknown_name_names_the_nearest(self) -> None:
        conf = make()
        with pytest.raises(UnknownSetting, match=r"no setting task_rotues.*task_routes\?"):
            _ = conf.task_rotues
        with pytest.raises(UnknownSetting, match=r"CELERYD_CONCURENCY.*CELERYD_CONCURRENCY\?"):
            _ = conf["CELERYD_CONCURENCY"]
        assert conf.get("task_rotues") is None
        assert conf.get("task_rotues", 3) == 3

    def test_unknown_name_is_every_error_that_a_caller_may_expect(self) -> None:
        conf = make()
        assert not hasattr(conf, "nonsense")
        with pytest.raises(KeyError):
            _ = conf["nonsense"]
        with pytest.raises(AttributeError):
            _ = conf.nonsense
        with pytest.raises(AttributeError):
            _ = conf._private

    def test_prefixed_name_is_explained(self) -> None:
        with pytest.raises(UnknownSetting, match=r'broker_url.*namespace="CELERY"'):
            make({"CELERY_BROKER_URL": "redis://"})

    def test_reading_is_cheap(self) -> None:
        conf = make()
        once = min(timeit.repeat(lambda: conf.task_acks_late, number=20_000, repeat=5)) / 20_000
        assert once < 1e-6  # measured at 25 ns; the bound only tells a dict from a call chain

    def test_defaults_are_not_shared(self) -> None:
        one, other = make(), make()
        one.beat_schedule["tick"] = {"task": "tick"}
        assert other.beat_schedule == {}
        assert make().beat_schedule == {}


class TestWriting:
    def test_attribute_item_update_and_constructor(self) -> None:
        conf = Settings({"task_time_limit": 10}, environ={}, task_soft_time_limit=5)
        conf.task_default_queue = "a"
        conf["task_default_priority"] = 3
        conf.update({"task_serializer": "yaml"}, worker_concurrency=2)
        conf.update([("task_compression", "zstd")])
        assert conf.changes == {
            "task_time_limit": Change(10, "code"),
            "task_soft_time_limit": Change(5, "code"),
            "task_default_queue": Change("a", "code"),
            "task_default_priority": Change(3, "code"),
            "task_serializer": Change("yaml", "code"),
            "worker_concurrency": Change(2, "code"),
            "task_compression": Change("zstd", "code"),
        }

    @pytest.mark.parametrize(
        "write",
        [
            lambda conf: setattr(conf, "task_rotues", {}),
            lambda conf: conf.__setitem__("task_rotues", {}),
            lambda conf: conf.update(task_rotues={}),
            lambda conf: conf.override(task_rotues={}),
            lambda conf: conf.add_defaults({"task_rotues": {}}),
            lambda conf: conf.load_object({"task_rotues": {}}),
            lambda conf: Settings(task_rotues={}),
            lambda conf: Settings({"task_rotues": {}}),
        ],
    )
    def test_unknown_names_are_errors(self, write: Any) -> None:
        with pytest.raises(UnknownSetting, match="task_routes"):
            write(make())

    def test_update_is_all_or_nothing(self) -> None:
        conf = make()
        with pytest.raises(ImproperlyConfigured):
            conf.update(task_default_queue="a", task_time_limit="soon")
        assert conf.task_default_queue == "celery"
        assert conf.changes == {}

    def test_generation_grows_with_each_change(self) -> None:
        conf = make()
        seen = [conf.generation]
        for change in (
            lambda: setattr(conf, "task_default_queue", "a"),
            lambda: conf.update(task_default_queue="b", task_serializer="yaml"),
            lambda: conf.load_object({"task_time_limit": 3}),
            lambda: conf.override(worker_concurrency=1),
            lambda: delattr(conf, "task_default_queue"),
        ):
            change()
            seen.append(conf.generation)
        assert seen == sorted(set(seen))
        assert make().generation not in seen  # never mistaken for another application's

    def test_reset(self) -> None:
        conf = make({"task_default_queue": "a"})
        del conf.task_default_queue
        assert conf.task_default_queue == "celery"
        conf["task_default_queue"] = "b"
        del conf["task_default_queue"]
        assert conf.source("task_default_queue") == "default"

    def test_setdefault(self) -> None:
        conf = make({"task_default_queue": "a"})
        assert conf.setdefault("task_default_queue", "b") == "a"
        assert conf.setdefault("task_serializer", "yaml") == "yaml"
        assert conf.task_serializer == "yaml"

    def test_what_is_derived_follows(self) -> None:
        conf = make({"broker_url": "redis://one", "worker_lease": 6})
        assert conf.broker_read_url == conf.broker_write_url == "redis://one"
        assert conf.worker_heartbeat_interval == 2.0
        conf.task_default_queue = "shop"
        assert conf.task_default_exchange == conf.task_default_routing_key == "shop"
        conf.task_default_exchange = "x"
        conf.task_default_queue = "other"
        assert conf.task_default_exchange == "x"
        assert conf.task_default_routing_key == "other"
        conf.task_default_exchange = None
        assert conf.task_default_exchange == "other"
        conf.worker_heartbeat_interval = 1
        assert conf.worker_heartbeat_interval == 1

    def test_given_dicts_and_lists_stay_themselves(self) -> None:
        schedule: dict[str, Any] = {}
        imports = ["a"]
        conf = make({"beat_schedule": schedule, "imports": imports})
        assert conf.beat_schedule is schedule
        assert conf.imports is imports

    def test_added_in_place_counts_as_changed(self) -> None:
        conf = make()
        conf.beat_schedule["tick"] = {"task": "tick"}
        assert conf.source("beat_schedule") == "code"
        assert list(conf.changes) == ["beat_schedule"]

    def test_check_finds_contradictions(self) -> None:
        make().check()
        with pytest.raises(ImproperlyConfigured, match=r"worker_heartbeat_interval .20 s."):
            make({"worker_heartbeat_interval": 20}).check()
        with pytest.raises(ImproperlyConfigured, match="task_soft_time_limit"):
            make({"task_soft_time_limit": 20, "task_time_limit": 10}).check()
        make({"task_soft_time_limit": 10, "task_time_limit": 20}).check()


class TestTypes:
    @pytest.mark.parametrize(
        ("kind", "given", "kept"),
        [
            (BOOL, True, True),
            (BOOL, 0, False),
            (BOOL, "false", False),
            (BOOL, " Yes ", True),
            (BOOL, "on", True),
            (BOOL, "0", False),
            (INT, 3, 3),
            (INT, 3.0, 3),
            (INT, "-3", -3),
            (NUMBER, 3, 3),
            (NUMBER, "3", 3),
            (NUMBER, "0.5", 0.5),
            (NUMBER, float("inf"), float("inf")),
            (TEXT, "a", "a"),
            (TEXT, Path("a"), "a"),
            (NAMES, "a, b,", ("a", "b")),
            (NAMES, ["a"], ["a"]),
            (NAMES, ("a",), ("a",)),
            (NAMES, {"b", "a"}, ["a", "b"]),
            (MAPPING, {"a": 1}, {"a": 1}),
            (MAPPING, '{"a": 1}', {"a": 1}),
            (MAPPING, types.MappingProxyType({"a": 1}), {"a": 1}),
            (SECONDS, timedelta(minutes=1), 60.0),
            (SECONDS, "1.5", 1.5),
            (SECONDS, 0, 0),
            (maybe(SECONDS), None, None),
            (SSL, True, True),
            (SSL, {"ca_certs": "x"}, {"ca_certs": "x"}),
            (SSL, '{"a": 1}', {"a": 1}),
            (URLS, "redis://", "redis://"),
            (URLS, ("a://", "b://"), ["a://", "b://"]),
            (RATE, "10/m", "10/m"),
            (RATE, "10", "10"),
            (RATE, 2.5, 2.5),
            (TIMEZONE, "utc", "UTC"),
            (TIMEZONE, "Europe/Berlin", "Europe/Berlin"),
            (TIMEZONE, UTC, UTC),
            (LEVEL, "info", "INFO"),
            (LEVEL, "20", 20),
            (LEVEL, 20, 20),
            (CONCURRENCY, "auto", "auto"),
            (CONCURRENCY, "4", 4),
            (GRACE, "done", None),
            (GRACE, None, None),
            (GRACE, "2.5", 2.5),
            (QUEUES, "a,b", ("a", "b")),
            (QUEUES, ["a"], ["a"]),
            (QUEUES, {"a": {}}, {"a": {}}),
            (QUEUES, '["a"]', ["a"]),
            (WEIGHTS, {"a": 2}, {"a": 2}),
            (WEIGHTS, '{"a": "2"}', {"a": 2}),
            (SECRET, b"a", b"a"),
            (CLASS, dict, dict),
            (CLASS, "a:B", "a:B"),
            (ANY, '{"a": 1}', {"a": 1}),
            (ANY, "[x", "[x"),
            (ANY, object, object),
            (at_least(1), "1", 1),
            (one_of(1, 2), "2", 2),
            (seconds(above=0.0), 0.1, 0.1),
        ],
    )
    def test_understood(self, kind: Kind[Any], given: Any, kept: Any) -> None:
        found = kind.convert(given)
        assert found == kept
        assert type(found) is type(kept)

    @pytest.mark.parametrize(
        ("kind", "given"),
        [
            (BOOL, 2),
            (BOOL, "maybe"),
            (BOOL, None),
            (INT, True),
            (INT, 1.5),
            (INT, "x"),
            (NUMBER, float("nan")),
            (NUMBER, True),
            (NUMBER, []),
            (TEXT, 3),
            (TEXT, b"a"),
            (NAMES, [1]),
            (NAMES, 3),
            (MAPPING, [1]),
            (MAPPING, "[1]"),
            (MAPPING, "{"),
            (SECONDS, -1),
            (SECONDS, timedelta(seconds=-1)),
            (SECONDS, "soon"),
            (seconds(above=0.0), 0),
            (URLS, [1]),
            (RATE, "ten/m"),
            (RATE, "10/d"),
            (TIMEZONE, "Europe/Nowhere"),
            (TIMEZONE, "/etc/passwd"),
            (TIMEZONE, 3),
            (LEVEL, 1.5),
            (CONCURRENCY, 0),
            (GRACE, "later"),
            (QUEUES, 3),
            (WEIGHTS, {"a": 0}),
            (SECRET, 3),
            (CLASS, 3),
            (at_least(1), 0),
            (one_of(1, 2), 3),
        ],
    )
    def test_refused(self, kind: Kind[Any], given: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            kind.convert(given)

    def test_the_error_says_what_and_where(self) -> None:
        with pytest.raises(ImproperlyConfigured) as caught:
            make({"task_time_limit": "soon"})
        text = str(caught.value)
        for part in ("task_time_limit", "'soon'", "seconds", "or None", "(code)"):
            assert part in text

    def test_the_error_hides_secrets(self) -> None:
        with pytest.raises(ImproperlyConfigured) as caught:
            make({"redis_password": 123456})
        assert "123456" not in str(caught.value)

    def test_none_only_where_it_means_something(self) -> None:
        assert make({"result_expires": None}).result_expires is None
        assert make({"worker_shutdown_grace": None}).worker_shutdown_grace is None
        with pytest.raises(ImproperlyConfigured, match="task_default_queue cannot be None"):
            make({"task_default_queue": None})


class TestEnvironment:
    def test_every_setting_has_a_variable(self) -> None:
        conf = make(
            None,
            CELERIAC_TASK_ALWAYS_EAGER="true",
            CELERIAC_WORKER_CONCURRENCY="4",
            CELERIAC_RESULT_EXPIRES="none",
            CELERIAC_IMPORTS="a,b",
            CELERIAC_BROKER_TRANSPORT_OPTIONS='{"synchronous": "FULL"}',
        )
        assert conf.task_always_eager is True
        assert conf.worker_concurrency == 4
        assert conf.result_expires is None
        assert conf.imports == ("a", "b")
        assert conf.broker_transport_options == {"synchronous": "FULL"}
        assert conf.source("worker_concurrency") == "environment CELERIAC_WORKER_CONCURRENCY"

    def test_celerys_variables_come_second(self) -> None:
        conf = make(None, CELERY_BROKER_URL="b://", CELERY_RESULT_BACKEND="r://")
        assert conf.broker_url == "b://"
        assert conf.result_backend == "r://"
        assert conf.source("broker_url") == "environment CELERY_BROKER_URL"
        conf = make(None, CELERY_BROKER_URL="b://", CELERIAC_BROKER_URL="c://")
        assert conf.broker_url == "c://"

    def test_no_other_variable_of_celerys_is_read(self) -> None:
        celerys = {name for name in ENVIRONMENT if name.startswith("CELERY_")}
        assert celerys == {
            "CELERY_BROKER_URL",
            "CELERY_BROKER_READ_URL",
            "CELERY_BROKER_WRITE_URL",
            "CELERY_RESULT_BACKEND",
        }

    def test_an_empty_variable_is_not_set(self) -> None:
        conf = make(None, CELERIAC_BROKER_URL="", CELERY_BROKER_URL="b://")
        assert conf.broker_url == "b://"

    def test_a_wrong_value_names_the_variable(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="environment CELERIAC_WORKER_LEASE"):
            make(None, CELERIAC_WORKER_LEASE="long")

    def test_a_variable_nearly_right_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        make(None, CELERIAC_WORKER_CONCURENCY="4", CELERIAC_SOMETHING_ELSE="x")
        assert [record.message for record in caplog.records] == [
            "The environment variable CELERIAC_WORKER_CONCURENCY is no setting. "
            "Did you mean CELERIAC_WORKER_CONCURRENCY?"
        ]

    def test_the_process_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERIAC_TASK_DEFAULT_QUEUE", "shop")
        assert Settings().task_default_queue == "shop"

    def test_reading_it_again_replaces_what_was_read(self) -> None:
        conf = make(None, CELERIAC_TASK_DEFAULT_QUEUE="shop")
        conf.read_environment({"CELERIAC_WORKER_LEASE": "9"})
        assert conf.task_default_queue == "celery"
        assert conf.worker_lease == 9


class TestPrecedence:
    def test_who_wins(self, module: types.ModuleType) -> None:
        name = "task_default_queue"
        conf = make(None, CELERIAC_TASK_DEFAULT_QUEUE="environment")
        conf.override({name: "override"})
        conf.task_default_queue = "code"
        module.task_default_queue = "object"  # type: ignore[attr-defined]
        conf.load_object(module)
        conf.add_defaults({name: "added"})
        winners = []
        for _ in range(5):
            winners.append((conf[name], conf.source(name)))
            for layer in conf._layers[::-1]:
                if name in layer:
                    del layer[name]
                    break
            conf._compute([name])
        assert winners == [
            ("override", "command line"),
            ("environment", "environment CELERIAC_TASK_DEFAULT_QUEUE"),
            ("code", "code"),
            ("object", "object shopconfig"),
            ("added", "added defaults"),
        ]
        assert conf[name] == "celery"
        assert conf.source(name) == "default"

    def test_code_without_effect_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "celeriac.conf")
        conf = make(None, CELERY_BROKER_URL="redis://env")
        conf.broker_url = "redis://code"
        assert conf.broker_url == "redis://env"
        assert "broker_url (code) has no effect: environment CELERY_BROKER_URL" in caplog.text

    def test_code_wins_over_an_object_read_later(self) -> None:
        conf = make({"task_default_queue": "code"})
        conf.load_object({"task_default_queue": "object", "task_serializer": "yaml"})
        assert conf.task_default_queue == "code"
        assert conf.task_serializer == "yaml"


class TestObjects:
    def test_module_by_name(self, module: types.ModuleType) -> None:
        module.task_default_queue = "shop"  # type: ignore[attr-defined]
        module.CELERYD_CONCURRENCY = 3  # type: ignore[attr-defined]
        conf = make()
        assert conf.load_object("shopconfig") is True
        assert (conf.task_default_queue, conf.worker_concurrency) == ("shop", 3)
        assert conf.source("worker_concurrency") == "object shopconfig"

    def test_attribute_by_name(self, module: types.ModuleType) -> None:
        module.Config = type("Config", (), {"task_default_queue": "shop"})  # type: ignore[attr-defined]
        for path in ("shopconfig:Config", "shopconfig.Config"):
            conf = make()
            conf.load_object(path)
            assert conf.task_default_queue == "shop"
            assert conf.source("task_default_queue") == f"object {path}"

    def test_class_instance_and_mapping(self) -> None:
        class Config:
            task_default_queue = "shop"

            def __init__(self) -> None:
                self.task_serializer = "yaml"

        conf = make()
        conf.load_object(Config)
        assert conf.task_default_queue == "shop"
        assert conf.source("task_default_queue").endswith("Config")
        conf.load_object(Config())
        assert (conf.task_default_queue, conf.task_serializer) == ("shop", "yaml")
        conf.load_object({"CELERY_DEFAULT_QUEUE": "old"})
        assert conf.task_default_queue == "old"
        assert conf.source("task_default_queue") == "object (a mapping)"

    def test_a_second_object_replaces_the_first(self) -> None:
        conf = make()
        conf.load_object({"task_default_queue": "a"})
        conf.load_object({"task_serializer": "yaml"})
        assert conf.task_default_queue == "celery"

    def test_a_wrong_object_changes_nothing(self) -> None:
        conf = make()
        conf.load_object({"task_default_queue": "a"})
        with pytest.raises(ImproperlyConfigured, match=r"task_time_limit.*object \(a mapping\)"):
            conf.load_object({"task_default_queue": "b", "task_time_limit": "x"})
        assert conf.task_default_queue == "a"

    def test_a_missing_module(self) -> None:
        conf = make()
        with pytest.raises(ImproperlyConfigured, match=r"no module 'not_there'.*sys\.path"):
            conf.load_object("not_there")
        with pytest.raises(ImproperlyConfigured, match="not_there"):
            conf.load_object("not_there.celeryconfig")
        with pytest.raises(ImproperlyConfigured, match="no attribute 'nope'"):
            conf.load_object("json:nope")
        assert conf.load_object("not_there", silent=True) is False

    def test_an_error_inside_the_module_is_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "brokenconfig.py").write_text("import something_missing\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="something_missing"):
            make().load_object("brokenconfig", silent=True)

    def test_old_and_new_name_together(self) -> None:
        conf = make()
        conf.load_object({"CELERY_DEFAULT_QUEUE": "old", "task_default_queue": "new"})
        assert conf.task_default_queue == "new"
        conf.load_object({"task_default_queue": "new", "CELERY_DEFAULT_QUEUE": "old"})
        assert conf.task_default_queue == "new"

    @pytest.mark.parametrize("namespace", ["CELERY", "CELERY_", "CELERIAC"])
    def test_namespace(self, namespace: str) -> None:
        prefix = namespace.rstrip("_")
        values = {f"{prefix}_TASK_ROUTES": {"a": "b"}, f"{prefix}_BROKER_URL": "redis://"}
        django = type("DjangoSettings", (), {**values, "DEBUG": True, "DATABASES": {}})
        conf = make()
        conf.load_object(django, namespace=namespace)
        assert conf.task_routes == {"a": "b"}
        assert conf.broker_url == "redis://"

    def test_namespace_reads_what_can_only_be_ours(self) -> None:
        """As Celery does: names from before version 4, and Django's time zone."""
        django = type(
            "DjangoSettings",
            (),
            {
                "BROKER_URL": "redis://",
                "CELERYD_CONCURRENCY": 3,
                "CELERY_ALWAYS_EAGER": True,
                "CELERY_TASK_RESULT_EXPIRES": 5,
                "TIME_ZONE": "Europe/Berlin",
                "TASK_ALWAYS_EAGER": False,
                "S3_BUCKET": "the site's own",
                "timezone": object(),
                "include": object(),
            },
        )
        conf = make()
        conf.load_object(django, namespace="CELERY")
        assert set(conf.changes) == {
            "broker_url",
            "worker_concurrency",
            "task_always_eager",
            "result_expires",
            "timezone",
        }

    def test_namespaced_name_wins(self) -> None:
        django = type(
            "DjangoSettings",
            (),
            {
                "BROKER_URL": "old://",
                "CELERY_BROKER_URL": "new://",
                "CELERY_TIMEZONE": "UTC",
                "TIME_ZONE": "Europe/Berlin",
            },
        )
        conf = make()
        conf.load_object(django, namespace="CELERY")
        assert conf.broker_url == "new://"
        assert conf.timezone == "UTC"

    def test_unknown_name_with_namespace(self) -> None:
        django = type("DjangoSettings", (), {"CELERY_TASK_ROTUES": {}, "OTHER": 1, "other_": 2})
        with pytest.warns(CeleriacWarning, match="CELERY_TASK_ROTUES.*task_routes"):
            make().load_object(django, namespace="CELERY")
        with pytest.raises(UnknownSetting, match="task_routes"):
            make().load_object({"CELERY_TASK_ROTUES": {}, "OTHER": 1}, namespace="CELERY")

    def test_unknown_names_of_a_module(self, module: types.ModuleType) -> None:
        module.task_rotues = {}  # type: ignore[attr-defined]
        with pytest.warns(CeleriacWarning, match="shopconfig sets task_rotues.*task_routes"):
            make().load_object(module)

    def test_old_names_unknown_in_a_module(self, module: types.ModuleType) -> None:
        module.CELERY_BROKER_URL = "redis://"  # type: ignore[attr-defined]
        with pytest.warns(CeleriacWarning, match=r'namespace="CELERY"'):
            make().load_object(module)

    def test_what_a_module_holds_besides_is_let_be(self, module: types.ModuleType) -> None:
        """Warnings are errors in these tests."""
        for name, value in {
            "os": types,
            "timezone": types,
            "include": lambda: None,
            "crontab": Path,
            "task_router": lambda name: None,
            "helper": 3,
            "default_exchange": object(),
            "_private": 1,
            "DEBUG": True,
            "Mixed": 1,
        }.items():
            setattr(module, name, value)
        conf = make()
        conf.load_object(module)
        assert conf.changes == {}

    def test_a_function_can_be_a_route(self, module: types.ModuleType) -> None:
        def route(name: str) -> str:
            return name

        module.task_routes = route  # type: ignore[attr-defined]
        conf = make()
        conf.load_object(module)
        assert conf.task_routes is route

    def test_nothing_is_evaluated_that_is_not_asked_for(self) -> None:
        class Lazy:
            task_default_queue = "shop"

            @property
            def EXPENSIVE(self) -> int:
                raise AssertionError

        conf = make()
        conf.load_object(Lazy(), namespace="CELERY")
        conf.load_object(Lazy())
        assert conf.task_default_queue == "shop"


class TestAccepted:
    def test_said_once_with_the_reason(self, caplog: pytest.LogCaptureFixture) -> None:
        conf = make({"worker_prefetch_multiplier": 1})
        conf.worker_prefetch_multiplier = 2
        make({"worker_prefetch_multiplier": 1})
        assert len(caplog.records) == 1
        assert "worker_prefetch_multiplier (code) has no effect: claims adapt" in caplog.text
        assert "adapt" in conf.without_effect()["worker_prefetch_multiplier"]

    def test_the_default_given_is_not_worth_a_word(self, caplog: pytest.LogCaptureFixture) -> None:
        conf = make({"worker_prefetch_multiplier": 4})
        assert not caplog.records
        assert conf.without_effect() == {}

    def test_others_are_silent(self, caplog: pytest.LogCaptureFixture) -> None:
        make({"redis_socket_timeout": 3, "task_default_queue": "a"})
        assert not caplog.records


class TestDefine:
    def test_a_setting_of_an_integration(self) -> None:
        conf = make()
        conf.define("redbeat_key_prefix", str, "redbeat", "Prefix of its keys.")
        conf.define("redbeat_key_prefix", str, "redbeat")
        assert conf.redbeat_key_prefix == "redbeat"
        conf.load_object({"redbeat_key_prefix": "x"})
        assert conf.redbeat_key_prefix == "x"
        with pytest.raises(ImproperlyConfigured):
            conf.redbeat_key_prefix = 3
        assert "redbeat_key_prefix" not in make()

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERIAC_SHOP_LIMIT", "7")
        conf = make()
        conf.define("shop_limit", int, 3)
        assert conf.shop_limit == 7

    def test_secret_by_name(self) -> None:
        conf = make()
        conf.define("shop_token", str, None)
        conf.shop_token = "abc"
        assert conf.table()["shop_token"] == "********"

    @pytest.mark.parametrize("name", ["task_routes", "update", "generation", "_x", "a-b"])
    def test_taken_names(self, name: str) -> None:
        with pytest.raises(ImproperlyConfigured, match="cannot be named"):
            make().define(name, str, None)

    def test_unknown_type(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="type"):
            make().define("shop_limit", set, None)


class TestShowing:
    def test_table(self) -> None:
        conf = make({"task_default_queue": "shop"})
        assert conf.table() == {"task_default_queue": "shop"}
        everything = conf.table(with_defaults=True)
        assert set(everything) == set(SETTINGS)
        assert everything["task_serializer"] == "json"

    def test_secrets_are_hidden(self) -> None:
        conf = make(
            {
                "broker_url": "amqp://user:pass@host//",
                "redis_password": "pass",
                "s3_secret_access_key": "pass",
                "task_default_routing_key": "shown",
                "broker_transport_options": {
                    "sentinel_kwargs": {"password": "pass"},
                    "master_name": "shown",
                },
            }
        )
        shown = conf.table()
        assert shown["broker_url"] == "amqp://user:********@host//"
        assert shown["redis_password"] == shown["s3_secret_access_key"] == "********"
        assert shown["task_default_routing_key"] == "shown"
        assert shown["broker_transport_options"] == {
            "sentinel_kwargs": {"password": "********"},
            "master_name": "shown",
        }
        assert "pass@" not in conf.humanize()
        assert "pass@" in conf.humanize(censored=False)
        assert conf.table(censored=False)["redis_password"] == "pass"
        assert "pass" not in repr(conf)

    def test_humanize_says_where_from(self) -> None:
        conf = make({"task_default_queue": "shop"}, CELERIAC_WORKER_LEASE="9")
        assert conf.humanize().splitlines() == [
            "task_default_queue: 'shop' (code)",
            "worker_lease: 9 (environment CELERIAC_WORKER_LEASE)",
        ]
        assert len(conf.humanize(with_defaults=True).splitlines()) == len(SETTINGS)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://:pa/ss@host:6379/0", "redis://:********@host:6379/0"),
            ("redis://user:p@ss@host", "redis://user:********@host"),
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("redis://user@host", "redis://user@host"),
            (
                "sentinel://:a@h1:1;sentinel://:b@h2:2/0",
                "sentinel://:********@h1:1;sentinel://:********@h2:2/0",
            ),
            ("a://u:x@h,b://u:y@h", "a://u:********@h,b://u:********@h"),
            ("redis://h?password=x&db=1", "redis://h?password=********&db=1"),
            ("s3://h?secret_key=x", "s3://h?secret_key=********"),
            (
                "azureblockblob://DefaultEndpointsProtocol=https;AccountKey=abc==;X=1",
                "azureblockblob://DefaultEndpointsProtocol=https;AccountKey=********;X=1",
            ),
            ("sqlite:///a.db", "sqlite:///a.db"),
            ("no url: a@b", "no url: a@b"),
        ],
    )
    def test_urls(self, url: str, shown: str) -> None:
        assert hide_in_url(url) == shown

    def test_hidden_wherever_it_is_nested(self) -> None:
        value = [("a://u:p@h", {"token": "x", "n": 1}), {"url": "a://u:p@h", "api_key": ""}]
        assert hide(value) == [
            ("a://u:********@h", {"token": "********", "n": 1}),
            {"url": "a://u:********@h", "api_key": ""},
        ]


def test_the_page_of_the_documentation_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == markdown_table(), "run: python -m celeriac.conf > docs/settings.md"
    for name in SETTINGS:
        assert f"| `{name}` |" in page
