"""Settlements as arguments of finish.lua and settle.lua."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.documents import encode_record
from celeriac.drivers.redis.envelope import encode, step_of
from celeriac.drivers.redis.options import Options
from celeriac.drivers.redis.place import ResultPlace
from celeriac.drivers.redis.scripts import script
from celeriac.message import (
    Arrival,
    Completes,
    Delivery,
    Join,
    Kept,
    Message,
    Outcome,
    Settled,
    Settlement,
    TaskRecord,
    Verdict,
)

__all__ = ["check", "completes_of", "join_rows", "lasting", "message_row", "settle"]

_FINISH, _SETTLE = script("finish"), script("settle")
_DONE = Verdict.DONE
_SETTLED, _LOST = Settled.SETTLED, Settled.LOST
_VERDICTS = {verdict: verdict.value for verdict in Verdict}

_member = msgspec.json.Decoder(tuple[int, str, str, Raw]).decode


def settle(client: Client, place: ResultPlace, settlements: Sequence[Settlement]) -> list[Outcome]:
    """One call for all; nearly always all are done, with a record each."""
    for settlement in settlements:
        check(settlement.messages, settlement.joins)
    if all(map(_is_plain, settlements)):
        owner = settlements[0].delivery.owner
        if all(settlement.delivery.owner == owner for settlement in settlements):
            return _finish(client, place, settlements)
    return _settle(client, place, settlements)


def _is_plain(settlement: Settlement) -> bool:
    return (
        settlement.verdict is _DONE
        and not settlement.messages
        and not settlement.arrivals
        and not settlement.joins
        and len(settlement.records) < 2
    )


def _finish(client: Client, place: ResultPlace, settlements: Sequence[Settlement]) -> list[Outcome]:
    options = client.options
    now = options.now()
    owner = settlements[0].delivery.owner
    head = (
        owner.lease.encode(),
        b"%d/%d" % (owner.slot, owner.incarnation),
        b"%d" % options.db,
        b"%d" % place.db,
        place.prefix.encode(),
        b"%d" % len(settlements),
    )
    parts = [b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in head])]
    add = parts.append
    for settlement in settlements:
        tag = str(settlement.delivery.tag).encode()
        if not settlement.records:
            add(b"$%d\r\n%b\r\n" % (len(tag), tag) + b"$0\r\n\r\n" * 5)
            continue
        record = settlement.records[0]
        value, beside = encode_record(record)
        id = record.id.encode("utf-8", "surrogatepass")
        run = id if record.run == record.id else quote(record.run, safe="").encode()
        expires = record.expires_at
        lasts = b"" if expires is None else b"%d" % ((expires - now) * 1000)
        add(
            b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
            % (
                len(tag),
                tag,
                len(id),
                id,
                len(run),
                run,
                len(lasts),
                lasts,
                len(value),
                value,
                len(beside),
                beside,
            )
        )
    answers = client.run_packed(_FINISH, 6 + 6 * len(settlements), b"".join(parts))
    return [_SETTLED if answer else _LOST for answer in answers]


def _settle(client: Client, place: ResultPlace, settlements: Sequence[Settlement]) -> list[Outcome]:
    options = client.options
    now = options.now()
    keep = settlements[-1].keep
    args: list[Any] = [
        options.prefix,
        options.separator,
        repr(options.dedupe_window),
        options.db,
        place.db,
        place.prefix,
        ",".join(map(str, options.priority_steps)) if keep else "",
        len(keep),
        *keep,
        len(settlements),
    ]
    for settlement in settlements:
        args += _row(settlement, options, now, keep)
    answers = client.run(_SETTLE, *args)
    return [
        _outcome(settlement, answer)
        for settlement, answer in zip(settlements, answers, strict=True)
    ]


def _row(settlement: Settlement, options: Options, now: float, keep: Sequence[str]) -> list[Any]:
    owner = settlement.delivery.owner
    due_at = settlement.due_at
    row: list[Any] = [
        owner.lease,
        f"{owner.slot}/{owner.incarnation}",
        str(settlement.delivery.tag),
        _VERDICTS[settlement.verdict],
        "" if due_at is None else repr(float(due_at)),
        quote(settlement.note, safe=""),
        quote(settlement.reason, safe="", errors="surrogatepass")
        or _offered_in(settlement, options),
        new_token() if settlement.arrivals else "",
        len(settlement.records),
        len(settlement.messages),
        len(settlement.joins),
        len(settlement.arrivals),
        len(settlement.tokens),
        _kept_id(settlement, keep, now),
    ]
    for record in settlement.records:
        row += record_row(record, now)
    for message in settlement.messages:
        row += message_row(message, options, now, parked=True)
    row += join_rows(settlement.joins, now)
    for arrival in settlement.arrivals:
        row += arrival_row(arrival)
    for join, token in settlement.tokens.items():
        row += (join, token)
    return row


def _offered_in(settlement: Settlement, options: Options) -> str:
    """The list in which a Celery worker may find it: one on which none of ours is blocked."""
    return str(options.priority_steps[-1] or "") if settlement.offered else ""


def _kept_id(settlement: Settlement, keep: Sequence[str], now: float) -> str:
    """The id of the message that may stay with the owner; empty: there is none."""
    if not settlement.keep or settlement.keep != keep or len(settlement.messages) != 1:
        return ""
    message = settlement.messages[0]
    if message.dedupe_key is not None or message.queue not in keep:
        return ""
    return "" if message.due_at is not None and message.due_at > now else message.id


def _outcome(settlement: Settlement, answer: Any) -> Outcome:
    if answer == b"S":
        return _SETTLED
    if answer == b"L":
        return _LOST
    if type(answer) is int:
        message, owner = settlement.messages[0], settlement.delivery.owner
        return Kept(Delivery(message=message, owner=owner, tag=answer))
    return completes_of(answer, settlement.arrivals)


# --- parts of rows


def new_token() -> str:
    return os.urandom(12).hex()


def lasting(expires_at: float | None, now: float) -> str:
    """Milliseconds; empty: for ever."""
    return "" if expires_at is None else str(int((expires_at - now) * 1000))


def record_row(record: TaskRecord, now: float) -> tuple[Any, ...]:
    value, beside = encode_record(record)
    run = record.run if record.run == record.id else quote(record.run, safe="")
    return record.id, run, lasting(record.expires_at, now), value, beside


def message_row(
    message: Message, options: Options, now: float, *, parked: bool = False
) -> tuple[Any, ...]:
    due_at = message.due_at
    due = "" if due_at is None or due_at <= now else repr(float(due_at))
    step = step_of(message.priority, options.priority_steps)
    return message.queue, step, due, message.dedupe_key or "", encode(message, now, parked=parked)


def join_rows(joins: Sequence[Join], now: float) -> list[Any]:
    rows: list[Any] = []
    for join in joins:
        rows += (join.id, join.size, lasting(join.expires_at, now), join.plan)
    return rows


def arrival_row(arrival: Arrival) -> tuple[Any, ...]:
    member = b"[1,%b,%b,%b]" % (
        msgspec.json.encode(arrival.id),
        msgspec.json.encode(arrival.state),
        arrival.value,
    )
    return arrival.join, arrival.index, arrival.id, member


def completes_of(answer: Sequence[Any], arrivals: Sequence[Arrival]) -> Completes:
    """From what completes in joins.lua tells."""
    join = answer[1].decode()
    new = [arrivals[number - 1] for number in answer[3]]
    there = answer[4]
    parts = {arrival.index: arrival for arrival in new}
    for member, score in zip(there[::2], there[1::2], strict=True):
        _, id, state, value = _member(member)
        index = int(float(score))
        parts[index] = Arrival(join=join, index=index, id=id, state=state, value=bytes(value))
    ordered = tuple(parts[index] for index in sorted(parts))
    return Completes(join=join, token=answer[2].decode(), parts=ordered)


def check(messages: Sequence[Message], joins: Sequence[Join]) -> None:
    """Before anything is sent: what is no message cannot be taken back half-way."""
    for message in messages:
        if type(message) is not Message:
            raise TypeError(f"a broker stores Message values, not {type(message).__name__}")
    for join in joins:
        if type(join) is not Join:
            raise TypeError(f"a join is opened with a Join value, not {type(join).__name__}")
