"""From a delivery to the request that its task will see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.message import Delivery
from celeriac.protocol import reading as wire
from celeriac.protocol.serialization import accept_types
from celeriac.request import Request

if TYPE_CHECKING:
    from celeriac.app import Celeriac


_USUAL = (
    *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
    *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result"),
    *("replaced_task_nesting", "stamped_headers", "stamps"),
)
_PRIVATE = frozenset(name for name in vars(Request) if name.startswith("_")) | {"_headers"}


class Reader:
    """Reads messages as the settings of one application allow."""

    def __init__(self, app: Celeriac, hostname: str = "") -> None:
        self.accept = accept_types(app.conf.accept_content)
        self.hostname = hostname or app.node_name

    def read(self, delivery: Delivery) -> Request:
        """The request. Raises DecodeError, ContentDisallowed or InvalidTaskError."""
        message = delivery.message
        read = wire.decode(message, self.accept)
        headers = read.headers
        request = Request.__new__(Request)
        names = tuple(headers)
        # Every header is an attribute; taking the dictionary over is the cheapest way.
        if names == _USUAL:
            names = _USUAL  # one for all, not one each
        elif any(name.startswith("_") for name in headers):
            for name in _PRIVATE:  # ours, whatever a header is called
                headers.pop(name, None)
        request.__dict__ = headers
        request._header_names = names
        request.args = read.args
        request.kwargs = read.kwargs
        request.called_directly = False
        request.run = message.run
        request.reply_to = message.reply_to
        request.hostname = self.hostname
        request._delivery = delivery
        embed = read.embed
        if embed:
            request.callbacks = embed.get("callbacks")
            request.errbacks = embed.get("errbacks")
            request.chain = embed.get("chain")
            request.chord = embed.get("chord")
        return request
