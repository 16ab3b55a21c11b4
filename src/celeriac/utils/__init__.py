"""Small names that applications import. New helpers do not belong here."""

from __future__ import annotations

import os
import time


def uuid() -> str:
    """A new task id: a version 7 UUID (RFC 9562), so ids made one after another sort together,
    which keeps a store's index small and its writes near each other."""
    ms = int(time.time() * 1000)
    tail = os.urandom(10).hex()
    head = f"{ms:012x}"
    variant = "89ab"[int(tail[3], 16) & 3]
    return f"{head[:8]}-{head[8:12]}-7{tail[:3]}-{variant}{tail[4:7]}-{tail[7:19]}"
