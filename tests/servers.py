"""Private real servers for tests: on free ports of 127.0.0.1, with temporary data, gone afterwards.

A server that is not installed skips the test on a laptop and fails it where ``CI=true`` is set;
``make servers`` installs them from the distribution's packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

PATIENCE = 60.0
"""Seconds within which a server must have started."""


def executable(*names: str) -> str:
    """The path of the first of these that is installed; skips or fails the test otherwise."""
    for name in names:
        for folder in (None, "/usr/sbin:/usr/local/sbin:/usr/lib/rabbitmq/bin"):
            found = shutil.which(name, path=folder)
            if found:
                return found
    reason = f"{names[0]} is not installed (make servers installs it)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One process with a folder of its own. A context manager; may be killed and started again."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self.command = list(command)
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"{self.command[0]} ended with {code}: {self.log()}"
            assert time.monotonic() < deadline, f"{self.command[0]} does not start: {self.log()}"
            time.sleep(0.02)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power loss would, but for what the system has in its caches."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """A redis-server (or valkey-server) that keeps nothing on the disk unless ``settings`` say so.

    ``settings`` are lines of its configuration; one for ``port`` replaces the free port.
    """

    def __init__(self, *settings: str, mode: str = "") -> None:
        program = executable("redis-server", "valkey-server")
        folder = Path(tempfile.mkdtemp(prefix="celeriac-redis-"))
        port = free_port()
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"dir {folder}",
            "daemonize no",
            'save ""',
            "appendonly no",
            *settings,
        ]
        (folder / "redis.conf").write_text("\n".join(lines) + "\n")
        command = [program, str(folder / "redis.conf"), *([mode] if mode else [])]
        super().__init__(command, folder, port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        try:
            answer = self.call("PING", timeout=1.0)
        except OSError:
            return False
        return not answer.startswith(b"-LOADING") and answer != b""

    def call(self, *words: str | bytes, timeout: float = 10.0) -> bytes:
        """One command over a connection of its own; the raw answer, as far as one read gives it."""
        data = b"*%d\r\n" % len(words)
        for word in words:
            raw = word.encode() if isinstance(word, str) else word
            data += b"$%d\r\n%b\r\n" % (len(raw), raw)
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(data)
            return connection.recv(1 << 20)


class RabbitServer(Server):
    """One RabbitMQ node with an Erlang port mapper of its own; no plugins. ``settings`` are lines
    of its configuration. Starting one takes some seconds: tests share one, and take a new virtual
    host each."""

    def __init__(self, *settings: str) -> None:
        program = str(Path(executable("rabbitmq-server")).resolve())
        found = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin")  # Debian's wrapper
        self.programs = next(iter(found), Path(program).parent)
        folder = Path(tempfile.mkdtemp(prefix="celeriac-rabbitmq-"))
        port = free_port()
        self.mapper: subprocess.Popen[bytes] | None = None
        (folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")
        (folder / "plugins").write_text("[].")
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"celeriac{port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RUNNING_UNDER_SYSTEMD": "1",  # the process is the server itself, without a shell
        }
        self._unused: list[str] = []
        self._made = 0
        super().__init__([str(self.programs / "rabbitmq-server")], folder, port)

    def url(self, vhost: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost if vhost != '/' else '%2F'}"

    def start(self) -> None:
        if self.mapper is None:
            command = [executable("epmd"), "-address", "127.0.0.1"]
            command += ["-port", self.environment["ERL_EPMD_PORT"]]
            self.mapper = subprocess.Popen(command, start_new_session=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def is_ready(self) -> bool:
        """It listens before it has started; then it says so in its log."""
        return super().is_ready() and "completed with" in self.log()

    def control(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` says."""
        done = subprocess.run(
            [str(self.programs / "rabbitmqctl"), *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def new_vhost(self) -> str:
        """The URL of an empty virtual host. They are made some at a time, which is quicker."""
        if not self._unused:
            first, last = self._made + 1, self._made + 20
            self._made = last
            self.control(
                "eval",
                f"[begin V = list_to_binary([$t | integer_to_list(N)]),"
                f'rabbit_vhost:add(V, <<"guest">>),'
                f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, <<".*">>, <<".*">>,'
                f' <<".*">>, <<"guest">>) end || N <- lists:seq({first}, {last})].',
            )
            self._unused = [f"t{number}" for number in range(last, first - 1, -1)]
        return self.url(self._unused.pop())

    def give_back(self, url: str) -> None:
        """A virtual host that is empty again. The server gets slower with each one that it has."""
        self._unused.append(url.rpartition("/")[2])

    def stop(self) -> None:
        super().stop()
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.wait(PATIENCE)
            self.mapper = None
