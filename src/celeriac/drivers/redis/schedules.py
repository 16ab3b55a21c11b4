"""The schedule store of ``redis://``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from celeriac.drivers.redis.client import Client
from celeriac.drivers.redis.connection import pack
from celeriac.drivers.redis.inspecting import look_at_server
from celeriac.drivers.redis.options import read_options
from celeriac.drivers.redis.scripts import script
from celeriac.exceptions import OperationalError
from celeriac.message import ScheduleChanges, ScheduleRecord

__all__ = ["RedisScheduleStore"]

_SINCE, _SAVE, _REMOVE = (
    script("schedules_since"),
    script("schedules_save"),
    script("schedules_remove"),
)
_NOTHING = "-"  # the token of a store without entries
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(ScheduleRecord).decode


class RedisScheduleStore:
    """Celeriac's ScheduleStore contract on one Redis server. schedules_save.lua says which keys."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.options = read_options(url, options)
        self.store = self.options.store
        self._client = Client(self.options)
        self._ask = pack(("GET", self._client.base + b"schedules_at"))
        self._opened = False

    def open(self) -> None:
        if self._opened:
            return
        try:
            look_at_server(self._client, self._client.open())
        except BaseException:
            self._client.close()
            raise
        self._opened = True

    def close(self) -> None:
        self._opened = False
        self._client.close()

    def load(self, since: str = "") -> ScheduleChanges:
        """One GET while nothing has changed."""
        client = self._use()
        at = client.call(self._ask)
        if since == (_NOTHING if at is None else at.decode()):
            return ScheduleChanges(token=since)
        epoch, _, version = since.partition(":")
        known = version if epoch.isdigit() and version.isdigit() else ""
        token, whole, found = client.run(_SINCE, epoch if known else "", known)
        return ScheduleChanges(
            token=token.decode() or _NOTHING,
            records=tuple(map(_record, found[::2], found[1::2])),
            whole=bool(whole),
        )

    def save(self, records: Sequence[ScheduleRecord]) -> list[int]:
        client = self._use()
        if not records:
            return []
        args: list[Any] = [len(records)]
        for record in records:
            args += (record.name, record.version, _encode(structs.replace(record, version=0)))
        return [int(version) for version in client.run(_SAVE, *args)]

    def remove(self, names: Sequence[str]) -> int:
        client = self._use()
        return int(client.run(_REMOVE, len(names), *names)) if names else 0

    def _use(self) -> Client:
        if not self._opened:
            raise OperationalError(f"{self.store} is not open here: call open() first.")
        return self._client


def _record(version: bytes, value: bytes) -> ScheduleRecord:
    return structs.replace(_decode(value), version=int(version))
