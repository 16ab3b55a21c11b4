"""Whether a result may be waited for here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from celeriac.request import running_request

_may_join: ContextVar[bool] = ContextVar("celeriac_may_join", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """In this block a task may wait for results of other tasks."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


def assert_will_not_block() -> None:
    """Raises RuntimeError inside a task: a worker whose processes wait for each other stands."""
    request = running_request()
    if request is not None and not request.is_eager and not _may_join.get():
        raise RuntimeError(
            "Never call result.get() within a task: the workers could all be waiting. Use "
            "callbacks (link), or allow_join_result() if you are sure."
        )
