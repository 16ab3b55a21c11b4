"""What operators do with the periodic tasks while schedulers run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import structs

from celeriac.beat.entries import Definition, scope_of, stored_scope
from celeriac.beat.firing import LATE, next_nominal, progress_of
from celeriac.beat.outgoing import evaluated, send_now
from celeriac.beat.places import store_of
from celeriac.beat.registering import (
    CODE,
    USER,
    code_entries,
    new_record,
    restarted,
    store_name,
    without_scope,
)
from celeriac.exceptions import CeleriacError, OperationalError
from celeriac.message import ScheduleRecord
from celeriac.protocol.json_codec import decode_json
from celeriac.schedules.periodic import ENTRY_OPTIONS
from celeriac.schedules.zones import zone_name

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import Clock

__all__ = ["Desk", "Entry", "NoSuchEntry"]

_TRIES = 50


class NoSuchEntry(CeleriacError):
    """There is no periodic task of this name, or not of this kind."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One periodic task as it is shown. ``late``: seconds by which the last run was late;
    ``overdue``: by which the next one is, now."""

    name: str
    task: str
    when: str
    zone: str
    source: str
    paused: bool
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    policies: Mapping[str, Any]
    last_run: datetime | None
    last_nominal: datetime | None
    last_id: str
    late: float | None
    next_run: datetime | None
    overdue: float
    count: int
    error: str


class Desk:
    """The periodic tasks of one application; a context that lets go of the store."""

    def __init__(self, app: Celeriac, *, clock: Clock = time.time) -> None:
        self._app = app
        self._clock = clock
        self._scope = scope_of(app)
        self._store = store_of(app)
        self._code: dict[str, Definition] | None = None

    def __enter__(self) -> Desk:
        self._store.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.close()

    # --- looking

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        return sorted(
            (self._shown(record) for record in self._records().values()),
            key=lambda entry: entry.name,
        )

    def not_stored(self) -> list[str]:
        """Names of the code's entries that no scheduler has stored yet."""
        there = self._records()
        return [without_scope(self._scope, name) for name in self._from_code() if name not in there]

    def coming(self, name: str, count: int) -> list[datetime]:
        """Its next nominal times, in its zone; fewer if there are no more."""
        found = self._records().get(store_name(self._scope, name))
        if found is None:
            definition = self._from_code().get(store_name(self._scope, name))
            if definition is None:
                raise self._missing(name)
            found = new_record(definition, self._scope, CODE, self._clock())
        else:
            definition = self._definition(found)
        if definition.polled:
            raise NoSuchEntry(
                f"The schedule of {name}, {definition.schedule!r}, does not know its times in "
                "advance."
            )
        times = itertools.islice(self._times(definition, found), count)
        return [datetime.fromtimestamp(at, definition.zone) for at in times]

    def _times(self, definition: Definition, record: ScheduleRecord) -> Iterator[float]:
        base = record.last_nominal if record.last_nominal is not None else record.anchor
        at = next_nominal(definition, max(base, self._clock()), record.anchor)
        while at is not None:
            yield at
            at = next_nominal(definition, at, record.anchor)

    # --- changing

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add an entry as in ``beat_schedule``. Raises ImproperlyConfigured for a wrong one."""
        full = store_name(self._scope, name)
        definition = Definition.from_dict(full, entry, zone=self._app.timezone, app=self._app)
        record = new_record(definition, self._scope, USER, self._clock())
        if "local" in decode_json(record.payload):
            raise NoSuchEntry(
                f"{name} cannot be stored: its schedule or arguments are of a kind that JSON "
                "cannot say. Put it into beat_schedule."
            )
        if not self._store.save([record])[0]:
            raise NoSuchEntry(f"There is a periodic task {name} already: remove it first.")

    def pause(self, name: str) -> None:
        self._change(name, lambda record: structs.replace(record, paused=True))

    def resume(self, name: str) -> bool:
        """What was due meanwhile is not made up for. Was it paused?"""
        was = self._record(name).paused
        if was:
            now = self._clock()
            self._change(name, lambda record: structs.replace(restarted(record, now), paused=False))
        return was

    def run(self, name: str) -> str:
        """Send it now, beside its schedule; the task id."""
        definition = self._definition(self._record(name))
        args, kwargs = evaluated(definition.args, definition.kwargs)
        result = send_now(self._app, definition.task, args, kwargs, definition.options)
        return str(result.id)

    def remove(self, name: str) -> None:
        record = self._record(name)
        if record.source == CODE:
            raise NoSuchEntry(
                f"{name} is in the application's code and would come back with the next start of "
                "a scheduler: take it out of beat_schedule, or pause it."
            )
        self._store.remove([record.name])

    def _change(self, name: str, change: Callable[[ScheduleRecord], ScheduleRecord]) -> None:
        """Schedulers write too: try again until nobody was quicker."""
        for _ in range(_TRIES):
            if self._store.save([change(self._record(name))])[0]:
                return
        raise OperationalError(
            f"{name} could not be changed: schedulers changed it {_TRIES} times meanwhile. "
            "Try again."
        )

    # --- reading

    def _records(self) -> dict[str, ScheduleRecord]:
        return {
            record.name: record
            for record in self._store.load().records
            if stored_scope(record.payload) == self._scope
        }

    def _record(self, name: str) -> ScheduleRecord:
        record = self._records().get(store_name(self._scope, name))
        if record is None:
            raise self._missing(name)
        return record

    def _missing(self, name: str) -> NoSuchEntry:
        if store_name(self._scope, name) in self._from_code():
            return NoSuchEntry(
                f"{name} is in the code, but no scheduler has been started with it yet."
            )
        known = ", ".join(without_scope(self._scope, one) for one in sorted(self._records()))
        return NoSuchEntry(
            f"There is no periodic task {name}." + (f" There are: {known}." if known else "")
        )

    def _from_code(self) -> dict[str, Definition]:
        if self._code is None:
            self._code = code_entries(self._app)
        return self._code

    def _definition(self, record: ScheduleRecord) -> Definition:
        found = Definition.from_payload(record.name, record.payload)
        found = found if found is not None else self._from_code().get(record.name)
        if found is None:
            raise NoSuchEntry(
                f"{without_scope(self._scope, record.name)} can only be used with the application "
                "that has it in its code: give -A."
            )
        return found

    def _shown(self, record: ScheduleRecord) -> Entry:
        said = decode_json(record.payload)
        progress = progress_of(record)
        try:
            definition: Definition | None = self._definition(record)
        except (CeleriacError, ValueError):
            definition = None
        following, overdue = self._next(record, definition)
        zone = definition.zone if definition is not None else self._app.timezone

        def moment(at: float | None) -> datetime | None:
            return None if at is None else datetime.fromtimestamp(at, zone)

        return Entry(
            name=without_scope(self._scope, record.name),
            task=str(said.get("task", "")),
            when=definition.when() if definition is not None else str(said.get("local", "")),
            zone=zone_name(zone),
            source=record.source,
            paused=record.paused,
            args=definition.args if definition is not None else (),
            kwargs=definition.kwargs if definition is not None else {},
            options=definition.options if definition is not None else {},
            policies={key: said[key] for key in ENTRY_OPTIONS if key in said},
            last_run=moment(record.last_run_at),
            last_nominal=moment(progress.nominal),
            last_id=progress.id,
            late=progress.late if record.last_run_at is not None else None,
            next_run=moment(following),
            overdue=overdue,
            count=record.count,
            error=progress.error,
        )

    def _next(
        self, record: ScheduleRecord, definition: Definition | None
    ) -> tuple[float | None, float]:
        """The nominal time that is to come, and by how much it is late by now."""
        if record.paused or definition is None or definition.polled:
            return None, 0.0
        base = record.last_nominal if record.last_nominal is not None else record.anchor
        following = next_nominal(definition, base, record.anchor)
        if following is None:
            return None, 0.0
        late = self._clock() - following - definition.jitter
        return following, (round(late, 1) if late > LATE else 0.0)
