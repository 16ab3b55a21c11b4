"""Imports go down only: the table of DESIGN.md, held against every module of the package.

What counts is the first part of a module's name: ``celeriac.worker.runner`` is of ``worker``.
Imports for type checkers only may go anywhere, but not to the worker from below it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = SOURCE / "celeriac"

# From the bottom up. A module may import what is in its own layer (without a circle) and below.
LAYERS: list[set[str]] = [
    {"exceptions", "states"},
    {"message", "retry", "utils", "local"},
    {"conf", "contracts", "protocol", "schedules", "signals"},
    {"drivers", "registry", "request", "routing", "validation"},
    {
        "async_producer",
        "coroutines",
        "errbacks",
        "producer",
        "reading",
        "records",
        "result",
        "sending",
        "settling",
        "workflow",
    },
    {"canvas"},
    {"execution", "storing"},
    {"eager"},
    {"task", "concluding", "following", "joining"},
    {"app", "builtins", "control", "current", "finder", "removal", "report"},
    {"worker", "beat"},
    {"cli", "integrations", "compat", "testing", "__main__"},
]

# Imports inside functions that go up, each with its reason.
UPWARD: dict[tuple[str, str], str] = {
    ("app", "cli"): "start() and worker_main() run the command line with this application",
    ("canvas", "app"): "a signature without an application belongs to the current one",
    ("execution", "task"): "whether a hook is overridden is asked of the base class",
    ("result", "app"): "a result without an application belongs to the current one",
    ("schedules", "current"): "the zone of a schedule that names none is the application's",
    ("task", "app"): "a pickled task is found in the current application",
}

# What a part of the package may use at most, where that is less than its layer would allow.
ONLY: dict[str, set[str]] = {
    "drivers": {"contracts", "exceptions", "message", "protocol", "states", "utils"},
    "protocol": {"exceptions", "message"},
    "schedules": {"current", "exceptions"},
    "canvas": {
        "app",
        "errbacks",
        "exceptions",
        "message",
        "protocol",
        "request",
        "result",
        "states",
        "utils",
    },
    "testing": {"contracts", "drivers", "exceptions", "message", "states"},
}

# What comes from elsewhere, and the only places that may import it.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "aio_pika": ("drivers.rabbitmq",),
    "amqp": ("drivers.rabbitmq",),
    "brotli": ("protocol",),
    "click": ("cli",),
    "django": ("integrations.django",),
    "fastapi": ("integrations.fastapi",),
    "flask": ("integrations.flask",),
    "hiredis": ("drivers.redis",),
    "hypothesis": ("testing",),
    "kombu": (),  # its queues and exchanges are known by their shape
    "msgpack": ("protocol",),
    "pika": ("drivers.rabbitmq",),
    "psutil": (),  # only for tests
    "pydantic": ("validation",),
    "pytest": ("testing",),
    "redis": (),  # its command path costs as much as the command
    "sqlite3": ("drivers.sqlite",),
    "yaml": ("protocol",),
    "zstandard": ("protocol",),
}

# All that `import celeriac` may load; its names come when they are used.
LOADED_BY_IMPORT = set(
    "__future__ celeriac collections contextlib copyreg enum functools importlib itertools keyword "
    "operator re reprlib types typing warnings".split()
)
# What making an application must not load: each costs a worker or a web server memory and time.
TOO_DEAR_FOR_AN_APP = {
    "asyncio",
    "celeriac.async_producer",
    "celeriac.cli",
    "celeriac.validation",
    "celeriac.worker",
    "click",
    "hypothesis",
    "importlib.metadata",
    "multiprocessing",
    "pydantic",
    "pytest",
    "sqlite3",
    "ssl",
    "zoneinfo",
}


class Import(NamedTuple):
    """``module`` imports ``target``: at once, inside a function, or for type checkers only."""

    module: str
    target: str
    line: int
    when: str

    def __str__(self) -> str:
        return f"{self.module} imports {self.target} ({self.when}, line {self.line})"


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


@cache
def imports() -> tuple[Import, ...]:
    found: list[Import] = []
    for name, path in modules():
        found.extend(_imports_of(name, ast.parse(path.read_text())))
    return tuple(found)


def _imports_of(module: str, tree: ast.Module) -> Iterator[Import]:
    def walk(node: ast.AST, when: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner = when
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inner = "later" if when == "at once" else when
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                for statement in child.body:
                    yield from walk_one(statement, "for types")
                for statement in child.orelse:
                    yield from walk_one(statement, when)
                continue
            yield from walk_one(child, inner)

    def walk_one(node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, when)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                is_module = target in known() or node.module == "celeriac"
                yield Import(module, target if is_module else node.module, node.lineno, when)
        else:
            yield from walk(node, when)

    yield from walk(tree, "at once")


@cache
def known() -> frozenset[str]:
    return frozenset(name for name, _ in modules())


def part(module: str) -> str:
    """``worker`` of ``celeriac.worker.runner``; "" for the package itself."""
    return module.removeprefix("celeriac").removeprefix(".").partition(".")[0]


@cache
def layer(name: str) -> int:
    for height, names in enumerate(LAYERS):
        if name in names:
            return height
    raise AssertionError(f"celeriac.{name} is in no layer: put it where it belongs in LAYERS")


def inside() -> Iterator[tuple[Import, str, str]]:
    """Imports between the parts of the package."""
    for one in imports():
        if one.target.split(".")[0] != "celeriac" or "__version__" in one.target:
            continue
        source, target = part(one.module), part(one.target)
        if source and target and source != target:
            yield one, source, target


# --- the table --------------------------------------------------------------------------------


def test_every_module_has_its_layer_and_only_one() -> None:
    names = [name for layer_names in LAYERS for name in layer_names]
    assert len(names) == len(set(names))
    for module, _ in modules():
        if part(module):
            layer(part(module))


def test_imports_go_down() -> None:
    wrong = [
        str(one)
        for one, source, target in inside()
        if one.when == "at once" and layer(target) > layer(source)
    ]
    assert wrong == []


def test_imports_inside_functions_go_down_too_but_for_good_reasons() -> None:
    upward = {
        (source, target): one
        for one, source, target in inside()
        if one.when == "later" and layer(target) > layer(source)
    }
    assert [str(one) for pair, one in upward.items() if pair not in UPWARD] == []
    assert [pair for pair in UPWARD if pair not in upward] == [], "reasons that nobody needs now"


def test_no_circles() -> None:
    """Of imports at once, between modules: a circle works only from one of its ends."""
    graph: dict[str, set[str]] = {}
    for one in imports():
        if one.when == "at once" and one.target in known():
            graph.setdefault(one.module, set()).add(one.target)
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join((*above[above.index(module) :], module))
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            if target not in ("celeriac", module):  # process.py asks for itself as `__main__`
                visit(target, (*above, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("source", ONLY)
def test_parts_that_may_use_little(source: str) -> None:
    wrong = [
        str(one)
        for one, own, target in inside()
        if own == source and target not in ONLY[source] and one.when != "for types"
    ]
    assert wrong == []


def test_drivers_do_not_know_each_other() -> None:
    wrong = []
    for one in imports():
        source, target = one.module.split("."), one.target.split(".")
        if source[:2] == target[:2] == ["celeriac", "drivers"] and len(source) > 2:
            own = source[2]
            if len(target) > 2 and target[2] != own and (PACKAGE / "drivers" / target[2]).is_dir():
                wrong.append(str(one))
    assert wrong == []


def test_nothing_above_the_drivers_names_one() -> None:
    """Drivers are found by the scheme of a URL."""
    wrong = [
        str(one)
        for one in imports()
        if one.target.startswith("celeriac.drivers.")
        and part(one.module) not in ("drivers", "testing")
    ]
    assert wrong == []


def test_the_application_does_not_know_the_worker() -> None:
    """Not even later, for types, or by name: a web server that sends tasks loads no worker."""
    top = layer("app")
    wrong = [
        str(one)
        for one, source, target in inside()
        if layer(source) <= top < layer(target) and (source, target) != ("app", "cli")
    ]
    for module, path in modules():
        if part(module) and layer(part(module)) > top:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
                is_module = name.startswith(("celeriac.worker.", "celeriac.beat."))
                if is_module and " " not in name and f'getLogger("{name}' not in path.read_text():
                    wrong.append(f"{module}, line {node.lineno}: {name!r}")
    assert wrong == []


def test_packages_from_elsewhere_stay_where_they_belong() -> None:
    wrong = []
    for one in imports():
        places = OUTSIDE.get(one.target.split(".")[0])
        if places is None or one.when == "for types":
            continue
        own = one.module.removeprefix("celeriac.")
        if not any(own == place or own.startswith(f"{place}.") for place in places):
            wrong.append(str(one))
    assert wrong == []


def test_only_what_is_always_installed_is_imported_at_once() -> None:
    """The package's own dependencies, and the standard library; extras inside functions, or in
    the places that only whoever has the extra reaches."""
    always = {*sys.stdlib_module_names, "celeriac", "msgspec"}
    wrong = []
    for one in imports():
        name = one.target.split(".")[0]
        if one.when != "at once" or name in always:
            continue
        places = OUTSIDE.get(name, ())
        optional = [place for place in places if place not in ("protocol", "validation")]
        if not any(one.module.startswith(f"celeriac.{place}") for place in optional):
            wrong.append(str(one))
    assert wrong == []


# --- what an import costs -----------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """The modules that the statement adds to those of a bare interpreter."""
    code = (
        "import sys; before = set(sys.modules); "
        f"{statement}; print(*sorted(set(sys.modules) - before))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CELER")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import celeriac")
    assert {name for name in loaded if name.startswith("celeriac.")} == set()
    public = {name.split(".")[0] for name in loaded if not name.startswith("_")}
    assert public - LOADED_BY_IMPORT == set()


def test_importing_the_application_loads_no_more_than_it_needs() -> None:
    loaded = loaded_by("from celeriac import Celeriac; Celeriac('x', broker='memory://').conf")
    assert loaded & TOO_DEAR_FOR_AN_APP == set()


@pytest.mark.parametrize("name", ["shared_task", "current_app", "signature", "Task", "states"])
def test_every_public_name_can_be_the_first_one_used(name: str) -> None:
    assert "celeriac" in loaded_by(f"from celeriac import {name}")
