"""The command line: ``celeriac -A module COMMAND``. One module for each command.

A command's module is imported when the command is asked for, and imports what it needs when it
runs: ``celeriac --help`` loads neither the application nor a driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["main"]


def main(args: Sequence[str] | None = None, obj: Celeriac | None = None) -> None:
    """Run the command line. ``args`` are those of the process unless given; ``obj`` is the
    application, so that no ``-A`` is needed. Returns when all went well, raises SystemExit with
    the exit code otherwise."""
    from celeriac.cli.root import run

    code = run(args, obj)
    if code:
        raise SystemExit(code)
