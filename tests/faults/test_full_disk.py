"""A disk that fills up: a small file system of its own, made where that is permitted."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.field import Field, scaled, wait_until

from celeriac import states
from celeriac.exceptions import OperationalError

SIZE = 8 * 1024 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder with 8 MiB of space."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or _mount(f"size={SIZE}", folder):
        pytest.skip("no small file system can be mounted here: that needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(options: str, folder: Path) -> int:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode


def fill(folder: Path) -> Path:
    """Use up what space there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def publish_until_refused(field: Field, ids: list[str]) -> OperationalError:
    """Send tasks, and note which were accepted."""
    while len(ids) < 10_000:
        try:
            ids.append(field.send("weigh", "x" * 10_000))
        except OperationalError as exc:
            return exc
    raise AssertionError("the disk is never full")


def test_publishing_on_a_full_disk_says_so_and_loses_nothing(tmp_path: Path, small: Path) -> None:
    field = Field(tmp_path, folder=small, BOMBED_LEASE="1")
    ids: list[str] = []
    field.app.conf.broker_publish_timeout = 3.0
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * (SIZE // 4))
    error = publish_until_refused(field, ids)
    assert "No space" in str(error)
    assert str(field.database) in str(error)
    with field.workers("-c 2") as (worker,):
        time.sleep(1.0)
        assert worker.alive()
        ballast.unlink()
        field.drained()
        assert worker.stop() == 0
    print(f"\n{len(ids)} messages were accepted before the disk was full")
    assert len(ids) > 100
    assert field.states(ids) == {states.SUCCESS: len(ids)}
    assert "Traceback" not in field.logged()
    assert field.app.AsyncResult(field.send("weigh", "x")).id  # and it accepts again
    field.close()


@pytest.mark.timeout(300)
def test_a_disk_that_fills_while_tasks_run_loses_nothing(tmp_path: Path, small: Path) -> None:
    """Their results are big. More space comes later; nobody is killed, so nothing runs twice."""
    field = Field(tmp_path, folder=small, BOMBED_LEASE="1")
    count = 100 + scaled(300)
    with field.workers("-c 2", "-c 2") as workers:
        field.admin.pause("celery")  # until all is sent: a full disk takes no more
        ids = field.send_all("big", [(100_000,)] * count)
        once = field.send_all("once", [(0.001,)] * (count // 4))
        field.admin.pause("celery", False)
        wait_until(lambda: "No space" in field.logged(), 30, "the disk to be full")
        done = field.states(ids)[states.SUCCESS]
        print(f"\n{done} of {count} results were stored when the disk was full")
        assert done < count
        time.sleep(3.0)  # longer than the leases, which cannot be renewed
        space = f"remount,size={count * 300_000}"
        assert not _mount(space, small)
        field.drained(120)
        assert [worker.stop() for worker in workers] == [0, 0]
    assert field.states(ids) == {states.SUCCESS: count}
    assert field.states(once) == {states.SUCCESS: len(once)}
    starts = field.ledger.read().of("start")
    assert starts == Counter([*ids, *once])
    assert not field.dead()
    assert "Traceback" not in field.logged()
    field.close()


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, small: Path) -> None:
    """Nothing can be made of it: the error says what, where and what to do."""
    fill(small)
    field = Field.__new__(Field)  # its database cannot even be opened
    with pytest.raises(OperationalError, match=r"full"):
        field.__init__(tmp_path, folder=small)  # type: ignore[misc]
