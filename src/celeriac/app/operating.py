"""Acting on messages from outside a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from celeriac.contracts import Broker
from celeriac.message import Owner, Worker
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app.base import Celeriac


class Operator:
    """A lease for the time of one operation: in it, this process may take messages to settle
    them."""

    def __init__(self, broker: Broker, ttl: float) -> None:
        self._broker = broker
        self._ttl = ttl
        self._lease = f"operator-{uuid()}"

    def __enter__(self) -> Owner:
        self._broker.register(
            Worker(lease=self._lease, ttl=self._ttl, name="operator", pid=os.getpid())
        )
        return Owner(self._lease, 0, 1)

    def __exit__(self, *exc_info: object) -> None:
        self._broker.unregister(self._lease)


def revoke(app: Celeriac, ids: str | Sequence[str], terminate: bool, signal: str | int) -> None:
    """``app.revoke``. Raises NotCapable."""
    wanted = [ids] if isinstance(ids, str) else [str(one) for one in ids]
    if not wanted:
        return
    until = time.time() + app.conf.revoke_expires
    with app.operating() as owner:
        broker = app.producer.broker
        found = broker.cancel(owner, wanted, until, terminate, _signal_name(signal))
        app.settle_removed(found)
    bus = app.make_bus() if terminate else None
    if bus is not None:
        bus.emit("cancel")
        bus.close()


def _signal_name(value: str | int) -> str:
    """``SIGKILL`` for that, for 9 and for ``signal.SIGKILL``."""
    import signal

    return signal.Signals(value).name if isinstance(value, int) else str(value)
