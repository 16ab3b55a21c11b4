"""What wakes a call that waits for RabbitMQ."""

from __future__ import annotations

import threading
import time

from celeriac.drivers.rabbitmq.bell import Bell
from celeriac.testing.harness import in_background


def asleep(bell: Bell) -> None:
    while not bell._sleeping:
        time.sleep(0.001)


def test_it_wakes_who_sleeps() -> None:
    bell = Bell()
    bell.ring()  # not open: nothing
    bell.open()
    for _ in range(2):
        sleeper = in_background(bell.sleep, -1, 20.0)
        asleep(bell)
        bell.ring()
        sleeper.result(10.0)
    started = time.monotonic()
    bell.sleep(-1, 0.01)
    assert time.monotonic() - started >= 0.009  # heard is heard
    bell.close()


def test_closing_waits_for_who_sleeps() -> None:
    """A number that is closed is soon another file's: nobody may sleep at it, or ring there."""
    bell = Bell()
    bell.open()
    entered, leave = threading.Event(), threading.Event()
    real = bell._woken

    def slowly(rung: bool) -> None:
        entered.set()
        assert leave.wait(20.0)
        real(rung)

    bell._woken = slowly  # type: ignore[method-assign]
    sleeper = in_background(bell.sleep, -1, 20.0)
    asleep(bell)
    number = bell._out
    bell.close()
    assert entered.wait(10.0)
    assert bell._out == number
    leave.set()
    sleeper.result(10.0)
    assert bell._out == -1
    bell.ring()
    bell.open()
    bell.sleep(-1, 0.0)
    bell.close()
