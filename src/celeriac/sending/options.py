"""The options of a call: which there are, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.protocol.written import Steps

# Options of apply_async that mean something here; others are refused, so that a typing error
# does not pass for an option. Celery's plumbing options are taken and not used.
OPTIONS = frozenset(
    "task_id countdown eta expires queue exchange exchange_type routing_key priority serializer "
    "compression headers ignore_result time_limit soft_time_limit shadow link link_error root_id "
    "parent_id group_id group_index chord chain argsrepr kwargsrepr delivery_mode retries run "
    "stamped_headers stamps reply_to dedupe_key add_to_parent replaced_task_nesting origin "
    "task_type".split()
)
IGNORED_OPTIONS = frozenset(
    "connection producer router publisher declare retry retry_policy timeout confirm_timeout "
    "mandatory result_cls event_dispatcher immediate task_name".split()
)

_KNOWN = OPTIONS | IGNORED_OPTIONS

# Options that differ from call to call, or make the message differ in more than its arguments.
VARYING = frozenset(
    "task_id countdown eta expires link link_error root_id parent_id chord chain retries run "
    "argsrepr kwargsrepr group_id group_index dedupe_key".split()
)


def given_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say something. Raises TypeError for one that there is not. Celery's stamps
    come as options of their own, named in ``stamped_headers``."""
    given = {key: value for key, value in options.items() if value is not None}
    check_priority(name, given.get("priority"))
    if not _KNOWN.issuperset(given):
        unknown = given.keys() - _KNOWN
        stamps = unknown & set(given.get("stamped_headers") or ())
        if unknown - stamps:
            raise TypeError(f"{name}: unknown calling option {min(unknown - stamps)!r}")
        given["stamps"] = {key: given.pop(key) for key in stamps} | (given.get("stamps") or {})
    return given


def check_priority(name: str, priority: Any) -> None:
    """Raises TypeError for what is no number: it would be compared with others in the broker."""
    if priority is not None and not isinstance(priority, int):
        raise TypeError(f"{name}: priority={priority!r}: expected a whole number, 0 to 9")


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be sent on: a signature from the wire may have come from a caller who may
    give more of them."""
    known = _KNOWN | set(options.get("stamped_headers") or ())
    return {key: value for key, value in options.items() if key in known}


def waited_for(options: Mapping[str, Any]) -> str | None:
    """What waits for the end of this call: a join, its own or that of the last step of its chain,
    or else the last step itself. A driver hands such a message back rather than remove it."""
    while True:
        if options.get("chord"):
            return options.get("group_id")
        chain = options.get("chain")
        if not chain:
            return None
        last = chain.first() if isinstance(chain, Steps) else chain[0]
        is_chord = last.get("subtask_type") == "chord"
        body = (last.get("kwargs") or {}).get("body") if is_chord else None
        options = (body or last).get("options") or {}
        if not options.get("chord") and not options.get("chain"):
            return options.get("task_id")


def listed(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, list | tuple) else [value]
