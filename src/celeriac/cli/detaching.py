"""Starting this same command line again, in the background."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click

_MARK = "CELERIAC_DETACHED"
_NEW = "new"
# A worker that cannot start usually says so by then (seconds).
_WATCHED = 1.5


def detached() -> bool:
    """Is this the process in the background? Still so after it was started anew by SIGHUP, not
    so for a worker that one of its tasks starts."""
    mark = os.environ.get(_MARK)
    if mark == _NEW:
        os.environ[_MARK] = str(os.getpid())
        return True
    return mark == str(os.getpid())


def start(directory: str, log: str, what: str = "worker") -> int:
    """Run the same command in a session of its own; its process id. Raises ClickException if it
    ends at once. What it says before its log is open goes to the log file too."""
    try:
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                cwd=directory,
                env={**os.environ, _MARK: _NEW},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as exc:
        raise click.ClickException(
            f"The log file {log} cannot be written: {exc.strerror}. Name another with --logfile."
        ) from exc
    deadline = time.monotonic() + _WATCHED
    while time.monotonic() < deadline:
        try:
            code = process.wait(timeout=_WATCHED / 10)
        except subprocess.TimeoutExpired:
            continue
        raise click.ClickException(
            f"The {what} ended at once, with exit code {code}; it says why in {log}."
        )
    process.returncode = 0  # it is meant to outlive this process
    return process.pid
