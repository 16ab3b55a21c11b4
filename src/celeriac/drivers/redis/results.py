"""The result backend of ``redis://``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.drivers.redis.broker import capabilities_of
from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.documents import decode_record, key_of, needs_notes
from celeriac.drivers.redis.inspecting import look_at_server
from celeriac.drivers.redis.listening import ResultListener
from celeriac.drivers.redis.options import read_options
from celeriac.drivers.redis.place import place_of
from celeriac.drivers.redis.scripts import script
from celeriac.drivers.redis.settling import (
    arrival_row,
    check,
    completes_of,
    join_rows,
    new_token,
    record_row,
)
from celeriac.message import Arrival, Completes, Join, TaskRecord, Unfinished

__all__ = ["RedisResultBackend"]

_STORE, _ARRIVE, _ADMIT = script("store"), script("arrive"), script("admit")
_UNFINISHED = script("unfinished")

_AT_ONCE = 5000  # ids in one command


class RedisResultBackend:
    """Celeriac's ResultBackend contract on one Redis server."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.options = read_options(url, options, results=True)
        self.capabilities = capabilities_of(self.options)
        self.store = self.options.store
        self.place = place_of(self.options)
        self._client = Client(self.options)
        self._listener = ResultListener(self._client, self.options.prefix)

    def open(self) -> None:
        self._listener.open()
        try:
            look_at_server(self._client, self._client.open())
        except BaseException:
            self._client.close()
            raise

    def close(self) -> None:
        self._listener.close()
        self._client.close()

    def wake(self) -> None:
        self._listener.wake()

    # --- records

    def put(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        if not records:
            return []
        now = self.options.now()
        args: list[Any] = [self.options.prefix, len(records)]
        for record in records:
            args += record_row(record, now)
        answers = self._client.run(_STORE, *args)
        return [
            decode_record(record.id, answer[0], answer[1] or None) if answer else record
            for record, answer in zip(records, answers, strict=True)
        ]

    def get(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        values: list[bytes | None] = []
        beside: dict[str, bytes] = {}
        for at in range(0, len(ids), _AT_ONCE):
            values += self._values(ids[at : at + _AT_ONCE], beside)
        now = self.options.now()
        return [
            None if value is None else _unexpired(decode_record(id, value, beside.get(id)), now)
            for id, value in zip(ids, values, strict=True)
        ]

    def _values(self, ids: Sequence[str], beside: dict[str, bytes]) -> list[bytes | None]:
        head = self.options.prefix
        keys = [head + key_of(id) for id in ids]
        values: list[bytes | None] = self._client.call(pack(("MGET", *keys)))
        bare = [
            id
            for id, value in zip(ids, values, strict=True)
            if value is not None and needs_notes(value)
        ]
        if bare:
            keys = [f"{head}{key_of(id)}.celeriac" for id in bare]
            notes = self._client.call(pack(("MGET", *keys)))
            beside.update((id, text) for id, text in zip(bare, notes, strict=True) if text)
        return values

    def wait(self, ids: Sequence[str], timeout: float) -> list[TaskRecord]:
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []
        if timeout <= 0:
            return [record for record in self.get(wanted) if record and record.ready]
        found = self._listener.wait(wanted, timeout)
        if len(found) > 1:
            place = {id: number for number, id in enumerate(wanted)}
            found.sort(key=lambda record: place[record.id])
        return found

    def delete(self, ids: Sequence[str]) -> int:
        head = self.options.prefix
        known = 0
        for at in range(0, len(ids), _AT_ONCE):
            some = [head + key_of(id) for id in dict.fromkeys(ids[at : at + _AT_ONCE])]
            known += self._client.pipeline(
                [
                    pack(("DEL", *some)),
                    pack(("DEL", *(f"{key}.celeriac" for key in some))),
                ]
            )[0]
        return known

    def purge(self) -> int:
        """The server removes what has expired by itself: there is nothing left to count."""
        return 0

    # --- joins and keys

    def open_joins(self, joins: Sequence[Join]) -> None:
        check((), joins)
        if joins:
            rows = join_rows(joins, self.options.now())
            self._client.run(_ARRIVE, self.options.prefix, len(joins), 0, 0, *rows)

    def arrive(
        self, arrivals: Sequence[Arrival], tokens: Mapping[str, str] | None = None
    ) -> list[Completes | None]:
        if not arrivals:
            return []
        tokens = tokens or {}
        args: list[Any] = [self.options.prefix, 0, len(arrivals), len(tokens)]
        for arrival in arrivals:
            args += (*arrival_row(arrival), new_token())
        for join, token in tokens.items():
            args += (join, token)
        answers = self._client.run(_ARRIVE, *args)
        return [
            _told(completes_of(answer, [arrival])) if answer else None
            for arrival, answer in zip(arrivals, answers, strict=True)
        ]

    def unfinished(self, older: float, limit: int) -> list[Unfinished]:
        found = []
        for id, size, plan, scores in self._client.run(
            _UNFINISHED, self.options.prefix, repr(older), limit
        ):
            there = {int(float(score)) for score in scores}
            missing = tuple(index for index in range(int(size)) if index not in there)
            found.append(Unfinished(join=id.decode(), plan=bytes(plan), missing=missing))
        return found

    def admit(self, key: str, publish_id: str) -> bool:
        window = repr(self.options.dedupe_window)
        return bool(self._client.run(_ADMIT, key, publish_id, window) == 1)


def _unexpired(record: TaskRecord, now: float) -> TaskRecord | None:
    """The server's clock and ours may differ by a moment."""
    return None if record.expires_at is not None and record.expires_at <= now else record


def _told(completes: Completes) -> Completes | None:
    """One that somebody else has completed is nobody's to complete."""
    return completes if completes.parts else None
