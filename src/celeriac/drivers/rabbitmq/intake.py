"""From what arrives on a connection to deliveries: what is due and healthy is claimed, the rest is
sent where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from celeriac.drivers.rabbitmq import letters
from celeriac.drivers.rabbitmq.consuming import Held, Inbox
from celeriac.drivers.rabbitmq.guarding import was_guarded
from celeriac.drivers.rabbitmq.holding import Holding
from celeriac.drivers.rabbitmq.line import Line
from celeriac.drivers.rabbitmq.notes import Notes
from celeriac.drivers.rabbitmq.publishing import Parcel, Sender
from celeriac.message import Delivery, Owner

# A message that came again waits so long (seconds): whoever knows why it was lost can say so, and
# one that kills its process does not keep all the others busy.
PARKED: Final = 0.5
# After a lost message has come, so many others must come before more than one is asked for.
CAREFUL: Final = 20
MOST: Final = 1024  # messages in one claim
_SOON: Final = 0.002  # seconds before its time at which a message may start


class Intake:
    """The claiming side of one process."""

    def __init__(self, holding: Holding, notes: Notes, clock: Callable[[], float]) -> None:
        self._holding = holding
        self._notes = notes
        self._clock = clock
        self._careful = 0

    def ask(self, inbox: Inbox, queues: list[str], limit: int, waits: bool, asked: bool) -> None:
        """Let messages arrive. A call that waits leaves a subscription behind if there is
        nothing; one queue alone is subscribed to at once, several are gone through in order."""
        limit = 1 if self._careful else max(1, min(limit, MOST))
        window = limit if len(queues) == 1 else 1
        inbox.take_in()
        gone = inbox.lost_subscriptions()
        silent = inbox.silent  # then the subscription is made anew, which needs an answer
        if waits and not gone and not silent and inbox.subscribed_to(queues, window):
            if inbox.arrived:
                # What is on its way belongs to this claim; a full window has nothing more.
                inbox.unsubscribe(wait=len(inbox.arrived) < window)
                inbox.take_in()
            return
        inbox.unsubscribe(wait=True)
        inbox.take_in()
        if not inbox.arrived and not asked and (not waits or len(queues) > 1):
            for queue in queues:
                if (room := limit - len(inbox.arrived)) > 0:
                    inbox.ask(queue, room)
        if waits and not inbox.arrived:
            inbox.subscribe(queues, window)

    def accept(self, line: Line, owner: Owner, limit: int, max_bytes: int) -> list[Delivery]:
        """Deliveries of what has arrived; what is not to run now is sent where it belongs."""
        arrived = line.inbox.arrived
        if not arrived:
            return []
        now = self._clock()
        parked: list[tuple[Held, Parcel]] = []
        ready: list[Held] = []
        while arrived:
            held = arrived.popleft()
            parcel = self._parked(line.sender, held, now)
            if parcel is None:
                ready.append(held)
            else:
                parked.append((held, parcel))
        if parked:
            line.replace(parked)
        batch: list[Held] = []
        size = 0
        for held in ready:
            size += held.letter.message.size
            if batch and (len(batch) >= limit or held.lost or size > max_bytes):
                break
            batch.append(held)
            if held.lost:
                break
        arrived.extend(ready[len(batch) :])
        if any(held.lost for held in ready):
            # Alone means that nothing else is held: what it takes with it would be counted, too.
            self._careful = CAREFUL
            line.return_arrived()
        elif self._careful:
            self._careful = max(0, self._careful - len(batch))
        return [self.deliver(held, owner) for held in batch]

    def _parked(self, sender: Sender, held: Held, now: float) -> Parcel | None:
        """The copy that takes the place of a message that is not due, or was lost."""
        letter = held.letter
        extra = letter.extra
        times = int(extra.get("x-delivery-count") or 0) if extra else 0
        if held.redelivered or times:
            message = letter.message
            if not self._holding.comes_again(message):
                lost = held.lost + max(1, times)
                return sender.copy(letter, {letters.LOST: lost}, now + PARKED)
        elif "x-death" in extra and was_guarded(extra):
            return sender.copy(letter, {}, now + PARKED)
        if letters.DUE in extra or letter.headers.get("eta") is not None:
            due_at = letters.due_at(letter)
            if due_at is not None and due_at > now + _SOON:
                return sender.copy(letter, {}, due_at)
        return None

    def deliver(self, held: Held, owner: Owner) -> Delivery:
        tag = self._holding.take(held, owner)
        extra = held.letter.extra
        message = held.letter.message
        cancelled = bool(self._notes.cancelled) and self._notes.is_cancelled(message.id)
        if not extra and not held.redelivered and not cancelled:
            return Delivery(message=message, owner=owner, tag=tag)
        note = str(extra.get(letters.NOTE, ""))
        if held.lost and self._notes.ended:
            note = self._notes.end_of(message.id) or note
        return Delivery(
            message=message,
            owner=owner,
            tag=tag,
            lost=held.lost,
            redelivered=held.redelivered or held.lost > 0,
            cancelled=cancelled,
            begun=bool(extra.get(letters.BEGUN)),
            note=note,
            publish_id=str(extra.get(letters.PUBLISH_ID, "")),
        )
