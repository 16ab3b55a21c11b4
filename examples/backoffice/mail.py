"""The e-mails that are sent."""

from __future__ import annotations

from email.message import EmailMessage

from examples.backoffice.data import Recipient

SENDER = "Celeriac Stationery <billing@celeriac.example>"

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
