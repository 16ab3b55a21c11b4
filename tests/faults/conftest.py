"""What the fault tests share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.field import Field


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    """A database with short leases."""
    made = Field(tmp_path, BOMBED_LEASE="1")
    yield made
    made.close()


@pytest.fixture
def rng() -> random.Random:
    """Random, and printed so that a failure can be repeated (CELERIAC_SEED)."""
    seed = int(os.environ.get("CELERIAC_SEED") or random.randrange(2**32))
    print(f"\nseed {seed}")
    return random.Random(seed)
