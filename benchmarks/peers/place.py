"""Where an application of the comparison finds its broker, and whether it keeps results.

``BROKER`` and ``RESULTS`` are URLs of Redis; ``RESULTS`` is None where the rate without results
is measured. ``WAITS``: results are waited for, so what a system has to announce them is on.
"""

from __future__ import annotations

import os

BROKER: str = os.environ["BENCH_BROKER"]
RESULTS: str | None = os.environ.get("BENCH_RESULTS")
WAITS: bool = "BENCH_WAITS" in os.environ
