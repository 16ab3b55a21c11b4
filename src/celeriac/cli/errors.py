"""Errors as people read them: what happened, to what, and what to do. No tracebacks, but for
what can only be a mistake of Celeriac's own."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from celeriac.exceptions import (
    CeleriacError,
    ContentError,
    LeaseLost,
    OperationalError,
)

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = tuple(
    os.path.realpath(path) + os.sep
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Turn the errors that users cause or meet into messages."""
    try:
        yield
    except click.ClickException:
        raise
    except OperationalError as exc:
        raise click.ClickException(_said(exc)) from exc
    except LeaseLost as exc:
        raise click.ClickException(
            f"This took so long that the broker took its messages back. Do it again. ({exc})"
        ) from exc
    except ContentError as exc:
        raise click.ClickException(f"{type(exc).__name__}: {exc}") from exc
    except CeleriacError as exc:
        raise click.ClickException(_said(exc)) from exc
    except OSError as exc:
        if exc.filename is None:
            raise
        raise click.ClickException(f"{exc.filename}: {exc.strerror}.") from exc


def _said(exc: BaseException) -> str:
    # A KeyError's text is the repr of its message.
    if isinstance(exc, KeyError) and exc.args:
        return str(exc.args[0])
    return str(exc) or type(exc).__name__


def fail_on_import(exc: BaseException, what: str, module: str) -> NoReturn:
    """Importing the user's modules failed: show where, in their words. ``what`` is being loaded;
    ``module`` can be imported to see all of it."""
    where = place(exc)
    if where is None and isinstance(exc, ModuleNotFoundError):
        raise click.ClickException(
            f"{what} asks for a module that is not there: {exc.name!r}, in include or imports, "
            "with autodiscover_tasks, or with -I. Correct the name, or add its folder to "
            "PYTHONPATH."
        ) from exc
    lines = [f"{what} cannot be loaded: {type(exc).__name__}: {_said(exc)}"]
    if where:
        file, line, function = where
        lines.append(f"  in {file}, line {line}" + (f", in {function}" if function else ""))
        source = linecache.getline(file, line).strip()
        if source:
            lines.append(f"    {source}")
    if isinstance(exc, ModuleNotFoundError):
        lines.append(
            f"Install the package that brings {exc.name!r} into this environment, or correct "
            "the import."
        )
    lines.append(f"The whole traceback: python -c 'import {_first_module(exc) or module}'")
    raise click.ClickException("\n".join(lines)) from exc


def _first_module(exc: BaseException) -> str:
    """The module of theirs whose import led to the error."""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        code = frame.f_code
        theirs = not code.co_filename.startswith((_OURS, "<"))
        if theirs and code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return str(frame.f_globals.get("__name__") or "")
    return ""


def place(exc: BaseException) -> tuple[str, int, str] | None:
    """File, line and function of the user's that the error came from. The last frame that is in
    nobody's package, else in no part of Python's or ours; a syntax error says it itself."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return exc.filename, exc.lineno or 0, ""
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if not frame.filename.startswith((_OURS, "<"))
    ]
    own = [f for f in frames if not os.path.realpath(f.filename).startswith(_INSTALLED)]
    if not own:
        return None
    last = own[-1]
    function = "" if last.name == "<module>" else last.name
    return os.path.relpath(last.filename), last.lineno or 0, function
