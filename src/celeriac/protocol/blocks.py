"""A compressed body whose long chain is carried in blocks, each compressed by itself.

Every step of a chain passes on what is left of it. Compressed as a whole, all of it would be read
and written again for each step, and a chain of ten times as many steps would cost far more than
ten times as much. So the steps are put into blocks, which go from message to message as they are;
only what is before and behind them is made anew, and stands there as it is: that takes less time
than to compress it each time. To whoever reads the body it is one zlib stream, for a full flush
ends a block without ending the stream (RFC 1951, 3.2.3 and 3.2.4; RFC 1950). Where the blocks are,
a header says (``HEADER``): the bytes of the part before the steps and of that with the last steps;
of all blocks together their bytes, those of their text and the Adler-32 of that; and the same of
each block, as a text that is read when a block is opened.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from celeriac.exceptions import DecodeError
from celeriac.protocol.compression import MAX_SIZE

__all__ = ["HEADER", "Blocks", "Parts", "blocks_of", "read", "write"]

HEADER = "celeriac_chain"
_BEGIN = b"\x78\x9c"
_QUICKLY = 3
_BASE = 65521  # of Adler-32
_STORED = struct.Struct("<BHH")  # last of the stream?, bytes, their complement
_MOST_STORED = 16 * 1024


class Blocks(NamedTuple):
    """Steps, each with a comma behind it, in compressed blocks: all of them in a row; the bytes and
    the Adler-32 of their text; the same for each block (``bytes.size.adler``, with spaces between).
    Their texts raise DecodeError if they are not what the numbers say."""

    data: bytes
    size: int
    adler: int
    each: str

    @property
    def text(self) -> bytes:
        return _opened(self.data, self.size, self.adler)

    @property
    def first(self) -> bytes:
        """The text of the first block."""
        length, size, adler = _numbers(self.each.partition(" ")[0])
        return _opened(self.data[:length], size, adler)

    def without_last(self) -> tuple[Blocks | None, bytes]:
        """The other blocks, and the text of the last one."""
        before, _, last = self.each.rpartition(" ")
        length, size, adler = _numbers(last)
        if not 0 < length <= len(self.data):
            raise _damaged()
        text = _opened(self.data[-length:], size, adler)
        if not before:
            return None, text
        combined, total = 1, 0  # of no text
        for one in before.split(" "):
            _, size, adler = _numbers(one)
            combined, total = _combined(combined, adler, size), total + size
        return Blocks(self.data[:-length], total, combined, before), text


class Parts(NamedTuple):
    """A body: the text before the blocks, the blocks, the last steps, the text behind them."""

    head: bytes
    blocks: Blocks | None
    last: bytes
    foot: bytes


def blocks_of(texts: Iterable[bytes]) -> Blocks | None:
    """``texts``: of each block, steps with a comma behind each."""
    data, total, adler = [], 0, 1
    each = []
    for text in texts:
        block, own = _deflated(text), zlib.adler32(text)
        data.append(block)
        each.append(f"{len(block)}.{len(text)}.{own}")
        total, adler = total + len(text), _combined(adler, own, len(text))
    return Blocks(b"".join(data), total, adler, " ".join(each)) if data else None


def write(parts: Parts) -> tuple[bytes, list[Any]]:
    """The zlib stream, and the value of its header."""
    head, last = _stored(parts.head), _stored(parts.last)
    found = parts.blocks or _NONE
    data = (
        _BEGIN,
        head,
        found.data,
        last,
        _stored(parts.foot, end=True),
        _adler_of(parts.head, found, parts.last, parts.foot).to_bytes(4, "big"),
    )
    sums = [len(found.data), found.size, found.adler]
    return b"".join(data), [len(head), len(last), sums, found.each]


def read(data: bytes, value: Any) -> Parts | None:
    """The parts of a stream by its header; None if that is not of this stream."""
    try:
        head_size, last_size, (length, size, adler), each = value
        numbers = (head_size, last_size, length, size, adler)
        if not (all(type(one) is int and one >= 0 for one in numbers) and type(each) is str):
            return None
        if size > MAX_SIZE or bool(each) != bool(length) or not data.startswith(_BEGIN):
            return None
        first = len(_BEGIN) + head_size
        second = first + length
        third = second + last_size
        if third + 4 >= len(data):
            return None
        found = Blocks(data[first:second], size, adler, each)
        head, last = _restored(data[len(_BEGIN) : first]), _restored(data[second:third])
        foot = _restored(data[third:-4])
        if _adler_of(head, found, last, foot).to_bytes(4, "big") != data[-4:]:
            return None
        return Parts(head, found if each else None, last, foot)
    except (LookupError, TypeError, ValueError, struct.error, zlib.error):
        return None


def _adler_of(head: bytes, found: Blocks, last: bytes, foot: bytes) -> int:
    """That of the whole text."""
    before = _combined(zlib.adler32(head), found.adler, found.size)
    return zlib.adler32(foot, zlib.adler32(last, before))


def _numbers(text: str) -> tuple[int, int, int]:
    try:
        length, size, adler = map(int, text.split("."))
    except ValueError:
        raise _damaged() from None
    return length, size, adler


def _opened(data: bytes, size: int, adler: int) -> bytes:
    try:
        found = _inflated(data, size)
    except (ValueError, zlib.error) as exc:
        raise _damaged() from exc
    if len(found) != size or zlib.adler32(found) != adler:
        raise _damaged()
    return found


def _damaged() -> DecodeError:
    return DecodeError("steps of a chain are damaged: they are not what was written")


_NONE = Blocks(b"", 0, 1, "")


def _stored(text: bytes, end: bool = False) -> bytes:
    """As it is, if it is not too long for that."""
    size = len(text)
    if size > _MOST_STORED:
        return _deflated(text, zlib.Z_FINISH if end else zlib.Z_FULL_FLUSH)
    return _STORED.pack(end, size, size ^ 0xFFFF) + text


def _restored(data: bytes) -> bytes:
    if data[0] > 1:
        return _inflated(data)
    _, size, check = _STORED.unpack_from(data)
    if size != check ^ 0xFFFF or len(data) != _STORED.size + size:
        return _inflated(data)
    return data[_STORED.size :]


def _deflated(text: bytes, end: int = zlib.Z_FULL_FLUSH) -> bytes:
    stream = zlib.compressobj(_QUICKLY, wbits=-zlib.MAX_WBITS)
    return stream.compress(text) + stream.flush(end)


def _inflated(data: bytes, most: int = MAX_SIZE) -> bytes:
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    text = stream.decompress(data, most + 1)
    if len(text) > most or stream.unused_data:
        raise ValueError("more than there should be")
    return text


def _combined(first: int, second: int, size: int) -> int:
    """The Adler-32 of two texts in a row, of which the second has this length (zlib's
    ``adler32_combine``, from the definition in RFC 1950)."""
    low, other = first & 0xFFFF, second & 0xFFFF
    # Each byte of the second text adds the first one's sum, less the 1 that both began with.
    high = (first >> 16) + (second >> 16) + size * (low - 1)
    return (high % _BASE) << 16 | (low + other - 1) % _BASE
