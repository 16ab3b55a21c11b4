"""A disk without room: nothing that was accepted is lost, and what is stored can be worked off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.drivers.sqlite import admin, broker
from celeriac.drivers.sqlite.broker import SqliteBroker
from celeriac.message import MessageState
from celeriac.testing.samples import ids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def waiting(made: SqliteBroker) -> list[str]:
    return ids(admin(made).peek(None, MessageState.WAITING, limit=100_000))


FILL = """
import resource, signal, sys
from celeriac.drivers.sqlite import broker
from celeriac.exceptions import OperationalError
from celeriac.message import Owner, Settlement, Worker
from celeriac.testing.samples import QUEUE, message

made = broker(sys.argv[1], {})
made.open()
made.register(Worker(lease="w1", ttl=3600.0))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
stored = 0
try:
    while True:
        stored += made.publish([message(f"{stored + n}", body=b"x" * 5000) for n in range(20)])
except OperationalError as error:
    print(stored)
    print(error)
owner = Owner("w1", 1, 1)
if not limit:
    done = 0
    while claimed := made.claim(owner, [QUEUE], 10):
        made.settle([Settlement(delivery=delivery) for delivery in claimed])
        done += len(claimed)
    print(done)
"""


def fill(url: str, limit: int) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", FILL, url, str(limit)], capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_no_more_room_for_the_file(path: Path) -> None:
    """As the system says it with a limit on file sizes: nothing that was accepted is lost."""
    limit = 3_000_000
    stored, said, *_ = fill(f"sqlite:///{path}", limit)
    assert f"sqlite:///{path}" in said
    made = broker(f"sqlite:///{path}", {})
    made.open()
    assert len(waiting(made)) == int(stored) > 100
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this system mounts nothing for us")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_drains(small_disk: Path) -> None:
    """Full: a clear error, nothing half done, everything that was accepted can be claimed and
    settled without freeing anything by hand."""
    stored, said, drained = fill(f"sqlite:///{small_disk}/test.db", 0)
    assert "No space is left" in said
    assert int(stored) == int(drained) > 100
