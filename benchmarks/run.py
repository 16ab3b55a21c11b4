"""A run: its figures and what they mean, the bars they are held against, the file they go to."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

Figures = dict[str, dict[str, list[float]]]
"""Name of a figure → name of a system → one value a round."""


@dataclass(frozen=True)
class Kind:
    """A figure: its name for people, its unit, how it is written, and which way is better."""

    title: str
    unit: str
    places: int = 0
    less_is_better: bool = False

    def show(self, value: float) -> str:
        return f"{value:,.{self.places}f}{self.unit}"


KINDS: Mapping[str, Kind] = {
    "results": Kind("No-op tasks, results stored", "/s"),
    "no_results": Kind("No-op tasks, results off", "/s"),
    "delay": Kind("Sending one by one, one process", "/s"),
    "bulk": Kind("Sending many in one call", "/s"),
    "wait_median": Kind("Send and wait, median", " ms", 2, True),
    "wait_p99": Kind("Send and wait, 99th percentile", " ms", 2, True),
    "chain": Kind("Chain of 100 no-op tasks", " ms", 1, True),
    "chain_long": Kind("Chain of 1,000", " ms", 1, True),
    "chord": Kind("Chord of 1,000 no-op tasks", " ms", 1, True),
    "chord_large": Kind("Chord of 10,000", " ms", 1, True),
    "memory": Kind("Memory of the worker tree (PSS)", " MB", 1, True),
    "idle_cpu": Kind("Idle worker, share of a core", " %", 2, True),
    "idle_commands": Kind("Idle worker, Redis commands", "/s", 1, True),
    "idle_requests": Kind("Idle worker, requests to Redis", "/s", 1, True),
    "thousand_waiting": Kind("Rate with 1,000 waiting", "/s"),
    "million_waiting": Kind("Rate with {backlog:,} waiting", "/s"),
}


@dataclass(frozen=True)
class Run:
    """What is kept of a run, as JSON."""

    date: str
    quick: bool
    rounds: int
    backlog: int
    machine: Mapping[str, Any]
    systems: Mapping[str, Mapping[str, Any]]  # name → title, versions, worker
    figures: Figures
    idle_commands: Mapping[str, Mapping[str, int]]

    def middle(self, figure: str, system: str = "celeriac") -> float | None:
        """The median of the rounds; None: not measured."""
        values = self.figures.get(figure, {}).get(system)
        return median(values) if values else None

    def title(self, figure: str) -> str:
        return KINDS[figure].title.format(backlog=self.backlog)

    def peers(self, figure: str) -> dict[str, float]:
        """The medians of the other task queues."""
        names = (name for name in self.systems if name not in ("celeriac", "lpush"))
        found = {name: self.middle(figure, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Run:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


# --- bars -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What a figure is held against. ``met`` is None where something was not measured."""

    figure: str
    wanted: str
    found: str
    met: bool | None


def _share(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _bar(
    figure: str,
    wanted: str,
    value: float | None,
    holds: Callable[[float], bool],
    show: Callable[[float], str],
) -> Bar:
    if value is None:
        return Bar(figure, wanted, "not measured", None)
    return Bar(figure, wanted, show(value), holds(value))


def bars(run: Run) -> list[Bar]:
    """Every bar of Celeriac on Redis, with what this run found."""

    def ratio(figure: str, system: str) -> float | None:
        return _share(run.middle(figure), run.middle(figure, system))

    def faster(figure: str) -> float | None:
        return _share(run.middle(figure, "celery"), run.middle(figure))

    def times(value: float) -> str:
        return f"{value:.1f} times"

    def percent(value: float) -> str:
        return f"{100 * value:.0f} %"

    mine = run.middle
    fastest = max(run.peers("results").values(), default=None)
    waiting = _share(mine("million_waiting"), mine("thousand_waiting"))
    per_second, cpu, commands = (KINDS[name].show for name in ("bulk", "idle_cpu", "idle_commands"))
    return [
        _bar("results", ">= 35 x Celery", ratio("results", "celery"), lambda v: v >= 35, times),
        _bar(
            "results",
            ">= 7 x the fastest peer",
            _share(mine("results"), fastest),
            lambda v: v >= 7,
            times,
        ),
        _bar("delay", ">= 3 x Celery", ratio("delay", "celery"), lambda v: v >= 3, times),
        _bar(
            "delay", ">= 60 % of a bare LPUSH", ratio("delay", "lpush"), lambda v: v >= 0.6, percent
        ),
        _bar("bulk", ">= 80,000/s", mine("bulk"), lambda v: v >= 80_000, per_second),
        _bar(
            "wait_median",
            "<= half of Celery's",
            ratio("wait_median", "celery"),
            lambda v: v <= 0.5,
            percent,
        ),
        _bar("chain", ">= 5 x Celery", faster("chain"), lambda v: v >= 5, times),
        _bar("chord", ">= 15 x Celery", faster("chord"), lambda v: v >= 15, times),
        _bar(
            "chain_long",
            "<= 15 x one of 100",
            _share(mine("chain_long"), mine("chain")),
            lambda v: v <= 15,
            times,
        ),
        _bar(
            "chord_large",
            "<= 11 x one of 1,000",
            _share(mine("chord_large"), mine("chord")),
            lambda v: v <= 11,
            times,
        ),
        _bar("memory", "below Celery's", ratio("memory", "celery"), lambda v: v < 1, percent),
        _bar("idle_cpu", "<= 0.5 %", mine("idle_cpu"), lambda v: v <= 0.5, cpu),
        _bar("idle_commands", "<= 5/s", mine("idle_commands"), lambda v: v <= 5, commands),
        _bar("million_waiting", ">= 90 %", waiting, lambda v: v >= 0.9, percent),
    ]


# --- printing -------------------------------------------------------------------------------------


def table(run: Run) -> str:
    """The medians, a column for each system, then the bars."""
    names = [name for name in run.systems if any(name in found for found in run.figures.values())]
    head = ["", *(run.systems[name]["title"] for name in names)]
    rows = [head]
    for figure, kind in KINDS.items():
        if figure in run.figures:
            values = (run.middle(figure, name) for name in names)
            cells = ("-" if value is None else kind.show(value) for value in values)
            rows.append([run.title(figure), *cells])
    lines = aligned(rows)
    words = {True: "met", False: "MISSED", None: ""}
    judged = [bar for bar in bars(run) if bar.figure in run.figures]
    rows = [[run.title(bar.figure), bar.wanted, bar.found, words[bar.met]] for bar in judged]
    return "\n".join([*lines, "", *aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def busy(seconds: float = 1.0) -> float:
    """How much of the machine others use just now, in per cent: a busy one's figures say little."""
    return psutil.cpu_percent(interval=seconds)


def machine(redis_version: str, busy_before: float) -> dict[str, Any]:
    """What the figures depend on, and nothing that would tell whose machine it is."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.system(),
        "python": platform.python_version(),
        "redis": redis_version,
        "busy_before": busy_before,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())
