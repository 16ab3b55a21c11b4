"""Sends from one process, in the environment of the system that is measured::

    python -m benchmarks.peers.sender MODULE ACTION COUNT

``fill``   puts COUNT messages into the queue, untimed
``delay``  sends one by one: how many seconds COUNT calls took
``bulk``   sends COUNT with the call for many: the seconds it took
``chain``, ``chord``  a workflow of COUNT no-op tasks: the seconds until its result was there
``wait``   sends and waits for the result, one after the other: the seconds of each

The module has ``send()`` and ``send_and_wait()``, both functions or both coroutines, perhaps
``send_many(count)`` and ``workflow(kind, count)``, and ``open()`` and ``close()`` where a coroutine
needs them. The answer is a JSON list on the standard output. Libraries are used as they come: the
garbage collector is on.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
import time
from types import ModuleType

WARMING = 20  # calls before the clock of ``delay`` starts
PATIENCE = 6.0  # seconds after which ``wait`` ends, though there would be more to send


class Waits:
    """The seconds of each wait; the first ones, at most a second of them, are not noted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken: list[float] = []
        self.began = self.last = time.perf_counter()
        self.warm = 0

    def more(self) -> bool:
        """Note the wait that has just ended, and whether there shall be another one."""
        now = time.perf_counter()
        if self.warm <= WARMING and now < self.began + 1.0:
            self.warm += 1
        else:
            self.taken.append(now - self.last)
        self.last = time.perf_counter()
        return len(self.taken) < self.count and now < self.began + PATIENCE


def act(module: ModuleType, action: str, count: int) -> list[float]:
    send, many = module.send, getattr(module, "send_many", None)
    if action == "fill" and many:
        many(count)
    elif action == "fill":
        for _ in range(count):
            send()
    elif action == "delay":
        for _ in range(WARMING):
            send()
        start = time.perf_counter()
        for _ in range(count):
            send()
        return [time.perf_counter() - start]
    elif action == "bulk":
        assert many is not None, f"{module.__name__} has no call for many"
        send()
        start = time.perf_counter()
        many(count)
        return [time.perf_counter() - start]
    elif action in ("chain", "chord"):
        module.workflow(action, 2)
        start = time.perf_counter()
        module.workflow(action, count)
        return [time.perf_counter() - start]
    elif action == "wait":
        return _waits(module, count)
    return []


def _waits(module: ModuleType, count: int) -> list[float]:
    waits = Waits(count)
    module.send_and_wait()
    while waits.more():
        module.send_and_wait()
    return waits.taken


async def act_async(module: ModuleType, action: str, count: int) -> list[float]:
    """The same for coroutines, all in one event loop."""
    await module.open()
    try:
        if action == "wait":
            return await _waits_async(module, count)
        for _ in range(WARMING if action == "delay" else 0):
            await module.send()
        start = time.perf_counter()
        for _ in range(count):
            await module.send()
        return [time.perf_counter() - start] if action == "delay" else []
    finally:
        await module.close()


async def _waits_async(module: ModuleType, count: int) -> list[float]:
    waits = Waits(count)
    await module.send_and_wait()
    while waits.more():
        await module.send_and_wait()
    return waits.taken


def main() -> None:
    name, action, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    module = importlib.import_module(name)
    if inspect.iscoroutinefunction(module.send):
        answer = asyncio.run(act_async(module, action, count))
    else:
        answer = act(module, action, count)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
