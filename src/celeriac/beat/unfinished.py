"""Is a run still waiting or running? For entries that must not overlap themselves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from celeriac.conf import hide_in_url
from celeriac.message import MessageState

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["result_options", "unfinished_of"]

logger = logging.getLogger("celeriac.beat")

_BELIEVED: Final = 86400.0
"""Seconds for which a run without a result counts as running, where the queues cannot be asked."""


def result_options(app: Celeriac, overlap: str) -> Mapping[str, Any]:
    """The calling options of a run that have to do with its result."""
    results = app.producer.results
    if results is None:
        return {}
    if not results.capabilities.keeps_records:
        return {"ignore_result": True}  # it would be sent to the scheduler, which reads none
    if overlap != "allow" and not app.producer.broker.capabilities.by_id:
        return {"ignore_result": False}  # nothing else tells the end of the run
    return {}


def unfinished_of(app: Celeriac, runs: Sequence[tuple[str, float]], now: float) -> set[str]:
    """Of these task ids, sent at these times, those that are not finished. Raises
    OperationalError."""
    ids = [task_id for task_id, _ in runs]
    results = app.producer.results
    by_id = app.producer.broker.capabilities.by_id
    kept = results is not None and results.capabilities.keeps_records
    ready: set[str] = set()
    if results is not None and kept:
        ready = {record.id for record in results.get(ids) if record is not None and record.ready}
    open_ids = [task_id for task_id in ids if task_id not in ready]
    if not open_ids:
        return set()
    if by_id:
        found = app.admin().find(open_ids)
        return {one.message.id for one in found if one.state is not MessageState.DEAD}
    if not kept:
        _tell_unknown(hide_in_url(app.broker_url))
        return set()
    # A run that was lost must not stop its entry for ever.
    sent_at = dict(runs)
    return {task_id for task_id in open_ids if now - sent_at[task_id] < _BELIEVED}


@functools.cache
def _tell_unknown(broker: str) -> None:
    logger.warning(
        "The broker %s cannot say whether a run is finished, and no results are kept: overlap is "
        "always allowed. Set result_backend to one that keeps them, such as redis://.",
        broker,
    )
