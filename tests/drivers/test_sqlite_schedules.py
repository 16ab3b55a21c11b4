"""The schedule store of ``sqlite://`` where the suite does not look: older files, new files."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from celeriac.drivers.sqlite import broker, schedules
from celeriac.drivers.sqlite.schema import APPLICATION_ID, MIGRATIONS
from celeriac.message import ScheduleRecord
from celeriac.testing.samples import message

RECORD = ScheduleRecord(name="e", payload=b"{}", source="user", anchor=1.0)


def make_old(path: Path) -> None:
    """A file as version 1 made it, with a message that waits."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make_old(path)
    store = schedules(f"sqlite:///{path}", {})
    store.open()
    assert store.load().records == ()
    assert store.save([RECORD]) != [0]
    queue = broker(f"sqlite:///{path}", {})
    queue.open()
    assert queue.publish([message("a")]) == 1
    assert queue.kept.fetch("PRAGMA user_version") == [(len(MIGRATIONS),)]
    queue.close()
    store.close()


def test_a_file_that_was_made_anew_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    store = schedules(f"sqlite:///{path}", {})
    store.open()
    assert store.save([RECORD]) != [0]
    token = store.load().token
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    store.open()
    changes = store.load(token)
    assert changes.whole
    assert changes.records == ()
    store.close()
