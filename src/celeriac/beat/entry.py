"""Celeriac's ``ScheduleEntry``: what schedulers of other packages are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from celeriac.schedules import maybe_schedule, schedstate

__all__ = ["ScheduleEntry"]

Self = TypeVar("Self", bound="ScheduleEntry")


class ScheduleEntry:
    """One entry of a scheduler that derives from ``celeriac.beat.Scheduler``, under Celery's
    names. ``last_run_at`` is aware; a new entry counts as having run when it was made."""

    # Of the class, since there are subclasses that have an ``__init__`` of their own.
    name: Any = None
    task: Any = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count = 0
    editable_fields = ("schedule", "args", "kwargs", "options", "task")

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.name = name or ""
        self.task = task
        self.args = args
        self.kwargs = kwargs if kwargs else {}
        self.options = options if options else {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        if self.schedule is not None and hasattr(self.schedule, "now"):
            return self.schedule.now()  # type: ignore[no-any-return]
        return self.app.now()  # type: ignore[no-any-return]

    _default_now = default_now

    def _next_instance(self: Self, last_run_at: datetime | None = None) -> Self:
        """The entry after one more run."""
        fields = dict(self)
        fields.update(
            last_run_at=last_run_at or self.default_now(),
            total_run_count=self.total_run_count + 1,
        )
        return self.__class__(**fields, app=self.app)

    def next(self: Self, last_run_at: datetime | None = None) -> Self:
        return self._next_instance(last_run_at)

    __next__ = next

    def update(self, other: ScheduleEntry) -> None:
        """Take what can be edited from the other; the history stays."""
        for name in self.editable_fields:
            setattr(self, name, getattr(other, name))

    def is_due(self) -> schedstate:
        """As ``schedule.is_due``."""
        return self.schedule.is_due(self.last_run_at)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Pairs of what ``__init__`` takes."""
        names = "name task last_run_at total_run_count schedule args kwargs options"
        return iter([(name, getattr(self, name)) for name in names.split()])

    def __reduce__(self) -> Any:
        return self.__class__, tuple(value for _, value in self)

    def __lt__(self, other: object) -> bool:
        # In a heap beside equal times, any order does.
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def editable_fields_equal(self, other: ScheduleEntry) -> bool:
        return all(getattr(self, name) == getattr(other, name) for name in self.editable_fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleEntry) and self.editable_fields_equal(other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        call = f"{self.task}(*{self.args!r}, **{self.kwargs!r})"
        return f"<{type(self).__name__}: {self.name} {call} {self.schedule!r}>"
