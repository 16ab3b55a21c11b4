"""Where results are, for scripts of the broker that change both."""

from __future__ import annotations

from msgspec import Struct

from celeriac.drivers.redis.options import Options

__all__ = ["ResultPlace", "place_of"]


class ResultPlace(Struct, frozen=True):
    db: int
    prefix: str


def place_of(options: Options) -> ResultPlace:
    return ResultPlace(options.db, options.prefix)
