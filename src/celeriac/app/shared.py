"""What belongs to no single application: shared tasks, and the names of the current ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, cast, overload

from celeriac import current
from celeriac.app.base import Celeriac
from celeriac.app.making import make_task
from celeriac.current import get_current_app
from celeriac.local import Proxy
from celeriac.request import current_request
from celeriac.task import P, R, Task


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(
    *, bind: Literal[False] = False, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(function: Any = None, /, **options: Any) -> Any:
    """A task of every application: it is registered with all, and used with the current one."""

    def share(fun: Callable[..., Any]) -> Any:
        current.share(lambda app: make_task(app, fun, **options))

        def find() -> Any:
            app = get_current_app()
            name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
            return app.tasks[name]

        return Proxy(find, name=fun.__name__, doc=fun.__doc__)

    return share(function) if function is not None else share


def app_or_default(app: Celeriac | None = None) -> Celeriac:
    return app if app is not None else get_current_app()


def bugreport(app: Celeriac | None = None) -> str:
    """What ``celeriac report`` prints, of this application or the current one."""
    return app_or_default(app).bugreport()


current_app = cast(Celeriac, Proxy(get_current_app, name="current_app"))
current_task = cast(Any, Proxy(lambda: getattr(current_request(), "_task", None)))
