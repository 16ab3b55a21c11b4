"""Workflows with something wrong in them: each part of them ends, and says why."""

from __future__ import annotations

from typing import Any

import pytest
from flow_tasks import (
    add,
    app,
    boom,
    const,
    ident,
    ignore,
    reject,
    silent,
    silent_boom,
    slow,
    told_all,
    told_id,
)

from celeriac import chain, chord, group, states
from celeriac.exceptions import ChordError, TaskRevokedError
from celeriac.result import AsyncResult, ResultSet

c, i = const.s, ident.s


def ends(result: Any) -> list[AsyncResult[Any]]:
    """All tasks of the workflow, which have all ended: nothing of it is pending for ever."""
    found: dict[str, AsyncResult[Any]] = {}
    waiting = [result]
    while waiting:
        one = waiting.pop()
        if one.parent is not None:
            waiting.append(one.parent)
        if isinstance(one, ResultSet):
            waiting.extend(one.results)
        else:
            found[one.id] = one
    for one in found.values():
        one.get(timeout=30, propagate=False)
    return list(found.values())


def raised(result: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is, it is looked at
        result.get(timeout=30)
    return caught.value


# What each part of a workflow raises when one task in it fails, at every position.
BROKEN: dict[str, Any] = {
    "first step": lambda: boom.s() | i() | i(),
    "middle step": lambda: c(1) | boom.s() | i(),
    "last step": lambda: c(1) | i() | boom.s(),
    "before a group": lambda: boom.s() | group(i(), i()),
    "before a chord": lambda: boom.s() | chord([i(), i()], i()),
    "two before a chord and more": lambda: boom.s() | i() | group(i(), i()) | i() | i(),
    "in a group": lambda: group(c(1), boom.s()),
    "in a group at the end": lambda: c(1) | group(i(), boom.s()),
    "first in a header": lambda: chord([boom.s(), c(1)], i()),
    "last in a header": lambda: chord([c(1), boom.s()], i()),
    "all of a header": lambda: chord([boom.s(), boom.s()], i()),
    "begin of a chain in a header": lambda: chord([boom.s() | i() | i(), c(1)], i()),
    "end of a chain in a header": lambda: chord([c(1) | boom.s(), c(1)], i()),
    "in a group in a header": lambda: chord([c(1), group(c(2), boom.s())], i()),
    "in a gathered group in a header": lambda: chord([c(1) | group(i(), boom.s()), c(2)], i()),
    "before a gathered group in a header": lambda: chord([boom.s() | group(i(), i()), c(2)], i()),
    "in a header in a header": lambda: chord([chord([c(1), boom.s()], i()), c(2)], i()),
    "body in a header": lambda: chord([chord([c(1), c(2)], boom.s()), c(2)], i()),
    "three deep": lambda: chord([chord([chord([boom.s(), c(1)], i()), c(2)], i()), c(3)], i()),
    "body": lambda: chord([c(1), c(2)], boom.s()),
    "first of a chain as body": lambda: chord([c(1), c(2)], boom.s() | i()),
    "header before a chain as body": lambda: chord([c(1), boom.s()], i() | i() | i()),
    "header before a group as body": lambda: chord([c(1), boom.s()], group(i(), i())),
    "header before a chord as body": lambda: chord([c(1), boom.s()], chord([i(), i()], i())),
    "header, then more": lambda: chord([c(1), boom.s()], i()) | i() | group(i(), i()),
    "header after a step": lambda: c(1) | chord([i(), boom.s()], i()) | i(),
}


@pytest.mark.parametrize("form", BROKEN)
def test_an_error_ends_everything(flow: Any, form: str) -> None:
    result = BROKEN[form]().apply_async()
    nodes = ends(result)
    assert raised(result).__class__ in (ValueError, ChordError)
    failed = [node for node in nodes if node.state == states.FAILURE]
    assert any(isinstance(node.result, ValueError) for node in failed)
    for node in failed:
        assert "boom" in repr(node.result)
    flow.idle()


@pytest.mark.parametrize("form", BROKEN)
def test_an_error_run_here(flow: Any, form: str) -> None:
    result = BROKEN[form]().apply()
    assert raised(result).__class__ in (ValueError, ChordError)


def test_a_client_is_told_the_first_cause(flow: Any) -> None:
    """wire-format.md 4.2: get() raises what the part raised; the body's own record says ChordError,
    and so does a result restored by its id."""
    result = chord([c(1), boom.s()], i()).apply_async()
    error = raised(result)
    assert (type(error), error.args) == (ValueError, ("boom", 42))
    bad = result.parent[1].id
    alone = app.AsyncResult(result.id)
    with pytest.raises(ChordError, match=rf"^Dependency {bad} raised ValueError\('boom', 42\)$"):
        alone.get(timeout=30)
    with pytest.raises(ChordError):
        result.get(timeout=30, follow_parents=False)
    assert isinstance(result.get(timeout=30, propagate=False), ChordError)


def test_chords_around_chords_name_their_parts(flow: Any) -> None:
    inner = chord([c(1), boom.s()], i())
    result = chord([inner, c(2)], i()).apply_async()
    ends(result)
    part = result.parent[0]
    text = str(app.AsyncResult(result.id).get(timeout=30, propagate=False))
    assert text.startswith(f"Dependency {part.id} raised ChordError(")


def test_a_group_as_body_gets_the_error_itself(flow: Any) -> None:
    result = chord([c(1), boom.s()], group(i(), i())).apply_async()
    ends(result)
    assert [type(one.result) for one in result.results] == [ValueError, ValueError]


OTHERS: dict[str, tuple[Any, str]] = {
    "ignored": (ignore.s(), "Ignore('not today')"),
    "rejected": (reject.s(), "reject requeue=False: no"),
    "expired": (const.s(1).set(expires=-1), "TaskRevokedError('expired')"),
}


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize("place", ["header", "chain in the header", "alone in the header"])
def test_whatever_has_no_result_is_a_failed_part(flow: Any, how: str, place: str) -> None:
    """An ignored, rejected or expired member: the chord fails with an error that names it."""
    part, text = OTHERS[how]
    header = {
        "header": [c(1), part],
        "chain in the header": [c(1), c(2) | part | i()],
        "alone in the header": [part],
    }[place]
    result = chord(header, i()).apply_async()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    assert isinstance(told, ChordError)
    bad = result.parent[-1]
    if place.startswith("chain") and how == "ignored":
        text = f"TaskRevokedError('the task before it, {bad.parent.id}, was ignored')"
    assert str(told) == f"Dependency {bad.id} raised {text}"


@pytest.mark.parametrize("how", ["ignored", "rejected", "expired"])
def test_what_comes_after_it_ends_too(flow: Any, how: str) -> None:
    part, _ = OTHERS[how]
    result = (c(1) | part | i() | group(i(), i())).apply_async()
    for one in result.results:
        assert one.get(timeout=30, propagate=False) is not None
        assert one.state in (states.FAILURE, states.REVOKED)


def test_parts_without_results_that_fail(flow: Any) -> None:
    result = chord([silent.s(1), silent_boom.s()], i()).apply_async()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    assert isinstance(told, ChordError)
    assert "ValueError('silently')" in str(told)


# --- errbacks


@pytest.mark.parametrize(
    ("sig", "failed"),
    [
        (lambda: c(1) | boom.s() | i(), lambda r: [r.parent]),
        (lambda: chord([c(1), boom.s()], i()), lambda r: [r]),
        (lambda: chord([boom.s(), boom.s()], i()), lambda r: [r]),
        (lambda: chord([c(1), boom.s()], i() | i()), lambda r: [r]),
        (lambda: chord([c(1), boom.s()], group(i(), i())), lambda r: r.results),
        (lambda: chord([c(1), c(2)], boom.s()), lambda r: [r]),
        (lambda: boom.s() | chord([i(), i()], i()), lambda r: [r.parent.parent]),
        (lambda: group(c(1), boom.s()), lambda r: [r[1]]),
        (lambda: boom.s() | group(i(), i()), lambda r: [r.parent]),
        (lambda: chord([boom.s() | i(), c(1)], i()), lambda r: [r]),
        (lambda: chord([c(1), boom.s()], i()) | i(), lambda r: [r]),
    ],
)
def test_errbacks_are_called_once(flow: Any, sig: Any, failed: Any) -> None:
    """celery-api.md 4, of both conventions, as Celery calls them."""
    workflow = sig()
    workflow.link_error(told_id.s())
    workflow.link_error(told_all.s())
    result = workflow.apply_async()
    nodes = ends(result)
    expected = [one.id for one in failed(result)]
    ids = {node.id for node in nodes}
    for task_id in expected:
        flow.until(lambda t=task_id: flow.notes("id")[t], f"the errback of {task_id}")
    flow.idle()
    told = flow.notes("id"), {line.split()[0]: n for line, n in flow.notes("all").items()}
    for counted in told:
        assert {t: n for t, n in counted.items() if t in ids} == dict.fromkeys(expected, 1)


def test_errbacks_of_a_header(flow: Any) -> None:
    """``task_allow_error_cb_on_chord_header``: those of the chord are each part's too."""
    app.conf.task_allow_error_cb_on_chord_header = True
    try:
        workflow = chord([c(1), boom.s()], i())
        workflow.link_error(told_id.s())
    finally:
        app.conf.task_allow_error_cb_on_chord_header = False
    result = workflow.apply_async()
    ends(result)
    for task_id in (result.id, result.parent[1].id):
        flow.until(lambda t=task_id: flow.notes("id")[t] == 1, "both errbacks")


def test_errbacks_run_here(flow: Any) -> None:
    workflow = chord([c(1), boom.s()], i())
    workflow.link_error(told_all.s())
    result = workflow.apply()
    assert raised(result).__class__ is ValueError
    assert flow.notes("all")[f"{result.id} ChordError"] == 1


# --- revoking


def revoked(nodes: list[AsyncResult[Any]]) -> list[bool]:
    return [node.state == states.REVOKED for node in nodes]


WORKFLOWS: dict[str, Any] = {
    "chain": lambda: c(1) | add.s(1) | add.s(2),
    "group": lambda: group(c(1), c(2)),
    "chord": lambda: chord([c(1), c(2) | add.s(1)], i() | add.s(1)),
    "nested": lambda: c(1) | chord([chord([i(), i()], i()), i() | i()], i()) | group(i(), i()),
}


@pytest.mark.parametrize("form", WORKFLOWS)
def test_revoking_a_workflow_reaches_every_task(still: Any, form: str) -> None:
    result = WORKFLOWS[form]().apply_async()
    result.revoke()
    still.start()
    nodes = ends(result)
    waiting = [node for node in nodes if node.state != states.REVOKED]
    for node in waiting:  # the end of a join is a failure that names what was revoked
        assert isinstance(node.result, ChordError)
    assert any(revoked(nodes))
    still.idle()


def test_revoking_while_it_runs(still: Any) -> None:
    """What is not sent yet is reached, too: the next step comes and goes."""
    still.start()
    result = (slow.s(1, 0.5) | add.s(1) | add.s(2)).apply_async()
    first = result.parent.parent
    still.until(lambda: still.notes("start")[first.id], "the first step to start")
    result.revoke()
    assert first.get(timeout=30) == 1
    assert isinstance(result.get(timeout=30, propagate=False), TaskRevokedError)
    assert isinstance(result.parent.get(timeout=30, propagate=False), TaskRevokedError)


def test_revoking_by_stamps(still: Any) -> None:
    """Whatever of the stamped workflow was sent: here all parts of a header, and with them the
    rest; others go on."""
    still.needs_messages_by_id()
    stamped = chord([c(1), c(2).set(countdown=50)], i()) | i()
    other = chord([c(1), c(2)], i())
    stamped.stamp(customer="7", reason=["a", "b"])
    other.stamp(customer="8")
    result, left = stamped.apply_async(), other.apply_async()
    assert app.revoke_stamped({"customer": "70", "reason": "c"}) == []
    result.revoke_by_stamped_headers(["reason=b"])
    still.start()
    assert all(node.state in (states.REVOKED, states.FAILURE) for node in ends(result))
    assert left.get(timeout=30) == [1, 2]
    app.control.revoke_by_stamped_headers({"customer": ["7", "8"]})  # nothing is left


@pytest.mark.parametrize("which", [0, 1])
def test_one_part_revoked(still: Any, which: int) -> None:
    result = chord([c(1), c(2) | add.s(1)], i()).apply_async()
    part = result.parent[which]
    part.revoke()
    still.start()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    assert isinstance(told, ChordError)
    assert part.id in str(told)


@pytest.mark.parametrize("how", ["purge", "delete"])
def test_parts_removed_by_hand(still: Any, how: str) -> None:
    """A purged or deleted member is a failed part, also as the first step of a chain."""
    if how == "delete":
        still.needs_messages_by_id()
    result = chord([c(1), c(2) | add.s(1)], i()).apply_async()
    with app.operating() as owner:
        if how == "purge":
            removed = app.admin().purge(owner, "celery")
        else:
            first = result.parent[1].parent.id
            removed = app.admin().delete(owner, [result.parent[0].id, first])
        assert removed.count == 0
        app.settle_removed(removed.parts)
    assert isinstance(result.get(timeout=5, propagate=False, follow_parents=False), ChordError)
    ends(result)


def test_unknown_tasks_as_parts(still: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buried members are failed parts."""
    monkeypatch.setenv("FLOW_CONF", '{"unknown_task_wait": 0.2}')
    app.conf.unknown_task_wait = 0.2
    try:
        still.start()
        result = chord([c(1), app.signature("not.there")], i()).apply_async()
        told = result.get(timeout=30, propagate=False, follow_parents=False)
    finally:
        app.conf.unknown_task_wait = 30.0
    assert "NotRegistered" in str(told)


def test_a_revived_part_does_not_open_a_failed_join(still: Any) -> None:
    still.start()
    result = chord([c(1), reject.s()], i()).apply_async()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    still.until(lambda: app.admin().revive([result.parent[1].id]) == 1, "the dead letter")
    still.idle()
    again = app.AsyncResult(result.id)
    assert str(again.get(timeout=30, propagate=False)) == str(told)


def test_a_step_that_expires_in_between(still: Any) -> None:
    result = (slow.s(1, 0.3) | add.s(1).set(expires=0.0001) | add.s(2)).apply_async()
    still.start()
    told = result.get(timeout=30, propagate=False)
    assert isinstance(told, TaskRevokedError)
    ends(result)


@pytest.mark.parametrize("last", [True, False])
def test_a_part_that_cannot_be_read(still: Any, last: bool) -> None:
    """Buried at once, it is a failed part as well, whenever it comes."""
    bad = const.s({"__type__": "not known", "__value__": 1})
    header = [c(1), bad] if last else [bad, c(1)]
    result = chord(header, i()).apply_async()
    still.start()
    told = result.get(timeout=30, propagate=False, follow_parents=False)
    assert isinstance(told, ChordError)
    assert f"Dependency {result.parent[1 if last else 0].id} raised" in str(told)
    assert "not known" in str(told)


def test_many_workflows_at_once(flow: Any) -> None:
    results = app.send_many([c(1), c(1) | add.s(1), chord([c(1)], i())])
    assert [result.get(timeout=30) for result in results] == [1, 2, [1]]


def test_chain_constructor_gives_what_bar_gives() -> None:
    assert chain(group(c(1), c(2)), i()).subtask_type == "chord"
