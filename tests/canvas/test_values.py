"""What every form of workflow comes to, on every store."""

from __future__ import annotations

from typing import Any

import pytest
from flow_tasks import add, again, app, const, ident, pair, silent, swap

from celeriac import chain, chord, chunks, group, signature
from celeriac.result import AsyncResult, GroupResult

c, i = const.s, ident.s

FORMS: dict[str, tuple[Any, Any]] = {
    "chain": (c(1) | add.s(2) | add.s(3), 6),
    "chain of one": (chain(c(1)), 1),
    "chain from a generator": (chain(s for s in (c(1), add.s(1))), 2),
    "chain of chains": (chain(c(1), chain(add.s(1), add.s(1)), add.s(1)), 4),
    "immutable step": (c(1) | const.si(5) | add.s(1), 6),
    "group": (group(c(1), c(2), c(3)), [1, 2, 3]),
    "group from a generator": (group(c(n) for n in range(4)), [0, 1, 2, 3]),
    "empty group": (group(), []),
    "group of one": (group([c(1)]), [1]),
    "group in group": (group(c(1), group(c(2), group(c(3))), c(4)), [1, 2, 3, 4]),
    "group of chains": (group(c(1) | add.s(1), c(5) | add.s(1) | add.s(1)), [2, 7]),
    "group of chords": (group(chord([c(1), c(2)], i()), c(3)), [[1, 2], 3]),
    "chord": (chord([c(1), c(2)], i()), [1, 2]),
    "chord of one": (chord([c(1)], i()), [1]),
    "chord of none": (chord([], i()), []),
    "chord from a generator": (chord((c(n) for n in range(3)), i()), [0, 1, 2]),
    "chord of a group": (chord(group(c(1), c(2)), i()), [1, 2]),
    "group then task": (group(c(1), c(2)) | i(), [1, 2]),
    "group of one then task": (group([c(1)]) | i(), [1]),
    "task then group": (c(1) | group(add.s(1), add.s(2)), [2, 3]),
    "task then group of one": (c(1) | group([add.s(1)]), 2),
    "task then group of one then task": (c(1) | group([add.s(1)]) | i(), 2),
    "task then no group": (c(1) | group([]), 1),
    "task then no group then task": (c(1) | group([]) | i(), []),
    "task, group, task, task": (c(1) | group(add.s(1), add.s(2)) | pair.s() | add.s(1), 7),
    "group then group": (group(c(1), c(2)) | group(i(), add.s(1)), [[1, 2], 4]),
    "group, group, task": (group(c(1), c(2)) | group(add.s(1), add.s(2)) | i(), [4, 5]),
    "chord then task": (chord([c(1), c(2)], add.s(1)) | add.s(10), 14),
    "chord then group": (chord([c(1), c(2)], add.s(1)) | group(add.s(1), add.s(2)), [5, 6]),
    "task then chord": (c(1) | chord([add.s(1), add.s(2)], i()), [2, 3]),
    "task, chord, task": (c(1) | chord([add.s(1), add.s(2)], i()) | add.s(1), 6),
    "chord with a chain in its header": (chord([c(1) | add.s(1), c(9)], i()), [2, 9]),
    "chord with a group in its header": (chord([c(1), group(c(3), c(4)), c(6)], i()), [1, 3, 4, 6]),
    "chord with a chord in its header": (chord([chord([c(1), c(2)], i()), c(9)], i()), [[1, 2], 9]),
    "header: task then group": (chord([c(1) | group(add.s(1), add.s(2)), c(9)], i()), [[2, 3], 9]),
    "header: group then task": (chord([group(c(1), c(2)) | add.s(1), c(9)], i()), [4, 9]),
    "header: chord of a group": (
        chord([chord([c(1), c(2)], group(i(), add.s(1))), c(9)], i()),
        [[[1, 2], 4], 9],
    ),
    "body: chain": (chord([c(1), c(2)], add.s(1) | add.s(2)), 6),
    "body: group": (chord([c(1), c(2)], group(i(), add.s(1))), [[1, 2], 4]),
    "body: chord": (chord([c(1), c(2)], chord([add.s(1), add.s(2)], i())), [4, 5]),
    "body: chain to a group": (chord([c(1), c(2)], add.s(1) | group(add.s(1), add.s(2))), [5, 6]),
    "map": (const.map([1, 2, 3]), [1, 2, 3]),
    "starmap": (add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "task then map": (c(1) | const.map([4, 5]), [4, 5]),
    "chunks": (add.chunks([(n, n) for n in range(5)], 2), [[0, 2], [4, 6], [8]]),
    "chunks by name": (
        chunks(app.signature("add"), [(1, 1), (2, 2)], 1, app=app),
        [[2], [4]],
    ),
    "chunks then task": (add.chunks([(n, n) for n in range(3)], 2) | i(), [[0, 2], [4]]),
    "parts without results": (chord([silent.s(1), silent.s(2)], i()), [1, 2]),
    "parts that are tried again": (chord([again.s(1), again.s(2, 1)], i()), [1, 2]),
    "steps that are tried again": (again.s(1) | again.s() | add.s(1), 2),
    "replaced": (swap.s(c(7)), 7),
    "replaced by a chain": (swap.s(c(1) | add.s(1)) | add.s(10), 12),
    "replaced by a group": (swap.s(group(c(1), c(2))), [1, 2]),
    "replaced by a chord": (swap.s(chord([c(1), c(2)], add.s(1))), 4),
    "replaced twice": (swap.s(swap.s(c(1))), 1),
    "parts replaced": (chord([swap.s(c(1)), swap.s(group(c(2), c(3))), c(4)], i()), [1, [2, 3], 4]),
    "by name": (
        app.signature("c", (1,)) | group(app.signature("add", (n,)) for n in range(2)),
        [1, 2],
    ),
    "from a dictionary": (
        signature(
            {
                "task": "celery.chain",
                "subtask_type": "chain",
                "args": [],
                "immutable": False,
                "options": {},
                "kwargs": {"tasks": [dict(c(1)), dict(add.s(1))]},
            },
            app=app,
        ),
        2,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_value(flow: Any, form: str) -> None:
    sig, value = FORMS[form]
    assert flow.get(sig) == value
    assert flow.get(sig) == value, "sent a second time"


@pytest.mark.parametrize("form", FORMS)
def test_value_run_here(flow: Any, form: str) -> None:
    """The same, run in place."""
    sig, value = FORMS[form]
    assert sig.apply().get() == value


def test_an_empty_chain_is_nothing(flow: Any) -> None:
    assert chain().apply_async() is None
    assert chain()() is None


def test_arguments_go_to_what_begins(flow: Any) -> None:
    assert chain(add.s(1), add.s(2))(10).get(timeout=30) == 13
    assert group(add.s(1), add.s(2)).delay(10).get(timeout=30) == [11, 12]
    assert flow.get(chord([add.s(1), add.s(2)], i()), args=(10,)) == [11, 12]
    assert group(add.s(x=1), add.s(x=2)).apply_async(kwargs={"y": 5}).get(timeout=30) == [6, 7]
    assert chord([c(1), c(2)])(add.s(1)).get(timeout=30) == 4


def test_results_lead_back(flow: Any) -> None:
    """celery-api.md 4: ``.parent`` walks back; the body's parent is the header."""
    result = (c(1) | chord([add.s(1), add.s(2)], i() | add.s(1))).apply_async()
    assert result.get(timeout=30) == 6
    first = result.parent
    assert first.get() == [2, 3]
    header = first.parent
    assert isinstance(header, GroupResult)
    assert header.join() == [2, 3]
    assert isinstance(header.parent, AsyncResult)
    assert header.parent.get() == 1
    assert header.parent.parent is None


def test_root_and_parent_ids(flow: Any) -> None:
    about = flow.about
    result = (about.s() | about.si() | group(about.si(), about.si())).apply_async()
    one, other = result.get(timeout=30)
    second = result.parent.get()
    first = result.parent.parent.get()
    assert (first["root"], first["parent"]) == (first["id"], None)
    assert (second["root"], second["parent"]) == (first["id"], first["id"])
    assert one["parent"] == other["parent"] == second["id"]
    assert one["group"] == other["group"] == result.id
    assert [one["index"], other["index"]] == [0, 1]
    body = chord([about.si(), about.si()], about.si()).apply_async()
    told = body.get(timeout=30)
    parts = body.parent.get()
    assert told["parent"] in [part["id"] for part in parts]
    assert {part["root"] for part in parts} == {part["id"] for part in parts}


def test_options_are_inherited(flow: Any) -> None:
    """wire-format.md 1.3, as Celery sends them: a chain's options are its first task's, a group's
    every task's, a chord's those of header and body."""
    about = flow.about
    options = {"priority": 5, "expires": 60, "headers": {"mark": "x"}}
    chained = chain(about.s(), about.si()).set(**options).apply_async()
    assert chained.get(timeout=30)["mark"] is None
    first = chained.parent.get()
    assert (first["priority"], first["expires"], first["mark"]) == (5, True, "x")
    body = chord([about.si(), about.si()], about.si()).apply_async(**options)
    for told in (body.get(timeout=30), *body.parent.get()):
        assert (told["priority"], told["expires"], told["mark"]) == (5, True, "x")


def test_stamps_come_with_every_task(flow: Any) -> None:
    sig = flow.about.s() | group(flow.about.si(), flow.about.si()) | flow.about.si()
    sig.stamp(customer="7")
    result = sig.apply_async()
    assert result.get(timeout=30)["stamps"] == {"customer": "7"}
    assert {part["stamps"]["customer"] for part in result.parent.get()} == {"7"}


def test_links_of_workflows(flow: Any) -> None:
    """celery-api.md 4: a chain's link goes to its last task, a chord's to its body."""
    for number, sig in enumerate((chain(c(1), add.s(100)), chord([c(1), c(2)], add.s(300)))):
        sig.link(flow.seen.s())
        value = flow.get(sig)
        flow.until(lambda v=value: flow.notes("seen")[str(v)] == 1, f"link {number}")


def test_replacement_counts_and_keeps_its_id(flow: Any) -> None:
    result = flow.swap.s(flow.about.s()).apply_async()
    told = result.get(timeout=30)
    assert (told["id"], told["nesting"]) == (result.id, 1)


def test_parts_that_are_added(flow: Any) -> None:
    """celery-api.md 4: the chord waits for them too; their results come after the header's."""
    parts = [flow.more.s(1, c(5), c(1) | add.s(5)), c(2), flow.more.s(3, c(7))]
    assert flow.get(chord(parts, i())) == [1, 2, 3, 5, 6, 7]
    broken = chord([flow.more.s(1, flow.boom.s()), c(2)], i()).apply_async()
    told = broken.get(timeout=30, propagate=False, follow_parents=False)
    assert "ValueError" in str(told)
    alone = flow.more.s(1, c(5)).apply_async()
    with pytest.raises(ValueError, match="not part of the header of a chord"):
        alone.get(timeout=30)


def test_many_parts_in_order(flow: Any) -> None:
    assert flow.get(chord((c(n) for n in range(700)), i())) == list(range(700))


def test_long_chains(flow: Any) -> None:
    """Their steps travel in blocks; a break in the middle reaches the last one."""
    sig = chain(c(0), *(add.s(1) for _ in range(150)))
    assert flow.get(sig) == 150
    broken = chain(c(0), *(add.s(1) for _ in range(90)), flow.boom.s(), *(i() for _ in range(90)))
    result = broken.apply_async()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=30)
    assert isinstance(app.AsyncResult(result.id).get(timeout=30, propagate=False), ValueError)
