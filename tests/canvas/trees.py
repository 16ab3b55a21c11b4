"""Random workflows, and what they must come to by a plain function."""

from __future__ import annotations

import random
from typing import Any

from flow_tasks import app, flat

from celeriac import chain, chord, group


class Tree:
    """A workflow as plain data: ``kind``, ``parts``, for a chord also ``body``; of a task the
    ``task`` and the number that it adds."""

    def __init__(self, kind: str, parts: tuple[Tree, ...] = (), body: Tree | None = None) -> None:
        self.kind = kind
        self.parts = parts
        self.body = body
        self.number = 0

    def value(self, given: Any) -> Any:
        """What it comes to with this in front (None: nothing)."""
        if self.kind == "add":
            return flat(given or 0) + self.number
        if self.kind == "pair":
            return [given, 1]
        if self.kind == "ident":
            return given
        if self.kind == "chain":
            for part in self.parts:
                given = part.value(given)
            return given
        values = _header_values(self.parts, given)
        return values if self.kind == "group" else self.body.value(values)  # type: ignore[union-attr]

    def sig(self, first: bool = True) -> Any:
        """The signature; ``first``: nobody gives it anything."""
        if not self.parts:
            args = {"add": (0, self.number) if first else (self.number,)}.get(
                self.kind, (None,) if first else ()
            )
            name = "work" if self.kind == "ident" else self.kind
            return app.signature(name, args)
        if self.kind == "chain":
            return chain(part.sig(first and number == 0) for number, part in enumerate(self.parts))
        members = [part.sig(first) for part in self.parts]
        if self.kind == "group":
            return group(members)
        assert self.body is not None
        return chord(members, self.body.sig(False))

    def size(self) -> int:
        return 1 + sum(part.size() for part in self.parts) + (self.body.size() if self.body else 0)

    def __repr__(self) -> str:
        if not self.parts:
            return f"{self.kind}{self.number or ''}"
        inside = ", ".join(map(repr, self.parts))
        return f"{self.kind}({inside})" + (f" -> {self.body!r}" if self.body else "")


def _header_values(parts: tuple[Tree, ...], given: Any) -> list[Any]:
    """Groups directly inside are unrolled."""
    values: list[Any] = []
    for part in parts:
        value = part.value(given)
        if part.kind == "group":
            values.extend(value)
        else:
            values.append(value)
    return values


def grow(rng: random.Random, depth: int, *, wide: int = 3) -> Tree:
    """A random tree of at most this depth."""
    kinds = ["add", "add", "ident", "pair"]
    if depth > 0:
        kinds += ["chain", "chain", "group", "chord", "chord"]
    kind = rng.choice(kinds)
    if kind in ("add", "ident", "pair"):
        tree = Tree(kind)
        tree.number = rng.randint(1, 9) if kind == "add" else 0
        return tree
    least = 2 if kind != "chain" else 1
    parts = tuple(grow(rng, depth - 1, wide=wide) for _ in range(rng.randint(least, wide)))
    body = grow(rng, depth - 1, wide=wide) if kind == "chord" else None
    return Tree(kind, parts, body)
