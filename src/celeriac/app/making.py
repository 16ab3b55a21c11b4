"""Making tasks: from a function or an object to an entry of the registry that is bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac import current
from celeriac.app.importing import imported
from celeriac.task import Task, argument_check

if TYPE_CHECKING:
    from celeriac.app.base import Celeriac


def make_task(
    app: Celeriac,
    function: Callable[..., Any],
    *,
    name: str | None = None,
    base: Any = None,
    bind: bool = False,
    **options: Any,
) -> Any:
    """Make a function a task of the application. A function that is registered under this name
    is not made anew."""
    name = name or app.gen_task_name(function.__name__, function.__module__)
    known = app._tasks.get(name)
    if known is not None:
        return app._tasks.same(known, function)
    for left_out in ("shared", "lazy", "filter"):
        options.pop(left_out, None)
    run = function
    if options.get("pydantic"):
        from celeriac.validation import validated

        run = validated(function, bind=bind, options=options)
    base = imported(base) if base is not None else app.Task
    made = type(
        function.__name__,
        (base,),
        {
            "app": app,
            "name": name,
            "run": run if bind else staticmethod(run),
            "abstract": False,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__wrapped__": staticmethod(function),
            "_check": staticmethod(argument_check(function, skip_first=bind)),
            "_takes_task": bind,
            **options,
        },
    )
    return app.register_task(made())


def register(app: Celeriac, task: Any, **options: Any) -> Any:
    """Register an object of a Task class (or the class)."""
    if isinstance(task, type):
        task = task()
    cls = type(task)
    # On the object, not its class: a class may have several, and subclasses.
    if not task.name:
        task.name = app.gen_task_name(cls.__name__, cls.__module__)
    if task.app is not app:
        task.app = app
    if "_check" not in cls.__dict__ and cls.run is not Task.run:
        task._check = argument_check(task.run, skip_first=False)
    for option, value in options.items():
        setattr(task, option, value)
    app._tasks[task.name] = task
    if app.finalized:
        bind(app, task)
    return task


def complete_registry(app: Celeriac) -> None:
    """Add the tasks that every application has and those that are shared; bind all."""
    from celeriac import builtins

    builtins.add_to(app)
    current.make_shared(app)
    while unbound := [task for task in app._tasks.values() if not task._bound]:
        for task in unbound:
            bind(app, task)


def bind(app: Celeriac, task: Any) -> None:
    """Give the task what the settings say of it."""
    annotations = app.conf.task_annotations
    for source in annotations if isinstance(annotations, list | tuple) else [annotations]:
        if not source:
            continue
        for option, value in _annotations_of(source, task).items():
            # On the class, so that a function becomes a method (on_failure and the like).
            setattr(type(task), option, value)
    task.bind(app)


def _annotations_of(source: Any, task: Any) -> dict[str, Any]:
    """What one source says of a task: a mapping of names, or an object with Celery's method
    ``annotate(task)`` (and ``annotate_any()``), or what names its class."""
    if isinstance(source, Mapping):
        return {**source.get("*", {}), **source.get(task.name, {})}
    source = imported(source)
    if isinstance(source, type):
        source = source()
    for_all = getattr(source, "annotate_any", dict)
    return {**(for_all() or {}), **(source.annotate(task) or {})}
