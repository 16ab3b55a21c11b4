"""Reading settings out of modules, classes, instances and mappings."""

from __future__ import annotations

import importlib
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from celeriac.conf.kinds import ANY, CLASS
from celeriac.conf.table import (
    OLD_NAMES,
    SETTINGS,
    Change,
    belongs_to_us,
    hint,
    looks_like_ours,
)
from celeriac.exceptions import CeleriacWarning, ImproperlyConfigured, UnknownSetting

Resolve = Callable[[str], str | None]


def locate(path: str) -> Any:
    """The object at ``pkg.mod``, ``pkg.mod:attribute`` or ``pkg.mod.attribute``.

    Raises ImproperlyConfigured if there is none. What goes wrong inside the module is raised as
    it is: that is the module's own error.
    """
    module_name, colon, attribute = path.partition(":")
    if colon:
        return _attribute(_import(module_name, path), attribute, path)
    try:
        return _import(path, path)
    except ImproperlyConfigured:
        module_name, dot, attribute = path.rpartition(".")
        if not dot:
            raise
        return _attribute(_import(module_name, path), attribute, path)


def _import(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise  # the module is there, and imports something that is not
        raise ImproperlyConfigured(
            f"The settings at {path!r} cannot be read: there is no module {missing!r}. "
            "Is its folder on sys.path?"
        ) from exc


def _attribute(module: Any, names: str, path: str) -> Any:
    found = module
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            raise ImproperlyConfigured(
                f"The settings at {path!r} cannot be read: {found!r} has no attribute {name!r}."
            ) from exc
    return found


def describe(obj: Any, path: str | None) -> str:
    """The source, in the words that ``Settings.source`` gives."""
    if path is not None:
        return f"object {path}"
    if isinstance(obj, types.ModuleType):
        return f"object {obj.__name__}"
    if isinstance(obj, Mapping):
        return "object (a mapping)"
    cls = obj if isinstance(obj, type) else type(obj)
    return f"object {cls.__module__}.{cls.__qualname__}"


def read(obj: Any, resolve: Resolve, namespace: str | None, source: str) -> dict[str, Change]:
    """The settings that the object holds, not yet checked, by their new names.

    ``resolve`` maps a new or old name to the new one, or to None. Where one setting is given by
    several names, the prefixed one wins, then the new one.
    """
    found: dict[str, tuple[int, Change]] = {}
    strict = isinstance(obj, Mapping)
    prefix = f"{namespace.rstrip('_')}_" if namespace else ""
    for key, get in _members(obj):
        if prefix:
            rank, name = _with_prefix(key, prefix, resolve)
            unknown = name is None and key.startswith(prefix)
        else:
            rank, name = _plain(key, resolve)
            unknown = name is None and (strict or _suspicious(key, get))
        if name is not None:
            value = get()
            better = name not in found or rank < found[name][0]
            if better and (strict or not _is_only_an_import(name, value)):
                found[name] = (rank, Change(value, source))
        elif unknown:
            _complain(key, source, resolve, prefix, strict)
    return {name: change for name, (_, change) in found.items()}


def _members(obj: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names and how to get their values; nothing is evaluated that nobody asks for, because a
    settings object may compute some at a price."""
    if isinstance(obj, Mapping):
        for key in obj:
            yield str(key), lambda key=key: obj[key]  # type: ignore[misc]
        return
    for key in dir(obj):
        if not key.startswith("_"):
            yield key, lambda key=key: getattr(obj, key)  # type: ignore[misc]


def _with_prefix(key: str, prefix: str, resolve: Resolve) -> tuple[int, str | None]:
    """With a namespace, in this order: the prefixed new name; an old name that can be nobody
    else's (Celery reads those, too: ``BROKER_URL``); Django's ``TIME_ZONE``. Lower-case names
    are left alone: ``timezone`` in a Django settings module is an import."""
    if key.startswith(prefix):
        name = resolve(key[len(prefix) :].lower())
        if name is not None:
            return 0, name
    if belongs_to_us(key) and key in OLD_NAMES:
        return 1, OLD_NAMES[key]
    return 2, "timezone" if key == "TIME_ZONE" else None


def _plain(key: str, resolve: Resolve) -> tuple[int, str | None]:
    name = resolve(key)
    if name is None:
        return 2, "timezone" if key == "TIME_ZONE" else None
    return (0 if name == key else 1), name


def _is_only_an_import(name: str, value: Any) -> bool:
    """Whether the module merely imported something that has a setting's name, as in ``from
    django.utils import timezone``."""
    row = SETTINGS.get(name)
    return _is_code(value) and row is not None and row.kind is not ANY and row.kind is not CLASS


def _suspicious(key: str, get: Callable[[], Any]) -> bool:
    """Whether an unknown name of a module or class is worth a word."""
    if key.isupper():
        return belongs_to_us(key)
    return key.islower() and looks_like_ours(key) and not _is_code(get())


def _is_code(value: Any) -> bool:
    return isinstance(value, types.ModuleType | type) or callable(value)


def _complain(key: str, source: str, resolve: Resolve, prefix: str, strict: bool) -> None:
    short = key[len(prefix) :].lower() if prefix else key
    message = f"{source} sets {key}, but there is no setting of this name."
    message += hint(short, SETTINGS)
    if strict:
        raise UnknownSetting(message)
    warnings.warn(message, CeleriacWarning, stacklevel=5)
