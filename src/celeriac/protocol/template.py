"""Headers of many calls of one task: what is the same for all is written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac.protocol.json_codec import encode_plain
from celeriac.protocol.task import encode_headers

# Stand for what differs from call to call; no real header holds a NUL.
_SLOTS = ("\x00id\x00", "\x00root\x00", "\x00parent\x00", "\x00args\x00", "\x00kwargs\x00")

Write = Callable[[str, str, "str | None", str, str], bytes]


def header_template(headers: dict[str, Any]) -> Write:
    """A function of (id, root_id, parent_id, argsrepr, kwargsrepr) that gives the bytes which
    ``encode_headers`` would give for ``headers`` with these. Raises EncodeError like it."""
    ident, root, parent, args, kwargs = _SLOTS
    filled = {
        **headers,
        "id": ident,
        "root_id": root,
        "parent_id": parent,
        "argsrepr": args,
        "kwargsrepr": kwargs,
    }
    rest = encode_headers(filled)
    pieces = []
    for slot in _SLOTS:  # the order in which the headers are written
        before, rest = rest.split(encode_plain(slot), 1)
        pieces.append(before)
    first, second, third, fourth, fifth = pieces

    def write(
        id: str, root_id: str, parent_id: str | None, argsrepr: str, kwargsrepr: str
    ) -> bytes:
        own = encode_plain(id)
        return b"".join(
            (
                first,
                own,
                second,
                own if root_id is id else encode_plain(root_id),
                third,
                b"null" if parent_id is None else encode_plain(parent_id),
                fourth,
                encode_plain(argsrepr),
                fifth,
                encode_plain(kwargsrepr),
                rest,
            )
        )

    return write
