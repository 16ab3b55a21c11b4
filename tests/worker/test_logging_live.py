"""What whole workers write to their logs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from live_worker import Stage

Make = Callable[..., Stage]


@pytest.mark.parametrize("pool", ["processes", "threads", "asyncio", "solo"])
def test_the_lines_of_a_task(stage: Make, pool: str) -> None:
    one = stage()
    process = one.start("-c", "1", "-P", pool, "-f", str(one.path / "%n.log"))
    result = one.send("say", "hello")
    result.get(timeout=10)
    assert one.stop(process) == 0
    text = one.log("celery.log")
    name = f"live_tasks.say\\[{result.id}\\]"
    assert re.search(rf"INFO/.*\] Task {name} received", text)
    assert re.search(rf"INFO/.*\] Task {name} succeeded in [\d.e-]+s: None", text)
    assert re.search(rf"\]\s*{name}: said hello", text)
    assert "printed hello" in text
    assert "said hello" not in one.log()  # the banner is there, the log is in the file


@pytest.mark.parametrize("pool", ["processes", "asyncio"])
def test_json_lines_name_the_task(stage: Make, pool: str) -> None:
    one = stage()
    process = one.ready("-c", "1", "-P", pool, "--log-json")
    said, failed = one.send("say", "hello"), one.send("fail", "oh")
    said.get(timeout=10)
    failed.get(timeout=10, propagate=False)
    assert one.stop(process) == 0
    lines = [json.loads(line) for line in one.log().splitlines() if line.startswith("{")]
    about = {
        result.id: [line for line in lines if line.get("task_id") == result.id]
        for result in (said, failed)
    }
    words = [
        line["message"].split("]")[-1].split(" ")[1]
        for line in about[said.id]
        if "]" in line["message"]
    ]
    assert words == ["received", "succeeded"]
    assert "said hello" in [line["message"] for line in about[said.id]]
    assert all(line["task_name"] == "live_tasks.say" for line in about[said.id])
    assert [line["level"] for line in about[failed.id]] == ["INFO", "ERROR"]
    assert "ValueError" in about[failed.id][1]["message"]
    assert all(set(line) >= {"time", "level", "logger", "worker", "process"} for line in lines)
