"""From a frozen signature to what is sent: messages, and the joins at which their parts meet.

Pure: nothing is sent, and the signature is not changed. Where the value of a part goes is in its
own options (``group_id``, ``group_index``, ``chord``), what runs after a task in its message, in
Celery's form (wire-format.md 1.3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from celeriac.canvas.chains import chain, linked
from celeriac.canvas.chords import chord
from celeriac.canvas.composite import with_callbacks, with_errbacks
from celeriac.canvas.groups import group
from celeriac.canvas.signature import Signature, listed, maybe_signature
from celeriac.message import Join, Message
from celeriac.protocol.json_codec import encode_json
from celeriac.protocol.written import Steps, Written

Build = Callable[[Signature[Any], tuple[Any, ...], Mapping[str, Any], dict[str, Any]], Message]
"""The message of one call: signature, arguments, keyword arguments, options."""

# Options of a chord that its body is given as well as its header (countdown and eta: the header
# alone, which then ends later by itself).
_BODYS = frozenset(
    "queue exchange routing_key priority expires headers time_limit soft_time_limit serializer "
    "compression stamped_headers".split()
)
_LINKS = ("link", "link_error", "chain")
_OWN = frozenset(("task_id", "group_id", "group_index", "chord", *_LINKS))
JOIN_KEPT = 30 * 86400.0
"""Seconds after which a join that never had all its parts is forgotten."""


class Place(NamedTuple):
    """Where a value goes: part ``position`` of the join ``id``, which ``body`` follows."""

    id: str
    position: int
    body: Any


class Compiler:
    """Collects what is to be sent. ``kept``: seconds that a join lasts."""

    def __init__(self, build: Build, kept: float | None = None) -> None:
        self._build = build
        self._kept = kept or JOIN_KEPT
        self.messages: list[Message] = []
        self.joins: list[Join] = []

    def add(
        self,
        sig: Signature[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """What begins when ``sig`` is called like this. It must be frozen."""
        given = dict(options or {})
        if isinstance(sig, chain):
            self._add_chain(sig, args, kwargs or {}, given)
        elif isinstance(sig, group):
            self._add_group(sig, args, kwargs or {}, given)
        elif isinstance(sig, chord):
            self._add_chord(sig, args, kwargs or {}, given)
        else:
            self._add_task(sig, args, kwargs or {}, given)

    def _add_task(
        self,
        sig: Signature[Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: dict[str, Any],
    ) -> None:
        own = sig.options
        options = {**own, **{key: value for key, value in given.items() if value is not None}}
        for key in ("link", "link_error"):
            if own.get(key) and given.get(key):
                options[key] = _united(own[key], given[key])
        if own.get("chain") and given.get("chain"):
            options["chain"] = after(given["chain"], own["chain"])
        if not sig.immutable:
            args = (*args, *sig.args)
            kwargs = {**sig.kwargs, **kwargs} if kwargs else sig.kwargs
        else:
            args, kwargs = sig.args, sig.kwargs
        self.messages.append(self._build(sig, args, kwargs, options))

    def _add_chain(
        self,
        sig: chain,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: dict[str, Any],
    ) -> None:
        steps = linked(
            sig.tasks,
            _united(sig.options.get("link"), given.pop("link", None)),
            _united(sig.options.get("link_error"), given.pop("link_error", None)),
        )
        if not steps:
            return
        place = place_of({**sig.options, **given})
        for key in ("group_id", "group_index", "chord"):
            given.pop(key, None)
        if place is not None:
            steps = [*steps[:-1], put(steps[-1], place)]
        rest = given.pop("chain", None)
        if sig.options.get("chain"):
            rest = after(rest, sig.options["chain"])
        if len(steps) > 1:
            rest = after(rest, steps[:0:-1])
        given.pop("task_id", None)
        options = {**_call_options(sig), **given}
        if rest:
            options["chain"] = rest
        self.add(steps[0], _joined(args, sig), kwargs if not sig.immutable else {}, options)

    def _add_group(
        self,
        sig: group,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: dict[str, Any],
    ) -> None:
        rest = given.pop("chain", None) or sig.options.get("chain")
        place = place_of({**sig.options, **given})
        members = sig.members()
        if place is not None and any(place_of(member.options) for member in members):
            place = None  # as Celery sends it: each member is a part of the outer join
        if rest or place is not None:
            self._add_chord(_gathered(sig, rest, place), args, kwargs, given)
            return
        gid = given.pop("task_id", None) or sig.options["task_id"]
        callbacks = _united(sig.options.get("link"), given.pop("link", None))
        errbacks = _united(sig.options.get("link_error"), given.pop("link_error", None))
        if callbacks and members:
            fixed = [maybe_signature(one, clone=True).set(immutable=True) for one in callbacks]
            members = [with_callbacks(members[0], fixed), *members[1:]]
        options = {**_call_options(sig), **given}
        for key in ("group_id", "group_index", "chord"):
            options.pop(key, None)
        args = _joined(args, sig)
        for index, member in enumerate(members):
            if errbacks:
                member = with_errbacks(member, errbacks)
            part = options
            if place_of(member.options) is None:
                part = {**options, "group_id": gid, "group_index": index}
            self.add(member, args, kwargs, part)

    def _add_chord(
        self,
        sig: chord,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: dict[str, Any],
    ) -> None:
        gid = str(sig.header.options["task_id"])
        members = sig.header.members()
        options = {**_call_options(sig), **given}
        body = self._body(sig, given, options, gid)
        for key in _OWN:
            options.pop(key, None)
        if not members:
            if body is not None:
                self.add(body, ([],), {}, {k: options[k] for k in _PARENTS if k in options})
            return
        args = _joined(args, sig, sig.header)
        kwargs = {**sig["kwargs"]["kwargs"], **kwargs} if sig["kwargs"]["kwargs"] else kwargs
        written = Written(dict(body)) if body is not None else None
        parts = [put(member, Place(gid, n, written)) for n, member in enumerate(members)]
        if written is not None:
            ids = [end_of(part).options.get("task_id") for part in parts]
            self.joins.append(join_of(gid, ids, written, self._kept))
        for part in parts:
            self.add(part, args, kwargs, options)

    def _body(
        self, sig: chord, given: dict[str, Any], options: dict[str, Any], gid: str
    ) -> Signature[Any] | None:
        """The body with all that the call of the chord says of it."""
        if sig.body is None:
            return None
        body: Signature[Any] = sig.body.clone()
        passed = {key: options[key] for key in options if key in _BODYS or key in _stamps(options)}
        body.options.update(passed)
        for key in ("link", "link_error"):
            for one in _united(sig.options.get(key), given.get(key)):
                body.link(one) if key == "link" else body.link_error(one)
        rest = after(given.get("chain"), sig.options.get("chain") or [])
        if rest:
            body.options["chain"] = after(rest, body.options.get("chain") or [])
        place = place_of({**sig.options, **given})
        if place is not None:
            return put(body, place)
        if place_of(end_of(body).options) is None:
            body = put(body, Place(gid, -1, None))
        return body


def join_of(id: str, parts: Sequence[str | None], body: Written, kept: float) -> Join:
    """The join of these parts (their ids in order), with its plan: what ends it if their messages
    don't. There is none where the body is not JSON."""
    try:
        plan = b'{"parts":%b,"body":%b}' % (encode_json(parts), body.json)
    except Exception:  # of a type's own encoder; another serializer may carry it in messages
        plan = b""
    return Join(id=id, size=len(parts), expires_at=time.time() + kept, plan=plan)


_PARENTS = ("root_id", "parent_id")


def _call_options(sig: Signature[Any]) -> dict[str, Any]:
    """The options of a composite that its tasks are to be sent with."""
    return {key: value for key, value in sig.options.items() if key not in _OWN}


def _stamps(options: Mapping[str, Any]) -> Sequence[str]:
    return options.get("stamped_headers") or ()


def _joined(args: tuple[Any, ...], *signatures: Signature[Any]) -> tuple[Any, ...]:
    for sig in signatures:
        args = sig.args if sig.immutable else (*args, *sig.args)
    return args


def _united(first: Any, second: Any) -> list[Any]:
    """Both lists of links, each link once."""
    united = listed(first)
    for one in listed(second):
        if one not in united:
            united.append(one)
    return united


def after(rest: Any, steps: Sequence[Any]) -> Any:
    """The rest of a chain (last one first) with these in front: they come before it."""
    if not rest:
        return steps
    if isinstance(rest, Steps):
        return rest.with_before(steps)
    return [*rest, *steps]


def place_of(options: Mapping[str, Any]) -> Place | None:
    """Where the value of a task with these options goes."""
    gid, body = options.get("group_id"), options.get("chord")
    if gid is None or body is None:
        return None
    return Place(str(gid), int(options.get("group_index") or 0), body)


def put(sig: Signature[Any], place: Place) -> Signature[Any]:
    """A copy whose value goes to this place: that of a chain is its last step's, a chord's its
    body's, a group's the list of its members'."""
    sig = sig.clone()
    if isinstance(sig, chain):
        tasks = sig["kwargs"]["tasks"]
        tasks[-1:] = [put(tasks[-1], place)]
    elif isinstance(sig, group) and place.body is not None:
        return put(_gathered(sig, None, None), place)
    elif isinstance(sig, chord) and sig.body is not None:
        sig.body = put(sig.body, place)
        return sig
    options = sig.options
    options["group_id"] = place.id
    if place.position >= 0:
        options["group_index"] = place.position
    if place.body is not None:
        options["chord"] = place.body
    if isinstance(sig, chain):
        for key in ("group_id", "group_index", "chord"):
            options.pop(key, None)
    return sig


def end_of(sig: Signature[Any]) -> Signature[Any]:
    """The task whose value is that of ``sig``, as far as there is one."""
    while True:
        if isinstance(sig, chain) and sig.tasks:
            sig = sig.tasks[-1]
        elif isinstance(sig, chord) and sig.body is not None:
            sig = sig.body
        else:
            return sig


def _gathered(sig: group, rest: Any, place: Place | None) -> chord:
    """A group that must give one value: a chord, whose body is what comes next or else only
    returns the list."""
    if rest:
        steps = [maybe_signature(step, app=sig._app) for step in reversed(list(rest))]
        body: Any = chain.make("chain", {"tasks": steps}, {}, sig._app)
    else:
        body = Signature("celery.accumulate", (), {"index": 0}, app=sig._app)
        errbacks = listed(sig.options.get("link_error"))
        for errback in errbacks:
            body.link_error(errback)
    body.freeze()
    header = sig.clone()
    options = header["options"]
    outer = {k: v for k, v in options.items() if k not in _OWN}
    header["options"] = {"task_id": options["task_id"]}
    made: chord = chord(header, body, app=sig._app, args=header.args, **outer)
    header["args"] = ()
    made["kwargs"]["header"] = header
    made["options"]["task_id"] = options["task_id"]
    return put(made, place) if place is not None else made  # type: ignore[return-value]


# --- what will not be sent any more ---------------------------------------------------------------


class End(NamedTuple):
    """A task that will never run, where its value would have gone, and its errbacks."""

    id: str | None
    place: Place | None


def ends(described: Any) -> Iterator[End]:
    """All tasks in a signature (or its dictionary), however deep."""
    if isinstance(described, Written):
        described = described.value
    if not isinstance(described, Mapping):
        return
    options = described.get("options") or {}
    parts = _parts_of(described)
    if parts is None:
        yield End(options.get("task_id"), place_of(options))
    for part in parts or ():
        yield from ends(part)
    yield from ends_of_chain(options.get("chain"))


def _parts_of(described: Mapping[str, Any]) -> list[Any] | None:
    """What a chain, group or chord consists of, a body last; None: it is a task."""
    kwargs = described.get("kwargs") or {}
    kind = described.get("subtask_type")
    if kind in ("chain", "group"):
        return list(kwargs.get("tasks") or ())
    if kind == "chord":
        header = kwargs.get("header") or ()
        return [*((header,) if isinstance(header, Mapping) else header), kwargs.get("body")]
    return None


def ends_of_chain(rest: Any) -> Iterator[End]:
    """The same for the rest of a chain, which is stored the last one first."""
    for step in reversed(list(rest or ())):
        yield from ends(step)


def answered(described: Any, reply_to: str) -> None:
    """Have the results of all tasks in a frozen signature (or its dictionary) sent there, unless
    they say where: whoever sends the later ones on may not know."""
    if not isinstance(described, Mapping):
        return
    options = described.get("options") or {}
    parts = _parts_of(described)
    if parts is None:
        options.setdefault("reply_to", reply_to)
    for part in (*(parts or ()), *(options.get("chain") or ())):
        answered(part, reply_to)


def errbacks_of(described: Any) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    """Who is told, and of which task, when a body cannot run: those of the body; of a chain and
    its first task; of each member of a group."""
    if isinstance(described, Written):
        described = described.value
    options = described.get("options") or {}
    kwargs = described.get("kwargs") or {}
    own = listed(options.get("link_error"))
    kind = described.get("subtask_type")
    tasks = kwargs.get("tasks") or ()
    if kind == "group":
        for task in tasks:
            for member, errbacks in errbacks_of(task):
                yield member, _united(errbacks, own)
    elif kind == "chain" and tasks:
        first = listed((tasks[0].get("options") or {}).get("link_error"))
        yield described, _united(own, first)
    elif kind == "chord" and kwargs.get("body"):
        for member, errbacks in errbacks_of(kwargs["body"]):
            yield member, _united(errbacks, own)
    else:
        yield described, own
