from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import tracemalloc
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.exceptions import DecodeError, ImproperlyConfigured, MissingDependency
from celeriac.protocol.compression import compress, compression_names, decompress

NAMES = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "brotli": "application/x-brotli",
}
MIMES = sorted(set(NAMES.values()))


@pytest.mark.parametrize(("name", "mime"), NAMES.items())
@pytest.mark.parametrize("data", [b"", b"x", b"text " * 10_000])
def test_round_trip_under_every_name(name: str, mime: str, data: bytes) -> None:
    packed, kind = compress(data, name)
    assert kind == mime
    assert decompress(packed, mime) == data
    assert decompress(packed, name) == data
    assert compress(data, mime) == (packed, mime)
    assert name in compression_names()


def test_the_formats_are_celerys() -> None:
    assert compress(b"a", "gzip")[0][:2] == b"\x78\x9c"  # a zlib stream, not a gzip file
    assert zlib.decompress(compress(b"a", "gzip")[0]) == b"a"
    assert bz2.decompress(compress(b"a", "bzip2")[0]) == b"a"
    assert lzma.decompress(compress(b"a", "xz")[0], lzma.FORMAT_XZ) == b"a"
    assert zstandard.ZstdDecompressor().decompress(compress(b"a", "zstd")[0]) == b"a"
    assert brotli.decompress(compress(b"a", "brotli")[0]) == b"a"
    assert decompress(gzip.compress(b"a"), "gzip") == b"a"  # a real gzip file is read as well


def test_zstd_without_a_size_in_its_header() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    packed = stream.compress(b"a" * 100_000) + stream.flush()
    assert decompress(packed, "zstd") == b"a" * 100_000


def test_unknown_names() -> None:
    with pytest.raises(ImproperlyConfigured, match="gzip"):
        compress(b"", "nope")
    with pytest.raises(DecodeError, match="nope"):
        decompress(b"", "nope")


@pytest.mark.parametrize("mime", MIMES)
def test_damage_is_a_decode_error(mime: str) -> None:
    packed, _ = compress(bytes(range(256)) * 20, mime)
    for broken in (
        b"",
        b"\0",
        packed[: len(packed) // 2],
        packed[:-1],
        packed + b"x",
        b"x" + packed,
    ):
        with pytest.raises(DecodeError):
            decompress(broken, mime)


@pytest.mark.parametrize("mime", MIMES)
@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=60), at=st.integers(0, 200), bit=st.integers(0, 7))
def test_noise_is_a_decode_error_or_a_value(mime: str, noise: bytes, at: int, bit: int) -> None:
    packed = bytearray(compress(b"some text, some more text " * 3, mime)[0])
    packed[at % len(packed)] ^= 1 << bit
    for data in (noise, bytes(packed)):
        try:
            assert isinstance(decompress(data, mime, 10_000), bytes)
        except DecodeError:
            pass


@pytest.mark.parametrize("mime", MIMES)
def test_a_bomb_is_a_decode_error_and_takes_little_memory(mime: str) -> None:
    bomb = compress(b"\0" * 60_000_000, mime)[0]
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="more than 1000000"):
            decompress(bomb, mime, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mime", MIMES)
def test_the_bound_itself_fits(mime: str) -> None:
    packed = compress(b"\0" * 100_000, mime)[0]
    assert len(decompress(packed, mime, 100_000)) == 100_000
    with pytest.raises(DecodeError):
        decompress(packed, mime, 99_999)


@pytest.mark.parametrize("name", ["zstd", "brotli"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Any:
        raise ImportError(module)

    packed, mime = compress(b"a", name)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=rf"celeriac\[{name}\]"):
        compress(b"a", name)
    with pytest.raises(DecodeError, match=rf"celeriac\[{name}\]"):
        decompress(packed, mime)
