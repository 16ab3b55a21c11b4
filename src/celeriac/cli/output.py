"""How commands show things: tables, ages, values, JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

_GAP = "  "
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings; numbers to the right. Only the last column is shortened,
    and only on a terminal: what is read by programs stays whole."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(columns))
    ]
    widths = [max(len(row[i]) for row in (columns, *cells)) for i in range(len(columns))]
    click.echo(click.style(_line(columns, widths, numeric), bold=True))
    for row in cells:
        click.echo(_fitted(_line(row, widths, numeric)))


def _line(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    parts = [
        text.rjust(width) if right else text.ljust(width)
        for text, width, right in zip(row, widths, numeric, strict=True)
    ]
    return _GAP.join(parts).rstrip()


def _fitted(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: width - 1] + "…"


def as_json(value: Any) -> None:
    """Print the value as JSON that people can read too."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def shown(value: Any) -> str:
    """A task's value: text as it is, anything else as JSON where that can say it."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def jsonable(value: Any) -> Any:
    """The value if JSON can say it, else its repr."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
    return value


def moment(at: float | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def age(at: float | None) -> str:
    """How long ago, or in how long, in the two largest units: ``3 h 20 min``."""
    return "" if at is None else duration(abs(time.time() - at))


def duration(seconds: float) -> str:
    left = int(seconds)
    parts = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def counted(count: int, singular: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{count} {singular}" if count == 1 else f"{count} {singular}s"


def confirm(question: str, force: bool) -> None:
    """Ask before something that cannot be undone. Without a terminal, say how not to be asked."""
    if force:
        return
    try:
        if click.confirm(question):
            return
    except click.Abort:
        click.echo(err=True)  # after the question
        raise click.ClickException(
            "Nothing was done: nobody answered. With --force no question is asked."
        ) from None
    raise click.Abort
