"""What is finished goes out in batches: soon, together, and never lost on the way."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from celeriac.exceptions import OperationalError
from celeriac.message import Delivery, Kept, Settled, Settlement, Verdict
from celeriac.settling import Settling

logger = logging.getLogger("celeriac.worker.settler")

# Settlements go out when the oldest is this old (seconds), at the latest when a batch ends.
MAX_AGE = 0.005
MAX_COUNT = 1000


class Settler:
    """Collects settlements and hands them over. Thread-safe: whoever finds the door open takes
    along what the others have brought."""

    def __init__(self, settling: Settling, giving_up: Callable[[], bool]) -> None:
        self._settling = settling
        self._giving_up = giving_up
        self._pending: deque[Settlement] = deque()
        self._since = 0.0
        self._door = threading.Lock()
        self.lost = 0
        self._kept: list[Delivery] = []
        self.unsure = False  # a message may have been kept without the answer reaching us

    def add(self, settlement: Settlement, now: float) -> None:
        """Take one more. ``now``: time.monotonic()."""
        if not self._pending:
            self._since = now
        self._pending.append(settlement)

    def due(self, now: float) -> bool:
        """Is it time to flush?"""
        pending = self._pending
        return bool(pending) and (now - self._since >= MAX_AGE or len(pending) >= MAX_COUNT)

    @property
    def empty(self) -> bool:
        return not self._pending

    def flush(self) -> None:
        """Hand over all; returns when it is stored. While the store cannot be reached it tries
        again, with back-off, until told to give up: then what is left is the next owner's."""
        with self._door:
            # A deque, emptied one by one: what is added meanwhile stays for the next time.
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            if not batch:
                return
            answers = self._deliver(batch)
            self._kept += [answer.delivery for answer in answers if type(answer) is Kept]
        lost = answers.count(Settled.LOST)
        if lost:
            self.lost += lost
            logger.warning(
                "%d of %d finished tasks belong to another process by now: their results are not "
                "stored. This happens after this process was out of touch longer than its lease.",
                lost,
                len(answers),
            )

    def take_kept(self) -> list[Delivery]:
        """The messages that followed settlements and stay with this process: to be run next."""
        with self._door:
            kept, self._kept = self._kept, []
        return kept

    def _deliver(self, batch: list[Settlement]) -> list[Settled | Kept]:
        delay = 0.1
        told = False
        while True:
            try:
                answers = self._settling.settle(batch)
            except OperationalError as exc:
                if any(one.keep for one in batch):
                    self.unsure = True
                if self._giving_up():
                    logger.error(
                        "%d finished tasks could not be settled before the end and will run "
                        "again: %s",
                        len(batch),
                        exc,
                    )
                    return []
                if not told:
                    logger.error("Cannot settle %d tasks, trying again: %s", len(batch), exc)
                    told = True
                time.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 2.0)
                continue
            except Exception as exc:  # something in there cannot be stored: find out what
                if len(batch) > 1:
                    return [answer for one in batch for answer in self._deliver([one])]
                batch = [_kept(batch[0], exc)]
                continue
            if told:
                logger.info("Settled again.")
                # What a cut connection had carried out already answers "lost" now.
                return [Settled.SETTLED for _ in answers]
            return answers


def _kept(settlement: Settlement, exc: Exception) -> Settlement:
    """Instead of a settlement that no try can store: a dead letter of its message."""
    message = settlement.delivery.message
    reason = f"its outcome cannot be stored: {type(exc).__name__}: {exc!a}"
    if settlement.verdict is Verdict.BURY and settlement.reason == reason:
        raise exc
    logger.error("Message %s is kept as a dead letter: %s", message.id, reason, exc_info=exc)
    return Settlement(delivery=settlement.delivery, verdict=Verdict.BURY, reason=reason)
