"""The scheduler that is used unless another is asked for. Any number of them may run.

The entries are in a store that all share; none of them leads. Each sends what is due, with a key
by which the broker drops what another has sent already, and then records it by compare and set. One
that is killed in between leaves the entry as it was: the next one sends the same message again,
and it is dropped. Who finds another to be quicker steps back by a moment, so that usually one
works and the others look on; they take over when it is late.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from celeriac.beat.book import Book, Item
from celeriac.beat.entries import Definition, scope_of
from celeriac.beat.entry import ScheduleEntry
from celeriac.beat.firing import (
    LATE,
    Decision,
    Progress,
    decide,
    firing_key,
    progress_of,
    task_id_of,
)
from celeriac.beat.outgoing import evaluated, marked, message_of, publish
from celeriac.beat.places import store_of
from celeriac.beat.registering import code_entries, register, without_scope
from celeriac.beat.scheduler import Scheduler
from celeriac.beat.unfinished import result_options, unfinished_of
from celeriac.contracts import Clock, ScheduleStore
from celeriac.exceptions import OperationalError
from celeriac.message import Message, ScheduleRecord
from celeriac.schedules import crontab

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["SharedScheduler", "elapsed_seconds"]

logger = logging.getLogger("celeriac.beat")

BATCH: Final = 500  # entries that are published in one round trip
JUMP: Final = 2.0  # seconds by which clock and elapsed time may differ between two looks
STEP_BACK: Final = (0.15, 0.35)  # seconds
HELD: Final = 1.0  # between two looks at a run that must not be overlapped


def elapsed_seconds() -> float:
    """Seconds since some moment, whatever is done to the clock; the time that a machine was
    suspended counts, where that is known."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class SharedScheduler(Scheduler):
    """``clock`` gives epoch seconds, ``elapsed`` what passes whatever is done to that clock."""

    max_interval = 5.0

    def __init__(
        self,
        app: Celeriac,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        lazy: bool = False,
        *,
        clock: Clock = time.time,
        elapsed: Callable[[], float] = elapsed_seconds,
        **kwargs: Any,
    ) -> None:
        self.schedule_filename = schedule_filename
        self.scope = scope_of(app)
        self._clock = clock
        self._elapsed = elapsed
        self._store: ScheduleStore | None = None
        self._book: Book | None = None
        self._code: dict[str, Definition] = {}
        self._seen_clock = clock() - elapsed()
        self._jump_lasts = 0.0  # elapsed time until which a jump explains what seems missed
        self._stepped_back = random.uniform(*STEP_BACK)
        super().__init__(app, max_interval=max_interval, lazy=lazy, **kwargs)

    # --- the store

    def make_store(self) -> ScheduleStore:
        """A new store, not opened."""
        return store_of(self.app, self.schedule_filename)

    def setup_schedule(self) -> None:
        """Write the code's entries to the store, and read all. Raises ImproperlyConfigured, and
        OperationalError: then it may be tried again."""
        self._code = code_entries(self.app)
        store = self._opened()
        register(store, self.scope, self._code, self._clock())
        book = Book(store, self.scope, self._code)
        book.refresh(self._clock(), self._elapsed())
        self._book = book

    def _refresh(self, book: Book) -> None:
        """Take in what others have changed. A store that was emptied gets the code's entries
        again: nobody else would notice that nothing is sent any more."""
        book.refresh(self._clock(), self._elapsed())
        if self._code and not book.items:
            logger.warning(
                "There are no periodic tasks in %s any more: those of the code are written again",
                book.store.store,
            )
            register(book.store, self.scope, self._code, self._clock())
            book.refresh(self._clock(), self._elapsed())

    def _opened(self) -> ScheduleStore:
        if self._store is None:
            store = self.make_store()
            store.open()
            self._store = store
        return self._store

    @property
    def book(self) -> Book:
        if self._book is None:
            self.setup_schedule()
        assert self._book is not None
        return self._book

    def should_sync(self) -> bool:
        return False  # everything is stored when it happens

    def close(self) -> None:
        store, self._store, self._book = self._store, None, None
        if store is not None:
            store.close()

    @property
    def info(self) -> str:
        return f"schedule -> {self._opened().store}"

    def get_schedule(self) -> dict[str, Any]:
        """The entries as they were last seen; to look at."""
        if self._book is None:
            return {}
        entries = {}
        for name, item in self._book.items.items():
            definition, last = item.definition, item.record.last_run_at
            short = without_scope(self.scope, name)
            entries[short] = ScheduleEntry(
                name=short,
                task=definition.task,
                schedule=definition.schedule,
                args=definition.args,
                kwargs=dict(definition.kwargs),
                options=dict(definition.options),
                last_run_at=datetime.fromtimestamp(last or item.record.anchor, definition.zone),
                total_run_count=item.record.count,
                app=self.app,
            )
        return entries

    # --- the loop

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; the seconds until the next call. Raises OperationalError, after which
        it is to be called again a little later."""
        try:
            book = self.book
            self._watch_clock(book)
            self._refresh(book)
            due = book.take_due(self._clock() - self._stepped_back)
            if due:
                self._send_due(book, due)
        except OperationalError:
            self._forget_connection()
            raise
        following = book.next_due()
        if following is None:
            return float(self.max_interval)
        wait = following + self._stepped_back - self._clock()
        return min(max(wait, 0.0), float(self.max_interval))

    def _forget_connection(self) -> None:
        """A new one is made, and everything read again, with the next tick."""
        store, self._store = self._store, None
        try:
            if store is not None:
                store.close()
                new = self._opened()
                if self._book is not None:
                    self._book = Book(new, self.scope, self._code)
        except OperationalError as error:
            logger.debug("The schedule's store: %s", error)
            self._book = None

    def _watch_clock(self, book: Book) -> None:
        """Has the clock moved against elapsed time?"""
        now, elapsed = self._clock(), self._elapsed()
        moved = now - elapsed - self._seen_clock
        self._seen_clock = now - elapsed
        if abs(moved) <= JUMP:
            return
        logger.warning(
            "The clock was set %s by %.0f s: periodic tasks go by the new time%s",
            "forward" if moved > 0 else "back",
            abs(moved),
            "; what seems missed was not" if moved > 0 else "",
        )
        if moved > 0:
            self._jump_lasts = elapsed + LATE
        book.clock_changed(now, elapsed, moved)

    # --- sending

    def _send_due(self, book: Book, due: Sequence[Item]) -> None:
        left = list(due)
        try:
            unfinished = self._unfinished(due)
            while left:
                self._send_batch(book, left[:BATCH], unfinished)
                del left[:BATCH]
        except BaseException:
            for item in left:
                book.postpone(item, self._clock())
            raise

    def _unfinished(self, items: Sequence[Item]) -> set[str]:
        runs = [
            (item.progress.id, item.record.last_run_at or 0.0)
            for item in items
            if item.definition.overlap != "allow" and item.progress.id
        ]
        return unfinished_of(self.app, runs, self._clock()) if runs else set()

    def _send_batch(self, book: Book, items: Sequence[Item], unfinished: set[str]) -> None:
        messages: list[Message] = []
        changed: list[tuple[Item, ScheduleRecord]] = []
        for item in items:
            decision = self._decide(item, item.progress.id in unfinished)
            if decision.wait:
                book.postpone(item, self._clock() + HELD)
            elif decision.decided is None:
                book.arrange(item, self._clock(), self._elapsed())
            else:
                if decision.following:
                    item.known = (decision.decided, decision.following[0])
                changed.append((item, self._sent(item, decision, messages)))
        if not changed:
            return
        try:
            self.publish(messages)
        except OperationalError:
            raise
        except Exception as error:  # something about one of them, which must not stop the others
            if len(changed) > 1:
                for item, _ in changed:
                    self._send_batch(book, [item], unfinished)
                return
            item, record = changed[0]
            changed = [(item, self._refused(item, record, error))]
        kept = book.save(changed, self._clock(), self._elapsed())
        self._say_late(changed)
        quicker = kept < len(changed)
        self._stepped_back = random.uniform(*STEP_BACK) if quicker else 0.0

    def _refused(self, item: Item, record: ScheduleRecord, error: Exception) -> ScheduleRecord:
        name = without_scope(self.scope, record.name)
        logger.error("The periodic task %s could not be sent", name, exc_info=error)
        progress = structs.replace(item.progress, error=f"{type(error).__name__}: {error}")
        return structs.replace(record, state=msgspec.json.encode(progress))

    def publish(self, messages: Sequence[Message]) -> None:
        """Have all of them in the broker. Raises OperationalError."""
        publish(self.app, messages)

    def _decide(self, item: Item, unfinished: bool) -> Decision:
        try:
            return self._decision(item, unfinished)
        except Exception:  # a schedule of somebody's own
            logger.exception("The schedule of %s cannot be used now", item.record.name)
            return Decision(wait=True)

    def _decision(self, item: Item, unfinished: bool) -> Decision:
        definition, now = item.definition, self._clock()
        if definition.polled:
            if not definition.schedule.is_due(Book.last_run(item))[0]:
                return Decision()
            if unfinished and definition.overlap == "queue":
                return Decision(wait=True)
            skip = unfinished and definition.overlap == "skip"
            return Decision(fire=() if skip else (now,), decided=now)
        deadline = self.app.conf.beat_cron_starting_deadline
        return decide(
            definition,
            item.record,
            first=item.nominal,
            now=now,
            deadline=deadline if isinstance(definition.schedule, crontab) else None,
            unfinished=unfinished,
            jumped=self._elapsed() < self._jump_lasts,
        )

    def _sent(self, item: Item, decision: Decision, messages: list[Message]) -> ScheduleRecord:
        """The record as it is after this decision; the messages are added."""
        record, progress, now = item.record, item.progress, self._clock()
        self._say(item, decision)
        for nominal in decision.fire:
            try:
                progress = self._fire(item, nominal, messages)
            except OperationalError:
                raise
            except Exception as error:  # what cannot be sent must not stop what can
                refused = self._refused(item, record, error)
                progress = progress_of(refused)
        return structs.replace(
            record,
            last_nominal=decision.decided,
            last_run_at=now if decision.fire else record.last_run_at,
            count=record.count + len(decision.fire),
            state=msgspec.json.encode(progress),
        )

    def _fire(self, item: Item, nominal: float, messages: list[Message]) -> Progress:
        definition = item.definition
        key = firing_key(definition.name, nominal)
        if definition.polled:  # its nominal time is whenever somebody looked: count instead
            key = f"beat/{definition.name}#{item.record.count + 1}"
        task_id = task_id_of(key)
        args, kwargs = evaluated(definition.args, definition.kwargs)
        message = message_of(
            self.app,
            definition.task,
            args,
            kwargs,
            self._options(definition, nominal, task_id=task_id, dedupe_key=key),
        )
        if message is not None:
            messages.append(message)
        late = max(0.0, self._clock() - nominal)
        return Progress(id=task_id, nominal=nominal, late=round(late, 3))

    def _options(self, definition: Definition, nominal: float, **more: Any) -> dict[str, Any]:
        options = marked(
            definition.options,
            beat_entry=without_scope(self.scope, definition.name),
            beat_nominal=datetime.fromtimestamp(nominal, UTC).isoformat(),
        )
        if definition.expires is not None:
            more["expires"] = datetime.fromtimestamp(nominal + definition.expires, UTC)
        return {**options, **result_options(self.app, definition.overlap), **more}

    def _say(self, item: Item, decision: Decision) -> None:
        """Into the log: what is sent, and what is left out."""
        name = without_scope(self.scope, item.record.name)
        task = item.definition.task
        for _ in decision.fire:
            logger.info("Scheduler: Sending due task %s (%s)", name, task)
        if not decision.fire and decision.decided is not None:
            level = logging.INFO if item.definition.overlap == "skip" else logging.WARNING
            logger.log(level, "%s (%s) was due and is left out, by its policies", name, task)

    def _say_late(self, items: Sequence[tuple[Item, ScheduleRecord]]) -> None:
        """One warning for all that were sent late, since that may be thousands."""
        late = [
            (item.progress.late, item)
            for item, record in items
            if item.record.last_run_at == record.last_run_at and item.progress.late > LATE
        ]
        if late:
            seconds, worst = max(late, key=lambda one: one[0])
            name = without_scope(self.scope, worst.record.name)
            others = f", and {len(late) - 1} others less late" if len(late) > 1 else ""
            logger.warning("%s is sent %.0f s late%s", name, seconds, others)
