"""The application: configuration, tasks, sending, control."""

from celeriac.app.base import Celeriac, Celery
from celeriac.app.shared import (
    app_or_default,
    bugreport,
    current_app,
    current_task,
    shared_task,
)
from celeriac.current import get_current_app
from celeriac.finder import find_app

__all__ = [
    "Celeriac",
    "Celery",
    "app_or_default",
    "bugreport",
    "current_app",
    "current_task",
    "find_app",
    "get_current_app",
    "shared_task",
]
