"""The e-mails that are sent."""

from __future__ import annotations

from email.message import EmailMessage

from examples.backoffice.data import Recipient

SENDER = "Celeriac Stationery <billing@celeriac.example>"
BOSS = "The boss <boss@celeriac.example>"

TEXT = """\
Dear {first_name},

thank you for your order. Our invoice {invoice} to {company}
over {amount} EUR is due on {due}.
If it is paid already, please forget this mail.

Kind regards to {city},
Celeriac Stationery
"""


def message_id(recipient: Recipient) -> str:
    """The same for every try, so that a mailbox, or a count, can tell a repeat from a new mail."""
    return f"<invoice-{recipient.invoice}@celeriac.example>"


def compose(recipient: Recipient) -> EmailMessage:
    """The reminder for this customer's invoice."""
    message = EmailMessage()
    message["Message-ID"] = message_id(recipient)
    message["From"] = SENDER
    message["To"] = f"{recipient.name} <{recipient.email}>"
    message["Subject"] = f"Invoice {recipient.invoice} is due on {recipient.due}"
    first_name = recipient.name.split()[0]
    message.set_content(TEXT.format(first_name=first_name, **recipient._asdict()))
    return message


def digest_id(nominal: str) -> str:
    """Of the digest of this moment; the same for every try."""
    return f"<digest-{nominal.translate(_PLAIN)}@celeriac.example>"


_PLAIN = str.maketrans("", "", ":+")


def compose_digest(nominal: str, orders: int) -> EmailMessage:
    """What the boss wants to know all the time."""
    message = EmailMessage()
    message["Message-ID"] = digest_id(nominal)
    message["From"] = SENDER
    message["To"] = BOSS
    message["Subject"] = f"Orders by {nominal}"
    message.set_content(f"The supplier has booked {orders} orders by {nominal}.\n")
    return message
