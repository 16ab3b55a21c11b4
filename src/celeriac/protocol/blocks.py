"""A compressed body whose long chain is carried in blocks, each compressed by itself.

Every step of a chain passes on what is left of it. Compressed as a whole, all of it would be read
and written again for each step, and a chain of ten times as many steps would cost far more than
ten times as much. So the steps are put into blocks, which go from message to message as they are;
only what is before and behind them is made anew. To whoever reads the body it is one zlib stream,
for a full flush ends a block without ending the stream (RFC 1951, 3.2.4; RFC 1950). Where the
blocks are, a header says (``HEADER``): the bytes of the part before the steps and of that with the
last steps, then of each block its bytes, those of its text and the Adler-32 of that.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

from celeriac.exceptions import DecodeError
from celeriac.protocol.compression import MAX_SIZE

__all__ = ["HEADER", "Block", "Parts", "block_of", "read", "write"]

HEADER = "celeriac_chain"
_BEGIN = b"\x78\x9c"
_QUICKLY = 3
_BASE = 65521  # of Adler-32


class Block(NamedTuple):
    """Some steps, each with a comma behind it: compressed; the length and Adler-32 of the text."""

    data: bytes
    size: int
    adler: int

    @property
    def text(self) -> bytes:
        """Raises DecodeError if it is not what its numbers say."""
        try:
            found = _inflated(self.data, self.size)
        except (ValueError, zlib.error) as exc:
            raise DecodeError(f"steps of a chain are damaged: {exc}") from exc
        if len(found) != self.size or zlib.adler32(found) != self.adler:
            raise DecodeError("steps of a chain are damaged: they are not what was written")
        return found


class Parts(NamedTuple):
    """A body: the text before the blocks, the blocks, the last steps, the text behind them."""

    head: bytes
    blocks: tuple[Block, ...]
    last: bytes
    foot: bytes


def block_of(text: bytes) -> Block:
    """``text``: steps, each with a comma behind it."""
    return Block(_deflated(text), len(text), zlib.adler32(text))


def write(parts: Parts) -> tuple[bytes, list[Any]]:
    """The zlib stream, and the value of its header."""
    head, last = _deflated(parts.head), _deflated(parts.last)
    adler = zlib.adler32(parts.head)
    for block in parts.blocks:
        adler = _combined(adler, block.adler, block.size)
    adler = zlib.adler32(parts.foot, zlib.adler32(parts.last, adler))
    data = [
        _BEGIN,
        head,
        *(block.data for block in parts.blocks),
        last,
        _deflated(parts.foot, zlib.Z_FINISH),
        adler.to_bytes(4, "big"),
    ]
    places = [[len(block.data), block.size, block.adler] for block in parts.blocks]
    return b"".join(data), [len(head), len(last), places]


def read(data: bytes, value: Any) -> Parts | None:
    """The parts of a stream by its header; None if that is not of this stream."""
    try:
        head_size, last_size, places = value
        sizes = [head_size, *(place[0] for place in places), last_size]
        if not all(type(size) is int and size > 0 for size in sizes):
            return None
        if sum(size for _, size, _ in places) > MAX_SIZE or not data.startswith(_BEGIN):
            return None
        cut, at = [], len(_BEGIN)
        for size in sizes:
            cut.append(data[at : at + size])
            at += size
        if at + 4 >= len(data):
            return None
        return Parts(
            _inflated(cut[0]),
            tuple(
                Block(one, int(size), int(adler))
                for one, (_, size, adler) in zip(cut[1:-1], places, strict=True)
            ),
            _inflated(cut[-1]),
            _inflated(data[at:-4]),
        )
    except (TypeError, ValueError, zlib.error):
        return None


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
