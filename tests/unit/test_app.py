"""The application: settings, registry, decorator, finalisation, shared tasks, discovery."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from core_stage import Heard, MakeApp, Stage, messages_of, read

import celeriac
from celeriac import Celeriac, Celery, Task, current, current_app, current_task, shared_task
from celeriac.app import app_or_default
from celeriac.exceptions import (
    AlreadyRegistered,
    CeleriacWarning,
    ImproperlyConfigured,
    NotCapable,
    NotRegistered,
    UnknownSetting,
)
from celeriac.message import MessageState
from celeriac.routing import Broadcast

# --- names ----------------------------------------------------------------------------------------


def test_the_package_gives_its_names_lazily() -> None:
    assert Celery is Celeriac
    for name in celeriac.__all__:
        assert getattr(celeriac, name) is not None
    assert set(celeriac.__all__) <= set(dir(celeriac))
    with pytest.raises(AttributeError, match="nonsense"):
        celeriac.nonsense  # noqa: B018


# --- constructor and settings ---------------------------------------------------------------------


def test_constructor_sets_broker_backend_include_and_any_setting() -> None:
    app = Celeriac(
        "shop",
        broker="memory://a",
        backend="memory://b",
        include=["os.path"],
        changes={"task_default_queue": "shop"},
        task_track_started=True,
    )
    assert app.main == "shop"
    assert app.conf.broker_url == "memory://a"
    assert app.conf.result_backend == "memory://b"
    assert app.conf.include == ["os.path"] or app.conf.include == ("os.path",)
    assert app.conf.task_default_queue == "shop"
    assert app.conf.task_track_started is True
    assert "shop" in repr(app)


def test_names_that_celery_has_elsewhere_too() -> None:
    import celeriac
    from celeriac.app.task import Context
    from celeriac.app.task import Task as TaskOfApp
    from celeriac.exceptions import CeleriacWarning, CeleryWarning
    from celeriac.request import Request

    assert (TaskOfApp, Context, CeleryWarning) == (Task, Request, CeleriacWarning)
    assert celeriac.version_info == celeriac.VERSION
    app = Celeriac("names", broker="memory://")
    assert "names" in celeriac.bugreport()
    assert celeriac.app_or_default() is app
    job = app.task(name="job")(lambda: None)
    assert issubclass(job.MaxRetriesExceededError, Exception)
    assert job.OperationalError is celeriac.exceptions.OperationalError


def test_an_unknown_setting_is_an_error_that_names_the_nearest() -> None:
    app = Celeriac("shop", broker="memory://", task_trak_started=True)
    with pytest.raises(UnknownSetting, match="task_track_started"):
        _ = app.conf


def test_settings_from_a_mapping_a_module_and_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("settings_of_the_shop")
    module.CELERY_TASK_DEFAULT_QUEUE = "from_module"  # type: ignore[attr-defined]
    module.TASK_DEFAULT_QUEUE = "not this one"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Plain:
        task_default_queue = "from_class"

    by_name, by_class, by_mapping = (Celeriac(set_as_current=False) for _ in range(3))
    by_name.config_from_object("settings_of_the_shop", namespace="CELERY")
    by_class.config_from_object(Plain)
    by_mapping.config_from_object({"task_default_queue": "from_mapping"})
    assert by_name.conf.task_default_queue == "from_module"
    assert by_class.conf.task_default_queue == "from_class"
    assert by_mapping.conf.task_default_queue == "from_mapping"


def test_config_source_of_the_constructor_and_of_a_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Celeriac(config_source={"task_default_queue": "given"}, set_as_current=False)
    assert app.conf.task_default_queue == "given"

    module = types.ModuleType("settings_by_variable")
    module.task_default_queue = "by_variable"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    other = Celeriac(set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="SHOP_SETTINGS"):
        other.config_from_envvar("SHOP_SETTINGS")
    other.config_from_envvar("SHOP_SETTINGS", silent=True)
    monkeypatch.setenv("SHOP_SETTINGS", "settings_by_variable")
    other.config_from_envvar("SHOP_SETTINGS", force=True)
    assert other.conf.task_default_queue == "by_variable"


def test_settings_are_read_when_first_used_and_then_the_signal_is_sent() -> None:
    reads: list[str] = []

    class Lazy:
        @property
        def task_default_queue(self) -> str:
            reads.append("read")
            return "lazy"

    app = Celeriac(set_as_current=False)
    configured = Heard(app.on_configure)
    after = Heard(app.on_after_configure)
    app.config_from_object(Lazy())

    @app.task
    def unread() -> None: ...

    assert reads == []
    assert after == []
    assert app.conf.task_default_queue == "lazy"
    assert len(configured) == 1
    assert [one["sender"] for one in after] == [app]
    _ = app.conf
    assert len(after) == 1


def test_a_subclass_may_have_on_configure() -> None:
    class Own(Celeriac):
        def on_configure(self) -> None:
            self.conf.task_default_queue = "own"

    assert Own(set_as_current=False).conf.task_default_queue == "own"


def test_what_code_set_survives_a_later_configuration_object() -> None:
    app = Celeriac(set_as_current=False)
    app.conf.update(task_track_started=True)
    before = app.records
    app.config_from_object({"task_default_queue": "late", "result_serializer": "yaml"})
    assert app.conf.task_track_started is True
    assert app.conf.task_default_queue == "late"
    assert app.records is not before
    assert app.records.serializer == "yaml"


def test_added_defaults_are_the_weakest() -> None:
    app = Celeriac(set_as_current=False, task_default_queue="given")
    app.add_defaults({"task_default_queue": "default", "task_track_started": True})
    assert app.conf.task_default_queue == "given"
    assert app.conf.task_track_started is True


def test_without_a_broker_it_is_a_file_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("celeriac.app.stores._told", [])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            app = Celeriac(set_as_current=False)
            assert app.broker_url == "sqlite:///celeriac.db"
            assert app.backend_url == "sqlite:///celeriac.db"
    told = [record for record in caplog.records if "No broker is configured" in record.message]
    assert len(told) == 1


def test_backend_url() -> None:
    assert Celeriac(broker="memory://x", set_as_current=False).backend_url == "memory://x"
    disabled = Celeriac(broker="memory://x", backend="disabled://", set_as_current=False)
    assert disabled.backend_url is None
    assert disabled.backend is None
    with pytest.raises(NotImplementedError, match="result_backend"):
        disabled.AsyncResult("1").get(timeout=1)
    with pytest.raises(NotImplementedError, match="result_backend"):
        _ = disabled.AsyncResult("1").state


def test_timezone_and_now() -> None:
    app = Celeriac(set_as_current=False, timezone="Europe/Berlin")
    assert str(app.timezone) == "Europe/Berlin"
    assert app.now().utcoffset() is not None
    assert Celeriac(set_as_current=False).now().utcoffset() == timedelta(0)


# --- the decorator --------------------------------------------------------------------------------


def test_the_three_forms_of_the_decorator(app: Celeriac) -> None:
    @app.task
    def plain(x: int, y: int) -> int:
        """Adds."""
        return x + y

    @app.task()
    def called(x: int) -> int:
        return x

    @app.task(bind=True, name="named", max_retries=7, queue="q")
    def with_options(self: Any, x: int) -> Any:
        return self, x

    assert plain(2, 3) == 5
    assert plain.run(2, 3) == 5
    assert plain.__doc__ == "Adds."
    assert plain.__wrapped__(1, 1) == 2  # type: ignore[attr-defined]
    assert called(4) == 4
    task, x = with_options(5)
    assert (task, x) == (with_options, 5)
    assert with_options.name == "named"
    assert with_options.max_retries == 7
    assert with_options.queue == "q"
    assert isinstance(plain, Task)
    assert isinstance(plain, app.Task)
    assert "plain" in repr(plain)
    assert app.tasks["named"] is with_options


def test_something_else_than_a_function_is_refused(app: Celeriac) -> None:
    with pytest.raises(TypeError, match="function"):
        app.task("queue")  # type: ignore[call-overload]


def test_names_are_module_and_function_and_main_is_called_after_the_application(
    make_app: MakeApp,
) -> None:
    def job() -> None: ...

    job.__module__ = "__main__"
    assert make_app("shop").task(job).name == "shop.job"
    unnamed = Celeriac(broker="memory://", set_as_current=False)
    assert unnamed.task(job).name == "__main__.job"
    job.__module__ = "pkg.jobs"
    assert make_app("other").task(job).name == "pkg.jobs.job"

    class Own(Celeriac):
        def gen_task_name(self, name: str, module: str | None) -> str:
            return f"own.{name}"

    assert Own(broker="memory://", set_as_current=False).task(job).name == "own.job"


def test_the_first_task_of_a_name_stays(app: Celeriac) -> None:
    @app.task(name="same")
    def first() -> int:
        return 1

    @app.task(name="same")
    def second() -> int:
        return 2

    assert second is first
    assert second() == 1
    space: dict[str, Any] = {}
    exec(compile("def elsewhere(): return 3", "another_file.py", "exec"), space)
    with pytest.warns(CeleriacWarning, match="same"):
        assert app.task(name="same")(space["elsewhere"]) is first


def test_base_class_by_class_and_by_name(app: Celeriac) -> None:
    class Shared(app.Task):  # type: ignore[misc,name-defined]
        abstract = True
        max_retries = 11

        def extra(self) -> str:
            return "extra"

    @app.task(base=Shared)
    def derived() -> None: ...

    @app.task(base="celeriac.task:Task")
    def by_name() -> None: ...

    assert derived.max_retries == 11
    assert derived.extra() == "extra"  # type: ignore[attr-defined]
    assert type(by_name).__mro__[1] is Task


def test_task_cls_and_assigning_the_base_class(make_app: MakeApp) -> None:
    class Own(Task[..., Any]):
        abstract = True
        default_retry_delay = 5

    app = make_app(task_cls=Own)
    assert app.task(lambda: None).default_retry_delay == 5

    other = make_app()
    other.Task = Own
    assert isinstance(other.task(lambda: None), Own)


# --- the registry ---------------------------------------------------------------------------------


def test_the_registry(app: Celeriac) -> None:
    @app.task(name="one")
    def one() -> None: ...

    assert app.tasks["one"] is one
    assert "two" not in app.tasks
    with pytest.raises(NotRegistered, match="two"):
        app.tasks["two"]
    with pytest.raises(KeyError):
        app.tasks["two"]
    assert set(app.tasks.regular()) == {"one"}
    assert {"celery.backend_cleanup", "celery.accumulate"} <= set(app.tasks)
    app.tasks.unregister(one)
    with pytest.raises(NotRegistered):
        app.tasks.unregister("one")
    app.tasks.register(one)
    assert app.tasks["one"] is one
    assert issubclass(AlreadyRegistered, Exception)


def test_class_based_tasks(app: Celeriac) -> None:
    class Adder(app.Task):  # type: ignore[misc,name-defined]
        def run(self, x: int, y: int = 1) -> int:
            return x + y

    class Named(Adder):
        name = "named.adder"

        def run(self, x: int, y: int = 1, z: int = 1) -> int:
            return x + y + z

    class Static(app.Task):  # type: ignore[misc,name-defined]
        @staticmethod
        def run(x: int) -> int:
            return x

    adder = app.register_task(Adder())
    named = app.register_task(Named)
    static = app.register_task(Static(), max_retries=9)
    assert adder.name == f"{__name__}.Adder"
    assert named.name == "named.adder"
    assert app.tasks[adder.name] is adder
    assert (adder(1), named(1), static(1)) == (2, 3, 1)
    assert static.max_retries == 9
    adder.delay(1, y=2)
    named.delay(1, z=2)
    static.delay(1)
    with pytest.raises(TypeError, match="z"):
        adder.delay(1, z=2)
    with pytest.raises(TypeError):
        static.delay()


def test_subclasses_of_a_registered_class_have_their_own_name(app: Celeriac) -> None:
    class Base(app.Task):  # type: ignore[misc,name-defined]
        def run(self) -> str:
            return "base"

    app.register_task(Base())

    class Derived(Base):
        def run(self) -> str:
            return "derived"

    derived = app.register_task(Derived())
    assert derived.name.endswith(".Derived")
    assert len(app.tasks.regular()) == 2


def test_builtin_tasks(app: Celeriac, stage: Stage) -> None:
    assert app.tasks["celery.accumulate"](1, 2) == (1, 2)
    assert app.tasks["celery.accumulate"](1, 2, index=1) == 2
    app.tasks["celery.backend_cleanup"].delay()
    stage.one()


# --- finalisation ---------------------------------------------------------------------------------


def test_finalisation_happens_by_itself_and_once(app: Celeriac) -> None:
    after = Heard(app.on_after_finalize)

    @app.task
    def early() -> None: ...

    assert not app.finalized
    assert early.ignore_result is None
    early.delay()
    assert app.finalized
    assert early.ignore_result is False
    app.finalize()
    assert len(after) == 1

    @app.task
    def late() -> None: ...

    assert late.ignore_result is False


def test_an_application_can_be_told_not_to_finalize_itself(make_app: MakeApp) -> None:
    app = make_app(autofinalize=False)

    @app.task
    def job() -> None: ...

    with pytest.raises(RuntimeError, match="finalize"):
        _ = app.tasks
    with pytest.raises(RuntimeError, match="finalize"):
        job.delay()
    app.finalize()
    job.delay()


def test_other_threads_wait_for_finalisation(app: Celeriac) -> None:
    """A second thread must not send a task before its options and checks are there."""
    slow = threading.Event()
    bound: list[bool] = []

    class Slow(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def on_bound(self, app: Celeriac) -> None:
            slow.set()
            time.sleep(0.05)

    app.task(base=Slow, name="a.slow")(lambda: None)

    @app.task(name="b.quick", queue="own")
    def quick(x: int) -> None: ...

    def send() -> None:
        slow.wait(5)
        quick.delay(1)
        bound.append(quick._bound)

    thread = threading.Thread(target=send)
    thread.start()
    app.finalize()
    thread.join(5)
    assert bound == [True]
    assert [message.queue for message in messages_of(app)] == ["own"]


def test_tasks_made_while_finalizing_are_bound(app: Celeriac) -> None:
    class Breeder(app.Task):  # type: ignore[misc,name-defined]
        abstract = True

        def on_bound(self, app: Celeriac) -> None:
            app.task(name="child")(lambda: None)

    app.task(base=Breeder, name="parent")(lambda: None)
    assert app.tasks["child"]._bound


def test_annotations(make_app: MakeApp) -> None:
    seen: list[Any] = []

    def on_failure(self: Any, exc: BaseException, *args: Any) -> None:
        seen.append((self.name, exc))

    app = make_app(
        task_annotations={
            "*": {"rate_limit": "1/m", "on_failure": on_failure},
            "special": {"rate_limit": "2/s"},
        }
    )

    @app.task(name="special")
    def special() -> None:
        raise KeyError("x")

    @app.task(name="usual")
    def usual() -> None: ...

    app.finalize()
    assert special.rate_limit == "2/s"
    assert usual.rate_limit == "1/m"
    special.apply()
    assert [name for name, _ in seen] == ["special"]


class Annotate:
    """As Celery's guide shows it."""

    def annotate(self, task: Any) -> dict[str, Any] | None:
        return {"rate_limit": "3/s"} if task.name.startswith("slow.") else None


def test_annotations_by_an_object(make_app: MakeApp) -> None:
    for source in (Annotate(), Annotate, f"{__name__}.Annotate"):
        app = make_app(task_annotations=(source, {"slow.b": {"max_retries": 9}}))
        slow, other = app.task(name="slow.b")(lambda: 1), app.task(name="b")(lambda: 1)
        app.finalize()
        assert (slow.rate_limit, slow.max_retries, other.rate_limit) == ("3/s", 9, None)


def test_a_list_of_annotations(make_app: MakeApp) -> None:
    app = make_app(task_annotations=[None, {"*": {"max_retries": 8}}, {"a": {"max_retries": 9}}])
    a, b = app.task(name="a")(lambda: None), app.task(name="b")(lambda: None)
    app.finalize()
    assert (a.max_retries, b.max_retries) == (9, 8)


# --- current application, shared tasks ------------------------------------------------------------


def test_the_current_application(make_app: MakeApp) -> None:
    first = make_app("first")
    assert current_app._get_current_object() is first  # type: ignore[attr-defined]
    second = make_app("second")
    assert current_app.main == "second"
    make_app("third", set_as_current=False)
    assert current_app.main == "second"
    first.set_current()
    assert current_app.main == "first"
    assert app_or_default(second) is second
    assert app_or_default() is first

    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(current_app.main))
    thread.start()
    thread.join(5)
    assert seen == ["first"]


def test_without_an_application_there_is_a_default_one() -> None:
    assert current.get_current_app().main == "default"
    assert current.get_current_app() is current.get_current_app()
    own = Celeriac("own", set_as_current=False)
    own.set_default()
    assert current.get_current_app() is own


def test_shared_tasks_belong_to_every_application(make_app: MakeApp) -> None:
    early = make_app("early")
    early.finalize()

    @shared_task
    def plain(x: int) -> int:
        """Doubles."""
        return x * 2

    @shared_task(name="shared.bound", bind=True, max_retries=1)
    def bound(self: Any, x: int) -> Any:
        return self.app.main, x

    late = make_app("late")
    for app in (early, late):
        app.set_current()
        assert plain(2) == 4
        assert bound(1) == (app.main, 1)
        assert bound.app is app  # type: ignore[misc]
        assert app.tasks["shared.bound"].max_retries == 1
        plain.delay(3)
        assert read(messages_of(app)[0]).args == [3]
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Doubles."
    assert isinstance(plain, Task)
    assert plain == late.tasks[plain.name]


def test_current_task(app: Celeriac) -> None:
    inside: list[Any] = []

    @app.task
    def inner() -> None:
        inside.append((current_task.name, app.current_worker_task.name))

    @app.task
    def outer() -> None:
        inside.append((current_task.name, app.current_task.name))
        inner()

    assert not current_task
    assert app.current_task is None
    assert app.current_worker_task is None
    outer.apply().get()
    assert inside == [(outer.name, outer.name), (inner.name, outer.name)]


# --- finding tasks --------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``packages({"pkg/tasks.py": "..."})`` writes modules that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_autodiscovery(app: Celeriac, packages: Callable[..., None]) -> None:
    packages(
        {
            "found_a/__init__.py": "",
            "found_a/tasks.py": "loaded = True",
            "found_b/__init__.py": "",
            "found_b/jobs.py": "loaded = True",
            "found_c/__init__.py": "",
            "found_d.py": "",
            "found_e/__init__.py": "",
            "found_e/apps.py": "class Config: pass",
            "found_e/tasks.py": "",
        }
    )
    app.autodiscover_tasks(["found_a", "found_c", "found_d", "found_e.apps.Config"])
    app.autodiscover_tasks(lambda: ["found_b"], related_name="jobs")
    app.autodiscover_tasks()
    assert "found_a.tasks" not in sys.modules
    app.import_modules()
    assert "found_a.tasks" in sys.modules
    assert "found_b.jobs" in sys.modules
    assert "found_c" in sys.modules
    assert "found_c.tasks" not in sys.modules


def test_forced_discovery_and_include(make_app: MakeApp, packages: Callable[..., None]) -> None:
    packages(
        {
            "now/__init__.py": "",
            "now/tasks.py": "",
            "included.py": "",
            "imported.py": "",
            "whole/__init__.py": "",
        }
    )
    app = make_app(include=["included"], imports=["imported"])
    app.autodiscover_tasks(["now"], force=True)
    assert "now.tasks" in sys.modules
    app.autodiscover_tasks(["whole"], related_name=None, force=True)
    assert "whole" in sys.modules
    heard = Heard(celeriac.signals.import_modules)
    app.import_modules()
    app.import_modules()
    assert {"included", "imported"} <= set(sys.modules)
    assert [one["sender"] for one in heard] == [app]


def test_errors_in_discovered_modules_come_out(
    app: Celeriac, packages: Callable[..., None]
) -> None:
    packages(
        {
            "bad/__init__.py": "",
            "bad/tasks.py": "import not_there_at_all",
            "worse/__init__.py": "1/0",
        }
    )
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        app.autodiscover_tasks(["bad"], force=True)
    with pytest.raises(ZeroDivisionError):
        app.autodiscover_tasks(["worse"], force=True)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        app.autodiscover_tasks(["nowhere"], force=True)


# --- control --------------------------------------------------------------------------------------


def test_revoking_settles_what_waits(app: Celeriac) -> None:
    @app.task
    def job() -> None: ...

    waiting, delayed = job.delay(), job.apply_async(countdown=3600)
    app.revoke([waiting.id, delayed.id])
    assert (waiting.state, delayed.state) == ("REVOKED", "REVOKED")
    with pytest.raises(celeriac.exceptions.TaskRevokedError, match="revoked"):
        waiting.get(timeout=1)
    assert messages_of(app) == []
    app.revoke([])


def test_revoking_one_that_runs_reaches_its_worker(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job() -> None: ...

    result = job.delay()
    (delivery,) = stage.claim()
    app.revoke(result.id, terminate=True, signal=signal.SIGKILL)
    (cancelled,) = stage.broker.heartbeat("stage").cancelled
    assert (cancelled.id, cancelled.terminate, cancelled.signal) == (result.id, True, "SIGKILL")
    stage.settling.settle([celeriac.message.Settlement(delivery=delivery)])


def test_revoked_before_it_is_sent_and_through_control(app: Celeriac, stage: Stage) -> None:
    @app.task
    def job() -> None:
        raise AssertionError("it must not run")

    revoked = Heard(celeriac.signals.task_revoked)
    app.control.revoke("later")
    result = job.apply_async(task_id="later")
    stage.run()
    assert result.state == "REVOKED"
    assert [(one["terminated"], one["expired"]) for one in revoked] == [(False, False)]


def test_the_admin_of_the_queues(app: Celeriac) -> None:
    @app.task
    def job() -> None: ...

    result = job.delay()
    (peeked,) = app.admin().peek("celery", MessageState.WAITING)
    assert peeked.message.id == result.id


def test_a_broker_without_a_bus_has_none(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*args: Any) -> Any:
        raise NotCapable("no bus")

    monkeypatch.setattr("celeriac.drivers.open_bus", cannot)
    assert app.make_bus() is None


def test_worker_main_needs_the_worker_command(app: Celeriac) -> None:
    with pytest.raises(ValueError, match="worker"):
        app.worker_main(["beat"])


# --- life -----------------------------------------------------------------------------------------


def test_closing_and_going_on(app: Celeriac) -> None:
    @app.task
    def job() -> None: ...

    with app as entered:
        assert entered is app
        job.delay()
        producer = app.producer
    assert app._producer is None
    job.delay()
    assert app.producer is not producer
    assert len(messages_of(app)) == 2
    app.close()
    app.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_producer_and_locks(app: Celeriac) -> None:
    """The lock is held by another thread while forking: the child must not wait for it."""

    @app.task
    def job(x: int) -> None: ...

    job.delay(1)
    parents = app.producer
    forked = Heard(app.on_after_fork)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with app._lock, parents._door, parents._opening:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)  # a child that hangs must not outlive the test
            job.delay(2)
            fine = (
                app.producer is not parents
                and app.producer.pid == os.getpid()
                and len(forked) == 1
                and [read(message).args for message in messages_of(app)] == [[2]]
            )
            os.write(into, b"fine" if fine else b"wrong")
        finally:
            os._exit(0)
    os.close(into)
    try:
        assert os.read(out, 10) == b"fine"
    finally:
        done.set()
        thread.join(5)
        os.waitpid(pid, 0)
        os.close(out)
    assert app.producer is parents


def test_a_broadcast_needs_a_broker_that_can() -> None:
    app = Celeriac("broadcast", broker="memory://", set_as_current=False)
    app.conf.task_queues = ["celery", Broadcast("news")]
    with pytest.raises(ImproperlyConfigured, match=r"'news'.*Broadcast.*memory://.*amqp://"):
        app.make_broker()
