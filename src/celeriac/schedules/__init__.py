"""When periodic tasks run: ``crontab``, ``schedule`` (an interval) and ``solar``.

Pure functions of time: nothing here sends or stores anything, and no datetime is naive. Every
schedule answers ``next(n)``: its coming runs. The rules for the days on which clocks are changed
are in crontab.py.
"""

from __future__ import annotations

from celeriac.schedules.base import BaseSchedule, maybe_schedule, remaining, schedstate, schedule
from celeriac.schedules.crontab import crontab
from celeriac.schedules.fields import ParseException, crontab_parser
from celeriac.schedules.solar import solar

__all__ = [
    "BaseSchedule",
    "ParseException",
    "crontab",
    "crontab_parser",
    "maybe_schedule",
    "remaining",
    "schedstate",
    "schedule",
    "solar",
]
