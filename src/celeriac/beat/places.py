"""Where the schedule is kept: at the broker, else at the result backend, else in a local file."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from celeriac import drivers
from celeriac.conf.table import SETTINGS

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contracts import ScheduleStore

__all__ = ["LOCAL_FILE", "local_store", "store_of"]

logger = logging.getLogger("celeriac.beat")

LOCAL_FILE = "celeriacbeat-schedule.db"


def store_of(app: Celeriac, filename: str | None = None) -> ScheduleStore:
    """The store, not opened. Says so if it can only be a file of this machine."""
    store = app.make_schedules()
    if store is not None:
        return store
    store = local_store(app, filename)
    logger.warning(
        "Neither the broker nor the result backend can keep the schedule: it is kept in the file "
        "%s, which other machines do not see. Run beat on this machine only, or use a "
        "broker or result backend such as redis:// or sqlite:// that can.",
        store.store,
    )
    return store


def local_store(app: Celeriac, filename: str | None = None) -> ScheduleStore:
    """A file of our own form, by the setting ``beat_schedule_filename`` unless it is named.
    Celery's default name is not used: a file of that name is Celery's."""
    name = filename or app.conf.beat_schedule_filename
    if name == SETTINGS["beat_schedule_filename"].default:
        name = LOCAL_FILE
    store = drivers.open_schedules(f"sqlite:///{os.path.abspath(os.path.expanduser(name))}")
    assert store is not None
    return store
