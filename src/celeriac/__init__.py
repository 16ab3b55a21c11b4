"""Celeriac: a distributed task queue. The names below are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
VERSION = version_info = (0, 1, 0)

if TYPE_CHECKING:
    from celeriac import beat, exceptions, result, schedules, signals, states
    from celeriac.app import (
        Celeriac,
        Celery,
        app_or_default,
        bugreport,
        current_app,
        current_task,
        shared_task,
    )
    from celeriac.canvas.chains import chain
    from celeriac.canvas.chords import chord
    from celeriac.canvas.groups import group
    from celeriac.canvas.loops import chunks, xmap, xstarmap
    from celeriac.canvas.signature import Signature, maybe_signature, signature, subtask
    from celeriac.canvas.stamping import StampingVisitor
    from celeriac.task import Task
    from celeriac.utils import uuid

_HOME = {
    "Celeriac": "celeriac.app",
    "Celery": "celeriac.app",
    "app_or_default": "celeriac.app",
    "bugreport": "celeriac.app",
    "current_app": "celeriac.app",
    "current_task": "celeriac.app",
    "shared_task": "celeriac.app",
    "Signature": "celeriac.canvas",
    "StampingVisitor": "celeriac.canvas",
    "chain": "celeriac.canvas",
    "chord": "celeriac.canvas",
    "chunks": "celeriac.canvas",
    "group": "celeriac.canvas",
    "maybe_signature": "celeriac.canvas",
    "signature": "celeriac.canvas",
    "subtask": "celeriac.canvas",
    "Task": "celeriac.task",
    "uuid": "celeriac.utils",
    "xmap": "celeriac.canvas",
    "xstarmap": "celeriac.canvas",
}
_MODULES = {"beat", "exceptions", "result", "schedules", "signals", "states"}

__all__ = [
    "VERSION",
    "Celeriac",
    "Celery",
    "Signature",
    "StampingVisitor",
    "Task",
    "__version__",
    "app_or_default",
    "beat",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "exceptions",
    "group",
    "maybe_signature",
    "result",
    "schedules",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uuid",
    "version_info",
    "xmap",
    "xstarmap",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"celeriac.{name}")
    else:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
