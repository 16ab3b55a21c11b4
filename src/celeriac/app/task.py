"""Task, where Celery has it: ``celery.app.task``."""

from celeriac.request import Request as Context
from celeriac.task import Task

__all__ = ["Context", "Task"]
