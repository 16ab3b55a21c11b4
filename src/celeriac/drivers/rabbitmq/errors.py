"""What goes wrong with RabbitMQ, in words.

::

    OperationalError
    ├── Unreachable      no server, no answer, or a broken connection
    └── Refused          the server closed the connection, with a code
    ChannelClosed        the server closed a channel; translated before it leaves the driver
"""

from __future__ import annotations

from celeriac.drivers.rabbitmq.urls import Endpoint
from celeriac.exceptions import ImproperlyConfigured, OperationalError

NOT_FOUND, ACCESS_REFUSED, PRECONDITION_FAILED, RESOURCE_LOCKED = 404, 403, 406, 405
NOT_ALLOWED, INTERNAL_ERROR = 530, 541


class Unreachable(OperationalError):
    """No server, no answer, or a broken connection."""


class NothingTaken(Unreachable):
    """The server refused every message of a batch: none of it is there."""


class Refused(OperationalError):
    """The server closed the connection."""

    def __init__(self, code: int, text: str, place: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"RabbitMQ at {place} closed the connection: {code} {text}")


class ChannelClosed(Exception):
    """The server closed a channel because of what was asked there."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"{code} {text}")


class Mismatch(ImproperlyConfigured, OperationalError):
    """A queue or exchange exists with other properties than the application gives it."""


def refusal(endpoint: Endpoint, exc: Refused) -> OperationalError:
    """Why the server did not let us in."""
    if exc.code == ACCESS_REFUSED:
        return OperationalError(
            f"RabbitMQ at {endpoint.name} refused the user {endpoint.user!r}: wrong user or "
            "password, or the user may not use this virtual host (guest may log in from "
            "localhost only). Mend broker_url, or the user's permissions on the server."
        )
    if exc.code == NOT_ALLOWED:
        return OperationalError(
            f"RabbitMQ at {endpoint.name} has no virtual host {endpoint.vhost!r}, or the user "
            f"{endpoint.user!r} may not use it ({exc.text}). Make it with `rabbitmqctl add_vhost`, "
            "or mend the end of broker_url (amqp://host/ is the virtual host '/')."
        )
    return OperationalError(f"RabbitMQ at {endpoint.name} did not let us in: {exc.code} {exc.text}")


def declared_otherwise(what: str, name: str, text: str, place: str) -> Mismatch:
    """The explanation of a 406."""
    return Mismatch(
        f"The {what} {name!r} exists on {place} with other properties than this application gives "
        f"it: {text}. A {what} cannot be changed: give it the same properties (task_queues, "
        "task_default_queue_type, task_queue_max_priority, …), or use another name, or empty and "
        "delete the old one."
    )
