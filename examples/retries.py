"""Retries: automatic ones for errors that pass, explicit ones where the task knows better.

Run it with ``python -m examples.retries``; it starts its own worker on a temporary database.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celeriac import Celeriac
from celeriac.exceptions import MaxRetriesExceededError
from celeriac.task import Task
from examples.worker_process import own_worker

app = Celeriac("examples.retries")


class ServerBusy(Exception):
    """Something that will be over soon."""


@app.task(bind=True, autoretry_for=(ServerBusy,), retry_backoff=0.1, max_retries=5)
def busy_at_first(self: Task[..., Any], until: int) -> str:
    """Retried by itself on ServerBusy, after about 0.1, 0.2, 0.4, ... seconds."""
    if self.request.retries < until:
        raise ServerBusy(f"try {self.request.retries + 1}")
    return f"done at try {self.request.retries + 1}"


@app.task(bind=True, max_retries=20)
def wait_for_file(self: Task[..., Any], path: str) -> str:
    """Asks to be run again later while the file is not there; no runner waits for it meanwhile."""
    file = Path(path)
    if not file.exists():
        raise self.retry(countdown=0.2)
    return file.read_text(encoding="utf-8")


@app.task(bind=True, max_retries=2)
def never_ready(self: Task[..., Any]) -> None:
    raise self.retry(countdown=0.05)


@app.task(autoretry_for=(ServerBusy,), retry_backoff=0.1)
def broken() -> None:
    """ValueError is not among what is retried: trying again would not help."""
    raise ValueError("wrong input")


def main() -> None:
    with own_worker("examples.retries") as folder:
        print(busy_at_first.delay(3).get(timeout=30))

        file = folder / "delivered.txt"
        waiting = wait_for_file.delay(str(file))
        draft = folder / "delivered.part"
        draft.write_text("the file is here", encoding="utf-8")
        draft.rename(file)  # there at once and whole: the task may look at any moment
        print(waiting.get(timeout=30))

        try:
            never_ready.delay().get(timeout=30)
        except MaxRetriesExceededError as error:
            print(f"gave up: {error}")

        try:
            broken.delay().get(timeout=30)
        except ValueError as error:
            print(f"failed at once: {error}")


if __name__ == "__main__":
    main()
