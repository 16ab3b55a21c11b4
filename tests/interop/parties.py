"""Processes of both sides: the real celery package in an environment of its own (``.interop``),
and celeriac, on one server."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.drivers.redis_stage import Wire
from tests.servers import RedisServer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CELERY_PYTHON = ROOT / ".interop" / "bin" / "python"
PATIENCE = 20.0

SIDES = ("celery", "celeriac")
OTHER = {"celery": "celeriac", "celeriac": "celery"}


def require_celery() -> None:
    """Skips on a laptop without it, fails in CI."""
    if CELERY_PYTHON.exists():
        return
    reason = "the celery package is not installed in .interop (make interop installs it)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Raised(Exception):
    """What an expression raised in the other process."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.name: str = told["name"]
        self.module: str = told["module"]
        self.raised_args: list[Any] = told["args"]
        self.bases: list[str] = told["bases"]
        super().__init__(f"{self.name}{tuple(self.raised_args)}\n{told['traceback']}")


class Client:
    """A process that evaluates expressions with one side's package (speaker.py)."""

    def __init__(self, side: str, env: dict[str, str], log: Path) -> None:
        self.side = side
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [_python(side), str(HERE / "speaker.py")],
                env={**env, "INTEROP_SIDE": side},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def __call__(self, source: str, **names: Any) -> Any:
        """The value of the expression there. Raises Raised."""
        data = pickle.dumps((source, names))
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack("!I", len(data)) + data)
        self.process.stdin.flush()
        kind, value = pickle.loads(self._read(struct.unpack("!I", self._read(4))[0]))
        if kind == "raised":
            raise Raised(value)
        return value

    def _read(self, length: int) -> bytes:
        assert self.process.stdout is not None
        fd, data = self.process.stdout.fileno(), b""
        while len(data) < length:
            ready, _, _ = select.select([fd], [], [], 2 * PATIENCE)
            assert ready, f"the client of {self.side} does not answer"
            got = os.read(fd, length - len(data))
            assert got, f"the client of {self.side} has ended"
            data += got
        return data

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Call the task of that name in shop.py; the id."""
        kwargs = options.pop("kwargs", {})
        return str(
            self(
                f"{name}.apply_async(args, kwargs, **options).id",
                args=args,
                kwargs=kwargs,
                options=options,
            )
        )

    def get(self, id: str, timeout: float = PATIENCE) -> Any:
        return self("result_of(id).get(timeout=timeout)", id=id, timeout=timeout)

    def error(self, id: str, timeout: float = PATIENCE) -> Raised:
        """What getting the result raises."""
        with pytest.raises(Raised) as caught:
            self.get(id, timeout)
        return caught.value

    def state(self, id: str) -> str:
        return str(self("result_of(id).state", id=id))

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)


class Place:
    """One broker for both sides, with the same settings on both."""

    def __init__(self, folder: Path, url: str, results: str, **conf: Any) -> None:
        self.folder = folder
        self.url = url
        self.notes_file = folder / "notes"
        self.conf = {
            "broker_url": url,
            "result_backend": results,
            "broker_connection_retry_on_startup": True,
            "worker_prefetch_multiplier": 1,
            **conf,
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self._logs: dict[int, Path] = {}
        self._clients: dict[str, Client] = {}
        self._files = 0

    # --- processes

    def _env(self, **conf: Any) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "C_FORCE_ROOT": "1",
            "INTEROP_CONF": json.dumps({**self.conf, **conf}),
            "INTEROP_NOTES": str(self.notes_file),
        }

    def client(self, side: str) -> Client:
        """The client of that side; started when it is first asked for."""
        if side not in self._clients:
            self._clients[side] = self.new_client(side)
        return self._clients[side]

    def new_client(self, side: str, name: str = "", **conf: Any) -> Client:
        """One more client, with settings of its own; ended with the scene."""
        if side == "celery":
            require_celery()
        made = Client(side, self._env(**conf), self.folder / f"{side}-client.log")
        self._clients[name or f"{side} {len(self._clients)}"] = made
        return made

    def start(self, side: str, *options: str, **conf: Any) -> subprocess.Popen[bytes]:
        """Start a worker; does not wait for it."""
        if side == "celery":
            require_celery()
        if side == "celery":
            options = (*options, "--without-mingle", "--without-gossip")
        log = self.folder / f"{side}-worker-{len(self.workers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [_python(side), "-m", side, "-A", "shop", "worker", "-l", "info", *options],
                cwd=HERE,
                env={**self._env(**conf), "INTEROP_SIDE": side},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._logs[process.pid] = log
        self.workers.append(process)
        return process

    def worker_log(self, process: subprocess.Popen[bytes]) -> str:
        return self._logs[process.pid].read_text(errors="replace")

    def wait_ready(self, *processes: subprocess.Popen[bytes]) -> None:
        """These workers take messages."""

        def up() -> bool:
            for process in processes:
                assert process.poll() is None, self.worker_log(process)[-4000:]
            return all(" ready." in self.worker_log(process) for process in processes)

        until(up, "the workers to be ready")

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE)

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """The worker and all its processes, at once."""
        try:
            tree = [psutil.Process(process.pid)]
            tree += tree[0].children(recursive=True)
        except psutil.NoSuchProcess:
            tree = []
        for one in tree:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                pass
        process.wait(PATIENCE)

    def end(self) -> None:
        for client in self._clients.values():
            client.end()
        for process in self.workers:
            if process.poll() is None:
                self.kill(process)

    # --- looking

    def file(self) -> Path:
        """A path where there is no file yet."""
        self._files += 1
        return self.folder / f"file{self._files}"

    def notes(self, *first: Any) -> list[list[Any]]:
        """What tasks have noted, without the side, if it begins with these words; with it, if
        the first of them is one."""
        if not self.notes_file.exists():
            return []
        lines = [json.loads(line) for line in self.notes_file.read_text().splitlines()]
        if first and first[0] in SIDES:
            return [line for line in lines if tuple(line[: len(first)]) == first]
        return [line[1:] for line in lines if tuple(line[1 : len(first) + 1]) == first]

    def until_noted(self, count: int, *first: Any) -> None:
        until(lambda: len(self.notes(*first)) >= count, f"{count} x {first} to be noted")

    def forget_notes(self) -> None:
        self.notes_file.unlink(missing_ok=True)

    def settled(self, queue: str) -> None:
        """Whatever waited in the queue has run: two tasks have run there side by side after it."""
        client = self.client("celery")
        marker = self.file()
        ids = [client.send("hold", "settled", str(marker), queue=queue) for _ in range(2)]
        until(lambda: len(self.notes("start", "settled")) >= 2, f"{queue} to be worked off")
        marker.touch()
        for id in ids:
            client.get(id)
        self.forget_notes()


class Scene(Place):
    """One Redis database, for messages and results."""

    def __init__(self, server: RedisServer, folder: Path, db: int, **conf: Any) -> None:
        self.server = server
        url = server.url.removesuffix("/0") + f"/{db}"
        super().__init__(folder, url, url, **conf)
        self.wire = Wire(url)

    def end(self) -> None:
        super().end()
        self.wire.close()

    def document(self, id: str) -> Any:
        """What is stored of the task, if it is JSON."""
        raw = self.wire("GET", f"celery-task-meta-{id}")
        return None if raw is None else json.loads(raw)

    def envelopes(self, key: str) -> list[Any]:
        """The messages in a list."""
        return [json.loads(raw) for raw in self.wire("LRANGE", key, 0, -1)]


def _python(side: str) -> str:
    return str(CELERY_PYTHON) if side == "celery" else sys.executable


def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.02)
