"""Exceptions as values: how a failed task's exception is stored, and made again by its reader.

The form is Celery's (wire-format.md 4.1). Our own exceptions are written as if they came from
the packages of Celery where its clients look for them; reading turns that round.
"""

from __future__ import annotations

import builtins
import functools
import pickle
import sys
from types import ModuleType
from typing import Any

from celeriac import exceptions
from celeriac.exceptions import SecurityError, SoftTimeLimitExceeded
from celeriac.protocol import serialization
from celeriac.protocol.saferepr import saferepr

__all__ = ["exception_form", "exception_from_form"]

_OURS = exceptions.__name__
_CELERY = "celery.exceptions"
_BILLIARD = "billiard.exceptions"
_IN_BILLIARD = frozenset(
    ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated")
)
# What a Celery worker makes of one that cannot be pickled: (module, name, arguments, text).
_WRAPPER, _WRAPPER_MODULE = "UnpickleableExceptionWrapper", "celery.utils.serialization"
_TO_OURS = frozenset((_OURS, _CELERY, _BILLIARD, "kombu.exceptions"))
_LONGEST_NAME = 200
_SHOWN = 2048  # characters of an argument that could not be written


def exception_form(exc: BaseException, serializer: str = "json") -> Any:
    """What to store of an exception: ``exc_type``, ``exc_message`` (the arguments; those that the
    serializer cannot write as their repr) and ``exc_module``. With pickle, the exception itself
    if it survives that."""
    if serializer == "pickle" and type(exc).__module__ != _OURS and _survives_pickle(exc):
        return exc
    cls, args = type(exc), _arguments(exc)
    name, module = cls.__qualname__, _module_written(cls)
    if not args and (text := _only_text(exc)):
        name, module, args = _WRAPPER, _WRAPPER_MODULE, (module, name, (), text)
    return {
        "exc_type": name,
        "exc_message": [_writable(arg, serializer) for arg in args],
        "exc_module": module,
    }


def _only_text(exc: BaseException) -> str:
    """What one says that keeps nothing among its arguments and cannot be made without any: all that
    its reader can be told (pydantic's ValidationError, an exception made by keywords)."""
    text = saferepr(exc, _SHOWN)
    if type(exc).__module__ == "builtins" or not text:
        return ""
    try:
        type(exc)()
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        return text
    return ""


def _arguments(exc: BaseException) -> tuple[Any, ...]:
    args = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    return args if isinstance(args, tuple) else ()


def _module_written(cls: type) -> str:
    if cls.__module__ != _OURS:
        return cls.__module__
    return _BILLIARD if cls.__name__ in _IN_BILLIARD else _CELERY


def _writable(arg: Any, serializer: str) -> Any:
    if type(arg) is str and arg.isascii():
        return arg
    try:
        serialization.encode(arg, serializer)
    except exceptions.EncodeError:
        return saferepr(arg, _SHOWN)
    return arg


def _survives_pickle(exc: BaseException) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(exc))) is type(exc)
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        return False  # stored in its form instead, as with the other serializers


def exception_from_form(form: Any) -> BaseException:
    """The exception again. Its class is looked up in modules that are already imported, never
    imported, and must be an exception (else SecurityError); one that cannot be found is made up
    under ``celeriac.exceptions``. One that refuses its arguments becomes an ``Exception`` that
    shows class and arguments, and so does anything that is no exception's form."""
    if isinstance(form, BaseException):
        return form
    if not isinstance(form, dict) or type(form.get("exc_type")) is not str:
        return Exception(form if isinstance(form, str) else saferepr(form))
    name, args = form["exc_type"], form.get("exc_message")
    if not isinstance(args, list | tuple):
        args = [args]
    module = form.get("exc_module")
    if name == _WRAPPER and module == _WRAPPER_MODULE:
        return unwrapped(*args[:4])
    cls = _find_class(module, name)
    if cls is None:
        cls = _made_up(name[:_LONGEST_NAME])
    elif not (isinstance(cls, type) and issubclass(cls, BaseException)):
        raise SecurityError(
            f"the stored exception {saferepr(module, 200)}.{name[:_LONGEST_NAME]} "
            "is not an exception class here: it is not called. Look who writes to the result "
            "backend"
        )
    try:
        exc = cls(*args)
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        return Exception(f"{cls}({saferepr(args)})")
    return exc if isinstance(exc, BaseException) else Exception(f"{cls}({saferepr(args)})")


def unwrapped(
    module: Any = None, name: Any = None, args: Any = (), text: Any = ""
) -> BaseException:
    """The exception that a Celery worker could not pickle, and has wrapped."""
    if name == _WRAPPER:  # not again and again
        return Exception(text)
    exc = exception_from_form({"exc_type": name, "exc_message": args, "exc_module": module})
    if type(exc) is Exception and not args and text and name != "Exception":
        return _made_up(str(name)[:_LONGEST_NAME])(text)  # its class refuses to be made so
    return exc


def _find_class(module: Any, name: str) -> Any:
    """What the module's or class's own dictionaries hold, so that finding runs no code."""
    if module is None:
        found: Any = builtins if name in vars(builtins) else exceptions
    elif not isinstance(module, str):
        return None
    else:
        found = exceptions if module in _TO_OURS else sys.modules.get(module)
    for part in name.split("."):
        if isinstance(found, ModuleType):
            found = vars(found).get(part)
        elif isinstance(found, type):
            found = next((vars(c)[part] for c in found.__mro__ if part in vars(c)), None)
        else:
            return None
    return found


@functools.lru_cache(256)
def _made_up(name: str) -> type[BaseException]:
    printable = name.encode("utf-8", "replace").decode().replace("\0", "?")
    short = printable.rpartition(".")[2] or "Exception"
    return type(short, (Exception,), {"__module__": _OURS, "__qualname__": printable})
