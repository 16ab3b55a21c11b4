"""A scheduler whose state is in a file of this machine."""

from __future__ import annotations

from celeriac.beat.places import local_store
from celeriac.beat.shared import SharedScheduler
from celeriac.contracts import ScheduleStore

__all__ = ["PersistentScheduler"]


class PersistentScheduler(SharedScheduler):
    """Keeps its entries in the file ``schedule_filename``, whatever the broker can: for a schedule
    that this machine alone has."""

    def make_store(self) -> ScheduleStore:
        return local_store(self.app, self.schedule_filename)
