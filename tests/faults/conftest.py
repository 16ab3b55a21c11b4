"""What the fault tests share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.field import FULL, Field

STORES = ("sqlite", "redis")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    """Each store that promises the same. ``make test`` runs most tests on SQLite only."""
    chosen = str(request.param)
    if chosen != "sqlite" and not FULL and "every_store" not in request.keywords:
        pytest.skip("on this store with the full counts only")
    return chosen


@pytest.fixture
def field(tmp_path: Path, store: str) -> Iterator[Field]:
    """A store with short leases."""
    made = Field(tmp_path, store, BOMBED_LEASE="1")
    yield made
    made.close()


@pytest.fixture
def rng() -> random.Random:
    """Random, and printed so that a failure can be repeated (CELERIAC_SEED)."""
    seed = int(os.environ.get("CELERIAC_SEED") or random.randrange(2**32))
    print(f"\nseed {seed}")
    return random.Random(seed)
