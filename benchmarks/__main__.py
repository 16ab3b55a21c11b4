"""``make bench``: measure, and print a table. ``BENCH_ARGS="speed latency"`` chooses parts."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3

from benchmarks import sqlite


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of: {', '.join(sqlite.PARTS)}; default: all")
    chosen = parser.parse_args().parts or list(sqlite.PARTS)
    print(
        f"Celeriac on SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; medians of {sqlite.ROUNDS} interleaved rounds\n"
    )
    for part in chosen:
        for what, figure, bar in sqlite.PARTS[part]():
            print(f"{what:34} {figure:58} {bar}", flush=True)


if __name__ == "__main__":
    main()
