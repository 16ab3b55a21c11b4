"""Workflows: a report of many parts, made at once, put together, and sent on; and what is left of
one that fails.

Run it with ``python -m examples.workflow``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

from celeriac import Celeriac, chain, chord, group
from celeriac.exceptions import ChordError
from examples.worker_process import own_worker

app = Celeriac("examples.workflow")

SALES = {"north": [120, 80, 40], "south": [60, 60], "west": [300]}


@app.task
def regions() -> list[str]:
    return sorted(SALES)


@app.task
def sold_in(region: str) -> int:
    """Fails for a region that is not known."""
    return sum(SALES[region])


@app.task
def summed(parts: list[int]) -> int:
    return sum(parts)


@app.task
def with_tax(amount: int, percent: int) -> float:
    return amount * (100 + percent) / 100


@app.task
def mailed(amount: float, to: str) -> str:
    return f"sent to {to}: {amount:.2f}"


def main() -> None:
    with own_worker("examples.workflow"):
        parts = group(sold_in.s(region) for region in SALES)
        print(f"parts: {parts.delay().get(timeout=30)}")

        report = chord(parts, chain(summed.s(), with_tax.s(19), mailed.s("boss@shop.example")))
        result = report.delay()
        print(result.get(timeout=30))
        print(f"before tax: {result.parent.parent.get(timeout=30)}")

        broken = chord([sold_in.s("north"), sold_in.s("atlantis")], summed.s()).delay()
        error = broken.get(timeout=30, propagate=False, follow_parents=False)
        assert isinstance(error, ChordError)
        print(f"failed: {error}".replace(broken.parent[1].id, "sold_in('atlantis')"))


if __name__ == "__main__":
    main()
