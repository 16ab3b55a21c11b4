"""The SQL files of this package: one named statement each, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["statements"]

_HERE = Path(__file__).parent
_NAME = "-- name: "


@cache
def statements(file: str) -> Mapping[str, str]:
    """The statements of ``<file>.sql`` by name, in their order, without their comments."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (_HERE / f"{file}.sql").read_text(encoding="utf-8").splitlines():
        if line.startswith(_NAME):
            name = line.removeprefix(_NAME).strip()
            if name in found:
                raise ValueError(f"{file}.sql has two statements of the name {name!r}")
            lines = found[name] = []
        elif line.strip() and not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(parts) for name, parts in found.items()}
