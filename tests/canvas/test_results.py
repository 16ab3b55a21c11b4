"""Results of workflows: reading, saving, walking and drawing them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flow_tasks import add, app, boom, const, ident, silent, slow

from celeriac import chain, chord, group, states
from celeriac.exceptions import IncompleteStream, TimeoutError
from celeriac.result import GroupResult, ResultSet, allow_join_result, result_from_tuple
from celeriac.workflow import drawn, mermaid, tree_of_id, tree_of_result

c, i = const.s, ident.s


def test_groups_say_how_far_they_are(flow: Any) -> None:
    result = group(c(1), c(2), silent.s(3)).apply_async()
    assert result.get(timeout=30) == [1, 2, None]  # nobody keeps the last one's
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert not result.waiting()
    assert result.completed_count() == 2
    assert len(result) == 3
    assert [one.get() for one in result] == [1, 2, None]
    assert bool(group().apply_async())


def test_groups_that_fail(flow: Any) -> None:
    result = group(c(1), boom.s(), c(3)).apply_async()
    with pytest.raises(ValueError, match="boom"):
        result.join(timeout=30)
    values = result.join(timeout=30, propagate=False)
    assert (values[0], type(values[1]), values[2]) == (1, ValueError, 3)
    assert result.failed()
    assert not result.successful()


def test_as_they_come(flow: Any) -> None:
    result = group(slow.s(1, 0.4), c(2)).apply_async()
    came = [value for _, value in result.iterate(timeout=30)]
    assert sorted(came) == [1, 2]
    ids = [task_id for task_id, _ in result.iter_native(timeout=30)]
    assert sorted(ids) == sorted(one.id for one in result.results)
    told: list[Any] = []
    assert result.get(timeout=30, callback=lambda task_id, value: told.append(value)) == []
    assert told == [1, 2]


def test_not_in_time(still: Any) -> None:
    for sig in (group(c(1), c(2)), c(1) | add.s(1), chord([c(1)], i())):
        with pytest.raises(TimeoutError):
            sig.apply_async().get(timeout=0.05)


def test_called_when_it_is_known_that_it_ended(flow: Any) -> None:
    told: list[Any] = []
    one = slow.s(1, 0.2).apply_async()
    one.then(told.append)
    assert told == []
    assert one.get(timeout=30) == 1
    one.then(told.append)
    assert told == [one, one]
    result = group(c(1), boom.s(), silent.s(3)).apply_async()
    result.then(told.append)
    result.get(timeout=30, propagate=False)
    result.then(told.append)
    assert told[2:] == [result, result]

    def fails(_: Any) -> None:
        raise KeyError("callback")

    one.then(fails, told.append)
    assert isinstance(told[-1], KeyError)
    with pytest.raises(KeyError):
        one.then(fails)
    assert one.backend is result.backend is app.backend


def test_save_and_restore(flow: Any) -> None:
    result = group(c(1), c(2) | add.s(1)).apply_async()
    assert result.save() is result
    assert GroupResult.restore(result.id, app=app).get(timeout=30) == [1, 3]
    restored = app.GroupResult.restore(result.id)
    assert restored == result
    assert restored.results[1].parent.id == result.results[1].parent.id
    result.add(app.AsyncResult(result.results[0].id + "x"))
    result.save()
    assert len(app.GroupResult.restore(result.id)) == 3
    result.delete()
    assert app.GroupResult.restore(result.id) is None


def test_the_saved_group_is_celerys_document(flow: Any) -> None:
    """wire-format.md 4.2: key ``celery-taskset-meta-<gid>``, ``{"result": <group tuple>}``."""
    result = group(c(1)).apply_async().save()
    [record] = app.results_or_raise().get([f"celery-taskset-meta-{result.id}"])
    assert record is not None
    assert json.loads(record.payload) == {
        "result": [[result.id, None], [[[result.results[0].id, None], None]]]
    }


def test_tuples_and_pickles(flow: Any) -> None:
    result = (c(1) | group(add.s(1), add.s(2))).apply_async()
    told = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app)
    assert told.as_tuple() == result.as_tuple()
    assert told.get(timeout=30) == [2, 3]
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert [one.id for one in again.results] == [one.id for one in result.results]


def test_children_and_what_they_sent(flow: Any) -> None:
    """Celery: ``children`` are what a task has sent, the next step among them."""
    result = (c(1) | add.s(1) | add.s(2)).apply_async()
    assert result.get(timeout=30) == 4
    first = result.parent.parent
    assert [child.id for child in first.children] == [result.parent.id]
    assert [value for _, value in first.collect()] == [1, 2, 4]
    assert first.get_leaf() == 4
    assert [len(after) for after in first.graph.values()] == [1, 1, 0]
    headed = (c(1) | chord([add.s(1), add.s(2)], i())).apply_async()
    assert headed.get(timeout=30) == [2, 3]
    header = headed.parent.parent.children[0]
    assert isinstance(header, GroupResult)
    assert header.get() == [2, 3]


def test_what_has_not_ended_yet(still: Any) -> None:
    result = (c(1) | add.s(1)).apply_async()
    with pytest.raises(IncompleteStream):
        list(result.parent.iterdeps())
    assert len(list(result.parent.iterdeps(intermediate=True))) == 1


def test_forgetting(flow: Any) -> None:
    result = (c(1) | group(add.s(1), add.s(2))).apply_async()
    assert result.get(timeout=30) == [2, 3]
    first = result.parent
    result.forget()
    assert [one.state for one in result.results] == [states.PENDING] * 2
    assert first.get() == 1
    chained = (c(1) | add.s(1)).apply_async()
    assert chained.get(timeout=30) == 2
    chained.forget()
    assert app.AsyncResult(chained.id).state == states.PENDING
    assert app.AsyncResult(chained.parent.id).state == states.PENDING


def test_sets(flow: Any) -> None:
    one, two = c(1).apply_async(), c(2).apply_async()
    results = ResultSet([one], app=app)
    results.add(two)
    assert results.join(timeout=30) == [1, 2]


def test_waiting_inside_a_task(flow: Any) -> None:
    """Refused in a worker; ``allow_join_result`` is a promise to know better."""
    with allow_join_result():
        assert flow.get(group(c(1))) == [1]


@pytest.mark.parametrize("form", ["chain", "group", "chord"])
def test_in_an_event_loop(flow: Any, form: str) -> None:
    import asyncio

    sig, value = {
        "chain": (c(1) | add.s(1), 2),
        "group": (group(c(1), c(2)), [1, 2]),
        "chord": (chord([c(1), c(2)], i()), [1, 2]),
    }[form]

    async def main() -> Any:
        return await (await sig.aapply_async())

    assert asyncio.run(asyncio.wait_for(main(), 30)) == value


# --- drawing


def test_explain(flow: Any) -> None:
    result = (
        c(1) | chord([add.s(1), boom.s(), const.si(3) | add.s(1)], i()) | add.s(9)
    ).apply_async()
    result.get(timeout=30, propagate=False)
    flow.idle()
    file = io.StringIO()
    result.explain(file=file)
    header = result.parent.parent
    one, two, three = header.results
    assert file.getvalue().splitlines() == [
        f"c {header.parent.id}  SUCCESS",
        f"group {header.id}  1 FAILURE, 2 SUCCESS",
        f"  | add {one.id}  SUCCESS",
        f"  | boom {two.id}  FAILURE",
        f"  | c {three.parent.id}  SUCCESS",
        f"  | add {three.id}  SUCCESS",
        f"ident {result.parent.id}  FAILURE",
        f"add {result.id}  FAILURE",
    ]


def test_large_groups_are_cut(flow: Any) -> None:
    result = group(c(n) for n in range(30)).apply_async()
    result.get(timeout=30)
    text = drawn(tree_of_result(result))
    assert text.splitlines()[0].endswith("30 SUCCESS")
    assert "and 10 more" in text


def test_graph_of_what_waits(still: Any) -> None:
    """From the message: what it will lead to."""
    still.needs_messages_by_id()
    result = (c(1) | chord([add.s(1), add.s(2)], i()) | add.s(1)).apply_async()
    first = result.parent.parent.parent
    root = tree_of_id(app, first.id)
    assert root is not None
    lines = drawn(root).splitlines()
    assert lines[0] == f"c {first.id}  waiting"
    assert [line.split()[-1] for line in lines[1:]] == ["PENDING"] * 5
    assert lines[-1] == f"add {result.id}  PENDING"
    assert tree_of_id(app, "nobody") is None


@pytest.mark.parametrize("which", ["first", "part", "body", "last"])
def test_graph_of_what_has_ended(flow: Any, which: str) -> None:
    """From any task of it the whole is found in the store. Where the results are in another one,
    what was stored of a part does not know the body; the body knows the part."""
    if flow.url != flow.backend and which in ("first", "part"):
        pytest.skip("the body is found only from below")
    result = (c(1) | chord([add.s(1), add.s(2)], i()) | add.s(1)).apply_async()
    assert result.get(timeout=30) == 6
    flow.idle()
    header = result.parent.parent
    ids = {
        "first": header.parent.id,
        "part": header[0].id,
        "body": result.parent.id,
        "last": result.id,
    }
    root = tree_of_id(app, ids[which])
    assert root is not None
    text = drawn(root)
    for task_id in (*ids.values(), header[1].id, header.id):
        assert text.count(task_id) >= 1, text
    chart = mermaid(root)
    assert chart.startswith("flowchart TD")
    for task_id in ids.values():
        assert task_id[:8] in chart


def test_the_command(on_sqlite: Any) -> None:
    result = chain(c(1), add.s(1)).apply_async()

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celeriac", "-A", "flow_tasks", "-b", on_sqlite.url]
        command += ["--result-backend", on_sqlite.backend]
        return subprocess.run(
            [*command, "graph", *options],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    shown = run(result.parent.id)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["c", "add"]
    assert run(result.parent.id, "--format", "mermaid").stdout.startswith("flowchart")
    unknown = run("nobody")
    assert unknown.returncode == 1
    assert "Nothing is known" in unknown.stderr
