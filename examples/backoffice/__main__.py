"""The demo: ``make demo``, or ``python -m examples.backoffice``. What it shows is in README.md."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path

NEEDED = {"aiosmtpd": "aiosmtpd", "PIL": "pillow", "pandas": "pandas", "psutil": "psutil"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.backoffice",
        description="A small company's back office, with a worker that is killed on the way. "
        "Exits with 0 only if nothing was lost.",
    )
    parser.add_argument(
        "--broker", metavar="URL", help="default: an SQLite file in the output folder"
    )
    parser.add_argument("--result-backend", metavar="URL", help="default: the broker's server")
    parser.add_argument("--scale", type=positive, default=1.0, help="1 is 500 mails, 0.1 is 50")
    parser.add_argument("--kills", type=int, default=2, help="runners to kill (default: 2)")
    parser.add_argument("-c", "--concurrency", type=int, default=4, help="runners (default: 4)")
    parser.add_argument(
        "--timeout", type=positive, default=120.0, help="seconds until what is not done is lost"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "out", help="the output folder"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def missing() -> list[str]:
    """What the demo needs besides Celeriac and is not installed."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if names := missing():
        print(f"The demo also needs: {', '.join(names)}", file=sys.stderr)
        print("Install it with: pip install 'celeriac[demo]', or in a checkout:", file=sys.stderr)
        print("pip install -e '.[demo]'", file=sys.stderr)
        return 2
    from celeriac.exceptions import CeleriacError
    from examples.backoffice.demo import run  # needs what was just looked for
    from examples.worker_process import WorkerDied

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it cleans up then, too
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ninterrupted; the worker and the servers are stopped", file=sys.stderr)
        return 130
    except (CeleriacError, WorkerDied) as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
