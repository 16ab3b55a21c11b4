"""A worker of one's own for the length of a ``with`` block: what a second terminal would do with
``celeriac -A examples.<name> worker``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parent.parent
GRACE = 30.0  # seconds a worker gets to finish what it runs


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    """Raises TimeoutError when it takes longer, in seconds."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {timeout} s: {condition}")
        time.sleep(0.02)


class WorkerDied(Exception):
    """The worker ended although nobody asked it to; the message holds the end of its log."""


class WorkerProcess:
    """``celeriac -A app worker`` as a child process, stopped with all its own at the end."""

    def __init__(
        self, app: str, *, concurrency: int, log: Path, options: Sequence[str] = ()
    ) -> None:
        celeriac = Path(sys.executable).with_name("celeriac")
        self.log = log
        self.command = [str(celeriac), "-A", app, "worker", "-c", str(concurrency), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the worker was not started"
        return self._process.pid

    def __enter__(self) -> WorkerProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is ours to handle: the worker is told with SIGTERM.
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise WorkerDied if it is no longer there."""
        assert self._process is not None, "the worker was not started"
        status = self._process.poll()
        if status is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise WorkerDied(
                f"the worker ended with status {status}; the end of its log, {self.log}:\n{tail}"
            )

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to finish what it runs, wait, and kill what is still there after ``grace``."""
        if self._process is None:
            return
        tree = self._tree()
        try:
            self._process.send_signal(signal.SIGTERM)  # does nothing if it has ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        finally:  # also when a second Ctrl-C ends the waiting
            self._process.kill()
            self._process.wait(10)
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def _tree(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@contextlib.contextmanager
def own_worker(app: str, *, concurrency: int = 2, options: Sequence[str] = ()) -> Iterator[Path]:
    """Run a worker for ``app`` on a database in a temporary folder, which is what the block gets
    and which is gone after it. To be entered before the app is used for the first time."""
    with tempfile.TemporaryDirectory(prefix="celeriac-example-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'celeriac.db'}"
        os.environ.update(CELERIAC_BROKER_URL=url, CELERIAC_RESULT_BACKEND=url)
        log = folder / "worker.log"
        with WorkerProcess(app, concurrency=concurrency, log=log, options=["-l", "info", *options]):
            try:
                yield folder
            except Exception:
                print(f"--- {log.name}:\n{log.read_text(errors='replace')}", file=sys.stderr)
                raise
