"""Every small example, run as a reader would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.drivers.rabbitmq_stage import shared_server

ROOT = Path(__file__).parents[2]
SAYS = {
    "first_app": ["sent 2 characters to a@b.example", "fetched 5 bytes"],
    "retries": [
        "done at try 4",
        "the file is here",
        "gave up: ",
        "failed at once: wrong input",
    ],
    "bulk": [
        "2000 tasks sent in ",
        "in the order they were sent: [1, 2, 3] ... 2000",
        "[23, 'HELLO', 2]",
    ],
    "asyncio_app": [
        "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
        "slept 0.6 s in two runners, the loop went on meanwhile",
    ],
    "cancel": [
        "waiting task: REVOKED (",
        "running task: REVOKED (",
        "next task: still here",
    ],
    "schedule": [
        "runs: ",
        "paused: True, '30 7 * * mon-fri' is not",
        "coming: Mon 07:30 Tue 07:30 Wed 07:30",
    ],
    "workflow": [
        "parts: [240, 120, 300]",
        "sent to boss@shop.example: 785.40",
        "before tax: 660",
        "failed: Dependency sold_in('atlantis') raised KeyError('atlantis')",
    ],
    "broadcast": ["told: east@example", "told: west@example"],
    "dead_letters": ["lamp: 60", "kept: ", "chair: 219"],
}


def test_every_example_is_here() -> None:
    folder = ROOT / "examples"
    names = {path.parent.name for path in folder.glob("*/__main__.py")}
    names |= {path.stem for path in folder.glob("*.py") if "__main__" in path.read_text()}
    assert names - {"backoffice"} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_the_example_runs(name: str) -> None:
    more = {"CELERIAC_BROKER_URL": shared_server().new_vhost()} if name == "broadcast" else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}"],
        cwd=ROOT,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(SAYS[name]), done.stdout
    for line, start in zip(lines, SAYS[name], strict=True):
        assert line.startswith(start)
    assert not processes_of(f"examples.{name}"), "the worker was left running"


def processes_of(app: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if app in (process.info["cmdline"] or []) or f"{app}.tasks" in (
            process.info["cmdline"] or []
        ):
            found.append(process)
    return found
