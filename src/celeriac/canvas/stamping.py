"""Stamps: headers that every task of a workflow carries, chosen by a visitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.canvas.signature import Signature, listed, maybe_signature


class StampingVisitor:
    """Decides what is stamped on each signature: the methods return headers. ``stamped_headers``
    among them lists those that are stamps; without it all are. What ``on_signature`` returns
    holds for one task, what the others return for all tasks inside."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        """After the tasks of the group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        """After the tasks of the chain."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must have on_signature()")

    def on_chord_header_start(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return self.on_group_start(sig.header, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        self.on_group_end(sig.header, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
        return {}


def stamp(sig: Any, visitor: Any, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp ``sig``, what is inside and what it leads to."""
    kind = sig.subtask_type
    if kind == "chain":
        inner = _both(headers, visitor and visitor.on_chain_start(sig, **headers))
        _stamp_tasks(sig["kwargs"], visitor, append, inner)
        stamp_links(sig, visitor, append, inner)
        if visitor is not None:
            visitor.on_chain_end(sig, **inner)
    elif kind == "group":
        inner = _both(headers, visitor and visitor.on_group_start(sig, **headers))
        _stamp_tasks(sig["kwargs"], visitor, append, inner)
        if visitor is not None:
            visitor.on_group_end(sig, **inner)
    elif kind == "chord":
        _stamp_chord(sig, visitor, append, headers)
    else:
        own = _both(headers, visitor and visitor.on_signature(sig, **headers))
        _put(sig, own, append)
        stamp_links(sig, visitor, append, own)


def _stamp_chord(sig: Any, visitor: Any, append: bool, headers: Mapping[str, Any]) -> None:
    inner = _both(headers, visitor and visitor.on_chord_header_start(sig, **headers))
    header = sig["kwargs"]["header"] = sig.header.clone()
    _stamp_tasks(header["kwargs"], visitor, append, inner)
    if visitor is not None:
        visitor.on_chord_header_end(sig, **inner)
    if sig.body is not None:
        inner = _both(headers, visitor and visitor.on_chord_body(sig, **headers))
        sig.body = sig.body.clone()
        stamp(sig.body, visitor, append, inner)


def _stamp_tasks(
    kwargs: dict[str, Any], visitor: Any, append: bool, headers: Mapping[str, Any]
) -> None:
    copies: list[Signature[Any]] = [task.clone() for task in kwargs["tasks"]]
    for task in copies:
        stamp(task, visitor, append, headers)
    kwargs["tasks"] = copies


def stamp_links(sig: Any, visitor: Any, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp what is linked to ``sig``."""
    for key, visit in (("link", "on_callback"), ("link_error", "on_errback")):
        given = listed(sig.options.get(key))
        links = [maybe_signature(one, app=sig._app, clone=True) for one in given]
        for link in links:
            more = getattr(visitor, visit)(link, **headers) if visitor is not None else None
            stamp(link, visitor, append, _both(headers, more))
        if links:
            sig.options[key] = links


def _both(headers: Mapping[str, Any], more: Any) -> dict[str, Any]:
    """Headers and more of them; the names of the stamps of both."""
    if not more:
        return dict(headers)
    names = list(_names(headers))
    names += [name for name in _names(more) if name not in names]
    return {**headers, **more, "stamped_headers": names}


def _names(headers: Mapping[str, Any]) -> list[str]:
    named = headers.get("stamped_headers")
    if named is not None:
        return list(named)
    return [key for key in headers if key != "stamped_headers"]


def _put(sig: Signature[Any], headers: Mapping[str, Any], append: bool) -> None:
    """Make the stamps options. With ``append``, values that are there already are kept, in a
    list with the new ones."""
    options = sig.options
    names = [name for name in _names(headers) if name in headers]
    for name in names:
        value = headers[name]
        if append and name in options and name in (options.get("stamped_headers") or ()):
            old = listed(options[name])
            value = [*old, *(one for one in listed(value) if one not in old)]
        options[name] = value
    before = list(options.get("stamped_headers") or ())
    options["stamped_headers"] = before + [name for name in names if name not in before]
