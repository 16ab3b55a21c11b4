"""Writing so that a reader, or a killed process, never leaves half a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` that takes its place when the block ends well.

    The name keeps the ending (writers choose the format by it) and carries the process id, so
    that a second run of the same task writes elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def append(path: Path, line: str, *, durable: bool = False) -> None:
    """Add one line in a single write, so that lines of several processes don't mix. ``durable``:
    on the disk when it returns; otherwise it survives the process, not the power."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode() + b"\n")
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
