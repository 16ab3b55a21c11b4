"""Writes down every attempt as it begins and ends, on Celeriac's signals, as monitoring would."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celeriac.signals import task_postrun, task_prerun
from examples.backoffice.attempts import Event, write


def start(path: Path) -> None:
    """Record all tasks of this process, from now on, in the file."""

    def begun(task: Any, **_: Any) -> None:
        request = task.request
        redelivered = bool(request.delivery_info.get("redelivered"))
        write(path, _event("begin", task, redelivered=redelivered))

    def ended(task: Any, state: str, **_: Any) -> None:
        write(path, _event("end", task, state=state))

    task_prerun.connect(begun, weak=False, dispatch_uid="backoffice begun")
    task_postrun.connect(ended, weak=False, dispatch_uid="backoffice ended")


def _event(what: str, task: Any, **more: Any) -> Event:
    return Event(
        what=what,
        task=task.name.rpartition(".")[2],
        id=task.request.id,
        retries=task.request.retries,
        pid=os.getpid(),
        at=time.time(),
        **more,
    )
