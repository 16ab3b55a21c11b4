"""The tasks that every worker has, under Celery's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.app.making import make_task
from celeriac.canvas import chain, chord, chunks, group, maybe_signature
from celeriac.exceptions import ChordError
from celeriac.result import GroupResult, result_from_tuple
from celeriac.storing import fail_unsent

if TYPE_CHECKING:
    from celeriac.app import Celeriac

# Between two looks whether the header of a chord is done, whose sender says nothing of it.
_INTERVAL = 1.0


def add_to(app: Celeriac) -> None:
    """Register them with the application."""
    for name, function in _BOUND.items():
        retries = None if name == "chord_unlock" else 3
        make_task(app, function, name=f"celery.{name}", bind=True, max_retries=retries)
    make_task(app, accumulate, name="celery.accumulate")


def backend_cleanup(self: Any) -> None:
    """Remove what has expired from the result backend."""
    results = self.app.producer.results
    if results is not None:
        results.purge()


def accumulate(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments: the value of a group where one value is wanted."""
    index = kwargs.get("index")
    return args[index] if index is not None else args


def run_map(self: Any, task: Any, it: Any) -> list[Any]:
    """Call the task with each item."""
    call = maybe_signature(task, app=self.app)
    return [call(item) for item in it]


def run_starmap(self: Any, task: Any, it: Any) -> list[Any]:
    """Call the task with the arguments that each item is."""
    call = maybe_signature(task, app=self.app)
    return [call(*item) for item in it]


def run_chunks(self: Any, task: Any, it: Any, n: int) -> Any:
    """Celery sends chunks as groups; a message of this name becomes one, too."""
    return self.replace(chunks(maybe_signature(task, app=self.app), it, n, app=self.app).group())


def run_group(self: Any, tasks: Any, *others: Any, **kwargs: Any) -> Any:
    return self.replace(group(tasks, app=self.app))


def run_chain(self: Any, *args: Any, tasks: Any = (), **kwargs: Any) -> Any:
    return self.replace(chain([maybe_signature(task, app=self.app) for task in tasks]))


def run_chord(self: Any, header: Any, body: Any, *others: Any, **kwargs: Any) -> Any:
    return self.replace(chord(header, body, app=self.app))


def chord_unlock(
    self: Any,
    group_id: str,
    callback: Any,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = (),
    **kwargs: Any,
) -> None:
    """Sent by Celery for a chord whose result backend cannot count its parts: look again and
    again, and send the body when all are there."""
    members = [result_from_tuple(one, self.app) for one in result]
    header = GroupResult(group_id, members, app=self.app)
    if not header.ready():
        raise self.retry(countdown=interval or _INTERVAL, max_retries=max_retries)
    body = maybe_signature(callback, app=self.app)
    try:
        values = header.join(disable_sync_subtasks=False)
    except Exception as exc:
        broken = next(one for one in members if one.failed() or one.state == states.REVOKED)
        fail_unsent(self.app, body, ChordError(f"Dependency {broken.id} raised {exc!r}"))
    else:
        body.apply_async((values,))


_BOUND: dict[str, Callable[..., Any]] = {
    "backend_cleanup": backend_cleanup,
    "map": run_map,
    "starmap": run_starmap,
    "chunks": run_chunks,
    "group": run_group,
    "chain": run_chain,
    "chord": run_chord,
    "chord_unlock": chord_unlock,
}
