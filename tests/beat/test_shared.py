"""The scheduler: several on one store, restarts, clocks, changes at run time."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from tests.beat.conftest import START, Stage

from celeriac import states
from celeriac.beat import BeatLazyFunc, SharedScheduler
from celeriac.beat.operating import Desk, NoSuchEntry
from celeriac.exceptions import OperationalError
from celeriac.message import Message, Settlement
from celeriac.schedules import BaseSchedule, crontab, schedstate

EVERY_SECOND = {"task": "t", "schedule": 1.0}


def every(seconds: float, **more: Any) -> dict[str, Any]:
    return {"task": "t", "schedule": seconds, **more}


# --- one scheduler --------------------------------------------------------------------------------


def test_intervals_from_when_the_entry_was_made(stage: Stage) -> None:
    one = stage.scheduler(a=every(2))
    assert one.tick() == 2.0, "an idle scheduler sleeps until something is due"
    assert stage.sent() == []
    stage.run(one, 7)
    assert stage.sent() == [("a", 2), ("a", 4), ("a", 6)]


def test_crontab(stage: Stage) -> None:
    one = stage.scheduler(a={"task": "t", "schedule": crontab()})
    stage.run(one, 130, step=1)
    assert stage.sent() == [("a", 40), ("a", 100)]  # full minutes


def test_it_sleeps_until_the_next_is_due(stage: Stage) -> None:
    one = stage.scheduler(a=every(0.25))
    assert one.tick() == pytest.approx(0.25)
    stage.advance(0.1)
    assert one.tick() == pytest.approx(0.15)


def test_the_message(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"queue": "q", "priority": 4, "headers": {"x": "y"}, "expires": 60}
    one = stage.scheduler(a=every(5, args=(1,), kwargs={"k": 2}, options=options))
    published: list[Message] = []
    publish = one.publish
    monkeypatch.setattr(one, "publish", lambda new: (published.extend(new), publish(new)))
    stage.run(one, 5)
    # The key is for the broker: not every one hands it out with the message.
    assert [one.dedupe_key for one in published] == ["beat/shop:a@2023-11-14T22:13:25Z"]
    (message,) = stage.messages()
    headers = json.loads(message.headers)
    assert message.id == headers["id"]
    assert (message.queue, message.priority) == ("q", 4)
    assert headers["task"] == "t"
    assert headers["celery_beat_task"] is True
    assert (headers["beat_entry"], headers["x"]) == ("a", "y")
    assert headers["beat_nominal"] == "2023-11-14T22:13:25+00:00"
    assert json.loads(message.body)[:2] == [[1], {"k": 2}]
    assert message.expires_at is not None


def test_an_entrys_expires_counts_from_its_nominal_time(stage: Stage) -> None:
    one = stage.scheduler(a=every(5, expires=timedelta(seconds=30)))
    stage.run(one, 5)
    (message,) = stage.messages()
    assert message.expires_at == START + 35


def test_lazy_arguments(stage: Stage) -> None:
    numbers = iter(range(10))
    entry = every(1, args=(BeatLazyFunc(next, numbers),), kwargs={"k": BeatLazyFunc(lambda: "v")})
    one = stage.scheduler(a=entry)
    stage.run(one, 2, step=1)
    bodies = [json.loads(message.body)[:2] for message in stage.messages()]
    assert bodies == [[[0], {"k": "v"}], [[1], {"k": "v"}]]


def test_what_cannot_be_sent_stops_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    one = stage.scheduler(bad=every(1, args=(object(),)), good=every(1))
    stage.run(one, 2, step=1)
    assert stage.sent() == [("good", 1), ("good", 2)]
    assert "bad could not be sent" in caplog.text
    with Desk(stage.app, clock=stage.clock) as desk:
        bad, good = desk.entries()
    assert "EncodeError" in bad.error or "Encode" in bad.error
    assert good.error == ""


def test_what_the_broker_refuses_stops_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(SharedScheduler):
        def publish(self, messages: Sequence[Message]) -> None:
            if any(b"bad" in message.headers for message in messages):
                raise ValueError("too large")
            super().publish(messages)

    one = stage.scheduler(Picky, bad=every(1), good=every(1), fine=every(1))
    stage.run(one, 2, step=1)
    assert Counter(name for name, _ in stage.sent()) == {"good": 2, "fine": 2}
    assert "bad could not be sent" in caplog.text


def test_a_schedule_that_fails_stops_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(BaseSchedule):
        def next_after(self, after: float, anchor: float) -> float | None:
            if after > START:
                raise ZeroDivisionError("never again")
            return START + 1

    one = stage.scheduler(bad={"task": "t", "schedule": Broken()}, good=every(1))
    stage.run(one, 3, step=1)
    assert Counter(name for name, _ in stage.sent())["good"] == 3
    assert "never again" in caplog.text


def test_a_tasks_own_apply_async_is_used(stage: Stage) -> None:
    from celeriac import Task

    calls: list[dict[str, Any]] = []

    class Own(Task):  # type: ignore[type-arg]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(kwargs)
            return super().apply_async(*args, **kwargs)

    one = stage.scheduler(a=every(1))
    one.app.task(base=Own, name="t")(print)
    stage.run(one, 1, step=1)
    assert [call["dedupe_key"] for call in calls] == ["beat/shop:a@2023-11-14T22:13:21Z"]
    assert stage.sent() == [("a", 1)]


# --- several --------------------------------------------------------------------------------------


def test_many_schedulers_send_each_run_once(stage: Stage) -> None:
    several = [stage.scheduler(a=every(1), b=every(0.5)) for _ in range(4)]
    for _ in range(40):
        stage.advance(0.25)
        for one in several:
            one.tick()
    sent = Counter(stage.sent())
    assert set(sent.values()) == {1}
    assert sorted(sent) == sorted(
        [("a", n) for n in range(1, 11)] + [("b", n / 2) for n in range(1, 21)]
    )


class Dying(SharedScheduler):
    """Dies after its messages are sent and before anything is recorded."""

    def publish(self, messages: Sequence[Message]) -> None:
        super().publish(messages)
        raise KeyboardInterrupt


def test_one_that_dies_between_sending_and_recording(stage: Stage) -> None:
    dying = stage.scheduler(Dying, a=every(1))
    with pytest.raises(KeyboardInterrupt):
        stage.run(dying, 1, step=1)
    assert stage.sent() == [("a", 1)]
    other = stage.scheduler(a=every(1))
    other.tick()
    assert stage.sent() == [("a", 1)], "the second message of the same key was not dropped"
    stage.run(other, 2, step=1)
    assert stage.sent() == [("a", 1), ("a", 2), ("a", 3)]


def test_the_slower_one_steps_back_and_takes_over(stage: Stage) -> None:
    first, second = stage.scheduler(a=every(1)), stage.scheduler(a=every(1))
    original = second.book.store.load
    second.book.store.load = lambda since="": original("")  # type: ignore[method-assign]
    stage.advance(1)
    second.book.refresh(stage.clock(), 1e6)
    first.tick()
    second.book.refresh = lambda now, elapsed: None  # type: ignore[method-assign]
    second.tick()
    assert second._stepped_back > 0.1
    assert first._stepped_back == 0.0
    del second.book.refresh  # type: ignore[method-assign]
    stage.advance(1)
    assert second.tick() == pytest.approx(second._stepped_back, abs=0.01)
    stage.advance(0.5)  # the first one is dead
    second.tick()
    assert second._stepped_back == 0.0
    assert stage.sent() == [("a", 1), ("a", 2)]


def test_ten_thousand_in_portions(stage: Stage) -> None:
    one = stage.scheduler(**{f"e{n}": every(10) for n in range(1200)})
    stage.advance(10)
    one.tick()
    assert len(stage.messages()) == 1200
    assert one.tick() == 5.0


# --- restarts and new code ------------------------------------------------------------------------


def test_history_and_pause_survive_a_restart(stage: Stage) -> None:
    one = stage.scheduler(a=every(2), b=every(2))
    stage.run(one, 4)
    with Desk(stage.app, clock=stage.clock) as desk:
        desk.pause("b")
        one.close()
        again = stage.scheduler(a=every(2), b=every(2))
        stage.run(again, 4)
        a, b = desk.entries()
    assert (a.count, a.paused) == (4, False)
    assert (b.count, b.paused) == (2, True)
    assert [run for run in stage.sent() if run[0] == "a"] == [
        ("a", 2),
        ("a", 4),
        ("a", 6),
        ("a", 8),
    ]


def test_a_restart_writes_nothing_and_ticks_write_nothing(stage: Stage) -> None:
    one = stage.scheduler(a=every(60))
    token = one.book.store.load().token
    stage.scheduler(a=every(60))
    stage.run(one, 10)
    assert one.book.store.load().token == token


def test_downtime_is_made_up_for_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    entries = {
        "latest": every(60),
        "none": every(60, catch_up="none"),
        "all": every(60, catch_up="all", catch_up_window=300),
    }
    stage.scheduler(**entries).close()
    stage.advance(3630)
    one = stage.scheduler(**entries)
    one.tick()
    assert sorted(stage.sent()) == [
        *(("all", 60 * n) for n in (56, 57, 58, 59, 60)),
        ("latest", 3600),
    ]
    assert "latest is sent 30 s late" in caplog.text
    assert "none (t) was due and is left out" in caplog.text
    stage.run(one, 30)
    assert Counter(name for name, _ in stage.sent()) == {"all": 6, "latest": 2, "none": 1}


def test_what_is_gone_from_the_code_goes_and_what_was_added_stays(stage: Stage) -> None:
    one = stage.scheduler(a=every(1), b=every(1))
    with Desk(stage.app, clock=stage.clock) as desk:
        desk.add("c", every(1))
        stage.scheduler(b=every(1))
        assert [(e.name, e.source) for e in desk.entries()] == [("b", "code"), ("c", "user")]
    stage.run(one, 1, step=1)
    assert sorted(stage.sent()) == [("b", 1), ("c", 1)], "a running scheduler has not noticed"


def test_a_changed_schedule_begins_now(stage: Stage) -> None:
    stage.scheduler(a={"task": "t", "schedule": crontab(0, 22)}).close()  # 22:13 now
    stage.advance(3600)  # 23:13
    one = stage.scheduler(a={"task": "t", "schedule": crontab(0, 23)})
    one.tick()
    assert stage.sent() == [], "23:00 was not missed: it was not the schedule then"
    one.close()
    other = stage.scheduler(a=every(10))
    stage.run(other, 10)
    assert stage.sent() == [("a", 3610)]


def test_changed_arguments_do_not_touch_the_times(stage: Stage) -> None:
    stage.scheduler(a=every(10)).close()
    stage.advance(7)
    one = stage.scheduler(a=every(10, args=(1,)))
    stage.run(one, 3)
    assert stage.sent() == [("a", 10)]
    assert json.loads(stage.messages()[0].body)[0] == [1]


def test_applications_of_other_names_do_not_meet(stage: Stage) -> None:
    one = stage.scheduler(a=every(1))
    other = SharedScheduler(stage.new_app("other", a=every(1), b=every(1)), clock=stage.clock)
    stage.scheduler(a=every(1))
    other._stepped_back = 0.0
    for _ in range(2):
        stage.advance(1)
        one.tick()
        other.tick()
    assert Counter(name for name, _ in stage.sent()) == {"a": 4, "b": 2}
    other.app.close()
    other.close()


# --- clocks ---------------------------------------------------------------------------------------


def test_a_clock_set_forward_does_not_flood(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = stage.scheduler(a=every(1), b=every(1, catch_up="all"))
    stage.run(one, 2, step=1)
    stage.set_clock(3600)
    stage.run(one, 3, step=1)
    assert Counter(name for name, _ in stage.sent()) == {"a": 5, "b": 5}
    assert "The clock was set forward by 3600 s" in caplog.text


def test_a_clock_set_back_does_not_stop_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = stage.scheduler(a=every(1), b={"task": "t", "schedule": crontab()})
    stage.run(one, 60, step=1)
    before = Counter(stage.sent())
    stage.set_clock(-3600)
    stage.run(one, 60, step=1)
    after = Counter(stage.sent())
    assert max(after.values()) == 1
    assert len([run for run in after if run not in before and run[0] == "a"]) == 60
    assert len([run for run in after if run not in before and run[0] == "b"]) == 1
    assert "The clock was set back by 3600 s" in caplog.text


def test_forward_and_back(stage: Stage) -> None:
    one = stage.scheduler(a=every(1))
    stage.run(one, 5, step=1)
    stage.set_clock(3600)
    stage.run(one, 5, step=1)
    stage.set_clock(-3600)
    stage.run(one, 5, step=1)
    sent = Counter(stage.sent())
    assert max(sent.values()) == 1
    ahead = [3600 + n for n in range(6, 11)]
    assert sorted(sent) == [("a", n) for n in [*range(1, 6), *range(11, 16), *ahead]]


def test_one_that_starts_after_the_clock_was_set_back(stage: Stage) -> None:
    first = stage.scheduler(a=every(1))
    stage.run(first, 5, step=1)
    first.close()
    stage.set_clock(-3600)
    second = stage.scheduler(a=every(1))
    stage.run(second, 20, step=1)
    assert len(stage.sent()) in range(13, 18), "it waits ten seconds for others, and goes on"


def test_clocks_of_machines_differ(stage: Stage) -> None:
    """One is a minute ahead: it sends, the other looks on, nothing is sent twice."""
    ahead = stage.scheduler(a=every(5))
    ahead._clock = lambda: stage.clock() + 60
    behind = stage.scheduler(a=every(5))
    for _ in range(60):
        stage.advance(1)
        ahead.tick()
        behind.tick()
    sent = Counter(stage.sent())
    assert max(sent.values()) == 1
    assert len(sent) >= 12


# --- overlap --------------------------------------------------------------------------------------


def finish(stage: Stage) -> None:
    """Have the oldest waiting run done, with its result."""
    from celeriac.message import TaskRecord, Worker

    broker = stage.app.producer.broker
    broker.register(Worker(lease="w", ttl=1e6))
    from celeriac.message import Owner

    (delivery,) = broker.claim(Owner("w", 0, 1), ["celery"], 1)
    record = TaskRecord(
        id=delivery.message.id,
        run=delivery.message.run,
        state=states.SUCCESS,
        ready=True,
        payload=b"{}",
    )
    broker.settle([Settlement(delivery=delivery, records=(record,))])


def test_overlap_skip(stage: Stage) -> None:
    one = stage.scheduler(a=every(10, overlap="skip"))
    stage.run(one, 35)
    assert stage.sent() == [("a", 10)]
    finish(stage)
    stage.run(one, 10)
    assert stage.sent() == [("a", 40)]


def test_overlap_queue(stage: Stage) -> None:
    one = stage.scheduler(a=every(10, overlap="queue"))
    stage.run(one, 35)
    assert stage.sent() == [("a", 10)]
    finish(stage)
    stage.run(one, 2)
    assert stage.sent() == [("a", 30)], "one was to wait, and to start when the other is done"


# --- schedules of one's own -----------------------------------------------------------------------


class Asked(BaseSchedule):
    """Due every three seconds; knows no times in advance."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        left = last_run_at.timestamp() + 3 - self.now().timestamp()
        return schedstate(True, 3.0) if left <= 0 else schedstate(False, left)

    def __repr__(self) -> str:
        return "<asked>"


def test_a_schedule_that_must_be_asked(stage: Stage) -> None:
    from datetime import UTC

    def entry() -> dict[str, Any]:
        now = lambda: datetime.fromtimestamp(stage.clock(), UTC)  # noqa: E731
        return {"task": "t", "schedule": Asked(nowfun=now)}

    one, two = stage.scheduler(a=entry()), stage.scheduler(a=entry())
    for _ in range(20):
        stage.advance(0.5)
        one.tick()
        two.tick()
    assert stage.sent() == [("a", 3), ("a", 6), ("a", 9)]
    with Desk(stage.app, clock=stage.clock) as desk:
        (shown,) = desk.entries()
    assert (shown.when, shown.count, shown.next_run) == ("<asked>", 3, None)


def test_one_without_the_class_leaves_it_to_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.scheduler(a={"task": "t", "schedule": Asked()})
    app = stage.new_app()
    other = SharedScheduler(app, clock=stage.clock, lazy=True)
    other._code = {}
    from celeriac.beat.book import Book

    book = Book(other._opened(), "shop", {})
    book.refresh(stage.clock(), 0.0)
    assert book.items == {}
    assert "left to those" in caplog.text
    other.close()
    app.close()


# --- operating ------------------------------------------------------------------------------------


def test_added_at_run_time(stage: Stage) -> None:
    one = stage.scheduler()
    one.tick()
    with Desk(stage.app, clock=stage.clock) as desk:
        desk.add("a", every(2, args=(1,)))
        with pytest.raises(NoSuchEntry, match="already"):
            desk.add("a", every(2))
        with pytest.raises(NoSuchEntry, match="JSON"):
            desk.add("b", every(2, args=(object(),)))
        stage.run(one, 4, step=1)
        assert stage.sent() == [("a", 2), ("a", 4)]
        desk.remove("a")
        stage.run(one, 4, step=1)
        assert stage.sent() == [("a", 2), ("a", 4)]
        with pytest.raises(NoSuchEntry, match="no periodic task a"):
            desk.remove("a")


def test_pause_and_resume(stage: Stage) -> None:
    one = stage.scheduler(a=every(1))
    stage.run(one, 2, step=1)
    with Desk(stage.app, clock=stage.clock) as desk:
        desk.pause("a")
        stage.run(one, 100, step=1)
        assert len(stage.sent()) == 2
        assert desk.resume("a") is True
        assert desk.resume("a") is False
        stage.run(one, 2, step=1)
    assert stage.sent()[2:] == [("a", 103), ("a", 104)], "what was due meanwhile is not made up for"


def test_run_now_leaves_the_schedule_alone(stage: Stage) -> None:
    one = stage.scheduler(a=every(10, args=(7,)))
    with Desk(stage.app, clock=stage.clock) as desk:
        task_id = desk.run("a")
        (message,) = stage.messages()
        assert message.id == task_id
        assert message.dedupe_key is None
        assert json.loads(message.headers)["celery_beat_task"] is True
        (shown,) = desk.entries()
        assert shown.count == 0
    assert one.tick() == 5.0, "and looks at the store now and then"


def test_code_entries_are_not_removed(stage: Stage) -> None:
    stage.scheduler(a=every(10))
    with Desk(stage.app, clock=stage.clock) as desk, pytest.raises(NoSuchEntry, match="pause it"):
        desk.remove("a")


def test_what_is_shown(stage: Stage) -> None:
    one = stage.scheduler(a=every(10), b={"task": "u", "schedule": crontab(0, 4)})
    stage.advance(10.25)
    one.tick()
    with Desk(stage.app, clock=stage.clock) as desk:
        a, b = desk.entries()
        assert (a.task, a.when, a.source, a.count) == ("t", "every 10 s", "code", 1)
        assert a.last_run is not None
        assert a.last_run.timestamp() == START + 10.25
        assert a.last_nominal is not None
        assert a.last_nominal.timestamp() == START + 10
        assert a.late == pytest.approx(0.25, abs=0.01)
        assert a.last_id == stage.messages()[0].id
        assert a.next_run is not None
        assert a.next_run.timestamp() == START + 20
        assert (b.when, b.last_run, b.late) == ("0 4 * * *", None, None)
        stage.advance(60)
        assert desk.entries()[0].overdue == pytest.approx(50.2, abs=0.1)
        assert [moment.timestamp() - START for moment in desk.coming("a", 2)] == [80, 90]
        assert len(desk.coming("b", 5)) == 5
        with pytest.raises(NoSuchEntry, match="There are: a, b"):
            desk.coming("c", 1)


def test_entries_of_the_code_that_nobody_has_stored(stage: Stage) -> None:
    app = stage.new_app(a=every(5))
    with Desk(app, clock=stage.clock) as desk:
        assert desk.not_stored() == ["a"]
        assert desk.entries() == []
        assert len(desk.coming("a", 3)) == 3
        with pytest.raises(NoSuchEntry, match="no scheduler has been started"):
            desk.pause("a")
    app.close()


# --- trouble --------------------------------------------------------------------------------------


def test_nothing_is_lost_while_the_broker_is_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage.scheduler(a=every(1))

    def away(*_: Any) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(SharedScheduler, "publish", away)
        stage.advance(1)
        for _ in range(3):
            with pytest.raises(OperationalError):
                one.tick()
    stage.advance(1)
    one.tick()
    assert stage.sent() == [("a", 1), ("a", 2)]


def test_a_store_that_was_emptied(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one, other = (stage.scheduler(a=every(5), b=every(7)) for _ in range(2))
    stage.run(one, 5)
    one.book.store.remove(["shop:a", "shop:b"])
    for scheduler in (one, other):
        scheduler.tick()
    assert caplog.text.count("are written again") == 1
    stage.run(other, 7)
    assert stage.sent() == [("a", 5.0), ("a", 10.0), ("b", 12.0)]


def test_a_record_that_could_not_be_stored(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage.scheduler(a=every(1))
    store = type(one.book.store)

    def away(*_: Any) -> list[int]:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "save", away)
        stage.advance(1)
        for _ in range(3):
            with pytest.raises(OperationalError):
                one.tick()
    one.tick()
    stage.run(one, 1, step=1)
    assert stage.sent() == [("a", 1), ("a", 2)]


def test_a_store_with_a_broken_entry(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = stage.scheduler(a=every(1), b=every(1))
    store = one.book.store
    broken = next(record for record in store.load().records if record.name == "shop:b")
    assert all(store.save([structs.replace(broken, payload=b"{nonsense")]))
    caplog.set_level(logging.ERROR)
    stage.run(one, 1, step=1)
    assert stage.sent() == [("a", 1)]
    assert "shop:b cannot be used" in caplog.text
