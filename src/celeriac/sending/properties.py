"""The properties of a message as signals show them."""

from __future__ import annotations

from typing import Any

from celeriac.message import Message


def properties(task_id: str, reply_to: str, mode: int, priority: int) -> dict[str, Any]:
    """Of a message that is being built."""
    return {
        "correlation_id": task_id,
        "reply_to": reply_to,
        "delivery_mode": mode,
        "priority": priority,
    }


def properties_of(message: Message) -> dict[str, Any]:
    """Of a message that was built."""
    return properties(message.id, message.reply_to, message.delivery_mode, message.priority)
