"""Files that are no store of ours, or not a whole one: what the program and the caller are told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.field import HERE, environment

from celeriac import Celeriac
from celeriac.exceptions import CorruptStore, OperationalError


def truncated(path: Path) -> None:
    app = Celeriac("bombed", broker=f"sqlite:///{path}", set_as_current=False)
    app.send_many(app.signature("bombed.weigh", ("x" * 1000,)) for _ in range(1000))
    app.close()
    assert not path.with_name(path.name + "-wal").exists()
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("Dear Sir or Madam,\n" * 1000)


def foreign(path: Path) -> None:
    """The database of another program, which must not be touched."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE guests (name TEXT)")
        connection.execute("INSERT INTO guests VALUES ('Ada')")
    connection.close()


def celeriac(path: Path, tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celeriac", "-A", "bombed:app", *args],
        env=environment(tmp_path, f"sqlite:///{path}", BOMBED_IMPATIENT="1"),
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=30,
    )


COMMANDS = [
    ("worker", "-c", "1"),
    ("call", "bombed.work", "-a", "[0]"),
    ("status",),
    ("queues", "list"),
]


def told(path: Path, tmp_path: Path, word: str, error: type[Exception] = OperationalError) -> None:
    """Every way in ends soon, and says which file and what is wrong with it."""
    for args in COMMANDS:
        ended = celeriac(path, tmp_path, *args)
        said = ended.stderr
        assert ended.returncode != 0, args
        assert str(path) in said, (args, said)
        assert word in said, (args, said)
        assert "Traceback" not in said, (args, said)
    app = Celeriac("bombed", broker=f"sqlite:///{path}", set_as_current=False)
    try:
        with pytest.raises(error, match=word) as raised:
            app.send_task("bombed.work", (0,), retry=False)
    finally:
        app.close()
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(truncated, "damaged"), (text, "not an SQLite database"), (foreign, "another")],
)
def test_a_file_that_is_no_store_of_ours(
    tmp_path: Path, spoil: Callable[[Path], None], word: str
) -> None:
    path = tmp_path / "queue.db"
    spoil(path)
    before = path.read_bytes()
    told(path, tmp_path, word, CorruptStore)
    assert path.read_bytes() == before


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder that nobody may write to, not even root."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    path = folder / "queue.db"
    app = Celeriac("bombed", broker=f"sqlite:///{path}", set_as_current=False)
    app.send_task("bombed.weigh", ("x",))
    app.close()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        path.chmod(0o400)
        yield path
        folder.chmod(0o700)
        return
    bind = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True)
    again = ["mount", "-o", "remount,bind,ro", str(folder)]
    if bind.returncode or subprocess.run(again, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and nothing can be mounted read-only here")
    yield path
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_file_that_cannot_be_written(tmp_path: Path, frozen: Path) -> None:
    told(frozen, tmp_path, "writ")
