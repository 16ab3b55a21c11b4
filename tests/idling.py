"""What processes cost that do next to nothing, and what waking up costs on this machine: on a
virtual one with busy neighbours it may be ten times what it is elsewhere, from minute to minute."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

__all__ = ["costs_of", "processor_seconds"]

_USUAL_PRICE = 0.0003
"""Seconds of processor time for which a quiet machine wakes a process that looks at a clock."""
_NAP = 0.5
_NAPPER = f"""
import time
while True:
    time.sleep({_NAP})
"""


def processor_seconds(process: psutil.Process) -> float:
    """Of a process with one thread; finer than the ticks in which the kernel reports it usually."""
    exact = Path(f"/proc/{process.pid}/schedstat")
    if exact.exists():
        return int(exact.read_text().split()[0]) / 1e9
    return float(sum(process.cpu_times()[:2]))


def costs_of(processes: Sequence[psutil.Process], seconds: float) -> tuple[list[float], float]:
    """The share of a processor that each takes over so many seconds, and the factor, 1 or more, by
    which waking up is dearer than usual meanwhile, by a process that does nothing else."""
    napper = subprocess.Popen([sys.executable, "-S", "-c", _NAPPER])
    try:
        watched = [*processes, psutil.Process(napper.pid)]
        time.sleep(1.0)  # until it has begun
        before, begun = [processor_seconds(one) for one in watched], time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - begun
        shares = [
            (processor_seconds(one) - was) / elapsed
            for one, was in zip(watched, before, strict=True)
        ]
    finally:
        napper.kill()
        napper.wait()
    return shares[:-1], max(1.0, shares[-1] * _NAP / _USUAL_PRICE)
