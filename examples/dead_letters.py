"""Dead letters: what a task refuses is kept whole until a person has looked at it.

Run it with ``python -m examples.dead_letters``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from celeriac import Celeriac
from celeriac.exceptions import Reject
from examples.worker_process import own_worker

app = Celeriac("examples.dead_letters")


@app.task
def price_of(product: str, price_list: str) -> int:
    """Reject: nobody can do this now, and trying again will not help. Keep it."""
    prices = json.loads(Path(price_list).read_text(encoding="utf-8"))
    if product not in prices:
        raise Reject(f"{product} is not on the price list", requeue=False)
    return int(prices[product])


def celeriac(*arguments: str) -> str:
    """What an operator would type: ``celeriac -A examples.dead_letters dead list``."""
    command = [str(Path(sys.executable).with_name("celeriac")), "-A", "examples.dead_letters"]
    return subprocess.run(
        [*command, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def dead_letters(timeout: float = 30.0) -> list[dict[str, Any]]:
    """The dead letters, as soon as there are some."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        letters: list[dict[str, Any]] = json.loads(celeriac("dead", "list", "--json"))
        if letters:
            return letters
        time.sleep(0.1)
    raise TimeoutError(f"no dead letter within {timeout} s")


def main() -> None:
    with own_worker("examples.dead_letters") as folder:
        price_list = folder / "prices.json"
        price_list.write_text('{"lamp": 60}', encoding="utf-8")
        print(f"lamp: {price_of.delay('lamp', str(price_list)).get(timeout=30)}")

        chair = price_of.delay("chair", str(price_list))
        (letter,) = dead_letters()
        print(f"kept: {letter['reason']}")

        # Somebody mends the price list and sends the letter once more.
        price_list.write_text('{"lamp": 60, "chair": 219}', encoding="utf-8")
        celeriac("dead", "retry", chair.id)
        print(f"chair: {chair.get(timeout=30)}")


if __name__ == "__main__":
    main()
