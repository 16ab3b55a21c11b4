"""What the interop tests share: one Redis server, and one worker of each side on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.drivers.redis_stage import shared_server
from tests.interop.parties import OTHER, Client, Scene, require_celery

_databases = itertools.count(1)
ACCEPT = ["json", "pickle", "msgpack", "yaml"]


def _new_scene(folder: Path, **conf: Any) -> Scene:
    require_celery()
    server = shared_server()
    scene = Scene(server, folder, next(_databases) % 16, **conf)
    scene.wire("FLUSHDB")
    return scene


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two workers that run as long as the tests: Celery's on the queue ``old``, ours on ``new``,
    reading all serializers."""
    scene = _new_scene(
        tmp_path_factory.mktemp("town"), accept_content=ACCEPT, unknown_task_wait=1.0
    )
    try:
        scene.wait_ready(
            scene.start("celery", "-c", "2", "-Q", "old,old2", "-n", "old@%h"),
            scene.start("celeriac", "-c", "2", "-Q", "new,new2", "-n", "new@%h"),
        )
        yield scene
    finally:
        scene.end()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes empty databases, with settings of their own; their processes end with the test."""
    made: list[Scene] = []

    def make(**conf: Any) -> Scene:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(_new_scene(folder, **conf))
        return made[-1]

    yield make
    for one in made:
        one.end()


QUEUE = {"celery": "old", "celeriac": "new"}


class Way(NamedTuple):
    """From a client of one side to a worker of the other."""

    town: Scene
    client: Client
    other: Client  # of the worker's side
    queue: str
    side: str  # the worker's

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return self.client.send(name, *args, queue=self.queue, **options)

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        """The result, the same for both clients."""
        id = self.send(name, *args, **options)
        value = self.client.get(id)
        assert self.other.get(id) == value
        return value


WAYS = ["celery to celeriac", "celeriac to celery"]
if os.environ.get("CELERIAC_INTEROP_REFERENCE"):  # what Celery itself does is what is expected
    WAYS.append("celery to celery")
    WAYS.append("celeriac to celeriac")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, town: Scene) -> Way:
    sender, _, side = request.param.split()
    other = side if side != sender else OTHER[side]
    return Way(town, town.client(sender), town.client(other), QUEUE[side], side)
