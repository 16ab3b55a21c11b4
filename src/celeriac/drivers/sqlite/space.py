"""How much room there is on a file's disk."""

from __future__ import annotations

import os

__all__ = ["free_space", "whole_space"]


def free_space(path: str) -> int | None:
    """Bytes that this user may still write there; None where nobody knows."""
    try:
        disk = os.statvfs(os.path.dirname(path))
    except (OSError, AttributeError):
        return None
    return disk.f_bavail * disk.f_frsize


def whole_space(path: str) -> int:
    """Bytes of the whole disk; 0 where nobody knows."""
    try:
        disk = os.statvfs(os.path.dirname(path))
    except (OSError, AttributeError):
        return 0
    return disk.f_blocks * disk.f_frsize
