"""What the tests of the application share: an application on ``memory://``, a stage that runs its
messages, and the state of the process put back after each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from core_stage import Heard, MakeApp, Stage, messages_of

from celeriac import Celeriac, current, execution, signals
from celeriac.drivers import memory
from celeriac.message import Message
from celeriac.signals import Signal

_names = itertools.count(1)


@pytest.fixture(autouse=True)
def _same_process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test makes current, shares or connects is gone after it."""
    for name in [name for name in os.environ if name.startswith(("CELERY_", "CELERIAC_"))]:
        monkeypatch.delenv(name)
    shared, default, own = list(current._shared), current._default, current._local.__dict__.copy()
    all_signals = [value for value in vars(signals).values() if isinstance(value, Signal)]
    connected = {one: list(one.receivers) for one in all_signals}
    current.set_current_app(None)
    current._default = None
    yield
    current._shared[:] = shared
    current._default = default
    current._local.__dict__.clear()
    current._local.__dict__.update(own)
    for one, receivers in connected.items():
        one.receivers[:] = receivers
    execution.close_loop()


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """``make_app(**settings)``: an application with a store of its own."""
    made: list[Celeriac] = []
    urls: list[str] = []

    def make(main: str = "tests", **settings: Any) -> Celeriac:
        url = f"memory://unit-{next(_names)}"
        urls.append(url)
        app = Celeriac(main, **{"broker": url, **settings})
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()
    for url in urls:
        memory.forget(url)


@pytest.fixture
def app(make_app: MakeApp) -> Celeriac:
    return make_app()


@pytest.fixture
def stage(app: Celeriac) -> Stage:
    return Stage(app)


@pytest.fixture
def make_stage() -> Callable[..., Stage]:
    return Stage


@pytest.fixture
def sent(app: Celeriac) -> Callable[[], list[Message]]:
    """``sent()``: the messages in the store of ``app``."""
    return lambda: messages_of(app)


@pytest.fixture
def heard() -> type[Heard]:
    """``heard(signal)``: a list that fills with what the signal says."""
    return Heard
