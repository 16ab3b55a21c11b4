"""Which application is the current one, and the tasks that belong to all of them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_local = threading.local()
_default: Celeriac | None = None
_apps: weakref.WeakSet[Celeriac] = weakref.WeakSet()
_shared: list[Callable[[Any], Any]] = []


def get_current_app() -> Celeriac:
    """The application set current in this thread, else the latest made, else a default one."""
    app: Celeriac | None = getattr(_local, "app", None)
    if app is None:
        app = _default
    if app is None:
        from celeriac.app import Celeriac

        app = Celeriac("default", set_as_current=False)
        set_default_app(app)
    return app


def set_current_app(app: Celeriac | None) -> None:
    """Make it the current application of this thread, and the default of others."""
    _local.app = app
    if app is not None:
        set_default_app(app)


def set_default_app(app: Celeriac) -> None:
    global _default
    _default = app


def add_app(app: Celeriac) -> None:
    _apps.add(app)


def _after_fork() -> None:
    for app in list(_apps):
        app._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def share(make: Callable[[Any], Any]) -> None:
    """Have ``make(app)`` called for every application, those that there are included."""
    _shared.append(make)
    for app in list(_apps):
        if app.finalized:
            make(app)


def make_shared(app: Celeriac) -> None:
    for make in list(_shared):
        make(app)
