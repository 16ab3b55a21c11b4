"""Finding the application that ``-A`` names."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_NAMES = ("app", "celeriac", "celery")


def find_app(spec: str) -> Celeriac:
    """The application for ``module``, ``module:attribute``, ``package`` (its own attribute, or
    that of its module ``celeriac`` or ``celery``). The working directory is on the path.
    Raises ImproperlyConfigured that says what was looked for."""
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    name, _, attribute = spec.partition(":")
    module = _import(name, spec)
    if module is None:
        head, _, attribute = name.rpartition(".")
        module = _import(head, spec) if head else None
        if module is None or not hasattr(module, attribute):
            raise ImproperlyConfigured(
                f"Cannot find the application {spec!r}: there is no module {name!r} in {cwd} or "
                "on the path. Give -A the module that holds your Celeriac object, as in -A "
                "proj.tasks or -A proj.tasks:app."
            )
    if attribute:
        return _checked(_attribute(module, attribute, spec), spec)
    found = _in_module(module)
    for submodule in ("celeriac", "celery") if hasattr(module, "__path__") else ():
        if found is None:
            inner = _import(f"{name}.{submodule}", spec)
            found = _in_module(inner) if inner is not None else None
    if found is None:
        raise ImproperlyConfigured(
            f"The module {name!r} holds no Celeriac application: expected a variable named app, "
            "or any object of Celeriac. Name it with -A module:variable."
        )
    return found


def _import(name: str, spec: str) -> ModuleType | None:
    """The module; None if there is none of that name. Errors inside it come out as they are."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            return None
        raise


def _in_module(module: ModuleType) -> Celeriac | None:
    from celeriac.app import Celeriac

    for name in _NAMES:
        value = getattr(module, name, None)
        if issubclass(type(value), Celeriac):
            return value
    # Not isinstance: current_app, imported into the module, would say yes.
    found = [value for value in vars(module).values() if issubclass(type(value), Celeriac)]
    return found[0] if found else None


def _attribute(module: ModuleType, attribute: str, spec: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ImproperlyConfigured(
                f"{spec!r}: the module {module.__name__!r} has no {attribute!r}."
            ) from None
    return value


def _checked(value: Any, spec: str) -> Celeriac:
    from celeriac.app import Celeriac

    if isinstance(value, ModuleType):
        found = _in_module(value)
        if found is not None:
            return found
    if not isinstance(value, Celeriac):
        raise ImproperlyConfigured(
            f"{spec!r} is a {type(value).__name__}, not a Celeriac application."
        )
    return value
