"""The documentation is true: links lead somewhere, settings exist, programs run.

Every ```` ```python ```` block of a page is run, one after the other in one namespace, in a
process of its own with ``memory://name-of-the-page`` as broker and a worker in a thread. A comment
``# → value`` behind an expression is what it must give. A block below a line ``<!-- not run: why
-->`` is only compiled.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celeriac import signals
from celeriac.conf.table import SETTINGS
from celeriac.message import QueueInfo
from celeriac.sending import IGNORED_OPTIONS, OPTIONS
from celeriac.task import Task
from celeriac.worker.options import WorkerOptions

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: .+ -->$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_EXPECTED = re.compile(r"# → (?P<value>.+)$")
_WAITS = re.compile(r"timeout=|asyncio\.run")  # only now is a worker started
# Words in backticks that begin like a setting: its own name, or something else that is known.
_GROUPS = ("accept_", "task_", "worker_", "broker_", "result_", "beat_", "dead_letter_", "revoke_")
_OTHERS = {"task_id", "task_name", "task_cls", "unknown_task_wait", "worker_main", "result_cls"}
_OTHERS |= {"result_chord_ordered"}  # an option of Celery's Redis transport


class Block(NamedTuple):
    """Some lines of a page, the first of which is line ``line`` (from 1)."""

    language: str
    line: int
    text: str
    runs: bool


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    fence: re.Match[str] | None = None
    start, lines, before, runs = 0, [""], "", True
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        found = _FENCE.match(line)
        if fence is None and found:
            fence, start, lines = found, number + 1, []
            runs = not _NOT_RUN.match(before)
        elif fence is not None and found and not found["language"]:
            yield Block(fence["language"], start, "\n".join(lines) + "\n", runs)
            fence = None
        elif fence is not None:
            lines.append(line.removeprefix(fence["indent"]))
        before = line.strip() or before
    assert fence is None, f"{page}: the block that begins at line {start} does not end"


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^ *```\s*$", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What a link can name after ``#``: headings, as GitHub writes them."""
    found = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


# --- links and names ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=SHORT)
def test_links_lead_somewhere(page: Path) -> None:
    for found in _LINK.finditer(prose(page)):
        target = found["target"]
        if re.match(r"^[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(place), f"{page.name} links to {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=SHORT)
def test_settings_exist(page: Path) -> None:
    known = {
        *SETTINGS,
        *vars(signals),
        *OPTIONS,
        *IGNORED_OPTIONS,
        *vars(Task),
        *QueueInfo.__struct_fields__,
        *WorkerOptions.__struct_fields__,
        *_OTHERS,
    }
    named = set(re.findall(r"`(\w+)(?:`| = )", prose(page)))
    unknown = sorted(name for name in named if name.startswith(_GROUPS) and name not in known)
    assert not unknown, f"{page.name} names settings that there are not: {', '.join(unknown)}"


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=SHORT)
def test_programs_run(page: Path, tmp_path: Path) -> None:
    programs = [block for block in blocks(page) if block.language == "python"]
    for block in programs:
        if not block.runs:
            compile(block.text, f"{page.name}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if not any(block.runs for block in programs):
        return
    environ = {
        **os.environ,
        "CELERIAC_BROKER_URL": f"memory://{page.stem}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", __file__, str(page)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}{done.stderr}"


def run_page(page: Path) -> None:
    """Run the programs of a page in this process."""
    module = types.ModuleType("tasks")
    sys.modules["tasks"] = module  # so that what the page defines can be imported
    worker = _Worker()
    for block in blocks(page):
        if block.language == "python" and block.runs:
            _run(block, vars(module), page, worker)
    worker.stop()


def _run(block: Block, namespace: dict[str, Any], page: Path, worker: _Worker) -> None:
    lines = block.text.splitlines()
    tree = ast.parse(block.text)
    ast.increment_lineno(tree, block.line - 1)
    for statement in tree.body:
        last = lines[(statement.end_lineno or 0) - block.line]
        if _WAITS.search(last):
            worker.start(namespace.get("app"))
        expected = _EXPECTED.search(last)
        if not isinstance(statement, ast.Expr) or expected is None:
            exec(compile(ast.Module([statement], []), str(page), "exec"), namespace)
            continue
        value = eval(compile(ast.Expression(statement.value), str(page), "eval"), namespace)
        where = f"{page.name}:{statement.lineno}: {last.strip()}"
        assert repr(value) == expected["value"].strip(), f"{where}\ngave {value!r}"


class _Worker:
    """A worker of the page's application, in a thread."""

    def __init__(self) -> None:
        self._solo: Any = None
        self._thread: threading.Thread | None = None

    def start(self, app: Any) -> None:
        if app is None or self._thread is not None or not app.broker_url.startswith("memory:"):
            return
        from celeriac.worker.solo import Solo

        app.finalize()
        options = WorkerOptions.from_conf(
            app.conf, app="", pool="solo", queues=["celery", "mail", "reports"]
        )
        self._solo = Solo(app, options)
        self._thread = threading.Thread(target=self._solo.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._solo.stop()
            self._thread.join(10)


# --- this test itself -----------------------------------------------------------------------------


def test_a_wrong_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\nx + 1  # → 2\n```\n\n```python\nx + 1  # → 3\n```\n")
    run_page_of = [block for block in blocks(page) if block.runs]
    assert [block.line for block in run_page_of] == [2, 7]
    with pytest.raises(AssertionError, match="gave 2"):
        run_page(page)
    sys.modules.pop("tasks", None)
    page.write_text("Text.\n\n<!-- not run: it would -->\n```python\nexit()\n```\n")
    assert [block.runs for block in blocks(page)] == [False]


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
    print(json.dumps("fine"))
