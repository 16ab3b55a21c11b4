"""Measure, and print tables. ``BENCH_ARGS="--quick"`` takes less than a minute,
``BENCH_ARGS="redis:rates sqlite:speed"`` chooses parts, ``PEERS=celery,rq`` chooses whom Celeriac
is measured beside on Redis (on RabbitMQ these are always the same; ``PEERS=none``: nobody)."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import signal
import sqlite3
import sys
from pathlib import Path

from benchmarks import broker, canvas, chart, environments, rabbitmq, redis, run, sqlite
from benchmarks.peers import CELERIAC, LPUSH, OTHERS, Peer, chosen
from benchmarks.stage import FULL, QUICK, ROOT, Effort

ON_SQLITE = {**sqlite.PARTS, "workflows": canvas.on_sqlite}
KEPT = ROOT / "docs" / "benchmarks"

STORES = {"sqlite": ON_SQLITE, "redis": redis.PARTS, "rabbitmq": rabbitmq.PARTS}


def _arguments() -> argparse.Namespace:
    parts = [f"{store}:{part}" for store, parts in STORES.items() for part in parts]
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=f"PEERS: of {', '.join(OTHERS)}; or all, or none. Parts: {', '.join(parts)}.",
    )
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(STORES)}, or parts of them; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, only to try it")
    parser.add_argument("--output", type=Path, help="folder for the figures and the chart")
    arguments = parser.parse_args()
    known = {*parts, *STORES}
    if wrong := [part for part in arguments.parts if part not in known]:
        parser.error(f"there is no part {wrong[0]!r}; there are {', '.join(sorted(known))}")
    try:
        arguments.peers = chosen(os.environ.get("PEERS"))
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _chosen(parts: list[str], store: str, all_parts: list[str]) -> list[str]:
    """The parts of this store that are asked for."""
    if not parts or store in parts:
        return all_parts
    return [name for name in all_parts if f"{store}:{name}" in parts]


def on_sqlite(parts: list[str], effort: Effort) -> None:
    print(
        f"Celeriac on SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; rounds: {effort.rounds}\n"
    )
    for part in parts:
        for what, figure, bar in ON_SQLITE[part](effort):
            print(f"{what:34} {figure:58} {bar}", flush=True)
    print()


def on_redis(parts: list[str], peers: list[Peer], effort: Effort) -> run.Run:
    for peer in peers:
        environments.prepare(peer)
    if (busy := run.busy()) > 10:
        print(f"others use {busy:.0f} % of this machine: these figures will say little")
    with broker.server() as server:
        comparison = redis.Comparison(server, peers, effort)
        for part in parts:
            redis.PARTS[part](comparison)
        version = server.info("server")["redis_version"]
    return run.Run(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        quick=effort is QUICK,
        rounds=effort.rounds,
        backlog=effort.count(1_000_000),
        machine=run.machine(version, busy),
        systems={
            peer.name: {
                "title": peer.title,
                "versions": environments.versions(peer),
                "worker": shlex.join(peer.worker),
                "copies": peer.copies,
            }
            for peer in (CELERIAC, *peers, LPUSH)
        },
        figures=comparison.figures,
        idle_commands=comparison.idle_commands,
    )


def on_rabbitmq(parts: list[str], effort: Effort, *, peers: bool) -> None:
    if peers:
        environments.prepare(rabbitmq.PEERS)
    with rabbitmq.RabbitServer() as server:
        assert isinstance(server, rabbitmq.RabbitServer)
        comparison = rabbitmq.Comparison(server, effort, peers=peers)
        for part in parts:
            rabbitmq.PARTS[part](comparison)
        version = server.control("version").strip()
    noted = environments.versions(rabbitmq.PEERS) if peers else {}
    beside = ", ".join(f"{name} {number}" for name, number in noted.items())
    print(f"Celeriac on RabbitMQ {version}; rounds: {effort.rounds}; {beside}\n")
    print(rabbitmq.table(comparison.figures) + "\n")


def keep(found: run.Run, folder: Path) -> None:
    file = folder / f"{found.date}-redis.json"
    found.save(file)
    picture = folder / "redis.svg"
    picture.write_text(chart.draw(found), encoding="utf-8")
    print(f"\nkept in {os.path.relpath(file)}, drawn in {os.path.relpath(picture)}")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no server is left behind
    arguments = _arguments()
    effort = QUICK if arguments.quick else FULL
    if parts := _chosen(arguments.parts, "sqlite", list(ON_SQLITE)):
        on_sqlite(parts, effort)
    parts = _chosen(arguments.parts, "redis", list(redis.PARTS))
    if parts and not broker.installed():
        print("redis-server is not installed: the comparison on Redis is left out")
    elif parts:
        found = on_redis(parts, arguments.peers, effort)
        print(f"Celeriac and peers on Redis {found.machine['redis']}; rounds: {effort.rounds}\n")
        print(run.table(found))
        whole = not arguments.quick and parts == list(redis.PARTS)
        keep(found, arguments.output or (KEPT if whole else environments.FOLDER / "runs"))
    parts = _chosen(arguments.parts, "rabbitmq", list(rabbitmq.PARTS))
    if parts and not rabbitmq.installed():
        print("rabbitmq-server is not installed: the comparison on RabbitMQ is left out")
    elif parts:
        on_rabbitmq(parts, effort, peers=bool(arguments.peers))


if __name__ == "__main__":
    main()
