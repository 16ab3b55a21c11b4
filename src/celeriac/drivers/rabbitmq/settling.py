"""Settling over one connection: what follows, then the acknowledgement."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from celeriac.drivers.rabbitmq import letters
from celeriac.drivers.rabbitmq.consuming import Held
from celeriac.drivers.rabbitmq.holding import Holding
from celeriac.drivers.rabbitmq.line import Line
from celeriac.drivers.rabbitmq.publishing import Parcel, Sender
from celeriac.message import Message, Outcome, Settled, Settlement, Verdict


def settle(
    line: Line, holding: Holding, settlements: Sequence[Settlement], *, persistent: bool
) -> list[Outcome]:
    """What follows and what replaces a message is confirmed before it is acknowledged. Results of
    the rpc backend go ahead of the acknowledgement on the same channel: whoever is cut off in
    between has sent both or neither of them. ``persistent``: they are confirmed, too."""
    taken: dict[int, Held] = {}
    answers: list[Outcome] = []
    parcels: list[Parcel] = []
    replies: list[bytes] = []
    for settlement in settlements:
        held = holding.present(settlement.delivery)
        tag = settlement.delivery.tag
        if held is None or tag in taken:
            answers.append(Settled.LOST)
            continue
        assert isinstance(tag, int)
        _write(line.sender, settlement, held, parcels, replies)
        taken[tag] = held
        answers.append(Settled.SETTLED)
    for tag in taken:
        holding.remove(tag)
    _carry_out(line, taken.values(), parcels, replies, persistent)
    return answers


def _write(
    sender: Sender,
    settlement: Settlement,
    held: Held,
    parcels: list[Parcel],
    replies: list[bytes],
) -> None:
    """The frames of one settlement."""
    for record in settlement.records:
        if record.reply_to:
            replies.append(sender.reply(record))
    letter = held.letter
    for message in settlement.messages:
        if _same(message, letter.message):
            parcels.append(sender.next_try(message, letter))
        else:
            parcels.append(sender.parcel(message))
    verdict = settlement.verdict
    if verdict is Verdict.DEFER:
        changes = {letters.NOTE: settlement.note or None, letters.BEGUN: None}
        parcels.append(sender.copy(letter, changes, settlement.due_at))
    elif verdict is Verdict.RELEASE:
        parcels.append(sender.copy(letter, {letters.BEGUN: None}))
    elif verdict is Verdict.BURY:
        parcels.append(sender.dead(letter, settlement.reason))


def _same(message: Message, old: Message) -> bool:
    """Is it the next try of the old one, where that was?"""
    return (message.id, message.run, message.queue) == (old.id, old.run, old.queue)


def _carry_out(
    line: Line,
    taken: Collection[Held],
    parcels: Sequence[Parcel],
    replies: Sequence[bytes],
    persistent: bool,
) -> None:
    inbox, connection = line.inbox, line.connection
    if replies:
        connection.published += len(replies)
        inbox.outbox.extend(replies)
    if parcels or (replies and persistent):
        inbox.flush()
        line.sender.send(parcels)
    inbox.outbox.append(inbox.acks([held.tag for held in taken]))
    inbox.flush()
