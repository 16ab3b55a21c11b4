"""Where the schedule is kept: at the broker, else at the result backend, else in a file here."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.beat import SharedScheduler

# Nothing is opened there.
RABBIT, REDIS, SQLITE = "amqp://127.0.0.1:1//", "redis://127.0.0.1:1", "sqlite:////nowhere/q.db"


def scheduler_of(broker: str, backend: str | None, **options: str) -> SharedScheduler:
    app = Celeriac("places", broker=broker, backend=backend, set_as_current=False)
    return SharedScheduler(app, lazy=True, **options)


@pytest.mark.parametrize(
    ("broker", "backend", "store"),
    [
        (SQLITE, None, SQLITE),
        (SQLITE, f"{REDIS}/1", SQLITE),
        (f"{REDIS}/0", None, REDIS),
        (f"{REDIS}/0", SQLITE, REDIS),
        (RABBIT, f"{REDIS}/0", REDIS),
        (RABBIT, SQLITE, SQLITE),
    ],
)
def test_at_the_broker_else_at_the_result_backend(
    broker: str, backend: str | None, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert scheduler_of(broker, backend).make_store().store == store
    assert caplog.text == ""


@pytest.mark.parametrize("backend", [None, "rpc://", "disabled://"])
def test_in_a_local_file_and_says_so(
    backend: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    store = scheduler_of(RABBIT, backend).make_store()
    assert store.store == f"sqlite:///{tmp_path}/celeriacbeat-schedule.db"
    assert "which other machines do not see" in caplog.text
    named = scheduler_of(RABBIT, backend, schedule_filename="other.db").make_store()
    assert named.store == f"sqlite:///{tmp_path}/other.db"
