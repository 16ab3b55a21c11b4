"""Messages that kill the process which runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.field import HERE, Field, scaled, wait_until

from celeriac import states
from celeriac.exceptions import WorkerLostError
from celeriac.message import MessageState

MATES = 200
TRIES = 3


def celeriac(field: Field, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celeriac", "-A", "bombed:app", *args]
    return subprocess.run(
        command, env=field.env, cwd=HERE, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio"])
def test_poison_is_buried_and_nothing_else(tmp_path: Path, store: str, pool: str) -> None:
    """It is run as often as ``task_max_deliveries`` says; what was claimed with it, or runs beside
    it, is not buried. A dead letter that is sent again is a new run."""
    field = Field(tmp_path, store, BOMBED_LEASE="1", BOMBED_MAX_DELIVERIES=str(TRIES))
    bait = tmp_path / "bait"
    bait.touch()
    task = "awork" if pool == "asyncio" else "work"
    mates = scaled(MATES)
    before = field.send_all(task, [(0.002,)] * mates + [(0.3,)])
    poison = field.send("poison", str(bait))
    ids = before + field.send_all(task, [(0.3,)] * 4 + [(0.002,)] * mates)
    with field.workers(f"-c 4 -P {pool}") as (worker,):
        field.drained()
        assert len(field.ledger.lines_of(poison)) == TRIES
        (dead,) = field.dead()
        assert dead.message.id == poison
        assert "WorkerLostError" in dead.reason
        with pytest.raises(WorkerLostError):
            field.app.AsyncResult(poison).get(timeout=5)
        assert field.app.AsyncResult(poison).state == states.FAILURE
        assert field.states(ids) == {states.SUCCESS: len(ids)}
        repeated = [n for one, n in field.ledger.of("start").items() if n > 1 and one != poison]
        print(f"\n{pool}: starts of what ran beside the poison, if more than one: {repeated}")
        bait.unlink()
        listed = json.loads(celeriac(field, "dead", "list", "--json").stdout)
        assert [one["id"] for one in listed] == [poison]
        retried = celeriac(field, "dead", "retry", poison)
        assert retried.returncode == 0, retried.stderr
        wait_until(lambda: field.app.AsyncResult(poison).state == states.SUCCESS, 10, "its new run")
        assert not field.dead()
        assert worker.stop() == 0
    field.close()


@pytest.mark.every_store
def test_a_message_that_kills_is_counted_across_workers(tmp_path: Path, store: str) -> None:
    """Also when the whole worker goes with it, so that nobody is left to count."""
    field = Field(tmp_path, store, BOMBED_LEASE="0.5", BOMBED_MAX_DELIVERIES=str(TRIES))
    task_id = field.send("work", 600.0)
    mate = field.send("work", 0.0, queue="other")
    for number in range(TRIES):
        with field.workers("-c 1 -Q celery,other") as (worker,):
            field.started(task_id, number + 1)
            worker.kill_tree()
    with field.workers("-c 1 -Q celery,other") as (worker,):
        wait_until(lambda: bool(field.dead()), 20, "it to be buried")
        assert field.states([task_id, mate]) == {states.FAILURE: 1, states.SUCCESS: 1}
        assert worker.stop() == 0
    assert [one.message.id for one in field.dead()] == [task_id]
    assert field.admin.find([task_id])[0].state is MessageState.DEAD
    field.close()
