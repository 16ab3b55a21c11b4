"""Parts of a body that need not be written or read again: JSON that is carried along as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from typing import Any

import msgspec

from celeriac.protocol.blocks import Blocks, blocks_of
from celeriac.protocol.json_codec import decode_json, encode_json

__all__ = ["Steps", "Written", "plain"]


_WRITTEN = (msgspec.Raw, bytes)
_are_written = frozenset(_WRITTEN).issuperset
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_check = msgspec.json.Decoder(msgspec.Raw).decode
# A signature begins like this, as we and Celery write it. Inside a text its quotes would be
# escaped, so whatever begins like this is an object.
_BEGIN = b'{"task":'
_IN_BLOCK = 32  # steps


class Written:
    """A value that goes into many messages, written once."""

    __slots__ = ("_json", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        """Raises what ``encode_json`` raises."""
        if self._json is None:
            self._json = encode_json(self.value)
        return self._json

    def get(self, key: str, default: Any = None) -> Any:
        return self.value.get(key, default)

    def __json__(self) -> Any:
        return self.value

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Written) else other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.value)


class Steps(MutableSequence[Any]):
    """The rest of a chain (the last step first), its signatures read only when they are looked at.

    A chain of a thousand steps is carried by a thousand messages; each takes the last and passes
    the others on as they came, without reading them.
    """

    __slots__ = ("_blocks", "_list", "_text")

    def __init__(
        self,
        items: list[Any] | None = None,
        *,
        text: bytes = b"",
        blocks: Blocks | None = None,
    ) -> None:
        self._list = items  # dictionaries, or JSON of them as msgspec.Raw or bytes
        self._text = text  # or all of it as JSON, without the brackets
        self._blocks = blocks  # or its beginning as blocks, and the end of it as JSON

    @property
    def _items(self) -> list[Any]:
        if self._list is None:
            self._list = _split(b"[%b]" % self._whole())
            self._text = b""
        return self._list

    def _whole(self) -> bytes:
        """All of it as JSON, without the brackets. Raises as Blocks.text."""
        if self._blocks is not None:
            self._text = self._blocks.text + self._text
            self._blocks = None
        return self._text

    def in_blocks(self) -> tuple[Blocks | None, bytes]:
        """The same as blocks, and the last steps, at least one, as JSON. Raises as ``json``."""
        if self._blocks is None:
            items = _split(self.json)
            size = (len(items) - 1) // _IN_BLOCK * _IN_BLOCK
            found = blocks_of(
                b"".join(b"%b," % one for one in items[at : at + _IN_BLOCK])
                for at in range(0, size, _IN_BLOCK)
            )
            self._list = None
            self._blocks, self._text = found, b",".join(map(bytes, items[size:]))
        self._open_last()
        return self._blocks, self._text

    def _open_last(self) -> None:
        """Let there be a step behind the blocks."""
        if self._blocks is not None and not self._text:
            self._blocks, last = self._blocks.without_last()
            self._text = last.rstrip(b",")

    @property
    def size(self) -> int:
        """Bytes of its JSON, as far as it is that already; at least."""
        if self._list is not None:
            return sum(len(bytes(one)) for one in self._list if isinstance(one, _WRITTEN))
        return len(self._text) + (self._blocks.size if self._blocks is not None else 0)

    def take_last(self) -> tuple[Any, Steps | None]:
        """The step that is next, and the rest."""
        if self._list is None:
            self._open_last()
            text = self._text
            start = text.rfind(_BEGIN)
            while start >= 0:
                step = _one(text[start:])
                if step is not None:
                    rest = text[:start].rstrip(b", \n\t\r")
                    left = Steps(text=rest, blocks=self._blocks)
                    return step, left if left else None
                start = text.rfind(_BEGIN, 0, start)
        return self.peek(-1), Steps(self._items[:-1]) if len(self._items) > 1 else None

    def first(self) -> Any:
        """The step that is last to run, to look at."""
        if self._list is None:
            text = self._blocks.first if self._blocks is not None else self._text
            end = text.find(_BEGIN, 1)
            while end >= 0:
                step = _one(text[:end].rstrip(b", \n\t\r"))
                if step is not None:
                    return step
                end = text.find(_BEGIN, end + 1)
        return self.peek(0)

    def peek(self, index: int) -> Any:
        """A step to look at: changes to it do not count."""
        return self._read(self._items[index])

    def with_before(self, steps: Sequence[Any]) -> Steps:
        """These, and others that come before them."""
        more = steps if isinstance(steps, Steps) else Steps(list(steps))
        if not more or not self:
            return more or self
        return Steps(text=b"%b,%b" % (self.json[1:-1], more.json[1:-1]))

    @property
    def json(self) -> bytes:
        """Raises what ``encode_json`` raises for a step that was put in."""
        items = self._list
        if items is None:
            return b"[%b]" % self._whole()
        if not _are_written(map(type, items)):
            items = [one if isinstance(one, _WRITTEN) else encode_json(one) for one in items]
        return b"[%b]" % b",".join(items)

    def _read(self, item: Any) -> Any:
        return decode_json(bytes(item)) if isinstance(item, _WRITTEN) else item

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Steps(self._items[index])
        value = self._items[index] = self._read(self._items[index])
        return value

    def __setitem__(self, index: Any, value: Any) -> None:
        self._items[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._text or self._list or self._blocks)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self._items)))

    def insert(self, index: int, value: Any) -> None:
        self._items.insert(index, value)

    def __json__(self) -> list[Any]:
        return list(self)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | Steps) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _one(text: bytes) -> Any:
    """The value, if the text is the JSON of one; else None."""
    try:
        _check(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return decode_json(text)


def plain(value: Any) -> Any:
    """The same in lists and dictionaries, for serializers that know nothing of the above."""
    if isinstance(value, Written):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Steps):
        return [plain(item) for item in value]
    return value
