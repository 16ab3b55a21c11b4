"""What processes cost that do next to nothing, and what waking up costs on this machine: on a
virtual one with busy neighbours it may be ten times what it is elsewhere, from minute to minute."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

__all__ = ["least_costs", "processor_seconds"]

_USUAL_PRICE = 0.0003
"""Seconds of processor time for which a quiet machine wakes a process that looks around a little:
what it needs has left the caches meanwhile, and some of it the memory."""
_NAP = 0.5
_NAPPER = f"""
import json, time
while True:
    time.sleep({_NAP})
    open("/proc/self/stat", "rb").read()
    json.loads(json.dumps({{str(number): number for number in range(50)}}))
"""


def processor_seconds(process: psutil.Process) -> float:
    """Of a process with one thread; finer than the ticks in which the kernel reports it usually."""
    exact = Path(f"/proc/{process.pid}/schedstat")
    if exact.exists():
        return int(exact.read_text().split()[0]) / 1e9
    return float(sum(process.cpu_times()[:2]))


def least_costs(processes: Sequence[psutil.Process], seconds: float, most: float) -> list[float]:
    """The share of a processor that each takes over so many seconds, at the price of waking up on
    a quiet machine; measured again, twice at most, if that is more than ``most``: what others do
    meanwhile can only add to it."""
    least = [float("inf")] * len(processes)
    for _ in range(3):
        shares, dear = _costs_of(processes, seconds)
        least = [min(was, share / dear) for was, share in zip(least, shares, strict=True)]
        if max(least) <= most:
            break
    return least


def _costs_of(processes: Sequence[psutil.Process], seconds: float) -> tuple[list[float], float]:
    """The share of a processor that each takes over so many seconds, and the factor, 1 or more, by
    which waking up is dearer than usual meanwhile, by a process that only looks around."""
    napper = subprocess.Popen([sys.executable, "-c", _NAPPER])
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
