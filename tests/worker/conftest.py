"""What the tests with whole workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_worker import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes a database with these settings; its workers end with the test."""
    made: list[Stage] = []

    def make(**conf: Any) -> Stage:
        made.append(Stage(tmp_path, **conf))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker, two processes, for all tests of a file."""
    one = Stage(tmp_path_factory.mktemp("live"), unknown_task_wait=0.8)
    process = one.ready("-c", "2", "-Q", "celery,side")
    yield one
    assert one.stop(process) == 0
    one.end()
