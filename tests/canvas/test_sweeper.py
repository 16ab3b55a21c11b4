"""Joins that stay open though their parts have ended: the agents end them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flow_tasks import add, app, boom, const, ident, seen

from celeriac import chord, states
from celeriac.exceptions import ChordError
from celeriac.message import Settlement, Verdict

c, i = const.s, ident.s


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Agents look every quarter of a second."""
    monkeypatch.setenv("FLOW_CONF", '{"result_chord_sweep_interval": 0.25}')
    app.conf.result_chord_sweep_interval = 0.25
    yield
    app.conf.result_chord_sweep_interval = 60.0


def end_without_arrival(ids: list[str], state: str, value: Any) -> None:
    """What is left of a worker of another implementation that stored the results of these tasks
    and died before it could count them in."""
    with app.operating() as owner:
        broker = app.producer.broker
        held = broker.claim(owner, ["celery"], 100, wait=5.0)
        mine = [one for one in held if one.message.id in ids]
        assert len(mine) == len(ids)
        app.results_or_raise().put(
            [
                app.records.write(one.message.id, one.message.run, state, value, hostname="other")
                for one in mine
            ]
        )
        broker.settle(
            [
                Settlement(delivery=one, verdict=Verdict.DONE if one in mine else Verdict.RELEASE)
                for one in held
            ]
        )


def test_a_part_that_was_not_counted_in(still: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = chord([c(1), c(2), c(3)], i() | seen.s()).apply_async()
    end_without_arrival([result.parent.parent[1].id], states.SUCCESS, 20)
    part = result.parent.parent[1].id
    with caplog.at_level(logging.WARNING, "celeriac.worker.sweeper"):
        still.start()
        assert result.parent.get(timeout=30) == [1, 20, 3]
        if still.solo is not None:  # it is in this process
            still.until(lambda: f"brought in {part}" in caplog.text, "what the agent says")
            assert "1 so far" in caplog.text
    still.until(lambda: still.notes("seen")["[1, 20, 3]"], "the body")
    still.idle()
    assert still.notes("seen")["[1, 20, 3]"] == 1


def test_all_parts_that_were_not_counted_in(still: Any) -> None:
    """Of an inner chord: its body is the last part of the outer one."""
    inner = chord([c(1), c(2)], add.s(10))
    result = (chord([inner, c(3)], i()) | i()).apply_async()
    parts = [one.id for one in result.parent.parent[0].parent.results]
    end_without_arrival(parts, states.SUCCESS, 5)
    still.start()
    assert result.get(timeout=30) == [20, 3]


def test_a_failed_part_that_was_not_counted_in(still: Any) -> None:
    result = chord([boom.s(), c(2)], i()).apply_async()
    end_without_arrival([result.parent[0].id], states.FAILURE, KeyError("x"))
    still.start()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    assert isinstance(told, ChordError)
    assert str(told) == f"Dependency {result.parent[0].id} raised KeyError('x')"


def test_what_is_not_over_is_left_alone(still: Any) -> None:
    """A part that waits for long is waited for."""
    result = chord([c(1), c(2).set(countdown=1.5)], i()).apply_async()
    still.start()
    assert result.get(timeout=30) == [1, 2]
