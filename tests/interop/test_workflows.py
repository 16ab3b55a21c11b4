"""Canvas: sent by one side, run by the other, or by both in turns (wire-format.md 1.3, 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.interop.conftest import WAYS, Way
from tests.interop.parties import Scene, until

# Where the parts of a workflow go, one after the other; ``at(n)`` in the expressions.
PLACES = {
    "celery": ["old"],
    "celeriac": ["new"],
    "celery first": ["old", "new"],
    "celeriac first": ["new", "old"],
}


class Senders:
    """A client, and how the parts of its workflows are spread."""

    def __init__(self, town: Scene, side: str, queues: list[str]) -> None:
        self.town = town
        self.side = side
        self.queues = queues
        self.client = town.client(side)

    def run(self, source: str, **names: Any) -> Any:
        """Send the workflow; its value, which both clients read by the last id."""
        id = self.send(source, **names)
        values = [self.town.client(side).get(id) for side in ("celery", "celeriac")]
        assert values[0] == values[1]
        return values[0]

    def send(self, source: str, **names: Any) -> str:
        return str(self._call(f"({source}).apply_async().id", **names))

    def get(self, source: str, **names: Any) -> Any:
        """What the result of the whole gives to its sender."""
        return self._call(f"({source}).apply_async().get(timeout=20)", **names)

    def _call(self, source: str, **names: Any) -> Any:
        spread = f"(lambda at: {source})(lambda n: {{'queue': queues[n % len(queues)]}})"
        return self.client(spread, queues=self.queues, **names)


_PAIRS = [
    (side, place)
    for side in ("celery", "celeriac")
    for place in PLACES
    if side != place or len(WAYS) > 2  # all on one side is no matter of this folder
]


@pytest.fixture(params=_PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def sender(request: pytest.FixtureRequest, town: Scene) -> Senders:
    side, place = request.param
    return Senders(town, side, PLACES[place])


def test_chain(sender: Senders) -> None:
    steps = (
        "chain(add.s(1, 2).set(**at(0)), add.s(4).set(**at(1)), add.s(8).set(**at(2)),"
        " follow.s('done').set(**at(3)))"
    )
    assert sender.run(steps) == [15, "done"]


def test_a_long_chain(sender: Senders) -> None:
    """What is left of it is passed on compressed by one side, plain by the other."""
    assert (
        sender.run("chain(add.s(0, 0), *(add.s(1).set(**at(n)) for n in range(150))).set(**at(0))")
        == 150
    )


def test_a_chain_knows_its_root_and_parents(sender: Senders) -> None:
    steps = "chain(add.s(1, 2).set(**at(0)), add.s(3).set(**at(1)), tell.s().set(**at(2)))"
    first, second, last = sender._call(
        f"(lambda r: [r.parent.parent.id, r.parent.id, r.id])(({steps}).apply_async())"
    )
    told = sender.client.get(last)
    assert told["args"] == [6]
    assert (told["root_id"], told["parent_id"]) == (first, second)
    until(lambda: sender.client.state(second) == "SUCCESS", "the second result")
    assert sender.town.document(second)["parent_id"] == first
    for side in ("celery", "celeriac"):
        look = "[one.id for one in result_of(id).children]"
        assert sender.town.client(side)(look, id=first) == [second]


def test_immutable_steps(sender: Senders) -> None:
    steps = "chain(add.s(1, 2).set(**at(0)), add.si(10, 20).set(**at(1)), add.s(1).set(**at(2)))"
    assert sender.run(steps) == 31


def test_a_chain_that_breaks(sender: Senders) -> None:
    """Every step that will not come fails with it; both clients learn of it by the last id."""
    steps = (
        "chain(add.s(1, 2).set(**at(0)), fail.si('custom').set(**at(1)), add.s(3).set(**at(2)),"
        " add.s(4).set(**at(3)))"
    )
    last = sender.send(steps)
    for side in ("celery", "celeriac"):
        error = sender.town.client(side).error(last)
        assert (error.name, error.raised_args) == ("OutOfStock", ["tea", 3])


def test_group(sender: Senders) -> None:
    assert sender.get("group(add.s(n, n).set(**at(n)) for n in range(6))") == [
        0,
        2,
        4,
        6,
        8,
        10,
    ]


def test_members_of_a_group_know_their_place(sender: Senders) -> None:
    told = sender.get("group(tell.s(n).set(**at(n)) for n in range(4))")
    assert [one["group_index"] for one in told] == [0, 1, 2, 3]
    assert len({one["group"] for one in told}) == 1
    assert told[0]["group"] is not None


def test_chord(sender: Senders) -> None:
    source = "chord([add.s(n, n).set(**at(n)) for n in range(7)], total.s().set(**at(7)))"
    assert sender.run(source) == 42


def test_a_chord_keeps_the_order(sender: Senders) -> None:
    source = "chord([count.s(n).set(**at(n)) for n in range(7)], follow.s('in order').set(**at(1)))"
    assert sender.run(source) == [list(range(7)), "in order"]


def test_a_chord_of_one(sender: Senders) -> None:
    assert sender.run("chord([add.s(1, 2).set(**at(0))], total.s().set(**at(1)))") == 3


def test_a_chord_whose_part_fails(sender: Senders) -> None:
    source = (
        "chord([add.s(1, 1).set(**at(0)), fail.si('plain').set(**at(1)), add.s(2, 2).set(**at(0))],"
        " total.s().set(**at(1)))"
    )
    last = sender.send(source)
    for side in ("celery", "celeriac"):
        error = sender.town.client(side).error(last)
        assert error.name == "ChordError"
        assert "raised ValueError('boom', 42)" in error.raised_args[0]


def test_a_chain_that_ends_in_a_chord(sender: Senders) -> None:
    source = (
        "chain(add.s(1, 2).set(**at(0)), group(add.s(n).set(**at(n)) for n in range(3)),"
        " total.s().set(**at(1)), add.s(100).set(**at(0)))"
    )
    assert sender.run(source) == 112


def test_a_group_after_a_group(sender: Senders) -> None:
    source = (
        "chain(group(add.s(n, 0).set(**at(n)) for n in range(3)),"
        " group(follow.s(n).set(**at(n)) for n in range(2)))"
    )
    assert sender.get(source) == [[[0, 1, 2], 0], [[0, 1, 2], 1]]


def test_chains_in_a_chord(sender: Senders) -> None:
    source = (
        "chord([chain(add.s(n, 1).set(**at(n)), add.s(10).set(**at(n + 1))) for n in range(4)],"
        " total.s().set(**at(0)))"
    )
    assert sender.run(source) == 50


def test_a_chord_in_a_chord(sender: Senders) -> None:
    source = (
        "chord([add.s(1, 1).set(**at(0)),"
        " chord([add.s(2, 2).set(**at(1)), add.s(3, 3).set(**at(0))], total.s().set(**at(1)))],"
        " total.s().set(**at(0)))"
    )
    assert sender.run(source) == 12


def test_a_chord_of_ignored_results_of_a_retried_part(sender: Senders) -> None:
    source = (
        "chord([insist.s(2, queues).set(**at(0)), count.s(1).set(**at(1))],"
        " follow.s().set(**at(0)))"
    )
    [parts] = sender.run(source)
    assert parts[0][2] == 2
    assert parts[1] == 1


def test_a_group_as_the_body(sender: Senders) -> None:
    source = (
        "chord([add.s(n, 1).set(**at(n)) for n in range(3)],"
        " group(follow.s(n).set(**at(n + 1)) for n in range(2)))"
    )
    assert sender.get(source) == [[[1, 2, 3], 0], [[1, 2, 3], 1]]


def test_a_workflow_in_a_workflow(sender: Senders) -> None:
    """A chord after a step, in the header of one that is followed by more."""
    source = (
        "chain(chord([chain(add.s(1, 1).set(**at(0)),"
        " group(add.s(n).set(**at(n)) for n in range(3)), total.s().set(**at(1))),"
        " add.s(5, 5).set(**at(1))], total.s().set(**at(0))), add.s(100).set(**at(1)))"
    )
    assert sender.run(source) == 9 + 10 + 100


def test_a_chain_in_a_header_that_breaks(sender: Senders) -> None:
    source = (
        "chord([chain(add.s(1, 1).set(**at(0)), fail.si('plain').set(**at(1)),"
        " add.s(2).set(**at(0))), add.s(2, 2).set(**at(1))],"
        " total.s().set(**at(0)).on_error(errback.s().set(**at(1))))"
    )
    last = sender.send(source)
    for side in ("celery", "celeriac"):
        error = sender.town.client(side).error(last)
        assert error.name == "ChordError"
        assert "ValueError('boom', 42)" in error.raised_args[0]
    sender.town.until_noted(1, "errback", last)


INNER = (
    "chain(chord([chord([add.s(1, 1).set(**at(0)), fail.si('plain').set(**at(1))],"
    " total.s().set(**at(0))), add.s(2, 2).set(**at(1))], total.s().set(**at(1))),"
    " add.s(1).set(**at(0)))"
)


def test_an_inner_chord_that_breaks(town: Scene) -> None:
    """What comes after it ends too, in our workers (Celery's leave the outer one waiting)."""
    last = Senders(town, "celery", ["new"]).send(INNER)
    for side in ("celery", "celeriac"):
        assert "boom" in str(town.client(side).error(last).raised_args)


def test_an_inner_chord_that_breaks_in_both(scene: Callable[..., Scene]) -> None:
    """A chord of ours that Celery's workers leave waiting is ended by our agents."""
    made = scene(result_chord_sweep_interval=0.5)
    made.wait_ready(
        made.start("celery", "-c", "1", "-Q", "old"), made.start("celeriac", "-c", "1", "-Q", "new")
    )
    last = Senders(made, "celeriac", ["new", "old"]).send(INNER)
    for side in ("celery", "celeriac"):
        assert "boom" in str(made.client(side).error(last).raised_args)


def test_a_signature_that_crosses(way: Way) -> None:
    """Written as a dictionary by one side, read, put to another and sent by the other."""
    described = way.client(
        "json.loads(json.dumps(chain(add.s(1, 2).set(queue=q),"
        " group(add.s(n).set(queue=q) for n in range(3)))))",
        q=way.queue,
    )
    source = "(signature(described, app=app) | total.s().set(queue=q)).apply_async()"
    assert way.other(f"{source}.get(timeout=20)", described=described, q=way.queue) == 12


def test_stamps(way: Way) -> None:
    source = (
        "(lambda s: (s.stamp(customer='7'), s.apply_async().get(timeout=20))[1])("
        "chain(tell.si().set(queue=q), group(tell.si().set(queue=q) for n in range(2))))"
    )
    told = way.client(source, q=way.queue)
    assert [one["stamped_headers"] for one in told] == [["customer"]] * 2
    assert [one["stamps"]["customer"] in ("7", ["7"]) for one in told] == [True, True]


def test_links(sender: Senders) -> None:
    source = (
        "add.s(1, 2).set(link=[follow.s('a').set(**at(1)), follow.s('b').set(**at(0))], **at(0))"
    )
    sender.town.forget_notes()
    assert sender.run(source) == 3
    sender.town.until_noted(2, "follow", 3)
    assert sorted(note[2] for note in sender.town.notes("follow", 3)) == ["a", "b"]


def test_errbacks(sender: Senders) -> None:
    """Of both conventions: told the id, or called where the task failed."""
    source = (
        "fail.si('plain').set(link_error=[errback.s().set(**at(1)), errback_in_place.s()], **at(0))"
    )
    id = sender.send(source)
    sender.town.until_noted(1, "errback", id)
    sender.town.until_noted(1, "errback_in_place", id, "ValueError")


def test_the_errback_of_a_chord(sender: Senders) -> None:
    source = (
        "chord([add.s(1, 1).set(**at(0)), fail.si('plain').set(**at(1))],"
        " total.s().set(**at(0)).on_error(errback.s().set(**at(1))))"
    )
    id = sender.send(source)
    sender.town.until_noted(1, "errback", id)


def test_map_starmap_and_chunks(sender: Senders) -> None:
    assert sender.run("count.map([1, 2, 3]).set(**at(0))") == [1, 2, 3]
    assert sender.run("add.starmap([(1, 2), (3, 4)]).set(**at(1))") == [3, 7]
    chunks = "add.chunks([(n, n) for n in range(5)], 2).group().set(**at(0))"
    assert sender.get(chunks) == [[0, 2], [4, 6], [8]]


def test_a_task_that_is_replaced(sender: Senders) -> None:
    """By one of the other side; what follows it follows the one in its place."""
    queues = [*sender.queues, *sender.queues]
    source = "chain(instead.s(20, 21, other).set(**at(0)), add.s(1).set(**at(1)))"
    assert sender.run(source, other=queues[-1]) == 42


def test_a_replaced_part_of_a_chord(sender: Senders) -> None:
    source = (
        "chord([instead.s(1, 2, other).set(**at(0)), add.s(3, 4).set(**at(1))],"
        " total.s().set(**at(0)))"
    )
    assert sender.run(source, other=sender.queues[-1]) == 10


def test_many_chords_at_once(sender: Senders) -> None:
    source = (
        "[chord([add.s(n, k).set(**at(n)) for n in range(5)], total.s().set(**at(k))).delay().id"
        " for k in range(10)]"
    )
    ids = sender._call(source)
    assert [sender.client.get(id) for id in ids] == [10 + 5 * k for k in range(10)]


def test_nothing_is_left_of_a_chord(way: Way) -> None:
    source = "(lambda r: (r.parent.id, r.id))(chord([add.s(n, n).set(queue=q) for n in range(3)],"
    gid, id = way.client(f"{source} total.s().set(queue=q)).delay())", q=way.queue)
    assert way.client.get(id) == 6

    def gone() -> bool:
        keys = way.town.wire("KEYS", f"celery-taskset-meta-{gid}*")
        left = {b"c", b"celeriac"} if way.side == "celery" else {b"c"}  # which Celery doesn't know
        return {key.rpartition(b".")[2] for key in keys} <= left

    until(gone, "the chord's keys to be gone")
