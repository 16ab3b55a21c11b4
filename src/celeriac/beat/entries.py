"""One entry of the periodic tasks: from what applications write, to what is stored, and back."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import cached_property, lru_cache
from typing import Any, Final

from celeriac.exceptions import ContentError, ImproperlyConfigured
from celeriac.protocol.json_codec import decode_json, encode_json
from celeriac.schedules import BaseSchedule, crontab, maybe_schedule, schedule, solar
from celeriac.schedules.periodic import ENTRY_OPTIONS
from celeriac.schedules.zones import zone_name, zone_named
from celeriac.sending import known_options

__all__ = ["CATCH_UP", "OVERLAP", "Definition", "scope_of", "stored_scope"]

CATCH_UP: Final = ("latest", "none", "all")
OVERLAP: Final = ("allow", "skip", "queue")
DAY: Final = 86400.0

_KEYS = ("task", "schedule", "args", "kwargs", "options", "relative", *ENTRY_OPTIONS)
# What firing gives itself.
_RESERVED = ("task_id", "dedupe_key", "run")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is sent and when. Durations are seconds, ``start`` and ``end`` instants.

    ``catch_up``: what becomes of runs that were missed while no scheduler ran. ``overlap``: of a
    run that is due while the one before is not finished. ``expires``: seconds after its nominal
    time from which on a run is not worth doing.
    """

    name: str
    task: str
    schedule: BaseSchedule
    zone: tzinfo
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    catch_up: str = "latest"
    catch_up_window: float = DAY
    overlap: str = "allow"
    expires: float | None = None
    jitter: float = 0.0
    start: float | None = None
    end: float | None = None

    @cached_property
    def polled(self) -> bool:
        """Must the schedule be asked again and again, as it knows no times in advance?"""
        cls: Any = type(self.schedule)
        if getattr(cls, "next_after", BaseSchedule.next_after) is BaseSchedule.next_after:
            return True
        return cls not in (crontab, schedule, solar) and _has_own_is_due(cls)

    # --- what applications write

    @classmethod
    def from_dict(
        cls, name: str, entry: Mapping[str, Any], *, zone: tzinfo, app: Any = None
    ) -> Definition:
        """An entry of ``beat_schedule``. Raises ImproperlyConfigured for what it cannot be."""
        try:
            return cls._from_dict(name, entry, zone, app)
        except (TypeError, ValueError) as wrong:
            raise ImproperlyConfigured(f"The periodic task {name!r}: {wrong}.") from wrong

    @classmethod
    def _from_dict(cls, name: str, entry: Mapping[str, Any], zone: tzinfo, app: Any) -> Definition:
        if not isinstance(entry, Mapping):
            raise TypeError(f"an entry is a dict, not {type(entry).__name__}")
        for key in entry:
            if key not in _KEYS:
                near = difflib.get_close_matches(str(key), _KEYS, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(_KEYS)}"
                raise ValueError(f"there is no {key!r} in an entry.{hint}")
        for key in ("task", "schedule"):
            if entry.get(key) is None:
                raise ValueError(f"it has no {key!r}")
        if entry.get("timezone") is not None:
            zone = zone_named(entry["timezone"])
        found = maybe_schedule(entry["schedule"], bool(entry.get("relative")), app=app)
        own_zone = getattr(found, "_zone", None)
        zone = own_zone if own_zone is not None else zone_named(zone)
        if own_zone is None and isinstance(found, crontab | schedule | solar):
            found = _in_zone(found, zone)
        return cls(
            name=name,
            task=str(getattr(entry["task"], "name", entry["task"])),
            schedule=found,
            zone=zone,
            args=tuple(entry.get("args") or ()),
            kwargs=dict(entry.get("kwargs") or {}),
            options=_checked_options(entry.get("options") or {}),
            catch_up=_one_of("catch_up", entry.get("catch_up"), CATCH_UP),
            catch_up_window=_duration("catch_up_window", entry.get("catch_up_window"), DAY),
            overlap=_one_of("overlap", entry.get("overlap"), OVERLAP),
            expires=_duration("expires", entry.get("expires"), None),
            jitter=_duration("jitter", entry.get("jitter"), 0.0),
            start=_instant("start", entry.get("start"), zone),
            end=_instant("end", entry.get("end"), zone),
        )

    # --- what is stored

    def payload(self, scope: str) -> bytes:
        """The entry as it is stored, the same bytes for the same entry. What JSON cannot say (a
        schedule class of one's own, an argument that only the task's serializer can write) is
        stored as ``local``: only those who have it in their code can fire it."""
        said: dict[str, Any] = {
            "app": scope,
            "task": self.task,
            "schedule": _written(self.schedule),
            "timezone": _zone_text(self.zone),
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "options": dict(self.options),
            "catch_up": self.catch_up,
            "catch_up_window": self.catch_up_window,
            "overlap": self.overlap,
            "expires": self.expires,
            "jitter": self.jitter,
            "start": self.start,
            "end": self.end,
        }
        if said["schedule"] is not None and said["timezone"] is not None:
            try:
                return encode_json(said)
            except (TypeError, ValueError, ContentError):
                pass  # an argument or option that JSON cannot say
        shown = {"app": scope, "task": self.task, "local": repr(self.schedule)}
        return encode_json(shown | {"timezone": said["timezone"]})

    @classmethod
    def from_payload(cls, name: str, payload: bytes) -> Definition | None:
        """The entry that is stored; None for a ``local`` one. Raises ValueError."""
        said = decode_json(payload)
        if not isinstance(said, dict):
            raise ValueError(f"the stored entry {name!r} is no JSON object")
        if "local" in said:
            return None
        try:
            zone = zone_named(said["timezone"])
            return cls(
                name=name,
                task=said["task"],
                schedule=_read(said["schedule"], zone),
                zone=zone,
                args=tuple(said["args"]),
                **{key: said[key] for key in _STORED},
            )
        except (KeyError, TypeError) as wrong:
            raise ValueError(f"the stored entry {name!r} cannot be read: {wrong!r}") from wrong

    def when(self) -> str:
        """The schedule in a few words."""
        return describe(self.schedule)


_STORED = (
    "kwargs",
    "options",
    "catch_up",
    "catch_up_window",
    "overlap",
    "expires",
    "jitter",
    "start",
    "end",
)


def scope_of(app: Any) -> str:
    """Applications may share a store: an entry belongs to those of its application's name."""
    return str(app.main or "")


def stored_scope(payload: bytes) -> str:
    """The application that the stored entry belongs to. Raises ValueError."""
    said = decode_json(payload)
    return str(said.get("app", "")) if isinstance(said, dict) else ""


def describe(found: Any) -> str:
    """``0 4 * * *``, ``every 30 s``, ``sunset at 52.5, 13.4``; of another schedule, its repr."""
    if type(found) is crontab:
        return found.text()
    if type(found) is schedule and found.run_every is not None:
        return f"every {found.seconds:g} s" + (" by the clock" if found.relative else "")
    if type(found) is solar:
        return f"{found.event} at {found.lat:g}, {found.lon:g}"
    return repr(found)


def _written(found: BaseSchedule) -> dict[str, Any] | None:
    """The schedule as JSON; None for a class that is not known everywhere."""
    if found.__class__ in (crontab, schedule, solar) and found.nowfun is not None:
        return None
    if type(found) is crontab:
        return {"crontab": found.text()}
    if type(found) is schedule:
        return {"every": found.seconds, "relative": bool(found.relative)}
    if type(found) is solar:
        return {"solar": [found.event, found.lat, found.lon]}
    return None


def _read(said: Mapping[str, Any], zone: tzinfo) -> BaseSchedule:
    if "crontab" in said:
        return _shared("crontab", zone, said["crontab"])
    if "every" in said:
        return _shared("every", zone, said["every"], said["relative"])
    if "solar" in said:
        return _shared("solar", zone, *said["solar"])
    raise ValueError(f"there is no schedule of the kind {', '.join(said)!r} here")


@lru_cache(maxsize=1024)
def _shared(kind: str, zone: tzinfo, *values: Any) -> BaseSchedule:
    """One object for thousands of entries that have the same schedule."""
    if kind == "crontab":
        return crontab.from_string(*values, timezone=zone)
    if kind == "every":
        return schedule(*values, timezone=zone)
    return solar(*values, timezone=zone)


def _in_zone(found: BaseSchedule, zone: tzinfo) -> BaseSchedule:
    """A copy that goes by the zone: the application's own object is left as it is."""
    import copy

    placed = copy.copy(found)
    placed.nowfun = found.nowfun
    placed._app = found._app
    placed.in_zone(zone)
    return placed


def _has_own_is_due(cls: type) -> bool:
    for base in cls.__mro__:
        if base in (crontab, schedule, solar, BaseSchedule):
            return False
        if "next_after" in vars(base):
            return False
        if "is_due" in vars(base) or "remaining_estimate" in vars(base):
            return True
    return False


def _zone_text(zone: tzinfo) -> str | None:
    try:
        return zone_name(zone)
    except ValueError:
        return None


def _checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise TypeError(f"options is a dict, not {type(options).__name__}")
    unknown = options.keys() - known_options(options).keys()
    if unknown:
        raise ValueError(f"options has no calling option {min(unknown)!r}")
    for name in _RESERVED:
        if options.get(name) is not None:
            raise ValueError(f"options must not give {name}: each run has its own")
    return dict(options)


def _one_of(what: str, value: Any, words: tuple[str, ...]) -> str:
    if value is None:
        return words[0]
    if value not in words:
        raise ValueError(f"{what}={value!r} is none of {', '.join(words)}")
    return str(value)


def _duration(what: str, value: Any, default: float | None) -> Any:
    if value is None:
        return default
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what}={value!r}: give seconds or a timedelta")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{what}={value!r} is no duration")
    return float(seconds)


def _instant(what: str, value: Any, zone: tzinfo) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise TypeError(f"{what}={value!r}: give a datetime")
    return (value if value.tzinfo is not None else value.replace(tzinfo=zone)).timestamp()
