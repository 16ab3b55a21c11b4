"""Who is measured: each system's packages, its worker's command, and where its results can be
counted. What each application looks like is in ``with_<name>.py``.

Only the standard library is imported here and beside it: the files run in each peer's own virtual
environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BY_DEFAULT", "CELERIAC", "LPUSH", "OTHERS", "Peer", "Stored", "chosen"]


@dataclass(frozen=True)
class Stored:
    """A command that tells in constant time how many results there are, or, if ``waiting``, how
    many tasks have none yet, for a system that keeps its results among other keys."""

    command: tuple[str, ...]
    database: int = 0
    waiting: bool = False


RESULT_KEYS = Stored(("DBSIZE",), database=1)
"""For systems that store one key for each result, which are given a database for them alone."""


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    packages: tuple[str, ...] = ()  # from PyPI; none: the environment of the harness
    worker: tuple[str, ...] = ()  # the first word is a program of its environment
    stored: Stored = RESULT_KEYS
    tasks: int = 4000  # no-op tasks of one measured run: some seconds of work
    calls: int = 5000  # of delay()
    bulk: int = 0  # messages sent at once; 0: it has no call for that
    copies: int = 1  # of the worker's command, where one is one process
    workflows: bool = False  # has it chains and chords?
    versions: tuple[str, ...] = field(default=())  # packages whose versions are noted

    @property
    def module(self) -> str:
        return f"benchmarks.peers.with_{self.name}"


def _app(name: str, variable: str) -> str:
    return f"benchmarks.peers.with_{name}{variable}"


CELERIAC = Peer(
    name="celeriac",
    title="Celeriac",
    worker=(
        *("python", "-m", "celeriac", "-A", _app("celeriac", ":app")),
        *("worker", "-c", "2", "-l", "WARNING"),
    ),
    tasks=100_000,
    calls=20_000,
    bulk=100_000,
    workflows=True,
    versions=("celeriac", "hiredis", "redis", "msgspec"),
)
LPUSH = Peer(name="lpush", title="bare LPUSH", calls=20_000)

OTHERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name="celery",
            title="Celery",
            packages=("celery[redis]==5.*", "hiredis==3.*"),
            worker=(
                *("celery", "-A", _app("celery", ":app")),
                *("worker", "-c", "2", "-l", "WARNING"),
            ),
            workflows=True,
            versions=("celery", "kombu", "redis", "hiredis"),
        ),
        Peer(
            name="huey",
            title="Huey",
            packages=("huey==3.*", "redis", "hiredis==3.*"),
            worker=("huey_consumer", _app("huey", ".app"), "-k", "process", "-w", "2", "-q"),
            stored=Stored(("HLEN", "huey.results.shop")),
            tasks=10_000,
            versions=("huey", "redis", "hiredis"),
        ),
        Peer(
            name="dramatiq",
            title="Dramatiq",
            packages=("dramatiq[redis]==2.*", "hiredis==3.*"),
            worker=("dramatiq", _app("dramatiq", ":broker"), "-p", "2"),
            tasks=5000,
            versions=("dramatiq", "redis", "hiredis"),
        ),
        Peer(
            name="rq",
            title="RQ",
            packages=("rq==2.*", "hiredis==3.*"),
            worker=("rq", "worker-pool", "-n", "2", "-l", "WARNING", "-u", "{broker}", "default"),
            stored=Stored(("ZCARD", "rq:finished:default")),
            tasks=500,
            calls=2000,
            bulk=5000,
            versions=("rq", "redis", "hiredis"),
        ),
        Peer(
            name="arq",
            title="arq",
            packages=("arq==0.*", "hiredis==3.*"),
            worker=(
                "arq",
                _app("arq", ".WorkerSettings"),
                "--custom-log-dict",
                _app("arq", ".LOG"),
            ),
            stored=Stored(("ZCARD", "arq:queue"), waiting=True),
            tasks=3000,
            copies=2,
            versions=("arq", "redis", "hiredis"),
        ),
        Peer(
            name="taskiq",
            title="Taskiq",
            packages=("taskiq==0.*", "taskiq-redis==1.*", "uvloop==0.*", "hiredis==3.*"),
            worker=(
                *("taskiq", "worker", _app("taskiq", ":broker")),
                *("--workers", "2", "--log-level", "WARNING"),
            ),
            tasks=4000,
            versions=("taskiq", "taskiq-redis", "uvloop", "redis", "hiredis"),
        ),
        Peer(
            name="saq",
            title="SAQ",
            packages=("saq[redis,hiredis]==0.*", "typing_extensions", "hiredis==3.*"),
            worker=("saq", _app("saq", ".settings"), "--workers", "2"),
            stored=Stored(("ZCARD", "saq:default:incomplete"), waiting=True),
            tasks=3000,
            versions=("saq", "redis", "hiredis"),
        ),
    )
}
BY_DEFAULT = ("celery", "huey", "dramatiq")


def chosen(names: str | None) -> list[Peer]:
    """The peers of ``PEERS=``: names with commas or spaces between, ``all``, ``none``; not given:
    those that are measured by default. Raises ValueError for a name that is not among them."""
    if names is None or not names.strip():
        return [OTHERS[name] for name in BY_DEFAULT]
    words = names.replace(",", " ").split()
    if words == ["none"]:
        return []
    if words == ["all"]:
        return list(OTHERS.values())
    unknown = [word for word in words if word not in OTHERS]
    if unknown:
        known = ", ".join(OTHERS)
        raise ValueError(f"PEERS: no peer is called {unknown[0]}; there are {known}, all and none")
    return [OTHERS[word] for word in dict.fromkeys(words)]
