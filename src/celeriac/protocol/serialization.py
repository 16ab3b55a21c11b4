"""Values to bytes and back, by the name of a serializer or by content type.

Names, content types and encodings are Celery's (wire-format.md 1.4). Nothing is decoded whose
content type the caller did not list, and nothing but pickle, so listed, can run anything.
"""

from __future__ import annotations

import difflib
import importlib
import io
import pickle
from collections.abc import Callable, Iterable
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple

from celeriac.exceptions import (
    ContentDisallowed,
    ContentError,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MissingDependency,
    SoftTimeLimitExceeded,
)
from celeriac.protocol.json_codec import decode_json, encode_json, register_type
from celeriac.protocol.saferepr import saferepr

__all__ = [
    "Encoded",
    "accept_types",
    "decode",
    "encode",
    "register",
    "register_type",
    "serializer_names",
    "serializer_type",
]

JSON_TYPE = "application/json"
PICKLE_TYPE = "application/x-python-serialize"
_PICKLE_PROTOCOL = 4  # what Celery writes: readable from Python 3.4 on
# How far to look for the part that cannot be written: items of each container, and levels.
_SEARCHED = 10_000
_DEEPEST = 40


class Encoded(NamedTuple):
    """A value as bytes, and what to tell its reader."""

    content_type: str
    content_encoding: str
    data: bytes


class _Serializer(NamedTuple):
    name: str
    content_type: str
    content_encoding: str
    encoder: Callable[[Any], bytes | str]
    decoder: Callable[[Any], Any]
    takes_text: bool  # the decoder wants str


# Encodings of text that a message may name. Python's codecs know more, but looking one up by a
# foreign name imports a module, and some take quadratic time.
_TEXT_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "latin-1": "latin-1",
    "iso-8859-1": "latin-1",
    "utf-16": "utf-16",
    "utf-32": "utf-32",
}
_BINARY_ENCODINGS = frozenset(("binary", "ascii-8bit"))
_UTF8_LIKE = (
    frozenset(("utf-8", "utf8", "UTF-8", "us-ascii", "ascii", "", None)) | _BINARY_ENCODINGS
)

_by_name: dict[str, _Serializer] = {}
_by_type: dict[str, _Serializer] = {}


def register(
    name: str,
    encoder: Callable[[Any], bytes | str],
    decoder: Callable[[Any], Any],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Make a serializer known to this process, or replace one. ``decoder`` is given bytes if
    ``content_encoding`` is ``binary``, else text."""
    takes_text = content_encoding not in _BINARY_ENCODINGS
    _add(_Serializer(name, content_type, content_encoding, encoder, decoder, takes_text))


def _add(serializer: _Serializer) -> None:
    _by_name[serializer.name] = serializer
    _by_type[serializer.content_type] = serializer


def serializer_names() -> list[str]:
    """The names of the serializers known here."""
    return sorted(_by_name)


def serializer_type(name: str) -> str:
    """The content type of a serializer, by its name or that type. Raises ImproperlyConfigured."""
    return name if name in _by_type else _named(name).content_type


def accept_types(names: Iterable[str]) -> frozenset[str]:
    """The content types meant by names of serializers (``json``) and content types, as the
    setting ``accept_content`` lists them. Raises ImproperlyConfigured for an unknown name."""
    return frozenset(name if "/" in name else _named(name).content_type for name in names)


def _named(name: str) -> _Serializer:
    try:
        return _by_name[name]
    except KeyError:
        near = difflib.get_close_matches(str(name), _by_name, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ImproperlyConfigured(
            f"unknown serializer {name!r}: {hint}Known are {', '.join(serializer_names())}; "
            "others can be added with register"
        ) from None


# ------------------------------------------------------------------------------- encoding


def encode(value: Any, serializer: str = "json", *, names: tuple[str, ...] = ()) -> Encoded:
    """The value as bytes. Raises EncodeError naming the part that cannot be written, where
    ``names`` are what to call the items of the value; ImproperlyConfigured for an unknown
    serializer, MissingDependency naming the extra that it needs."""
    if serializer == "json":
        try:
            return Encoded(JSON_TYPE, "utf-8", encode_json(value))
        except SoftTimeLimitExceeded:
            raise
        except Exception as exc:
            raise _encode_error(value, _by_name["json"], names, exc) from exc
    found = _named(serializer)
    try:
        data = found.encoder(value)
        if isinstance(data, str):
            data = data.encode(_TEXT_ENCODINGS.get(found.content_encoding.lower(), "utf-8"))
    except (SoftTimeLimitExceeded, MissingDependency):
        raise
    except Exception as exc:
        raise _encode_error(value, found, names, exc) from exc
    return Encoded(found.content_type, found.content_encoding, data)


def _encode_error(
    value: Any, serializer: _Serializer, names: tuple[str, ...], exc: Exception
) -> EncodeError:
    found = None if isinstance(exc, RecursionError) else _find_culprit(value, serializer, names)
    if found is None:
        return EncodeError(
            f"{', '.join(names) or 'the value'} cannot be written as {serializer.name}: nested "
            "too deeply, or something in it contains itself. Pass flatter values, or ids to look up"
        )
    path, culprit, complaint = found
    advice = (
        "give its class a __json__ method, make the type known with register_type, "
        if serializer.name == "json"
        else ""
    )
    return EncodeError(
        f"{path or 'the value'} = {saferepr(culprit, 200)} of type {type(culprit).__qualname__} "
        f"cannot be written as {serializer.name} ({str(complaint or exc)[:200]}): pass plain "
        f"values or ids to look up, {advice}or choose another serializer"
    )


def _find_culprit(
    value: Any, serializer: _Serializer, names: tuple[str, ...]
) -> tuple[str, Any, Exception | None] | None:
    """Path, value and complaint of the innermost part that cannot be written; None if that is
    too deep inside."""
    path = ""
    complaint: Exception | None = None
    for _ in range(_DEEPEST):
        for step, part in islice(_parts(value, names), _SEARCHED):
            refusal = _refusal(serializer.encoder, part)
            if refusal is not None:
                path, value, complaint, names = path + step, part, refusal, ()
                break
        else:
            return path, value, complaint
    return None


def _parts(value: Any, names: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((f"[{saferepr(key, 40)}]", item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return ((names[i] if i < len(names) else f"[{i}]", item) for i, item in enumerate(value))
    return ()


def _refusal(encoder: Callable[[Any], Any], value: Any) -> Exception | None:
    if type(value) in (str, int, NoneType, bool, float):
        return None
    try:
        encoder(value)
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:
        return exc
    return None


# ------------------------------------------------------------------------------- decoding


def decode(data: bytes, content_type: str, content_encoding: str, accept: frozenset[str]) -> Any:
    """The value of the bytes. ``accept``: full content types, see ``accept_types``. Raises
    ContentDisallowed for another type and DecodeError for bytes that are not of their type,
    whatever they are."""
    if content_type not in accept:
        raise ContentDisallowed(_disallowed(content_type, accept))
    try:
        if content_type == JSON_TYPE and content_encoding in _UTF8_LIKE:
            return decode_json(data)
        return _decode_other(data, content_type, content_encoding)
    except (SoftTimeLimitExceeded, ContentError):
        raise  # the alarm of the task that reads a result is not about these bytes
    except RecursionError as exc:
        raise DecodeError(f"{_about(data, content_type)} are nested too deeply") from exc
    except MissingDependency as exc:
        raise DecodeError(f"{_about(data, content_type)} cannot be read here: {exc}") from exc
    except Exception as exc:
        raise DecodeError(
            f"{_about(data, content_type)} cannot be read: "
            f"{type(exc).__name__}: {str(exc)[:200]}; they begin {saferepr(bytes(data[:40]))}"
        ) from exc


def _about(data: bytes, content_type: str) -> str:
    return f"{len(data)} bytes of {content_type}"


def _disallowed(content_type: str, accept: frozenset[str]) -> str:
    found = _by_type.get(content_type)
    name = found.name if found is not None else content_type
    listed = ", ".join(sorted(accept)) or "nothing"
    return (
        f"content of type {str(content_type)[:80]!r} is refused: accepted is {listed}. If its "
        f"senders are to be trusted, add {str(name)[:80]!r} to the setting accept_content"
    )


def _decode_other(data: bytes, content_type: str, content_encoding: str) -> Any:
    found = _by_type.get(content_type)
    if found is None:
        raise DecodeError(
            f"no serializer for {content_type!r} is known here: make it known with register"
        )
    if not found.takes_text:
        return found.decoder(data)
    encoding = (content_encoding or "utf-8").lower()
    if encoding in _BINARY_ENCODINGS:
        encoding = "utf-8"
    if encoding not in _TEXT_ENCODINGS:
        raise DecodeError(f"{content_encoding[:80]!r} is not an encoding of text known here")
    return found.decoder(str(data, _TEXT_ENCODINGS[encoding]))


# ------------------------------------------------------------------------------- serializers


def _optional(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingDependency(
            f"the serializer {extra} needs the package {module}: pip install celeriac[{extra}]"
        ) from exc


def _encode_msgpack(value: Any) -> bytes:
    return bytes(_optional("msgpack", "msgpack").packb(value, use_bin_type=True))


def _decode_msgpack(data: bytes) -> Any:
    return _optional("msgpack", "msgpack").unpackb(data, raw=False, strict_map_key=False)


def _encode_yaml(value: Any) -> str:
    return str(_optional("yaml", "yaml").safe_dump(value))


_yaml_loader: Any = None


def _decode_yaml(text: str) -> Any:
    global _yaml_loader
    yaml = _optional("yaml", "yaml")
    if _yaml_loader is None:
        # Not the C loader: it overflows the stack on deep nesting, which ends the process.
        class Loader(yaml.SafeLoader):  # type: ignore[name-defined,misc,unused-ignore]
            def flatten_mapping(self, node: Any) -> None:
                # Merges of merges grow without bound, and safe_dump never writes one.
                if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                    raise DecodeError("YAML merge keys (<<) are not accepted")
                super().flatten_mapping(node)

        _yaml_loader = Loader
    return yaml.load(text, _yaml_loader)


def _encode_pickle(value: Any) -> bytes:
    return pickle.dumps(value, protocol=_PICKLE_PROTOCOL)


class _Unpickler(pickle.Unpickler):
    """Celery pickles its own signatures and exceptions; where it is not installed, ours are made
    of them."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:
            if module == "celery.utils.serialization" and name == "UnpickleableExceptionWrapper":
                from celeriac.protocol.exception_form import unwrapped

                return unwrapped
            root, _, rest = module.partition(".")
            if root in ("billiard", "kombu") and rest == "exceptions":
                root = "celery"
            if root != "celery":
                raise
            return super().find_class(f"celeriac.{rest}" if rest else "celeriac", name)


def _decode_pickle(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


_add(_Serializer("json", JSON_TYPE, "utf-8", encode_json, decode_json, True))
_add(_Serializer("pickle", PICKLE_TYPE, "binary", _encode_pickle, _decode_pickle, False))
_add(_Serializer("yaml", "application/x-yaml", "utf-8", _encode_yaml, _decode_yaml, True))
_add(
    _Serializer(
        "msgpack", "application/x-msgpack", "binary", _encode_msgpack, _decode_msgpack, False
    )
)
# Written by senders that name no serializer.
_by_type["text/plain"] = _Serializer("text/plain", "text/plain", "utf-8", str, str, True)
_by_type["application/data"] = _Serializer(
    "application/data", "application/data", "binary", bytes, bytes, False
)
