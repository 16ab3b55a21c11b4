"""The arithmetic of ``make bench`` and its chart, on made-up figures; nothing is timed here."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import chart, run
from benchmarks.clock import Span, watch
from benchmarks.peers import BY_DEFAULT, OTHERS, chosen, tally
from benchmarks.stage import FULL, QUICK, ROOT, interleaved, percentile

SVG = "{http://www.w3.org/2000/svg}"


def a_run(**figures: dict[str, list[float]]) -> run.Run:
    titles = {"celeriac": "Celeriac", "celery": "Celery", "huey": "Huey", "lpush": "bare <LPUSH>"}
    return run.Run(
        date="2030-01-02",
        quick=False,
        rounds=3,
        backlog=1_000_000,
        machine={"cpu": "A & B", "cores": 2, "python": "3.11", "redis": "7.0"},
        systems={
            name: {"title": title, "versions": {name: "1.0"}, "worker": name}
            for name, title in titles.items()
        },
        figures=figures,
        idle_commands={},
    )


FULL_RUN = a_run(
    results={"celeriac": [40e3, 39e3, 70e3], "celery": [900, 1000, 1100], "huey": [5e3, 5e3, 5e3]},
    no_results={"celeriac": [60e3], "celery": [1500]},
    delay={"celeriac": [30e3], "celery": [3e3], "lpush": [60e3]},
    bulk={"celeriac": [90e3]},
    wait_median={"celeriac": [0.6], "celery": [1.0]},
    memory={"celeriac": [45.0], "celery": [80.0]},
    idle_cpu={"celeriac": [0.2], "celery": [0.1]},
    idle_commands={"celeriac": [6.0], "celery": [1.0]},
    thousand_waiting={"celeriac": [50e3]},
    million_waiting={"celeriac": [45e3]},
)


def test_it_runs() -> None:
    """Figures come out; what they are on this machine now says nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "sqlite:speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"[1-9][\d,]*/s; plain loop", done.stdout)) == 3, done.stdout


def test_bars_compare_medians() -> None:
    found = {(bar.figure, bar.wanted): bar for bar in run.bars(FULL_RUN)}
    assert found["results", ">= 35 x Celery"].found == "40.0 times"
    assert found["results", ">= 35 x Celery"].met
    assert found["results", ">= 7 x the fastest peer"].found == "8.0 times"
    assert found["delay", ">= 3 x Celery"].found == "10.0 times"
    assert found["delay", ">= 60 % of a bare LPUSH"].found == "50 %"
    assert not found["delay", ">= 60 % of a bare LPUSH"].met
    assert found["wait_median", "<= half of Celery's"].met is False
    assert found["memory", "below Celery's"].met
    assert found["idle_commands", "<= 5/s"].met is False
    assert found["million_waiting", ">= 90 %"].met


def test_the_bare_push_is_no_peer() -> None:
    found = a_run(results={"celeriac": [70.0], "lpush": [1e6], "celery": [1.0]})
    assert [bar.found for bar in run.bars(found)][:2] == ["70.0 times", "70.0 times"]


def test_a_bar_without_its_peer_is_not_judged() -> None:
    found = a_run(results={"celeriac": [40e3]})
    assert {bar.met for bar in run.bars(found)} == {None}
    assert "MISSED" not in run.table(found)


def test_the_table_has_every_figure_and_bar() -> None:
    text = run.table(FULL_RUN)
    assert re.search(
        r"^No-op tasks, results stored +40,000/s +1,000/s +5,000/s +-$", text, flags=re.M
    )
    assert "Rate with 1,000,000 waiting" in text
    assert text.count("MISSED") == 3
    assert text.count("met\n") + text.endswith("met") == 7


def test_a_run_is_kept_as_it_is(tmp_path: Path) -> None:
    FULL_RUN.save(tmp_path / "deep" / "run.json")
    assert run.Run.load(tmp_path / "deep" / "run.json") == FULL_RUN


# --- the chart ------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_figures() -> None:
    picture = ElementTree.fromstring(chart.draw(FULL_RUN))
    ground, *bars = picture.iter(f"{SVG}rect")
    assert ground.get("fill") == "#ffffff"
    drawn = sum(len(FULL_RUN.figures[name]) for name in chart.PANELS)
    assert len(bars) == drawn
    celeriac, celery, huey = (float(bar.get("width", 0)) for bar in bars[:3])
    assert celeriac / celery == pytest.approx(40, rel=0.02)
    assert celeriac / huey == pytest.approx(8, rel=0.02)


def test_nothing_is_drawn_outside_and_all_is_labelled() -> None:
    picture = ElementTree.fromstring(chart.draw(FULL_RUN))
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    for bar in picture.iter(f"{SVG}rect"):
        assert float(bar.get("x", 0)) + float(bar.get("width", 0)) <= width
        assert float(bar.get("y", 0)) + float(bar.get("height", 0)) <= height
    words = {text.text for text in picture.iter(f"{SVG}text")}
    assert {"40,000/s", "0.60 ms", "80.0 MB", "bare <LPUSH>"} <= words
    assert any("A & B, 2 cores" in str(word) for word in words)


def test_only_what_was_measured_is_drawn() -> None:
    text = chart.draw(a_run(memory={"celeriac": [45.0]}))
    assert "Memory of the worker tree" in text
    assert "No-op tasks" not in text
    assert re.search(r"<svg .*</svg>\n$", chart.draw(a_run()), flags=re.S)


def test_a_quick_run_says_so() -> None:
    assert "a quick look" in chart.draw(dataclasses.replace(FULL_RUN, quick=True))


# --- clock, rounds, counting ----------------------------------------------------------------------


class Looks:
    """A store that has so many results at each look, one second after the other."""

    def __init__(self, *counts: int) -> None:
        self.counts = iter(counts)
        self.time = 0.0

    def __call__(self) -> int:
        self.time += 1.0
        return next(self.counts)

    def watch(self, goal: int, **options: float) -> Span:
        return watch(self, goal, now=lambda: self.time, sleep=lambda _: None, **options)


def test_the_clock_runs_from_the_first_to_the_last_result() -> None:
    span = Looks(0, 0, 10, 30, 110).watch(110)
    assert (span.first, span.last, span.ended - span.began) == (10, 110, 2.0)
    assert span.rate == 50.0


def test_results_that_stop_coming_end_the_clock() -> None:
    with pytest.raises(TimeoutError, match="5 of 9 results"):
        Looks(*[5] * 100).watch(9, timeout=20.0)


def test_one_look_is_no_rate() -> None:
    with pytest.raises(ValueError, match="measure more tasks"):
        _ = Looks(0, 7).watch(7).rate


def test_measures_take_turns() -> None:
    order: list[str] = []
    figures = interleaved(
        2, a=lambda: float(order.append("a") or 1), b=lambda: float(order.append("b") or 2)
    )
    assert order == ["a", "b", "a", "b"]
    assert figures == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_percentile() -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], 0.99) == 100.0
    assert percentile([3.0], 0.99) == 3.0


def test_a_quick_look_counts_less() -> None:
    assert (FULL.count(4000), QUICK.count(4000), QUICK.count(10, 50)) == (4000, 400, 50)


@pytest.fixture
def tally_file(tmp_path: Path) -> Iterator[tally.Tally]:
    path = tmp_path / "tally"
    path.write_bytes(bytes(tally.SIZE))
    counted = tally.Tally(str(path))
    yield counted
    counted.places.release()


def test_runs_are_counted(tally_file: tally.Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_places", tally_file.places)
    for _ in range(3):
        tally.count()
    assert tally_file.total() == 3


# --- who is measured ------------------------------------------------------------------------------


def test_peers() -> None:
    assert tuple(peer.name for peer in chosen(None)) == BY_DEFAULT == ("celery", "huey", "dramatiq")
    assert [peer.name for peer in chosen("rq, saq rq")] == ["rq", "saq"]
    assert [peer.name for peer in chosen("all")] == list(OTHERS)
    assert chosen("none") == []
    with pytest.raises(ValueError, match="no peer is called selery"):
        chosen("selery")


@pytest.mark.parametrize("name", OTHERS)
def test_every_peer_is_complete(name: str) -> None:
    peer = OTHERS[name]
    assert peer.packages
    assert re.search(r"==\d+\.\*$", peer.packages[0])  # a major version
    assert peer.name in peer.versions
    source = (Path(run.__file__).parent / "peers" / f"with_{name}.py").read_text(encoding="utf-8")
    assert re.search(r"^(async )?def send\(", source, flags=re.M)
    assert re.search(r"^(async )?def send_and_wait\(", source, flags=re.M)
    assert bool(peer.bulk) == ("def send_many(" in source)
