"""How processes that wait hear that they are to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from live_worker import PATIENCE, Stage

from celeriac.worker.bell import Bell, Waker


def test_it_rings_once_and_for_all() -> None:
    bell = Bell.hung()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(PATIENCE)
    assert bell.wait(0.0)
    bell.close()


def test_a_forked_process_hears_it() -> None:
    bell = Bell.hung()
    listening, says = os.pipe()
    child = os.fork()
    if not child:
        bell.disown()
        os.write(says, b"\1" if bell.wait(0.0) else b"\0")
        os._exit(0 if bell.wait(PATIENCE) else 1)
    assert os.read(listening, 1) == b"\0"
    other = os.fork()  # holds the writing end for a moment longer
    if not other:
        os._exit(0)
    os.waitpid(other, 0)
    bell.ring()
    assert os.waitpid(child, 0)[1] == 0
    os.close(listening)
    os.close(says)
    bell.close()


def test_a_spawned_process_hears_it() -> None:
    bell = Bell.hung()
    code = f"import sys; from celeriac.worker.bell import Bell; sys.exit(Bell({bell.fd}).wait(20))"
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[bell.fd]) as child:
        bell.ring()
        assert child.wait(PATIENCE) == 1
    bell.close()


def test_the_waker_calls_until_all_is_over() -> None:
    bell, woken = Bell.hung(), threading.Semaphore(0)
    waker = Waker(bell, woken.release)
    waker.start()
    assert not woken.acquire(blocking=False)
    bell.ring()
    for _ in range(3):
        assert woken.acquire(timeout=PATIENCE)
    assert waker.rung.is_set()
    waker.stop()
    waker._thread.join(PATIENCE)
    assert not waker._thread.is_alive()
    bell.close()


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio", "solo"])
def test_an_idle_worker_stops_at_once(tmp_path: Path, pool: str) -> None:
    """Nothing that it waits for ends by itself in time."""
    stage = Stage(tmp_path, worker_lease=600.0)
    process = stage.start("-P", pool, "-c", "2", app="live_patient:app")
    stage.until(lambda: " ready." in stage.log(), "the worker to be ready")
    assert stage.run("add", 1, 2) == 3
    assert stage.stop(process, PATIENCE) == 0
    stage.end()
