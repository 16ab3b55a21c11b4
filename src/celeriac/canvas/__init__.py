"""Canvas: descriptions of calls that can be stored, passed on, put together and sent."""

from __future__ import annotations

from celeriac.canvas.chains import chain
from celeriac.canvas.chords import chord
from celeriac.canvas.composing import compose
from celeriac.canvas.groups import group
from celeriac.canvas.loops import chunks, xmap, xstarmap
from celeriac.canvas.signature import Signature, maybe_signature, signature, subtask
from celeriac.canvas.stamping import StampingVisitor

__all__ = [
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "compose",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
