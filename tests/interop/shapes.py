"""Prints what one side (the argument) makes of every pair and triple of forms of workflow, put
together with ``|`` and with ``chain``: JSON, the source to the shape."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import operator
import sys
from collections.abc import Callable
from typing import Any

package = importlib.import_module(sys.argv[1])
chain, chord, group = package.chain, package.chord, package.group
app = package.Celery("shapes", broker="memory://", set_as_current=False)
numbers = itertools.count()


@app.task(name="t")
def t(number: int) -> None:
    """Only put into signatures."""


def task() -> Any:
    return t.s(next(numbers))


FORMS: dict[str, Callable[[], Any]] = {
    "task": task,
    "group of one": lambda: group([task()]),
    "group": lambda: group(task(), task()),
    "chain": lambda: task() | task(),
    "chain to a group": lambda: task() | group(task(), task()),
    "chain to a group of one": lambda: chain(task(), group([task()])),
    "chord": lambda: chord([task(), task()], task()),
    "chord to a group": lambda: chord([task(), task()], group(task(), task())),
    "group of chains": lambda: group(task() | task(), task()),
    "group of groups": lambda: group(group(task(), task()), task()),
}


def shape(sig: Any) -> Any:
    kind = sig.get("subtask_type")
    if kind in ("chain", "group"):
        return [kind, [shape(one) for one in sig.tasks]]
    if kind == "chord":
        return [kind, [shape(one) for one in sig.tasks], shape(sig.body)]
    return sig.args[0]


def shape_of(make: Callable[..., Any], names: tuple[str, ...]) -> Any:
    global numbers
    numbers = itertools.count()
    return shape(make([FORMS[name]() for name in names]))


def main() -> None:
    found = {}
    for count in (2, 3):
        for names in itertools.product(FORMS, repeat=count):
            source = ", ".join(names)
            found[f"{source} with |"] = shape_of(
                functools.partial(functools.reduce, operator.or_), names
            )
            found[f"{source} in chain()"] = shape_of(lambda parts: chain(*parts), names)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
