"""What this process holds: messages that were claimed and are not settled."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Final

from celeriac.drivers.rabbitmq.consuming import Held
from celeriac.message import Delivery, Message, Owner

_MOST_REMEMBERED: Final = 10_000


class Holding:
    """By the tags that its deliveries have."""

    def __init__(self) -> None:
        self._tags = itertools.count(1)
        self._held: dict[int, tuple[Owner, Held]] = {}
        self._before: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, held: Held, owner: Owner) -> int:
        """The tag of one more."""
        tag = next(self._tags)
        self._held[tag] = owner, held
        return tag

    def present(self, delivery: Delivery) -> Held | None:
        """The message of a delivery that its owner still holds."""
        if not isinstance(delivery.tag, int):
            return None
        owner, held = self._held.get(delivery.tag, (None, None))
        return held if owner == delivery.owner else None

    def remove(self, tag: int) -> None:
        del self._held[tag]

    def take_from(self, lease: str) -> list[Held]:
        """What the owners of this lease held, held by nobody any more."""
        mine = [tag for tag, (owner, _) in self._held.items() if owner.lease == lease]
        return [self._held.pop(tag)[1] for tag in mine]

    def since(self, moment: float) -> list[Held]:
        """What has been held since then (time.monotonic()) or longer."""
        return [held for _, held in self._held.values() if held.since < moment]

    def counts(self) -> Counter[str]:
        """How many each lease holds."""
        return Counter(owner.lease for owner, _ in self._held.values())

    # --- a connection that broke ----------------------------------------------------------------

    def lose(self) -> None:
        """What a broken connection held comes again; it was not lost here."""
        for _, held in self._held.values():
            message = held.letter.message
            if len(self._before) < _MOST_REMEMBERED:
                self._before[message.id, message.run] = held.lost
        self._held.clear()

    def comes_again(self, message: Message) -> bool:
        """Was it held here when the connection broke? Told once."""
        return self._before.pop((message.id, message.run), None) is not None

    def clear(self) -> None:
        self._held.clear()
        self._before.clear()
