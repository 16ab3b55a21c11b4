"""The chart of a run: bars on a light ground, as SVG, from nothing but the run's JSON::

python -m benchmarks.chart docs/benchmarks/2026-11-21-redis.json docs/benchmarks/redis.svg
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.run import KINDS, Run

PANELS = ("results", "no_results", "delay", "wait_median", "memory", "idle_commands")
COLUMNS = 2
WIDTH, MARGIN, GAP = 960, 28, 36
NAMES, VALUES = 92, 96  # room for the names before the bars and the values behind them
BAR, STEP = 18, 26
TITLE = 30
OURS, THEIRS, BASE = "#1b7f4b", "#8fa3b8", "#c9b27c"
INK, FAINT, GROUND = "#1f2933", "#5b6b7b", "#ffffff"
FONT = "font-family='Helvetica, Arial, sans-serif'"


def draw(run: Run) -> str:
    """The SVG of all panels that the run has figures for."""
    panels = [name for name in PANELS if run.figures.get(name)]
    conditions = _conditions(run)
    top = 62 + 17 * len(conditions)
    rows = [panels[first : first + COLUMNS] for first in range(0, len(panels), COLUMNS)]
    total = top + sum(_height(run, row) for row in rows)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{total}' "
        f"viewBox='0 0 {WIDTH} {total}' role='img'>",
        f"<title>{escape(_headline(run))}</title>",
        f"<rect width='{WIDTH}' height='{total}' fill='{GROUND}'/>",
        _text(MARGIN, 36, _headline(run), size=20, weight="bold"),
        *(
            _text(MARGIN, 58 + 17 * number, line, fill=FAINT)
            for number, line in enumerate(conditions)
        ),
    ]
    wide = (WIDTH - 2 * MARGIN - GAP * (COLUMNS - 1)) / COLUMNS
    for row in rows:
        for place, name in enumerate(row):
            parts += _panel(run, name, MARGIN + place * (wide + GAP), top + 16, wide)
        top += _height(run, row)
    return "\n".join([*parts, "</svg>", ""])


def _height(run: Run, row: Sequence[str]) -> int:
    """Of panels side by side: the one with the most bars decides."""
    return TITLE + max(len(run.figures[name]) for name in row) * STEP + GAP // 2


def _headline(run: Run) -> str:
    return "Celeriac and its peers on one Redis" + (" (a quick look)" if run.quick else "")


def _conditions(run: Run) -> list[str]:
    has = run.machine
    rounds = (
        f"medians of {run.rounds} rounds in turn; the thin line spans the rounds."
        if run.rounds > 1
        else "one round."
    )
    versions = ", ".join(_version(run, name) for name in run.systems if name != "lpush")
    return [
        f"{run.date}. Two worker processes each, default settings; {rounds}",
        f"{has['cpu']}, {has['cores']} cores; Python {has['python']}, Redis {has['redis']}.",
        *textwrap.wrap(versions + ".", 150),
    ]


def _version(run: Run, name: str) -> str:
    system = run.systems[name]
    version = system["versions"].get(name, "")
    return f"{system['title']} {version}".strip()


def _panel(run: Run, figure: str, left: float, top: float, wide: float) -> Iterator[str]:
    kind, found = KINDS[figure], run.figures[figure]
    order = [name for name in run.systems if name in found]
    note = "less is better" if kind.less_is_better else "more is better"
    yield _text(left, top, run.title(figure), size=14, weight="bold")
    yield _text(left + wide, top, note, size=11, fill=FAINT, anchor="end")
    scale = (wide - NAMES - VALUES) / (max(max(found[name]) for name in order) or 1.0)
    x = left + NAMES
    for number, name in enumerate(order):
        value = run.middle(figure, name) or 0.0
        y = top + TITLE - 14 + number * STEP
        colour = {"celeriac": OURS, "lpush": BASE}.get(name, THEIRS)
        least, most = min(found[name]) * scale, max(found[name]) * scale
        weight = "bold" if name == "celeriac" else "normal"
        yield _text(x - 8, y + 13, run.systems[name]["title"], anchor="end", weight=weight)
        yield (
            f"<rect x='{x:.1f}' y='{y}' width='{max(value * scale, 1.0):.1f}' height='{BAR}' "
            f"rx='2' fill='{colour}'/>"
        )
        if len(found[name]) > 1:
            yield (
                f"<path d='M{x + least:.1f} {y + BAR / 2}H{x + most:.1f}' "
                f"stroke='{INK}' stroke-width='1.5'/>"
            )
        end = x + max(most, value * scale) + 7
        yield _text(end, y + 13, kind.show(value), weight=weight)


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    fill: str = INK,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' fill='{fill}' "
        f"font-weight='{weight}' text-anchor='{anchor}'>{escape(words)}</text>"
    )


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    target.write_text(draw(Run.load(source)), encoding="utf-8")


if __name__ == "__main__":
    main()
