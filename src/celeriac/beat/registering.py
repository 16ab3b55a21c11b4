"""Writing the entries of the application's code to the store, when a scheduler starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import structs

from celeriac.beat.entries import Definition, scope_of, stored_scope
from celeriac.beat.scheduler import CLEANUP, default_entries
from celeriac.exceptions import OperationalError
from celeriac.message import ScheduleRecord

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import ScheduleStore

__all__ = ["code_entries", "new_record", "register", "store_name", "without_scope"]

logger = logging.getLogger("celeriac.beat")

CODE, USER = "code", "user"
_TRIES = 20  # others start at the same moment, each with the same entries


def code_entries(app: Celeriac) -> dict[str, Definition]:
    """The entries of ``beat_schedule``, which ``add_periodic_task`` adds to, and the default
    ones, by the name in the store. Raises ImproperlyConfigured."""
    scope = scope_of(app)
    found: Mapping[str, Any] = {**default_entries(app), **app.conf.beat_schedule}
    definitions = {}
    for name, entry in found.items():
        # None takes a default entry away.
        if entry is None and name == CLEANUP:
            continue
        full = store_name(scope, str(name))
        definitions[full] = Definition.from_dict(full, entry, zone=app.timezone, app=app)
    return definitions


def store_name(scope: str, name: str) -> str:
    return f"{scope}:{name}" if scope else name


def without_scope(scope: str, name: str) -> str:
    return name.removeprefix(f"{scope}:") if scope else name


def new_record(definition: Definition, scope: str, source: str, now: float) -> ScheduleRecord:
    """An entry that begins now. What an interval counts from is kept to the millisecond."""
    return ScheduleRecord(
        name=definition.name,
        payload=definition.payload(scope),
        source=source,
        anchor=round(now, 3),
    )


def register(
    store: ScheduleStore, scope: str, entries: Mapping[str, Definition], now: float
) -> None:
    """Make the store's entries from code those of this code. What is new begins now, what has
    another schedule goes by it from now on, what is gone goes; what was added at run time stays,
    and so do pause and history."""
    for _ in range(_TRIES):
        there = {record.name: record for record in store.load().records}
        gone = [
            record.name
            for record in there.values()
            if record.source == CODE
            and record.name not in entries
            and stored_scope(record.payload) == scope
        ]
        if gone:
            logger.info("No longer in the code, removed: %s", ", ".join(sorted(gone)))
            store.remove(gone)
        wanted = [_wanted(definition, there, scope, now) for definition in entries.values()]
        changed = [record for record in wanted if record is not None]
        if all(store.save(changed)):
            return
    raise OperationalError(
        f"The periodic tasks could not be written to {store.store}: other schedulers changed them "
        f"{_TRIES} times meanwhile. Start again."
    )


def _wanted(
    definition: Definition, there: Mapping[str, ScheduleRecord], scope: str, now: float
) -> ScheduleRecord | None:
    """The record as it is to be stored; None if it is."""
    fresh = new_record(definition, scope, CODE, now)
    old = there.get(definition.name)
    if old is None:
        return fresh
    if old.payload == fresh.payload and old.source == CODE:
        return None
    kept = structs.replace(old, payload=fresh.payload, source=CODE)
    if timing(old) == timing(fresh):
        return kept
    return restarted(kept, now, anew=True)


def timing(record: ScheduleRecord) -> Any:
    """What decides when the entry runs."""
    from celeriac.protocol.json_codec import decode_json

    said = decode_json(record.payload)
    keys = ("schedule", "local", "timezone", "start", "end")
    return {key: said.get(key) for key in keys} if isinstance(said, dict) else None


def restarted(record: ScheduleRecord, now: float, *, anew: bool = False) -> ScheduleRecord:
    """The record, nothing of the past to be made up for. ``anew``: intervals count from now."""
    last = record.last_nominal
    return structs.replace(
        record,
        anchor=round(now, 3) if anew else record.anchor,
        last_nominal=now if last is None else max(last, now),
    )
