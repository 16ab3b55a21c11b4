"""Producers that fork: each process has connections of its own, and nothing is lost or mixed up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from tests.faults.field import HERE, Field, scaled, wait_until

from celeriac import states

REQUESTS = 2000
CHILDREN = 20


@contextmanager
def gunicorn(field: Field) -> Iterator[str]:
    """Four workers over one application that has used the queue before they were forked."""
    log = field.path / "gunicorn"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "4", "--threads", "2"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0", "forking:application"],
            cwd=HERE,
            env=field.env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: log.read_text().count("Booting worker") == 4, 30, "gunicorn to be up")
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert found is not None
        yield found.group()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
            process.wait(10)


def asked(base: str, number: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base}/{number}", timeout=30) as answer:
        return json.load(answer)


@pytest.mark.timeout(300)
def test_gunicorn_with_preload(field: Field) -> None:
    pytest.importorskip("gunicorn")
    requests = scaled(REQUESTS)
    with (
        field.workers("-c 2") as (worker,),
        gunicorn(field) as base,
        ThreadPoolExecutor(8) as pool,
    ):
        numbers = [n % 100 for n in range(requests)]
        answers = list(pool.map(lambda number: asked(base, number), numbers))
        assert worker.stop() == 0
    assert [answer["answer"] for answer in answers] == numbers
    pids = {answer["pid"] for answer in answers}
    print(f"\n{requests} requests were answered by {len(pids)} processes")
    assert len(pids) == 4
    ids = [answer["id"] for answer in answers]
    assert len(set(ids)) == requests
    assert field.states(ids) == {states.SUCCESS: requests}
    assert not field.left()


@pytest.mark.timeout(300)
def test_a_plain_fork_of_a_busy_producer_with_threads(field: Field) -> None:
    children = scaled(CHILDREN)
    report = field.path / "report"
    with field.workers("-c 2") as (worker,):
        ended = subprocess.run(
            [sys.executable, "forking.py", str(children), "50"],
            cwd=HERE,
            env={**field.env, "FORK_REPORT": str(report)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stderr
        assert worker.stop() == 0
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(lines) == children + 1
    assert os.getpid() not in {line["pid"] for line in lines}
    ids = [task_id for line in lines for task_id in line["sent"]]
    print(f"\n{children} children of one busy process, {len(ids)} tasks sent and waited for")
    assert len(set(ids)) == len(ids)
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert not field.left()
