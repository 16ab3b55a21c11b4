"""Acting on messages from outside a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.contracts import Broker
from celeriac.exceptions import NotCapable
from celeriac.message import Message, MessageState, Owner, Worker
from celeriac.protocol.reading import decode_headers
from celeriac.sending.options import listed
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app.base import Celeriac


_PAGE = 1000


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


def ids_stamped(app: Celeriac, wanted: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """The ids of the tasks that wait, are delayed or run now and carry one of these stamps: name
    to value or values, or ``name=value`` each. Raises NotCapable."""
    broker = app.producer.broker
    if not broker.capabilities.by_id:
        raise NotCapable(
            "This broker does not show its messages: revoke by ids, or use redis:// or sqlite://."
        )
    pairs = wanted.items() if isinstance(wanted, Mapping) else (p.split("=", 1) for p in wanted)
    values = {str(name): set(map(str, listed(value) or ())) for name, value in pairs}
    admin, found = app.admin(), []
    for state in (MessageState.WAITING, MessageState.DELAYED, MessageState.IN_FLIGHT):
        page, after = admin.peek(None, state, _PAGE), ""
        while page:
            found += [one.message.id for one in page if _is_stamped(one.message, values)]
            after = page[-1].cursor
            page = admin.peek(None, state, _PAGE, after) if len(page) == _PAGE else []
    return found


def _is_stamped(message: Message, wanted: Mapping[str, set[str]]) -> bool:
    if b'"stamped_headers"' not in message.headers:
        return False
    headers = decode_headers(message.headers)
    stamps = headers.get("stamps") or {}
    names = wanted.keys() & set(headers.get("stamped_headers") or ())
    return any(wanted[name] & set(map(str, listed(stamps.get(name)) or ())) for name in names)


def _signal_name(value: str | int) -> str:
    """``SIGKILL`` for that, for 9 and for ``signal.SIGKILL``."""
    import signal

    return signal.Signals(value).name if isinstance(value, int) else str(value)
