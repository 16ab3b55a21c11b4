"""Signals: connecting, sending, senders, weak receivers."""

from __future__ import annotations

import gc
import logging
import threading
import timeit
from typing import Any

import pytest

from celeriac import signals
from celeriac.local import Proxy
from celeriac.retry import attempts
from celeriac.signals import Signal, _retrying

# Facts of Celery 5.7: every signal it has.
CELERY = {
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "eventlet_pool_apply",
    "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown",
    "eventlet_pool_started",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_sent",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
}


@pytest.fixture
def signal() -> Signal:
    return Signal("happened", {"what"})


class Log:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, sender: Any, **named: Any) -> int:
        self.heard.append((sender, named))
        return len(self.heard)

    def method(self, sender: Any, **named: Any) -> str:
        self.heard.append((sender, named))
        return "method"


def test_all_of_celerys_signals() -> None:
    found = {name: value for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(found) == CELERY
    for name, value in found.items():
        assert value.name == name
    assert signals.task_postrun.providing_args == {
        "task_id",
        "task",
        "args",
        "kwargs",
        "retval",
        "state",
    }


class TestSending:
    def test_receivers_get_signal_sender_and_arguments(self, signal: Signal) -> None:
        log = Log()
        signal.connect(log)
        assert signal.send("me", what=1) == [(log, 1)]
        assert log.heard == [("me", {"signal": signal, "what": 1})]

    def test_in_the_order_of_connecting(self, signal: Signal) -> None:
        one, two = Log(), Log()
        signal.connect(two)
        signal.connect(one)
        assert [receiver for receiver, _ in signal.send(None)] == [two, one]

    @pytest.mark.parametrize("method", ["send", "send_robust"])
    def test_an_exception_is_an_answer_and_hinders_nobody(
        self, signal: Signal, method: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = ValueError("broken")

        def broken(**_: Any) -> None:
            raise error

        log = Log()
        signal.connect(broken)
        signal.connect(log)
        assert getattr(signal, method)(None) == [(broken, error), (log, 1)]
        assert caplog.records[0].levelno == logging.ERROR
        assert "happened" in caplog.text
        assert "ValueError: broken" in caplog.text

    def test_what_is_no_exception_goes_through(self, signal: Signal) -> None:
        def leave(**_: Any) -> None:
            raise SystemExit(3)

        signal.connect(leave)
        with pytest.raises(SystemExit):
            signal.send(None)

    def test_nobody_connected(self, signal: Signal) -> None:
        assert signal.send(None, what=1) == []
        assert not signal.receivers
        assert not signal.has_listeners()

    def test_looking_is_cheap(self, signal: Signal) -> None:
        def look() -> None:
            if signal.receivers:
                raise AssertionError

        once = min(timeit.repeat(look, number=20_000, repeat=5)) / 20_000
        assert once < 1e-6  # measured at 30 ns; the bound only tells a look from a call chain

    def test_the_list_of_receivers_stays_the_same(self, signal: Signal) -> None:
        kept = signal.receivers
        log = Log()
        signal.connect(log)
        assert kept
        signal.disconnect(log)
        assert not kept
        assert signal.receivers is kept

    def test_disconnecting_while_sending(self, signal: Signal) -> None:
        log = Log()

        def once(**_: Any) -> None:
            signal.disconnect(once)

        signal.connect(once)
        signal.connect(log)
        signal.send(None)
        signal.send(None)
        assert len(log.heard) == 2


class TestConnecting:
    def test_decorator(self, signal: Signal) -> None:
        @signal.connect
        def plain(**_: Any) -> str:
            return "plain"

        @signal.connect(sender="me")
        def with_sender(**_: Any) -> str:
            return "with sender"

        @signal.connect()
        def with_nothing(**_: Any) -> str:
            return "with nothing"

        assert plain() == "plain"
        assert with_sender() == "with sender"
        assert [answer for _, answer in signal.send("me")] == [
            "plain",
            "with sender",
            "with nothing",
        ]
        assert [answer for _, answer in signal.send("you")] == ["plain", "with nothing"]

    def test_twice_is_once(self, signal: Signal) -> None:
        log = Log()
        assert signal.connect(log) is log
        signal.connect(log)
        assert len(signal.receivers) == 1
        signal.connect(log, sender="me")
        assert len(signal.receivers) == 2

    def test_methods_of_two_objects_are_two(self, signal: Signal) -> None:
        one, two = Log(), Log()
        for log in (one, two, one):
            signal.connect(log.method)
        assert len(signal.send(None)) == 2

    def test_dispatch_uid(self, signal: Signal) -> None:
        one, two = Log(), Log()
        signal.connect(one, dispatch_uid="u")
        signal.connect(two, dispatch_uid="u")
        signal.send(None)
        assert (len(one.heard), len(two.heard)) == (1, 0)
        assert signal.disconnect(dispatch_uid="u")
        assert not signal.receivers

    def test_must_be_callable_and_take_any_argument(self, signal: Signal) -> None:
        def narrow(sender: Any) -> None: ...

        with pytest.raises(ValueError, match=r"\*\*kwargs"):
            signal.connect(narrow)
        with pytest.raises(TypeError, match="cannot be called"):
            signal.connect(3)  # type: ignore[call-overload]

    def test_disconnect(self, signal: Signal) -> None:
        log = Log()
        signal.connect(log)
        signal.connect(log, sender="me")
        assert signal.disconnect(log) is True
        assert signal.disconnect(log) is False
        assert signal.disconnect(log, sender="you") is False
        assert signal.disconnect(log, sender="me") is True

    def test_from_many_threads(self, signal: Signal) -> None:
        logs = [Log() for _ in range(200)]

        def work(part: list[Log]) -> None:
            for log in part:
                signal.connect(log)
                signal.send(None)

        threads = [threading.Thread(target=work, args=(logs[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(signal.receivers) == 200

    def test_repr(self, signal: Signal) -> None:
        assert repr(signal) == "<Signal: happened providing_args=['what']>"


class TestSenders:
    def test_objects_by_identity(self, signal: Signal) -> None:
        log, one, equal = Log(), [1], [1]
        signal.connect(log, sender=one)
        assert signal.has_listeners(one)
        assert not signal.has_listeners(equal)
        signal.send(one)
        signal.send(equal)
        signal.send(None)
        assert len(log.heard) == 1

    def test_strings_by_equality(self, signal: Signal) -> None:
        log = Log()
        signal.connect(log, sender="proj.tasks.add")
        signal.send("".join(["proj.tasks", ".add"]))
        assert len(log.heard) == 1

    def test_a_proxy_is_what_it_stands_for_when_it_is_sent(self, signal: Signal) -> None:
        class Task:
            pass

        real: list[Task] = []
        proxy: Proxy[Task] = Proxy(lambda: real[0])
        log = Log()
        signal.connect(log, sender=proxy)  # there is no task yet
        assert signal.send(Task()) == []
        real.append(Task())
        signal.send(real[0])
        signal.send(proxy)
        signal.send(Task())
        assert len(log.heard) == 2
        assert signal.disconnect(log, sender=real[0])
        assert not signal.receivers


class TestWeakness:
    def test_a_receiver_that_is_gone_is_forgotten(self, signal: Signal) -> None:
        log = Log()
        signal.connect(log)
        signal.connect(log.method)
        assert len(signal.send(None)) == 2
        del log
        gc.collect()
        assert signal.send(None) == []
        assert not signal.receivers

    def test_strong(self, signal: Signal) -> None:
        signal.connect(lambda **_: 3, weak=False)
        gc.collect()
        assert [answer for _, answer in signal.send(None)] == [3]

    def test_a_dead_receiver_makes_room_for_the_next(self, signal: Signal) -> None:
        signal.connect(Log(), dispatch_uid="u")
        gc.collect()
        log = Log()
        signal.connect(log, dispatch_uid="u")
        assert signal.send(None) == [(log, 1)]


class TestRetry:
    def test_until_it_succeeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        failures = [OSError("one"), OSError("two")]
        slept: list[float] = []

        def flaky(**_: Any) -> str:
            if failures:
                raise failures.pop()
            return "done"

        assert _retrying(flaky, {}, clock=lambda: sum(slept), sleep=slept.append) == "done"
        assert slept == [2.0, 4.0]

    def test_not_for_ever(self) -> None:
        slept: list[float] = []

        def broken(**_: Any) -> None:
            raise OSError("broken")

        with pytest.raises(OSError, match="broken"):
            _retrying(broken, {}, clock=lambda: sum(slept), sleep=slept.append)
        assert 500 < sum(slept) <= 600
        assert max(slept) == 30.0

    def test_connected(self, signal: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
        def without_pauses(policy: Any, **_: Any) -> Any:
            return attempts(policy, budget=600, clock=lambda: 0.0, sleep=lambda _: None)

        monkeypatch.setattr(signals, "attempts", without_pauses)
        calls: list[int] = []

        @signal.connect(retry=True)
        def flaky(**_: Any) -> int:
            calls.append(1)
            if len(calls) < 3:
                raise OSError
            return len(calls)

        assert signal.send(None) == [(flaky, 3)]
        receiver = flaky
        del flaky
        assert signal.disconnect(receiver)
