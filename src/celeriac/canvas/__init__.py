"""Canvas: descriptions of calls that can be stored, passed on and sent."""

from __future__ import annotations

from celeriac.canvas.signature import Signature, maybe_signature, signature, subtask

__all__ = ["Signature", "maybe_signature", "signature", "subtask"]
