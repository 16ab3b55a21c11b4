"""A workflow as a tree that can be drawn: from results in hand, or from what the stores know."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.message import MessageState
from celeriac.protocol.reading import decode_headers
from celeriac.result import AsyncResult, ResultSet, oldest, result_from_tuple

if TYPE_CHECKING:
    from celeriac.app import Celeriac

# Of the members of one group so many are shown, and of a workflow so many nodes are looked for.
SHOWN = 20
MOST = 5000


class Node:
    """A task, or a group with its ``members``. ``after`` are the nodes that it leads to."""

    def __init__(self, id: str, name: str = "", state: str = "", kind: str = "task") -> None:
        self.id = id
        self.name = name
        self.state = state
        self.kind = kind
        self.members: list[Node] = []
        self.after: list[Node] = []

    @property
    def title(self) -> str:
        return self.name or self.kind

    def walk(self) -> Iterator[Node]:
        """This node and all below it, each once."""
        seen: set[int] = set()
        waiting = [self]
        while waiting:
            node = waiting.pop(0)
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                waiting[:0] = [*node.members, *node.after]


# --- from results ---------------------------------------------------------------------------------


def tree_of_result(result: Any) -> Node:
    """The workflow that ends with this result; one round trip reads all states."""
    nodes: list[Node] = []
    chain = [result]
    while chain[-1].parent is not None:
        chain.append(chain[-1].parent)
    leaves: list[AsyncResult[Any]] = []
    _collect(chain, leaves)
    metas = _metas(leaves)
    for one in reversed(chain):
        nodes.append(_node_of(one, metas))
        if len(nodes) > 1:
            nodes[-2].after.append(nodes[-1])
    return nodes[0]


def _collect(results: Iterable[Any], leaves: list[AsyncResult[Any]]) -> None:
    for result in results:
        if isinstance(result, ResultSet):
            for member in result.results:
                above: Any = member
                while above is not None:
                    _collect([above], leaves)
                    above = above.parent
        else:
            leaves.append(result)


def _metas(leaves: list[AsyncResult[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {one.id: one._meta for one in leaves if one._meta is not None}
    missing = [one for one in leaves if one.id not in found]
    if missing:
        app = missing[0].app
        for record in app.results_or_raise().get([one.id for one in missing]):
            if record is not None:
                found[record.id] = app.records.read(record)
    return found


def _node_of(result: Any, metas: dict[str, Any]) -> Node:
    if not isinstance(result, ResultSet):
        meta = metas.get(result.id) or {}
        name = meta.get("name") or result._name or ""
        return Node(result.id, name, str(meta.get("status", states.PENDING)))
    node = Node(getattr(result, "id", ""), kind="group")
    for member in result.results:
        first: Node | None = None
        above: Any = member
        while above is not None:
            made = _node_of(above, metas)
            if first is not None:
                made.after.append(first)
            first, above = made, above.parent
        if first is not None:
            node.members.append(first)
    node.state = _summary(node)
    return node


def _summary(group: Node) -> str:
    """The states of a group's members: of each, the last of its chain."""
    count = Counter(_end(member).state or "?" for member in group.members)
    return ", ".join(f"{number} {state}" for state, number in sorted(count.items()))


def _end(node: Node) -> Node:
    while node.after:
        node = node.after[-1]
    return node


# --- from the stores ------------------------------------------------------------------------------


def tree_of_id(app: Celeriac, task_id: str) -> Node | None:
    """The workflow that a task belongs to, from the records and messages that there are: up to
    where it began, then down. None if nothing is known of the id."""
    reader = _Stores(app)
    known = reader.look(task_id)
    if known is None:
        return None
    seen = {task_id}
    while True:
        parent = known.parent
        above = reader.look(parent) if parent and parent not in seen else None
        if above is None:
            node = reader.grown(known.id)
            return reader.header_of.get(node.id, node)
        seen.add(above.id)
        reader.below[above.id] = known.id
        known = above


class _Known:
    """What is known of one task: from its record, its message, or the message before it."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.name = ""
        self.state = states.PENDING
        self.parent: str | None = None
        self.children: list[Any] = []
        self.rest: list[Any] = []  # signatures, the next first
        self.body: Any = None
        self.group: str | None = None


class _Stores:
    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.made: dict[str, Node] = {}
        self.header_of: dict[str, Node] = {}
        self.below: dict[str, str] = {}  # what names another as its parent

    def look(self, task_id: str) -> _Known | None:
        known = _Known(task_id)
        record = self.app.results_or_raise().get([task_id])[0]
        if record is not None:
            meta = self.app.records.read(record)
            known.state = str(meta["status"])
            known.name = meta.get("name") or ""
            known.parent = meta.get("parent_id")
            known.group = meta.get("group_id")
            known.children = list(meta.get("children") or ())
        messages = self.app.admin().find([task_id])
        for peeked in messages:
            self._read(known, peeked)
        return known if record is not None or messages else None

    def _read(self, known: _Known, peeked: Any) -> None:
        from celeriac.protocol.reading import decode

        headers = decode_headers(peeked.message.headers)
        known.name = known.name or str(headers.get("task") or "")
        known.parent = known.parent or headers.get("parent_id")
        if peeked.state is not MessageState.DEAD and known.state == states.PENDING:
            known.state = peeked.state.value
        if known.parent == known.id:  # a retry names itself
            known.parent = None
        embed = decode(peeked.message, frozenset((peeked.message.content_type,))).embed
        known.rest = list(reversed(list(embed.get("chain") or ())))
        known.group = headers.get("group")
        known.body = embed.get("chord")

    def grown(self, task_id: str) -> Node:
        """The node of a task, with all that came and will come of it."""
        if task_id in self.made:
            return self.made[task_id]
        node = self.made[task_id] = Node(task_id)
        known = self.look(task_id) if len(self.made) < MOST else None
        if known is None:
            node.state = states.PENDING
            return node
        node.name, node.state = known.name, known.state
        for child in known.children:
            self._lead(node, result_from_tuple(child, self.app))
        below = self.below.get(task_id)
        if below is not None and below not in self.made:
            node.after.append(self.grown(below))
        last = node
        for step in known.rest:
            if (step.get("options") or {}).get("task_id") in self.made:
                continue
            planned = self._planned(step)
            last.after.append(planned)
            last = _end(planned)
        if known.body is not None:
            body_id = (known.body.get("options") or {}).get("task_id")
            if body_id not in self.made:
                last.after.append(self._planned(known.body))
            elif self.made[body_id] is not node:
                last.after.append(self.made[body_id])
        return node

    def _lead(self, node: Node, result: Any) -> None:
        steps = [result]
        while steps[-1].parent is not None and not isinstance(steps[-1].parent, ResultSet):
            steps.append(steps[-1].parent)
        header = steps[-1].parent
        if header is not None and header.results:
            group = self._group(header)
            if any(one.id == node.id for one in header.results):
                # The last part of a header knows the body, which comes after all of them.
                self.header_of[node.id] = group
            elif group not in node.after:
                node.after.append(group)
            node = group
        for step in reversed(steps):
            made = self._group(step) if isinstance(step, ResultSet) else self.grown(step.id)
            if made is not node and made not in node.after:
                node.after.append(made)
            node = made

    def _group(self, result: Any) -> Node:
        if result.id in self.made:
            return self.made[result.id]
        node = self.made[result.id] = Node(result.id, kind="group")
        for one in result.results:
            first = oldest(one)
            is_group = isinstance(first, ResultSet)
            node.members.append(self._group(first) if is_group else self.grown(first.id))
        node.state = _summary(node)
        return node

    def _planned(self, sig: Any) -> Node:
        """The node of a signature that has not been sent."""
        kwargs, options = sig.get("kwargs") or {}, sig.get("options") or {}
        kind = sig.get("subtask_type")
        task_id = options.get("task_id") or ""
        if kind == "group":
            node = Node(task_id, kind="group")
            node.members = [self._planned(task) for task in kwargs.get("tasks") or ()]
            node.state = _summary(node)
            return node
        if kind == "chord":
            header = kwargs.get("header") or {}
            if not isinstance(header, dict):
                header = {"kwargs": {"tasks": header}, "subtask_type": "group"}
            node = self._planned({**header, "subtask_type": "group"})
            if kwargs.get("body"):
                node.after.append(self._planned(kwargs["body"]))
            return node
        if kind == "chain" and kwargs.get("tasks"):
            nodes = [self._planned(task) for task in kwargs["tasks"]]
            for one, following in itertools.pairwise(nodes):
                _end(one).after.append(following)
            return nodes[0]
        if task_id in self.made:
            return self.made[task_id]
        record = self.app.results_or_raise().get([task_id])[0] if task_id else None
        state = record.state if record is not None else states.PENDING
        node = self.made[task_id] = Node(task_id, str(sig.get("task") or ""), state)
        return node


# --- drawing --------------------------------------------------------------------------------------


def drawn(root: Node) -> str:
    """The tree as text: what follows is below, what runs at once is indented."""
    lines: list[str] = []
    _draw(root, "", lines, set())
    return "\n".join(lines)


def _draw(node: Node, indent: str, lines: list[str], seen: set[int]) -> None:
    while True:
        if id(node) in seen:
            lines.append(f"{indent}{node.title} {node.id} (see above)")
            return
        seen.add(id(node))
        lines.append(f"{indent}{node.title} {node.id}  {node.state}".rstrip())
        for member in node.members[:SHOWN]:
            _draw(member, f"{indent}  | ", lines, seen)
        hidden = len(node.members) - SHOWN
        if hidden > 0:
            lines.append(f"{indent}  | and {hidden} more")
        if not node.after:
            return
        for branch in node.after[:-1]:
            _draw(branch, f"{indent}  > ", lines, seen)
        node = node.after[-1]


def mermaid(root: Node) -> str:
    """The tree as a flow chart of Mermaid."""
    names: dict[int, str] = {}
    lines = ["flowchart TD"]
    nodes = list(root.walk())
    for number, node in enumerate(nodes):
        names[id(node)] = f"n{number}"
        label = f"{node.title}<br/>{node.id[:8]}<br/>{node.state}".replace('"', "'")
        shape = ("[/", "/]") if node.kind == "group" else ("[", "]")
        lines.append(f'    n{number}{shape[0]}"{label}"{shape[1]}')
    for node in nodes:
        own = names[id(node)]
        ends = [_end(member) for member in node.members]
        lines += [f"    {own} --> {names[id(member)]}" for member in node.members]
        for following in node.after:
            sources = [names[id(end)] for end in ends] or [own]
            lines += [f"    {source} --> {names[id(following)]}" for source in sources]
    return "\n".join(lines)
