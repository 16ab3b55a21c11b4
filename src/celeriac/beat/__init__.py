"""Beat: sends periodic tasks when they are due. See docs/schedules.md."""

from __future__ import annotations

from celeriac.beat.entry import ScheduleEntry
from celeriac.beat.local import PersistentScheduler
from celeriac.beat.outgoing import BeatLazyFunc
from celeriac.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, SchedulingError, event_t
from celeriac.beat.service import EmbeddedService, Service
from celeriac.beat.shared import SharedScheduler

__all__ = [
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "EmbeddedService",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "SharedScheduler",
    "event_t",
]
