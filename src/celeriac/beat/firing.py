"""Which runs of an entry are to be sent now: pure decisions over one entry and its record.

A run is known by its *nominal time*: the instant at which its schedule wanted it. Every scheduler
that comes to the same nominal time gives the message the same key and id, and the broker keeps the
first one only.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from celeriac.beat.entries import Definition
from celeriac.message import ScheduleRecord

__all__ = [
    "LATE",
    "Decision",
    "Progress",
    "decide",
    "firing_key",
    "jitter_of",
    "next_nominal",
    "progress_of",
    "task_id_of",
]

LATE: Final = 10.0
"""Seconds up to which a run is late rather than missed: all that are late are sent. A scheduler
that takes over from a dead one is this quick."""
MOST_AT_ONCE: Final = 500  # runs of one entry that ``catch_up="all"`` sends in a turn
_NAMESPACE: Final = uuid.UUID("b0e2f7a4-8f0e-5d3b-9c55-5f1f6e2f3a77")


class Progress(Struct, frozen=True, kw_only=True):
    """What a record's ``state`` holds: the last message that was sent, its nominal time and by how
    many seconds it was late; ``error``: why the last run could not be sent."""

    id: str = ""
    nominal: float | None = None
    late: float = 0.0
    error: str = ""


class Decision(Struct, frozen=True, kw_only=True):
    """``fire``: nominal times to send now, in order. ``decided``: up to where all is decided then;
    None: nothing is to be stored. ``following``: the nominal time after that, in a tuple, where it
    is known. ``wait``: the run before is not finished, ask again."""

    fire: tuple[float, ...] = ()
    decided: float | None = None
    following: tuple[float | None, ...] = ()
    wait: bool = False


def progress_of(record: ScheduleRecord) -> Progress:
    """Raises nothing: a state that cannot be read is as none."""
    try:
        return msgspec.json.decode(record.state, type=Progress) if record.state else Progress()
    except msgspec.DecodeError:
        return Progress()


def firing_key(name: str, nominal: float) -> str:
    """The dedupe key of one run: ``beat/<entry>@<nominal time>``."""
    return f"beat/{name}@{_text_of(nominal)}"


@lru_cache(maxsize=64)  # thousands may be due at the same moment
def _text_of(nominal: float) -> str:
    moment = datetime.fromtimestamp(round(nominal * 1000) // 1000, UTC).replace(tzinfo=None)
    thousandths = round(nominal * 1000) % 1000
    fraction = f".{thousandths:03d}" if thousandths else ""
    return f"{moment.isoformat()}{fraction}Z"


def task_id_of(key: str) -> str:
    """The task id of the run with this key."""
    return str(uuid.uuid5(_NAMESPACE, key))


def jitter_of(definition: Definition, nominal: float) -> float:
    """By how much this run is put off: anything below ``jitter``, the same for every scheduler."""
    if not definition.jitter:
        return 0.0
    digest = hashlib.sha256(firing_key(definition.name, nominal).encode()).digest()
    return definition.jitter * int.from_bytes(digest[:8], "big") / 2**64


def next_nominal(definition: Definition, after: float, anchor: float) -> float | None:
    """The first nominal time after ``after``, between the entry's start and end."""
    if definition.start is not None and after < definition.start:
        # The one at ``start`` itself counts; an interval has its own times all the same.
        after = definition.start - 0.0005
    found = definition.schedule.next_after(after, anchor)
    if found is None or (definition.end is not None and found > definition.end):
        return None
    return found


def decide(
    definition: Definition,
    record: ScheduleRecord,
    *,
    first: float | None,
    now: float,
    deadline: float | None = None,
    unfinished: bool = False,
    jumped: bool = False,
) -> Decision:
    """What to send of what is due. ``first``: the first nominal time that nothing is decided
    about. ``deadline``: seconds after which a missed run is not made up for, whatever the policy.
    ``unfinished``: the run before is. ``jumped``: clocks were set forward, so what seems missed was
    never due."""
    if first is None:
        return Decision()
    until = now - jitter_of(definition, first)
    if first > until:
        return Decision()
    if unfinished and definition.overlap == "queue":
        return Decision(wait=True)
    second = next_nominal(definition, first, record.anchor)
    alone = second is None or second > until
    latest = first if alone else _latest(definition, first, until, record.anchor)
    following = (second,) if alone else ()
    if unfinished and definition.overlap == "skip":
        return Decision(decided=latest, following=following)
    if until - first <= LATE:
        fire = [first, *(() if alone else _between(definition, first, until, record.anchor))]
    elif definition.catch_up == "all" and not jumped:
        fire = _all_missed(definition, first, until, record.anchor)
    else:
        fire = [latest]
        if definition.catch_up == "none" and until - latest > LATE:
            fire = []
    if definition.overlap != "allow":
        fire = fire[-1:]
    decided = fire[-1] if len(fire) == MOST_AT_ONCE else latest
    if deadline is not None:
        fire = [nominal for nominal in fire if now - nominal <= max(deadline, LATE)]
    if definition.expires is not None:
        fire = [nominal for nominal in fire if nominal + definition.expires > now]
    return Decision(fire=tuple(fire), decided=decided, following=following)


def _all_missed(definition: Definition, first: float, until: float, anchor: float) -> list[float]:
    begin = until - definition.catch_up_window
    if first < begin:
        found = next_nominal(definition, begin, anchor)
        if found is None or found > until:
            return []
        first = found
    fire = [first]
    for nominal in _between(definition, first, until, anchor):
        if len(fire) == MOST_AT_ONCE:
            break
        fire.append(nominal)
    return fire


def _between(definition: Definition, after: float, until: float, anchor: float) -> Iterator[float]:
    """The nominal times in (after, until]."""
    found = next_nominal(definition, after, anchor)
    while found is not None and found <= until:
        yield found
        found = next_nominal(definition, found, anchor)


def _latest(definition: Definition, first: float, until: float, anchor: float) -> float:
    """The last nominal time that is not after ``until``; ``first`` is one. Looks back from
    ``until`` twice as far each time, since there may be a million since ``first``."""
    reach = 1.0
    start = first
    while until - reach > first:
        found = next_nominal(definition, until - reach, anchor)
        if found is not None and found <= until:
            start = found
            break
        reach *= 2
    for nominal in _between(definition, start, until, anchor):
        start = nominal
    return start
