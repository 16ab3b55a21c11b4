"""Building workflows: what ``|`` makes of what, copies, links and stamps; and the parts of their
messages that are passed on unread."""

from __future__ import annotations

import copy
import json
import pickle
import random
import zlib
from typing import Any

import msgspec
import pytest
from flow_tasks import add, app, const, ident, told_id
from hypothesis import given
from hypothesis import strategies as st
from trees import grow

from celeriac import StampingVisitor, chain, chord, chunks, group, signature
from celeriac.canvas.compiling import Compiler
from celeriac.exceptions import DecodeError
from celeriac.protocol.blocks import _combined
from celeriac.protocol.reading import decode
from celeriac.protocol.written import Steps, Written, plain

c, i = const.s, ident.s


def kinds(sig: Any) -> Any:
    """The shape of a signature: names of tasks, and lists of what is inside."""
    if sig.subtask_type == "chain":
        return ["chain", *map(kinds, sig.tasks)]
    if sig.subtask_type == "group":
        return ["group", *map(kinds, sig.tasks)]
    if sig.subtask_type == "chord":
        return ["chord", [kinds(task) for task in sig.tasks], kinds(sig.body)]
    return sig.task


@pytest.mark.parametrize(
    ("sig", "shape"),
    [
        (c(1) | i(), ["chain", "c", "ident"]),
        (c(1) | (i() | i()), ["chain", "c", "ident", "ident"]),
        ((c(1) | i()) | (i() | i()), ["chain", "c", "ident", "ident", "ident"]),
        (group(c(1), c(2)) | i(), ["chord", ["c", "c"], "ident"]),
        (group(c(1), c(2)) | i() | i(), ["chord", ["c", "c"], ["chain", "ident", "ident"]]),
        (group(c(1)) | group(i(), i()), ["chord", ["c"], ["group", "ident", "ident"]]),
        (c(1) | group(i(), i()), ["chain", "c", ["group", "ident", "ident"]]),
        (c(1) | group(i()), ["chain", "c", "ident"]),
        (c(1) | group(i(), i()) | i(), ["chain", "c", ["chord", ["ident", "ident"], "ident"]]),
        (chord([c(1)], i()) | i(), ["chord", ["c"], ["chain", "ident", "ident"]]),
        (
            chord([c(1)], i()) | group(i(), i()),
            ["chain", ["chord", ["c"], "ident"], ["group", "ident", "ident"]],
        ),
        (chain(c(1)), ["chain", "c"]),
        (chain(group(c(1), c(2)), i()), ["chord", ["c", "c"], "ident"]),
        (chain([c(1), i()]), ["chain", "c", "ident"]),
        (group([c(1), c(2)]), ["group", "c", "c"]),
        (group(group(c(1), c(2))), ["group", "c", "c"]),
        (chord(group(c(1)), i()), ["chord", ["c"], "ident"]),
        (chain(group(c(1)), i()), ["chain", "c", "ident"]),
        (chain(c(1), group(), i()), ["chain", "c", "ident"]),
        (chain(c(1), group()), "c"),
        (group(c(1), c(2)) | group() | i(), ["chord", ["c", "c"], "ident"]),
        (group(c(1), c(2)) | group(i()), ["chord", ["c", "c"], ["group", "ident"]]),
        (
            c(1) | group(i(), i()) | group(i()),
            ["chain", "c", ["chord", ["ident", "ident"], "ident"]],
        ),
        (chord(c(1), i()), ["chord", ["c"], "ident"]),
        (add.chunks([(1, 1)], 1) | i(), ["chord", ["celery.starmap"], "ident"]),
    ],
)
def test_shapes(sig: Any, shape: Any) -> None:
    assert kinds(sig) == shape
    read = signature(json.loads(json.dumps(sig)), app=app)
    assert kinds(read) == shape
    assert type(read) is type(sig)


@pytest.mark.parametrize(
    "sig",
    [
        c(1) | i(),
        group(c(1), c(2)),
        chord([c(1)], i() | i()),
        add.chunks([(1, 1)], 1),
        add.starmap([(1, 2)]),
    ],
)
def test_copies(sig: Any) -> None:
    for other in (copy.copy(sig), copy.deepcopy(sig), pickle.loads(pickle.dumps(sig)), sig.clone()):
        assert other == sig
        assert other is not sig
        assert kinds(other) == kinds(sig)


def test_parts_are_not_shared_with_what_they_were_made_of() -> None:
    one, two = c(1), i()
    sig = one | two
    one.args = (9,)
    two.set(queue="other")
    assert (sig.tasks[0].args, sig.tasks[1].options) == ((1,), {})
    longer = sig | i()
    longer.tasks[0].args = (5,)
    both = group(one, two)
    both.link_error(told_id.s())
    assert "link_error" not in one.options
    frozen = chain(one, two)
    frozen.freeze()
    assert one.id is None


def test_frozen_ids_stay() -> None:
    sig = c(1) | group(i(), i()) | i()
    result = sig.freeze()
    again = sig.freeze()
    assert result.as_tuple() == again.as_tuple()
    assert sig.id == result.id
    assert (c(1) | i()).freeze("mine").id == "mine"
    assert chord([c(1)], i()).freeze("mine").id == "mine"
    assert group(c(1)).freeze("mine").id == "mine"
    assert sig.clone().freeze().id == result.id


def test_what_signatures_tell() -> None:
    sig = c(1).set(task_id="t", parent_id="p", root_id="r")
    assert (sig.id, sig.parent_id, sig.root_id) == ("t", "p", "r")
    assert sig.AsyncResult("x").id == app.signature("by.name").AsyncResult("x").id == "x"
    assert len(group(c(1), c(2))) == 2
    assert group()
    assert json.loads(json.dumps(group(), indent=1))["task"] == "celery.group"
    steps = (c(1) | i()).on_error(told_id.s()).unchain_tasks()
    assert [len(step.options["link_error"]) for step in steps] == [1, 1]


def test_immutable_workflows() -> None:
    assert chain(c(1), i()).set(immutable=True).tasks[0].immutable
    assert all(task.immutable for task in group(c(1), i()).set(immutable=True).tasks)
    assert chord([c(1)], i()).set(immutable=True).body.immutable


def test_skew() -> None:
    waits = [task.options["countdown"] for task in group(c(n) for n in range(5)).skew(1, 4).tasks]
    assert waits == [1, 2, 3, 1, 2]


def test_chunks_and_maps_say_what_they_are() -> None:
    assert repr(add.starmap([(1, 2)])) == "[add(*x) for x in [(1, 2)]]"
    assert repr(const.map([1])) == "[c(x) for x in [1]]"
    assert repr(chunks(add.s(), [(1, 1)], 1)) == "chunks(add, [(1, 1)], 1)"
    assert repr(c(1) | i()) == "c(1) | ident()"
    assert repr(chord([c(1)], i())) == "chord([c(1)], ident())"
    with pytest.raises(TypeError, match="group"):
        add.chunks([(1, 1)], 1).freeze()


class Marking(StampingVisitor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        self.seen.append(sig.task)
        return {"number": len(self.seen), "note": "not a stamp", "stamped_headers": ["number"]}

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        return {"in_group": True}

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"is_body": True}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        return {"is_callback": True}


def test_stamping_visitors() -> None:
    visitor = Marking()
    sig = c(1).on_error(told_id.s()) | group(c(2), c(3)) | i()
    sig.tasks[0].link(told_id.s())
    sig.stamp(visitor, always="yes")
    assert visitor.seen == ["c", "told_id", "told_id", "c", "c", "ident"]
    first, rest = sig.tasks
    assert first.options["always"] == "yes"
    assert (first.options["number"], sorted(first.options["stamped_headers"])) == (
        1,
        ["always", "number"],
    )
    assert first.options["link"][0].options["is_callback"] is True
    assert [task.options["in_group"] for task in rest.tasks] == [True, True]
    assert rest.body.options["is_body"] is True
    assert "in_group" not in rest.body.options


def test_stamps_are_added_or_replaced() -> None:
    sig = c(1)
    sig.stamp(tag="a")
    sig.stamp(tag="b")
    assert sig.options["tag"] == "b"
    sig.stamp(None, True, tag="c")
    assert sig.options["tag"] == ["b", "c"]
    assert sig.options["stamped_headers"] == ["tag"]


# --- the rest of a chain, passed on unread


def test_the_rest_of_a_chain_is_taken_from_its_end() -> None:
    """Of messages of random workflows, against what reading all of it gives."""
    read = 0
    for seed in range(600):
        sig = grow(random.Random(seed), 4).sig()
        if not sig.subtask_type:
            continue
        sig.freeze()
        compiled = Compiler(app.dispatcher.first_message)
        compiled.add(sig)
        for message in compiled.messages:
            embed = decode(message, frozenset((message.content_type,))).embed
            rest = embed.get("chain")
            if not isinstance(rest, Steps):
                continue
            wanted = json.loads(rest.json)
            read += 1
            while rest:
                assert rest.first() == wanted[0]
                step, after = rest.take_last()
                assert step == wanted.pop()
                assert json.loads(after.json if after else b"[]") == wanted
                rest = after
    assert read > 20


def test_steps_are_a_list() -> None:
    signatures = [dict(c(n)) for n in range(4)]
    for signature_ in signatures:
        signature_["args"] = list(signature_["args"])
    text = json.dumps(signatures).encode()[1:-1]
    steps = Steps(text=text)
    assert steps == signatures
    assert len(steps) == 4
    assert list(steps) == signatures
    steps = Steps(text=text)
    steps[0]["args"] = [9]
    steps.append(dict(c(5)))
    del steps[1]
    assert [step["args"] for step in json.loads(steps.json)] == [[9], [2], [3], [5]]
    assert steps.with_before([]) is steps
    assert Steps([]).with_before(signatures) == signatures
    longer = Steps(text=text).with_before([dict(c(7))])
    assert [step["args"] for step in longer][-1] == [7]
    assert plain({"chain": Steps(text=text), "chord": Written(signatures[0])}) == {
        "chain": signatures,
        "chord": signatures[0],
    }
    assert not Steps(text=b"")


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
def test_every_serializer_carries_workflows(serializer: str) -> None:
    sig = c(1) | chord([i() | i(), i()], i()) | i()
    sig.freeze()
    compiled = Compiler(app.dispatcher.first_message)
    compiled.add(sig, options={"serializer": serializer})
    (message,) = compiled.messages
    embed = decode(message, frozenset((message.content_type,))).embed
    assert [step["subtask_type"] for step in embed["chain"]] == ["chord"]


# --- long chains, in blocks


def passed_on(steps: int) -> Any:
    """The message of the second task of a chain, and the steps after it."""
    rest = [dict(add.s(n)) for n in range(steps)]
    text = Steps(text=json.dumps(rest).encode()[1:-1])
    return app.sender.message("c", ({"chain": [1]},), {}, {"chain": text}), json.loads(text.json)


def chain_of(message: Any) -> Any:
    return decode(message, frozenset((message.content_type,))).embed["chain"]


def test_long_chains_are_compressed_on_their_way() -> None:
    message, rest = passed_on(300)
    assert b'"compression":"application/x-gzip"' in message.headers
    assert len(message.body) < 4096
    found = chain_of(message)
    assert isinstance(found, Steps)
    assert found == rest


def test_blocks_go_from_step_to_step_as_they_are() -> None:
    """Each message is one zlib stream, and the steps come one by one, to the last."""
    message, rest = passed_on(300)
    while rest:
        body = json.loads(
            zlib.decompress(message.body) if b"gzip" in message.headers else message.body
        )
        assert body[2]["chain"] == rest
        assert body[:2] == [[{"chain": [1]}], {}]
        found = chain_of(message)
        if isinstance(found, Steps):
            assert found.first() == rest[0]
            step, left = found.take_last()
        else:
            step, left = found[-1], found[:-1]
        assert step == rest.pop()
        before = found.in_blocks()[0] if isinstance(left, Steps) and left.size > 16384 else None
        message = app.sender.message("c", ({"chain": [1]},), {}, {"chain": left or None})
        if before is not None:
            assert (before.without_last()[0] or before).data in message.body


def taken_to_the_end(left: Any) -> None:
    while left:
        _, left = left.take_last()


def headers_with(message: Any, **changed: Any) -> bytes:
    return json.dumps({**json.loads(message.headers), **changed}).encode()


def test_a_header_that_is_not_of_the_body_is_not_believed() -> None:
    """As Celery copies it to a retry, or as somebody makes it up."""
    message, rest = passed_on(300)
    other, _ = passed_on(200)
    replace = msgspec.structs.replace
    places = json.loads(message.headers)["celeriac_chain"]
    wrong: list[Any] = [
        *(None, 1, [], {}, "x", [1, 2, 3], [1, 2, [[1]], ""], [1, 2, [1, 2, "3"], ""]),
        *([-1, 2, [0, 0, 1], ""], [1 << 40, 1, [0, 0, 1], ""], [1, 1, [0, 0, 1], ""]),
        [places[0] + 1, *places[1:]],
        [*places[:2], [*places[2][:2], places[2][2] + 1], places[3]],
        [*places[:2], [places[2][0] - 1, *places[2][1:]], places[3]],
        [*places[:3], ""],
        [*places[:3], [places[3]]],
        json.loads(other.headers)["celeriac_chain"],
    ]
    for value in wrong:
        made = replace(message, headers=headers_with(message, celeriac_chain=value))
        assert chain_of(made) == rest, value
    plain_body = zlib.decompress(message.body)
    made = replace(message, headers=headers_with(message, compression=None), body=plain_body)
    assert chain_of(made) == rest
    assert "celeriac_chain" not in decode(message, frozenset((message.content_type,))).headers


def test_damaged_blocks_are_noticed() -> None:
    """By whoever opens them: as one after the other, or all at once."""
    message, rest = passed_on(300)
    *sums, each = json.loads(message.headers)["celeriac_chain"]
    for wrong in (each + "1", "x", f"{1 << 40}.1.1", "1.1.1", "-5.1.1"):
        headers = headers_with(message, celeriac_chain=[*sums, wrong])
        left = chain_of(msgspec.structs.replace(message, headers=headers))
        with pytest.raises(DecodeError, match="damaged"):
            taken_to_the_end(left)
    body = bytearray(message.body)
    body[len(body) // 3] ^= 1
    with pytest.raises(DecodeError):
        list(chain_of(msgspec.structs.replace(message, body=bytes(body))))
    assert chain_of(message) == rest


@given(first=st.binary(), second=st.binary())
def test_adler_of_two_texts(first: bytes, second: bytes) -> None:
    told = _combined(zlib.adler32(first), zlib.adler32(second), len(second))
    assert told == zlib.adler32(first + second)
