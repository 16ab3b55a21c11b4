"""Short texts of any values for people: logs, events, the ``argsrepr`` of a message."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from types import NoneType
from typing import Any

__all__ = ["saferepr"]

_are_short_or_text = frozenset((int, bool, NoneType, float, str)).issuperset
_ITERABLES: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
_FEW = 16  # items
_LITTLE = 512  # characters
_LARGE_INT = 4096  # bits: beyond it, turning an int into digits costs too much


def saferepr(value: Any, maxlen: int = 1024, maxlevels: int = 3) -> str:
    """About ``repr(value)``, of at most ``maxlen`` characters and with containers nested deeper
    than ``maxlevels`` shown as ``[...]``. Never raises; takes bounded time for built-in types and
    their subclasses (of others, ``__repr__`` is called)."""
    if _is_little(value):
        try:
            text = repr(value)
        except ValueError:
            pass  # an int of more digits than Python writes
        else:
            if len(text) <= maxlen:
                return text
    try:
        text = _join(_pieces(value, maxlen, maxlevels, set()), maxlen)
    except RecursionError:
        text = f"<{type(value).__name__}: nested too deeply>"
    return text if len(text) <= maxlen else text[: max(maxlen - 3, 0)] + "..."


def _is_little(value: Any) -> bool:
    """Is ``repr`` itself sure to be quick and short enough to try?"""
    kind = type(value)
    if (kind is not tuple and kind is not dict and kind is not list) or len(value) > _FEW:
        return False
    if kind is dict:
        return not value or (_are_little(value) and _are_little(value.values()))
    return _are_little(value)


def _are_little(items: Collection[Any]) -> bool:
    if not _are_short_or_text(map(type, items)):
        return False
    length = 0
    for item in items:
        if type(item) is str:
            length += len(item)
        elif type(item) is int and item.bit_length() > _LARGE_INT:
            return False
    return length <= _LITTLE


def _join(pieces: Iterator[str], maxlen: int) -> str:
    """Join pieces until there is more than fits."""
    out: list[str] = []
    length = 0
    for piece in pieces:
        out.append(piece)
        length += len(piece)
        if length > maxlen:
            break
    return "".join(out)


def _pieces(value: Any, maxlen: int, levels: int, open_ids: set[int]) -> Iterator[str]:
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        yield from _container(value, maxlen, levels, open_ids)
    elif isinstance(value, str | bytes | bytearray):
        yield _text(value, maxlen)
    else:
        yield _other(value, maxlen)


def _text(value: str | bytes | bytearray, maxlen: int) -> str:
    try:
        if len(value) <= maxlen:
            return repr(value)
        cut = repr(value[:maxlen])
        return f"{cut[:-1]}...{cut[-1]}"
    except Exception as exc:
        return _unrepresentable(value, exc)


def _other(value: Any, maxlen: int) -> str:
    if type(value) is int and value.bit_length() > _LARGE_INT:
        return f"<int of {value.bit_length()} bits>"
    try:
        text = repr(value)
    except Exception as exc:
        return _unrepresentable(value, exc)
    return text if len(text) <= maxlen else f"{text[:maxlen]}..."


def _unrepresentable(value: Any, exc: Exception) -> str:
    try:
        return f"<{type(value).__name__}: its repr raised {type(exc).__name__}: {str(exc)[:100]}>"
    except Exception:
        return f"<{type(value).__name__}: its repr raised {type(exc).__name__}>"


def _brackets(value: Any) -> tuple[str, str]:
    """What encloses the items; a subclass is shown by its name."""
    kind = type(value)
    if kind is list:
        return "[", "]"
    if kind is tuple:
        return "(", ",)" if len(value) == 1 else ")"
    if kind is dict or (kind is set and value):
        return "{", "}"
    if isinstance(value, dict):
        return f"{kind.__name__}({{", "})"
    if isinstance(value, set | frozenset):
        return (f"{kind.__name__}({{", "})") if value else (f"{kind.__name__}(", ")")
    return f"{kind.__name__}([", "])"


def _container(value: Any, maxlen: int, levels: int, open_ids: set[int]) -> Iterator[str]:
    try:
        left, right = _brackets(value)
        # Not the subclass's own iteration: it is foreign code, and may never end.
        items = _items(value, maxlen)
    except Exception as exc:
        yield _unrepresentable(value, exc)
        return
    if items and id(value) in open_ids:
        yield f"<Recursion on {type(value).__name__}>"
        return
    if items and levels < 0:
        yield "..."
        return
    if items and levels == 0:
        yield f"{left}...{right}"
        return
    open_ids.add(id(value))
    yield left
    for number, item in enumerate(items):
        if number:
            yield ", "
        if isinstance(value, dict):
            yield from _pieces(item[0], maxlen, levels - 1, open_ids)
            yield ": "
            item = item[1]
        yield from _pieces(item, maxlen, levels - 1, open_ids)
    yield right
    open_ids.discard(id(value))


def _items(value: Any, most: int) -> list[Any]:
    """The first items; an item takes at least a character, so ``most`` of them suffice."""
    source: Iterable[Any] = ()
    if isinstance(value, dict):
        source = dict.items(value)
    else:
        for kind in _ITERABLES:
            if isinstance(value, kind):
                source = kind.__iter__(value)
    return list(islice(source, most + 1))
