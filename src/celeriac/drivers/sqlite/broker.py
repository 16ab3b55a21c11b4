"""The broker of ``sqlite://``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from celeriac.contracts import Capabilities
from celeriac.drivers.sqlite import upkeep as keeping
from celeriac.drivers.sqlite.claiming import (
    claim_now,
    hand_unstarted,
    held_now,
    look,
    no_lease,
    owner_made,
)
from celeriac.drivers.sqlite.connection import Database
from celeriac.drivers.sqlite.names import fresh_owner_id
from celeriac.drivers.sqlite.options import Options, read_options
from celeriac.drivers.sqlite.outcomes import open_joins
from celeriac.drivers.sqlite.publishing import add_messages
from celeriac.drivers.sqlite.settling import NotHeld, Settling
from celeriac.drivers.sqlite.sharing import database
from celeriac.drivers.sqlite.statements import statements
from celeriac.drivers.sqlite.watch import Pace
from celeriac.message import (
    Cancelled,
    Delivery,
    Join,
    Message,
    Outcome,
    Owner,
    Pulse,
    Settlement,
    Tag,
    Upkeep,
    Worker,
)

__all__ = ["SqliteBroker", "capabilities_of"]

_LEASES = statements("leases")
_BEGIN = statements("settle")["begin"]

_SHORTEST_WAIT = 0.001
_DURABILITY = {
    "OFF": "Survives the death of any process; a power loss may damage the file.",
    "NORMAL": "Survives the death of any process; a power loss may undo the last moments' "
    "changes, but leaves the file whole (synchronous=FULL also keeps those).",
    "FULL": "Survives the death of any process and a power loss: every change is on the disk "
    "before a call returns.",
}
_DURABILITY["EXTRA"] = _DURABILITY["FULL"]


def capabilities_of(options: Options) -> Capabilities:
    return Capabilities(
        upkeep_every=2.5,  # claims find what is due
        durability=f"SQLite file {options.path}, synchronous={options.synchronous}. "
        + _DURABILITY[options.synchronous],
    )


class SqliteBroker:
    """Celeriac's Broker contract on one SQLite file."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.options = read_options(url, options)
        self.capabilities = capabilities_of(self.options)
        self.store = self.options.store
        self.clock = self.options.clock
        self._database = database(self.options)
        self._opened = False
        self._closed = False
        self._wakes = 0
        self._optimized_at = time.monotonic()

    @property
    def kept(self) -> Database:
        """For the queue administration, which works on the same file."""
        return self._database

    def open(self) -> None:
        self._closed = False
        if not self._opened:
            self._database.use()
            self._opened = True

    def close(self) -> None:
        self._closed = True
        self.wake()
        if self._opened:
            self._opened = False
            self._database.release()

    def wake(self) -> None:
        self._wakes += 1
        self._database.watch.wake()

    # --- producers

    def publish(self, messages: Sequence[Message], joins: Sequence[Join] = ()) -> int:
        if not messages and not joins:
            return 0
        self._database.log.need_room(sum(message.size for message in messages))
        now = self.clock()
        with self._database.write() as connection:
            if joins:
                open_joins(connection, joins, now)
            return add_messages(
                self._database, connection, messages, now, self.options.dedupe_window
            )

    # --- leases

    def register(self, worker: Worker) -> None:
        row = (worker.lease, worker.ttl, self.clock(), worker.name, worker.hostname, worker.pid)
        with self._database.write() as connection:
            connection.execute(_LEASES["register"], row)

    def unregister(self, lease: str) -> None:
        with self._database.write() as connection:
            for name in ("drop_lease", "give_back", "let_go", "forget_owners"):
                connection.execute(_LEASES[name], (lease,))

    def heartbeat(self, lease: str) -> Pulse:
        now = self.clock()
        with self._database.write() as connection:
            if connection.execute(_LEASES["renew"], (lease, now)).rowcount == 0:
                return Pulse(alive=False)
            if not connection.execute(_LEASES["anything_cancelled"]).fetchone()[0]:
                return Pulse(alive=True)
            rows = connection.execute(_LEASES["held_and_cancelled"], (lease, now)).fetchall()
        return Pulse(
            alive=True,
            cancelled=tuple(
                Cancelled(id=id, terminate=terminate != 0, signal=signal)
                for id, terminate, signal in rows
            ),
        )

    # --- consumers

    def claim(
        self,
        owner: Owner,
        queues: Sequence[str],
        limit: int,
        max_bytes: int = 16 * 1024 * 1024,
        wait: float = 0.0,
    ) -> list[Delivery]:
        deadline = time.monotonic() + wait
        names = json.dumps(list(queues))
        limit = max(0, limit)
        watch = self._database.watch
        pace: Pace | None = None
        wakes = self._wakes
        while not self._closed:
            count = watch.arm() if wait > 0 else 0
            now = self.clock()
            seen = self._database.run(lambda c: look(c, owner, names, self.store))
            due = seen.due_at
            if seen.queues or (due is not None and due <= now):
                claimed = claim_now(self._database, owner, names, limit, max_bytes, now)
                if claimed:
                    return claimed
            left = deadline - time.monotonic()
            if left <= 0 or self._wakes != wakes:
                break
            if due is not None and due > now:
                left = min(left, max(due - now, _SHORTEST_WAIT))
            pace = pace or Pace(watch)
            pace.sleep(count, left)
        return []

    def begin(self, deliveries: Sequence[Delivery]) -> list[Tag]:
        by_owner: dict[Owner, list[Tag]] = {}
        for delivery in deliveries:
            by_owner.setdefault(delivery.owner, []).append(delivery.tag)
        held: set[tuple[Owner, Tag]] = set()
        with self._database.write() as connection:
            for owner, tags in by_owner.items():
                id = fresh_owner_id(connection, owner)
                rows = connection.execute(_BEGIN, (id, json.dumps(tags))).fetchall()
                held.update((owner, seq) for (seq,) in rows)
        return [d.tag for d in deliveries if (d.owner, d.tag) not in held]

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome]:
        if not settlements:
            return []
        try:
            return self._settle(settlements, Settling.together)
        except NotHeld:
            return self._settle(settlements, Settling.one_by_one)

    def _settle(
        self,
        settlements: Sequence[Settlement],
        apply: Callable[[Settling, Sequence[Settlement]], list[Outcome]],
    ) -> list[Outcome]:
        now = self.clock()
        with self._database.write() as connection:
            settling = Settling(self._database, connection, now, self.options.dedupe_window)
            return apply(settling, settlements)

    # --- keeping

    def recover(self, dead: Owner, new: Owner, running: Collection[Tag]) -> list[Delivery]:
        with self._database.write() as connection:
            old_id = new_id = fresh_owner_id(connection, dead)
            if old_id is None or new_id is None:
                return []
            seqs = [row[0] for row in connection.execute(_LEASES["held_by"], (old_id,))]
            if dead != new:
                new_id = owner_made(self._database, connection, new)
                tags = json.dumps(list(running))
                connection.execute(_LEASES["take_over"], (new_id, old_id, tags))
                connection.execute(_LEASES["forget_owner"], (old_id,))
        return held_now(self._database, new, new_id, seqs, self.clock()) if seqs else []

    def maintain(self, owner: Owner, upkeep: Upkeep) -> list[Delivery]:
        now = self.clock()
        handed: list[Delivery] = []
        if keeping.anything_due(self._database, upkeep, now):
            keeping.promote_due(self._database, now)
            handed = keeping.collect(self._database, owner, upkeep, now)
            keeping.remove_expired(self._database, upkeep, now)
        keeping.shrink(self._database)
        if time.monotonic() - self._optimized_at > keeping.OPTIMIZE_EVERY:
            self._optimized_at = time.monotonic()
            self._database.fetch("PRAGMA optimize")
        return handed

    def cancel(
        self,
        owner: Owner,
        ids: Sequence[str],
        until: float,
        terminate: bool = False,
        signal: str = "SIGTERM",
    ) -> list[Delivery]:
        now = self.clock()
        rows = [(id, until, int(terminate), signal, now) for id in ids]
        with self._database.write() as connection:
            if connection.execute(_LEASES["lease"], (owner.lease,)).fetchone() is None:
                raise no_lease(self.store, owner)
            connection.executemany(_LEASES["cancel"], rows)
            owner_id = owner_made(self._database, connection, owner)
            seqs = hand_unstarted(connection, owner_id, ids)
        return held_now(self._database, owner, owner_id, seqs, now) if seqs else []
