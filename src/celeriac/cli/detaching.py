"""Starting this same command line again, in the background."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import Any

import click

from celeriac import signals

_MARK = "CELERIAC_DETACHED"
_NEW = "new "
_PATIENCE = 10.0
"""Seconds to wait until it is up; one that is still trying by then, as with a broker that is away,
goes on trying."""


def detached() -> bool:
    """Is this the process in the background? Still so after it was started anew by SIGHUP, not
    so for a worker that one of its tasks starts."""
    mark = os.environ.get(_MARK, "")
    if mark.startswith(_NEW):
        os.environ[_MARK] = str(os.getpid())
        _tell_when_up(int(mark.removeprefix(_NEW)))
        return True
    return mark == str(os.getpid())


def _tell_when_up(descriptor: int) -> None:
    """Write to the pipe that whoever started this process reads."""
    os.set_inheritable(descriptor, False)

    def tell(**_: Any) -> None:
        for signal in told_by:
            signal.disconnect(tell)
        try:
            os.write(descriptor, b"!")
        except OSError:
            pass  # nobody waits any more
        os.close(descriptor)

    told_by = (signals.worker_ready, signals.beat_init)
    for signal in told_by:
        signal.connect(tell, weak=False)


def start(directory: str, log: str, what: str = "worker") -> int:
    """Run the same command in a session of its own; its process id, once it is up. Raises
    ClickException if it ends before. What it says before its log is open goes to the log file
    too."""
    up, tells = os.pipe()
    try:
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                cwd=directory,
                env={**os.environ, _MARK: f"{_NEW}{tells}"},
                pass_fds=[tells],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as exc:
        raise click.ClickException(
            f"The log file {log} cannot be written: {exc.strerror}. Name another with --logfile."
        ) from exc
    finally:
        os.close(tells)
    try:
        code = _code_unless_up(process, up)
    finally:
        os.close(up)
    if code is not None:
        raise click.ClickException(
            f"The {what} ended at once, with exit code {code}; it says why in {log}."
        )
    process.returncode = 0  # it is meant to outlive this process
    return process.pid


def _code_unless_up(process: subprocess.Popen[bytes], up: int) -> int | None:
    """The exit code of one that has ended; None: it is up, or still trying."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        told = select.select([up], [], [], 0.1)[0]
        if told and os.read(up, 1):
            return None
        code = process.poll()
        if code is not None:
            return code
        if told:  # it has closed the pipe, and is about to end
            time.sleep(0.01)
    return None
