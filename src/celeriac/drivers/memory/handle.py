"""What the broker and the result backend of ``memory://`` have in common: a way into a store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celeriac.contracts import Capabilities, Clock
from celeriac.drivers.memory.store import Store
from celeriac.exceptions import OperationalError

DEDUPE_WINDOW = 86400.0


class Handle:
    """Opened and closed apart from the store, which stays, and from other handles of it."""

    capabilities = Capabilities(
        survives_process=False,
        shared=False,
        durability="Kept in the memory of this process: gone when it ends.",
    )

    def __init__(self, store: Store, options: Mapping[str, Any]) -> None:
        self.store = store.url
        self.kept = store
        self.clock: Clock = options.get("clock") or time.time
        self.window = float(options.get("dedupe_window", DEDUPE_WINDOW))
        self.is_open = False
        self.wakes = 0  # a waiting call of this handle returns when it has changed

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        with self.kept.lock:
            self.is_open = False
            self.kept.changed.notify_all()

    def wake(self) -> None:
        with self.kept.lock:
            self.wakes += 1
            self.kept.changed.notify_all()

    @contextmanager
    def using(self) -> Iterator[float]:
        """The store to oneself, and what time it is. Raises OperationalError if not open."""
        with self.kept.lock:
            if not self.is_open:
                raise OperationalError(f"{self.store} is not open here: call open() first.")
            yield self.clock()
