"""Random workflows while everything is killed: each ends with its value, no body begins before its
header is complete, and nothing runs twice but what was running in a process that was killed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drivers import rabbitmq_stage
from tests.faults.field import Bomber, Field, Ledger, emptied_redis, scaled, wait_until

from celeriac import chain, chord, group, states

WORKFLOWS = 300
KILLS = 150
LONGEST = 0.03


class Grower:
    """Makes random workflows, and knows what they come to."""

    def __init__(self, field: Field, rng: random.Random) -> None:
        self.app = field.app
        self.rng = rng

    def leaf(self, first: bool) -> tuple[Any, int]:
        number = self.rng.randint(1, 9)
        seconds = self.rng.uniform(0, LONGEST)
        args = (0, number, seconds) if first else (number, seconds)
        return self.app.signature("bombed.node", args), number

    def grow(self, depth: int, first: bool = True) -> tuple[Any, Any]:
        """A signature, and a function from what it is given to its value."""
        kind = self.rng.choice(["leaf", "chain", "group", "chord", "chord"]) if depth else "leaf"
        if kind == "leaf":
            sig, number = self.leaf(first)
            return sig, lambda given: total(given) + number
        grown = [
            self.grow(depth - 1, first and (kind != "chain" or not index))
            for index in range(self.rng.randint(2, 4))
        ]
        sigs, values = [one for one, _ in grown], [value for _, value in grown]
        if kind == "chain":
            return chain(sigs), lambda given: in_turn(values, given)
        if kind == "group":
            return group(sigs), lambda given: [value(given) for value in values]
        body, value_of_body = self.grow(depth - 1, False)
        return chord(sigs, body), lambda given: value_of_body([value(given) for value in values])


def in_turn(values: list[Any], given: Any) -> Any:
    for value in values:
        given = value(given)
    return given


def total(value: Any) -> Any:
    return sum(total(one) for one in value) if isinstance(value, list) else value or 0


def chords(sig: Any) -> Iterator[Any]:
    """All chords in a frozen workflow."""
    if sig.subtask_type == "chord":
        yield sig
        yield from chords(sig.body)
    for task in sig.tasks if sig.subtask_type else ():
        yield from chords(task)


def first_ids(sig: Any) -> list[str]:
    """The tasks that begin when it is sent."""
    if sig.subtask_type == "chain":
        return first_ids(sig.tasks[0])
    if sig.subtask_type in ("group", "chord"):
        return [one for task in sig.tasks for one in first_ids(task)]
    return [sig.options["task_id"]]


def last_ids(sig: Any) -> list[str]:
    """The tasks whose values are its value."""
    if sig.subtask_type == "chain":
        return last_ids(sig.tasks[-1])
    if sig.subtask_type == "group":
        return [one for task in sig.tasks for one in last_ids(task)]
    if sig.subtask_type == "chord":
        return last_ids(sig.body)
    return [sig.options["task_id"]]


@pytest.fixture
def split(tmp_path: Path) -> Iterator[Field]:
    """RabbitMQ as the broker, results on Redis."""
    url = rabbitmq_stage.shared_server().new_vhost()
    made = Field(tmp_path, "rabbitmq", url=url, results=emptied_redis()[1], BOMBED_LEASE="1")
    yield made
    made.close()


@pytest.mark.every_store
@pytest.mark.timeout(1800)
def test_workflows_survive_kills(field: Field, rng: random.Random) -> None:
    """DESIGN.md, promise 8."""
    survive(field, rng)


@pytest.mark.timeout(1800)
def test_workflows_survive_kills_on_two_stores(split: Field, rng: random.Random) -> None:
    """The same where what follows is published after the result is stored."""
    survive(split, rng)


def survive(field: Field, rng: random.Random) -> None:
    """Run random workflows while processes are killed, then look at what has run."""
    grower = Grower(field, rng)
    made: list[tuple[Any, Any, Any]] = []
    for _ in range(scaled(WORKFLOWS)):
        sig, value = grower.grow(3)
        sig.freeze()
        made.append((sig, sig.apply_async(), total(value(0))))
    ends = field.app.ResultSet([result for _, result, _ in made])
    with field.workers("-c 2", "-c 2") as workers:
        bomber = Bomber(workers, _held_of(field), rng.randrange(2**32))
        while bomber.count < scaled(KILLS) and not ends.ready():
            bomber.strike()
            bomber.pause(0.02, 0.3)
        wait_until(lambda: _up(workers) and ends.ready(), 300, "the workflows to end")
        wait_until(lambda: _up(workers) and not field.left(), 60, "the queues to be empty")
    for sig, result, expected in made:
        assert total(result.get(timeout=10)) == expected, sig
    ledger = field.ledger.read()
    bodies = _bodies_after_headers([sig for sig, _, _ in made], ledger)
    again = _repeats(ledger, bomber.killed)
    print(f"{len(made)} workflows, {bodies} bodies, kills that hit: {dict(bomber.hits)}")
    print(f"{again} runs were repeated, each after the kill of its process")
    assert not field.dead()


def _held_of(field: Field) -> Callable[[], int]:
    """Deliveries in flight; where the broker doesn't tell, every kill counts."""
    return field.held if field.url.startswith(("sqlite:", "redis:")) else lambda: 1


def _up(workers: list[Any]) -> bool:
    for worker in workers:
        if not worker.alive():
            worker.start()
    return True


def _bodies_after_headers(sigs: list[Any], ledger: Ledger) -> int:
    """Every body has begun, and when it first did, every part of its header was done."""
    began: dict[str, float] = {}
    done: dict[str, float] = {}
    for line in ledger.lines:
        if line.word in ("start", "done"):
            (began if line.word == "start" else done).setdefault(line.id, line.at)
    count = 0
    for sig in sigs:
        for one in chords(sig):
            complete = max(done[task] for part in one.tasks for task in last_ids(part))
            for body in first_ids(one.body):
                assert began[body] >= complete
                count += 1
    return count


def _repeats(ledger: Ledger, killed: dict[int, float]) -> int:
    """How many runs were not the last of their task: all of them of processes that were killed."""
    runs: dict[str, list[int]] = defaultdict(list)
    for line in ledger.lines:
        if line.word == "start":
            runs[line.id].append(line.pid)
    again = [pid for pids in runs.values() for pid in pids[:-1]]
    assert set(again) <= set(killed)
    return len(again)


@pytest.mark.timeout(300)
def test_workflows_with_errors_survive_kills(field: Field, rng: random.Random) -> None:
    """Errors too: every task of a workflow comes to an end, and the whole fails."""
    app = field.app
    results = []
    for _ in range(scaled(60)):
        parts = [app.signature("bombed.node", (0, 1, rng.uniform(0, LONGEST))) for _ in range(3)]
        parts[rng.randrange(3)] = app.signature("bombed.node", (0, 1, "no time"))
        body = app.signature("bombed.node", (1, 0.0))
        outer = chord([chord(parts, body), parts[0].clone()], body.clone())
        results.append((outer | body.clone()).apply_async())
    with field.workers("-c 2") as workers:
        bomber = Bomber(workers, field.held, rng.randrange(2**32))
        while bomber.count < scaled(40) and field.left():
            bomber.strike()
            bomber.pause(0.02, 0.2)
        wait_until(lambda: _up(workers) and not field.left(), 120, "the workflows to end")
    for result in results:
        result.get(timeout=10, propagate=False, follow_parents=False)
        assert result.state == states.FAILURE
