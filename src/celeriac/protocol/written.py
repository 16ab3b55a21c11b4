"""Parts of a body that need not be written or read again: JSON that is carried along as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from typing import Any

import msgspec

from celeriac.protocol.json_codec import decode_json, encode_json

__all__ = ["Steps", "Written", "plain"]


_WRITTEN = (msgspec.Raw, bytes)
_are_written = frozenset(_WRITTEN).issuperset


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
    the others on as they came.
    """

    __slots__ = ("_items",)

    def __init__(self, items: list[Any]) -> None:
        self._items = items  # dictionaries, or JSON of them as msgspec.Raw or bytes

    def take_last(self) -> tuple[Any, Steps | None]:
        """The step that is next, and the rest."""
        return self.peek(-1), Steps(self._items[:-1]) if len(self._items) > 1 else None

    def peek(self, index: int) -> Any:
        """A step to look at: changes to it do not count."""
        return self._read(self._items[index])

    def with_before(self, steps: Sequence[Any]) -> Steps:
        """These, and others that come before them."""
        more = steps._items if isinstance(steps, Steps) else list(steps)
        return Steps([*self._items, *more])

    @property
    def json(self) -> bytes:
        """Raises what ``encode_json`` raises for a step that was put in."""
        items = self._items
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


def plain(value: Any) -> Any:
    """The same in lists and dictionaries, for serializers that know nothing of the above."""
    if isinstance(value, Written):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Steps):
        return [plain(item) for item in value]
    return value
