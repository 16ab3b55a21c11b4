"""The messages of workflows are Celery's: compared with those that celery 5.7.0 has sent for the
same code (celery_forms.json, with ids named in the order of their first use)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group, signature
from celeriac.drivers import memory

CAPTURED: dict[str, Any] = json.loads((Path(__file__).parent / "celery_forms.json").read_text())

# Where we differ on purpose, with the reason.
DIFFERENT = {
    "chord([c.s(1),c.s(2)],group(ident.s(),inc.s()))": "a body's members name no header",
    "chord([c.s(1),c.s(2)],ident.s()|inc.s())": "the first step of the body is among the results",
    "chord([c.s(1),c.s(2)],inc.s())|inc.s(10)": "the same",
    "linked(chord([c.s(1),c.s(2)],ident.s()|inc.s()))": "the same",
    "group(c.s(1),c.s(2))|group(inc.s(),inc.s(2))|ident.s()": "the same",
    "c.s(1)|group(inc.s(),inc.s(2))|ident.s()|inc.s()": "what follows a chord is its body's",
    "group(c.s(1),group(c.s(2),c.s(3)))": "members of groups inside have indexes of their own",
    "group(c.s(1)|inc.s(),c.s(2))": "a chain in a group says so at its end",
    "linked(c.s(1)|group(inc.s(),inc.s(2)))": "the group's link is on its first task already",
    "linked(c.s(1)|chord([inc.s(),inc.s(2)],ident.s()))": "the chord's link is on its body already",
    "add.chunks([(i,i) for i in range(3)],2)": "the signature says that it is chunks",
}
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LEFT_OUT = ("reply_to", "add_to_parent")


@pytest.fixture
def app() -> Any:
    made = Celeriac("forms", broker="memory://forms", set_as_current=False)
    yield made
    made.close()
    memory.forget("memory://forms")


def names_for(app: Celeriac) -> dict[str, Any]:
    def anything(*args: Any, **kwargs: Any) -> None:
        pass

    names = ("c", "add", "inc", "ident", "note", "eb1")
    tasks = {name: app.task(name=name)(anything) for name in names}

    def linked(sig: Any) -> Any:
        sig.link(tasks["note"].s())
        sig.link_error(tasks["eb1"].s())
        return sig

    def stamped(sig: Any) -> Any:
        sig.stamp(me="x")
        return sig

    return {
        **tasks,
        "chain": chain,
        "group": group,
        "chord": chord,
        "linked": linked,
        "stamped": stamped,
    }


def plain(value: Any, ids: dict[str, str]) -> Any:
    """Without what differs from run to run."""
    if isinstance(value, dict):
        return {
            key: plain(item, ids)
            for key, item in value.items()
            if key not in _LEFT_OUT and not (item is None and key in ("root_id", "parent_id"))
        }
    if isinstance(value, list | tuple):
        return [plain(item, ids) for item in value]
    if isinstance(value, str):
        return _ID.sub(lambda found: ids.setdefault(found.group(0), f"id{len(ids)}"), value)
    return value


def sent(app: Celeriac, sig: Any) -> dict[str, Any]:
    result = sig.apply_async()
    ids: dict[str, str] = {}
    told: dict[str, Any] = {"result": plain(json.loads(json.dumps(result.as_tuple())), ids)}
    told["messages"] = []
    wanted = "task id group group_index root_id parent_id timelimit stamps stamped_headers x"
    for entry in app.producer.broker.kept.entries.values():  # type: ignore[attr-defined]
        message = entry.message
        headers, body = json.loads(message.headers), json.loads(message.body)
        shown = {
            name: headers[name]
            for name in wanted.split()
            if headers.get(name) not in (None, {}, [None, None])
        }
        shown["expires"] = headers.get("expires") is not None
        told["messages"].append(
            plain(
                {
                    "headers": shown,
                    "priority": message.priority,
                    "args": body[0],
                    "kwargs": body[1],
                    "embed": body[2],
                },
                ids,
            )
        )
    return told


@pytest.mark.parametrize("code", [code for code in CAPTURED if code not in DIFFERENT])
def test_the_same_as_celery(app: Celeriac, code: str) -> None:
    sig = eval(code, names_for(app))
    told = sent(app, sig)
    assert told["result"] == CAPTURED[code]["result"]
    assert told["messages"] == CAPTURED[code]["messages"]
    assert sig["subtask_type"] == CAPTURED[code]["type"]


@pytest.mark.parametrize("code", DIFFERENT)
def test_what_differs_still_does(app: Celeriac, code: str) -> None:
    sig = eval(code, names_for(app))
    told = sent(app, sig)
    assert {**told, "type": sig["subtask_type"]} != CAPTURED[code]


@pytest.mark.parametrize("code", CAPTURED)
def test_through_json_and_back(app: Celeriac, code: str) -> None:
    """A signature that was a dictionary for a while sends the same."""
    names = names_for(app)
    direct = sent(app, eval(code, names))
    app.producer.broker.kept.entries.clear()  # type: ignore[attr-defined]
    read = signature(json.loads(json.dumps(eval(code, names))), app=app)
    assert sent(app, read) == direct
