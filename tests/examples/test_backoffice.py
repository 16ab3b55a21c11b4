"""The demo from end to end, with real processes and real kills, at a tenth of its size."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from examples.backoffice import count
from examples.backoffice.attempts import Attempts
from examples.backoffice.settings import Settings

ROOT = Path(__file__).parents[2]
SENT = {"mail": 50, "thumbnails": 4, "sales": 13, "orders": 10}


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.backoffice", "--out", str(out), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def finish(process: subprocess.Popen[str], timeout: float) -> str:
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate(timeout=60)
        pytest.fail(f"not finished within {timeout} s:\n{output}")
    return output


def table(output: str) -> dict[str, list[float]]:
    lines = output[output.index("kind ") :].splitlines()
    rows = (line.split() for line in lines[1 : 4 + len(SENT)] if "---" not in line)
    return {row[0]: [float(cell) for cell in row[1:]] for row in rows}


def test_nothing_is_lost_when_runners_are_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "--scale", "0.1", "--timeout", "80")
    output = finish(process, 110)
    assert process.returncode == 0, output
    assert output.count("killed runner") == 2, output

    rows = table(output)
    assert list(rows) == [*SENT, "digest", "all"]
    assert rows["digest"][0] == rows["digest"][1] > 0, "a run of the schedule is missing"
    for kind, sent in SENT.items():
        assert rows[kind][:2] == [sent, sent]
        assert rows[kind][4] == 0
    assert rows["orders"][2] > 0, "the shop was never busy"

    settings = Settings(out=tmp_path)
    attempts = Attempts(settings.attempts)
    attempts.update()
    repeats = [event for tasks in count.TASKS.values() for event in attempts.repeated(tasks)]
    assert len(repeats) == rows["all"][3] >= 2, "a killed attempt was not made again"
    assert all(event.redelivered for event in repeats), "a task was not told that it runs again"
    assert not [event for event in attempts.events if event.state == "FAILURE"]

    # The count is of what arrived: what is taken away afterwards is missed.
    assert count.main([str(tmp_path)]) == 0
    gone = next(settings.inbox.glob("*.eml"))
    copies = [path for path in settings.inbox.iterdir() if path.read_bytes() == gone.read_bytes()]
    for path in copies:
        path.unlink()
    assert count.main([str(tmp_path)]) == 1


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_no_process(tmp_path: Path, how: int, status: int) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(tmp_path, "--timeout", "60")
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    for line in process.stdout:
        if "mail " in line:  # the first line of progress: the worker and the servers are there
            break
    watchdog.cancel()
    children = family(process)
    process.send_signal(how)
    output = finish(process, 60)
    assert children
    assert process.returncode == status, output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_broker_that_does_not_exist_is_said_without_a_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "--scale", "0.01", "--broker", "nosuch://nowhere")
    output = finish(process, 60)
    assert process.returncode == 1
    assert "nosuch" in output
    assert "Traceback" not in output
