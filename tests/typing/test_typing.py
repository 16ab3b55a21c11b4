"""Types survive: mypy, strict, says of the samples what their comments expect, and no more.

``# R: type`` on a line: what reveal_type says, without modules. ``# E: [code]``: an error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EXPECTED = re.compile(r"  # (?P<kind>[RE]): (?P<text>.+)$")
SAID = re.compile(r"^(?P<file>.+?):(?P<line>\d+): (?P<level>error|note): (?P<text>.+)$")


def said_by_mypy(sample: Path, cache: Path) -> dict[int, list[str]]:
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--no-error-summary", "--no-pretty"),
            *("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)),
            str(sample),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said: dict[int, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        match = SAID.match(line)
        if match is None or Path(match["file"]).name != sample.name:
            continue
        if match["level"] == "error" or "Revealed type" in match["text"]:
            said[int(match["line"])].append(match["text"])
    return said


def plain(answer: str) -> str:
    """Names without their modules."""
    return re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", answer)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sample", sorted((HERE / "samples").glob("*.py")), ids=lambda p: p.stem)
def test_sample(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    said = said_by_mypy(sample, tmp_path_factory.getbasetemp() / "mypy")
    wrong: list[str] = []
    for number, line in enumerate(sample.read_text().splitlines(), 1):
        expected = EXPECTED.search(line)
        answers = said.pop(number, [])
        if expected is None:
            wrong += [f"line {number}: not expected: {answer}" for answer in answers]
        elif expected["kind"] == "R":
            if [plain(answer) for answer in answers] != [f'Revealed type is "{expected["text"]}"']:
                wrong.append(f"line {number}: expected {expected['text']!r}, mypy says {answers}")
        elif not any(answer.endswith(expected["text"]) for answer in answers):
            wrong.append(f"line {number}: expected {expected['text']!r}, mypy says {answers}")
    assert wrong == []
    assert not said
