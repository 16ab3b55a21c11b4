"""Task: how a function that can run elsewhere is called, sent and retried."""

from celeriac.task.arguments import argument_check, checked_args
from celeriac.task.base import Task
from celeriac.task.calling import P, R

__all__ = ["P", "R", "Task", "argument_check", "checked_args"]
