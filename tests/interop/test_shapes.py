"""What ``|`` and ``chain`` make of signatures means what it means in Celery."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop.parties import CELERY_PYTHON, require_celery


def shapes(python: str, side: str) -> dict[str, Any]:
    script = str(Path(__file__).parent / "shapes.py")
    done = subprocess.run(
        [python, script, side], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def value(shape: Any, given: Any) -> Any:
    """What it comes to: which task was given what, written out."""
    if isinstance(shape, int):
        return {"task": shape, "given": given}
    kind, parts = shape[:2]
    if kind == "chain":
        for part in parts:
            given = value(part, given)
        return given
    values: list[Any] = []
    for part in parts:
        one = value(part, given)
        inner = not isinstance(part, int) and part[0] == "group"
        values += one if inner else [one]  # groups in groups are unrolled
    return values if kind == "group" else value(shape[2], values)


def test_every_pair_and_triple_of_forms() -> None:
    require_celery()
    theirs = shapes(str(CELERY_PYTHON), "celery")
    ours = shapes(sys.executable, "celeriac")
    assert len(theirs) == 2200
    for source, shape in theirs.items():
        assert value(ours[source], None) == value(shape, None), source
