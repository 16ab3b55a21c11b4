"""A virtual environment for each peer, made when it is first measured, in ``.bench/<name>``."""

from __future__ import annotations

import subprocess
import sys
import venv
from functools import cache
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.stage import ROOT

FOLDER = ROOT / ".bench"


def prepare(peer: Peer) -> None:
    """Installs the peer's packages, unless exactly these were installed before."""
    if not peer.packages:
        return
    home = FOLDER / peer.name
    wanted = "\n".join((sys.version, *peer.packages))
    stamp = home / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {' '.join(peer.packages)}", file=sys.stderr, flush=True)
    venv.create(home, with_pip=True, clear=home.exists())
    command = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *peer.packages], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer.title} cannot be installed: {done.stderr[-2000:]}")
    stamp.write_text(wanted)


def program(peer: Peer, name: str) -> str:
    """The path of a program of the peer's environment; Celeriac's is that of the harness."""
    if not peer.packages:
        return sys.executable if name == "python" else str(Path(sys.executable).parent / name)
    return str(FOLDER / peer.name / "bin" / name)


@cache
def versions(peer: Peer) -> dict[str, str]:
    """What is installed, of the packages worth noting."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    command = [program(peer, "python"), "-c", code, *peer.versions]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in said.splitlines())
