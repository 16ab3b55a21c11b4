"""Making message bodies and results smaller, with Celery's names and content types."""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from celeriac.exceptions import (
    DecodeError,
    ImproperlyConfigured,
    MissingDependency,
    SoftTimeLimitExceeded,
)

__all__ = ["MAX_SIZE", "compress", "compression_names", "decompress"]

MAX_SIZE = 256 * 1024 * 1024
"""How large (bytes) something may become when it is decompressed, unless told otherwise."""

_GZIP = "application/x-gzip"
_BZIP2 = "application/x-bz2"
_LZMA = "application/x-lzma"
_ZSTD = "application/zstd"
_BROTLI = "application/x-brotli"

_ALIASES = {
    "gzip": _GZIP,
    "zlib": _GZIP,
    "bzip2": _BZIP2,
    "bzip": _BZIP2,
    "lzma": _LZMA,
    "xz": _LZMA,
    "zstd": _ZSTD,
    "zstandard": _ZSTD,
    "brotli": _BROTLI,
}
_EITHER_ZLIB_OR_GZIP = 47  # wbits: what Celery calls gzip is a zlib stream; others may send a file
_WINDOW = 1 << 27  # bytes a zstd stream may ask to be kept in memory
_PART = 1 << 17
_SLICE = 64  # bytes fed at a time to a decompressor that takes no bound


def compression_names() -> list[str]:
    """The names that ``compress`` knows."""
    return sorted(_ALIASES)


def _optional(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingDependency(
            f"{extra} compression needs the package {module}: pip install celeriac[{extra}]"
        ) from exc


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """The compressed bytes and the content type that names how. ``name`` is an alias (``gzip``)
    or a content type. Raises ImproperlyConfigured, or MissingDependency naming the extra."""
    mime = _ALIASES.get(name.lower(), name)
    if mime == _GZIP:
        return zlib.compress(data), mime
    if mime == _BZIP2:
        return bz2.compress(data), mime
    if mime == _LZMA:
        return lzma.compress(data), mime
    if mime == _ZSTD:
        return bytes(_optional("zstandard", "zstd").ZstdCompressor().compress(data)), mime
    if mime == _BROTLI:
        return bytes(_optional("brotli", "brotli").compress(data)), mime
    raise ImproperlyConfigured(
        f"unknown compression {name!r}: use one of {', '.join(compression_names())}"
    )


def decompress(data: bytes, mime: str, max_size: int = MAX_SIZE) -> bytes:
    """The bytes as they were. Raises DecodeError if they are damaged, would be larger than
    ``max_size``, or are compressed in a way that is not known or not installed here."""
    kind = _ALIASES.get(mime, mime)
    reader = _READERS.get(kind)
    if reader is None:
        raise DecodeError(f"compressed as {mime[:80]!r}, which is not known here")
    try:
        out, whole = reader(data, max_size + 1)
    except (SoftTimeLimitExceeded, DecodeError):
        raise
    except MissingDependency as exc:
        raise DecodeError(str(exc)) from exc
    except Exception as exc:
        raise DecodeError(f"{len(data)} bytes are not {kind}: {exc}") from exc
    if len(out) > max_size:
        raise _too_large(data, kind, max_size)
    if not whole:
        raise DecodeError(f"{len(data)} bytes of {kind} end too early, or have something behind")
    return out


def _too_large(data: bytes, kind: str, max_size: int) -> DecodeError:
    return DecodeError(
        f"{len(data)} bytes of {kind} would be more than {max_size} bytes decompressed"
    )


def _read_zlib(data: bytes, most: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(wbits=_EITHER_ZLIB_OR_GZIP)
    out = stream.decompress(data, most)
    return out, stream.eof and not stream.unused_data


def _read_bz2(data: bytes, most: int) -> tuple[bytes, bool]:
    stream = bz2.BZ2Decompressor()
    out = stream.decompress(data, most)
    return out, stream.eof and not stream.unused_data


def _read_lzma(data: bytes, most: int) -> tuple[bytes, bool]:
    # The memory bound is on the dictionary, whose size the sender chooses.
    stream = lzma.LZMADecompressor(memlimit=max(most, 128 * 1024 * 1024))
    out = stream.decompress(data, most)
    return out, stream.eof and not stream.unused_data


def _read_zstd(data: bytes, most: int) -> tuple[bytes, bool]:
    zstandard = _optional("zstandard", "zstd")
    size = zstandard.frame_content_size(data)
    if size < 0:  # a writer of streams, who did not know it
        size = _count_zstd(zstandard, data, most)
    if size >= most:
        raise _too_large(data, _ZSTD, most - 1)
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    return reader.decompress(data, max_output_size=size, allow_extra_data=False), True


def _count_zstd(zstandard: Any, data: bytes, most: int) -> int:
    """How large it becomes, counted no further than ``most``."""
    size = 0
    with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(data) as stream:
        while size < most and (part := stream.read(_PART)):
            size += len(part)
    return size


def _read_brotli(data: bytes, most: int) -> tuple[bytes, bool]:
    stream = _optional("brotli", "brotli").Decompressor()
    if not hasattr(stream, "can_accept_more_data"):  # before 1.2: no bound to be given
        return _read_brotli_slowly(stream, data, most), stream.is_finished()
    parts = [stream.process(data, output_buffer_limit=most)]
    size = len(parts[0])
    while size < most and not stream.can_accept_more_data():
        parts.append(stream.process(b"", output_buffer_limit=most - size))
        size += len(parts[-1])
    return b"".join(parts), stream.is_finished()


def _read_brotli_slowly(stream: Any, data: bytes, most: int) -> bytes:
    out = bytearray()
    for start in range(0, len(data), _SLICE):
        out += stream.process(data[start : start + _SLICE])
        if len(out) >= most:
            break
    return bytes(out)


_READERS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    _GZIP: _read_zlib,
    _BZIP2: _read_bz2,
    _LZMA: _read_lzma,
    _ZSTD: _read_zstd,
    _BROTLI: _read_brotli,
}
