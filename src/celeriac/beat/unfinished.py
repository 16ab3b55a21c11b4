"""Is a run still waiting or running? For entries that must not overlap themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from celeriac.exceptions import NotCapable
from celeriac.message import MessageState

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["unfinished_of"]

logger = logging.getLogger("celeriac.beat")

_BELIEVED: Final = 86400.0
"""Seconds for which a run without a result counts as running, where the queues cannot be asked."""


def unfinished_of(app: Celeriac, runs: Sequence[tuple[str, float]], now: float) -> set[str]:
    """Of these task ids, sent at these times, those that are not finished. Raises
    OperationalError."""
    ids = [task_id for task_id, _ in runs]
    results = app.producer.results
    ready: set[str] = set()
    if results is not None:
        ready = {record.id for record in results.get(ids) if record is not None and record.ready}
    open_ids = [task_id for task_id in ids if task_id not in ready]
    if not open_ids:
        return set()
    try:
        found = app.admin().find(open_ids)
    except NotCapable:
        # Without a result either nothing is known: a run that is lost must not stop its entry.
        if results is None:
            return set()
        return {
            task_id
            for task_id, sent_at in runs
            if task_id not in ready and now - sent_at < _BELIEVED
        }
    return {one.message.id for one in found if one.state is not MessageState.DEAD}
