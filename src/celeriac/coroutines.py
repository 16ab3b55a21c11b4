"""Coroutines where there is no event loop: each thread keeps one of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import SoftTimeLimitExceeded

if TYPE_CHECKING:
    import asyncio

_loops = threading.local()


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it on this thread's own event loop, which is kept, so that clients opened by one task
    serve the next. Inside a running loop (eager mode in async code) a helper thread runs it."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return _in_helper_thread(coroutine)
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is None or _loops.pid != os.getpid():  # a forked child must not use its parent's
        runner = _loops.runner = asyncio.Runner()
        _loops.pid = os.getpid()
    return _drive(runner, coroutine)


def close_loop() -> None:
    """Close this thread's event loop, if it has one; another is made when it is needed."""
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is not None and _loops.pid == os.getpid():
        runner.close()
    _loops.runner = None


def _drive(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As Runner.run, but an exception that a signal raises in the loop (a soft time limit)
    cancels the coroutine and comes out as itself."""
    import asyncio

    loop = runner.get_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except SoftTimeLimitExceeded as limit:
        if not task.done():
            task.cancel(str(limit))
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise limit from None
        raise


def _in_helper_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio
    import contextvars

    box: list[Any] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.append((True, context.run(asyncio.run, coroutine)))
        except BaseException as exc:
            box.append((False, exc))

    thread = threading.Thread(target=work, name="celeriac-eager", daemon=True)
    thread.start()
    thread.join()
    fine, value = box[0]
    if not fine:
        raise value
    return value
