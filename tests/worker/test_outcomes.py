"""How a task can end, and what is stored, sent and said of it: one worker for all tests here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from live_worker import Stage

from celeriac import states
from celeriac.exceptions import EncodeError, NotRegistered, Reject
from celeriac.message import MessageState

HANDLERS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


def state_of(stage: Stage, result: Any) -> str:
    """As the backend has it now; a result object keeps what it has once seen of an end."""
    return str(stage.app.AsyncResult(result.id).state)


def test_an_unknown_task_waits_for_others_and_is_then_buried(live: Stage) -> None:
    began = time.monotonic()
    result = live.send("nowhere", 1)
    live.until(
        lambda: [one.state for one in live.find(result.id)] == [MessageState.DELAYED],
        "it to be left to others",
    )
    dead = live.dead(result.id)
    assert 0.7 < time.monotonic() - began < 3.0
    assert "NotRegistered" in dead.reason
    assert dead.message.id == result.id
    with pytest.raises(NotRegistered, match="nowhere"):
        result.get(timeout=5)
    assert result.state == states.FAILURE
    live.noted("signal", "task_unknown", "live_tasks.nowhere", result.id)
    assert live.log().count(f"nowhere[{result.id}] is not known") == 1


def test_an_expired_task_is_revoked_and_not_run(live: Stage) -> None:
    result = live.send("nap", "expired", 0.0, countdown=0.2, expires=0.1)
    assert result.get(timeout=10, propagate=False).args == ("expired",)
    assert result.state == states.REVOKED
    assert not live.notes("start", "expired")
    live.noted("signal", "task_revoked", "nap")


def test_a_task_that_ignores_itself_leaves_no_result(live: Stage) -> None:
    result = live.send("ignored")
    live.noted("ignored")
    live.gone(result.id)
    assert result.state == states.PENDING
    assert len(live.notes("ignored")) == 1


def test_a_rejected_task_is_buried(live: Stage) -> None:
    result = live.send("rejected", "")
    assert "no good" in live.dead(result.id).reason
    with pytest.raises(Reject, match="no good"):
        result.get(timeout=5)
    assert result.state == states.FAILURE


def test_a_task_rejected_with_requeue_comes_back(live: Stage, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.touch()
    before = len(live.notes("rejected"))
    result = live.send("rejected", str(closed))
    live.noted("rejected", times=before + 2)
    assert result.state == states.PENDING
    closed.unlink()
    assert result.get(timeout=10) == "taken"
    live.gone(result.id)


def test_states_of_its_own(live: Stage, tmp_path: Path) -> None:
    result = live.send("custom", str(tmp_path / "end"))
    live.until(lambda: result.state == "PROGRESS", "its own state")
    assert result.info == {"done": 7}
    assert not result.ready()
    (tmp_path / "end").touch()
    assert result.get(timeout=10) == "ended"
    assert result.state == states.SUCCESS


def test_track_started(live: Stage, tmp_path: Path) -> None:
    result = live.send("tracked", str(tmp_path / "end"))
    live.until(lambda: result.state == states.STARTED, "it to be STARTED")
    assert set(result.info) == {"pid", "hostname"}
    (tmp_path / "end").touch()
    assert result.get(timeout=10) == "ended"


def test_a_result_that_cannot_be_written_is_a_failure(live: Stage) -> None:
    result = live.send("unwritable")
    with pytest.raises(EncodeError, match="object"):
        result.get(timeout=10)
    assert result.state == states.FAILURE
    live.gone(result.id)


def test_an_error_that_cannot_be_written_is_told_all_the_same(live: Stage) -> None:
    result = live.send("fail_unwritable")
    with pytest.raises(Exception, match="object object"):
        result.get(timeout=10)
    assert result.state == states.FAILURE
    live.gone(result.id)


def test_the_tracebacks_are_the_tasks_own(live: Stage) -> None:
    result = live.send("fail", "here")
    with pytest.raises(ValueError, match="here"):
        result.get(timeout=10)
    assert "raise ValueError(text)" in result.traceback
    assert "celeriac/execution.py" not in result.traceback


def test_ignored_results(live: Stage) -> None:
    """By the task, by the call, and errors that are stored in spite of it."""
    quiet = live.send("quiet", False)
    loud = live.send("quiet", True)
    live.noted("quiet", True)
    by_call = live.send("add", 1, 1, ignore_result=True)
    in_spite = live.send("quiet_but", True)
    fine = live.send("quiet_but", False)
    for one in (quiet, loud, by_call, in_spite, fine):
        live.gone(one.id)
    stored = [state_of(live, one) for one in (quiet, loud, by_call, in_spite, fine)]
    assert stored == ["PENDING", "PENDING", "PENDING", "FAILURE", "PENDING"]


def test_a_retry_keeps_id_queue_and_run(live: Stage) -> None:
    result = live.send("insist", 2, queue="side")
    assert result.get(timeout=10) == [result.id, 2]
    tries = [note[1:-2] for note in live.notes("insist", result.id)]
    run = tries[0][-1]
    assert run
    assert tries == [[result.id, retries, "side", run] for retries in range(3)]


def test_automatic_retries_end_with_the_error(live: Stage) -> None:
    result = live.send("unlucky")
    with pytest.raises(ConnectionError, match="no luck"):
        result.get(timeout=10)
    assert live.log().count(f"unlucky[{result.id}] retry") == 2


def test_links(live: Stage) -> None:
    links = [live.sig("follow", "linked"), live.sig("follow", "fixed", immutable=True)]
    result = live.send("add", 2, 3, link=links)
    assert result.get(timeout=10) == 5
    live.noted("follow", 5, "linked")
    live.noted("follow", "fixed")
    assert len(live.app.AsyncResult(result.id).children) == 2


def test_a_failed_task_calls_no_links_but_its_errbacks(live: Stage) -> None:
    """Celery's two conventions: sent with the id, or called with request, error and traceback."""
    result = live.send(
        "fail",
        "linked",
        link=live.sig("follow", "never"),
        link_error=[live.sig("old_errback"), live.sig("new_errback")],
    )
    live.noted("old_errback", result.id)
    live.noted("new_errback", result.id, "ValueError", True)
    live.idle()
    assert not live.notes("follow", "never")


def test_the_handlers_of_a_retry(live: Stage) -> None:
    before = len(live.notes())
    assert live.run("told", "retry") == "retry"
    said = [note[0] for note in live.notes()[before:] if note[0] in HANDLERS]
    first, second = said[:2], said[2:]
    assert first == ["before_start", "on_retry"]
    assert second == ["before_start", "on_success", "after_return"]
    assert ["on_retry", "OSError('once')"] in [note[:-2] for note in live.notes()[before:]]


def test_messages_that_are_revoked_while_they_wait_for_their_time(live: Stage) -> None:
    result = live.send("nap", "later", 0.0, countdown=600)
    result.revoke()
    assert result.get(timeout=5, propagate=False).args == ("revoked",)
    assert state_of(live, result) == states.REVOKED
    assert live.find(result.id) == []


def test_what_runs_goes_on_if_it_is_revoked_without_terminate(live: Stage) -> None:
    result = live.send("nap", "goes on", 0.4)
    live.noted("start", "goes on")
    result.revoke()
    assert isinstance(result.get(timeout=10), int)
    assert result.state == states.SUCCESS
    again = live.send("nap", "goes on", 0.0, task_id=result.id)  # it stays revoked
    live.gone(again.id)
    assert len(live.notes("start", "goes on")) == 1


@pytest.mark.parametrize("how", ["return", "raise", "reject", "link", "log"])
def test_texts_that_are_not_unicode(live: Stage, how: str) -> None:
    """As file names can be: whatever becomes of the task, it ends, and its process goes on."""
    lost = live.log().count("ended with exit code")
    result = live.send("name_of", how)
    value = result.get(timeout=5, propagate=False)
    assert str(value) == "logged" if how == "log" else isinstance(value, str | Exception)
    live.until(
        lambda: all(one.state is MessageState.DEAD for one in live.find(result.id)), "its end"
    )
    assert live.run("add", 1, 1) == 2
    assert live.log().count("ended with exit code") == lost
