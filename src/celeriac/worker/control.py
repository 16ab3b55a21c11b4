"""What the supervisor and the agent say to each other: JSON lines over a socket pair."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

_MOST: Final = 1024 * 1024


class Registered(Struct, frozen=True, tag=True):
    """Agent: the lease is ours for the first time; runners may claim."""


class Failed(Struct, frozen=True, tag=True):
    """Agent: the worker cannot start, and why."""

    text: str


class Terminate(Struct, frozen=True, tag=True):
    """Agent: end this task if it runs here."""

    task_id: str
    signal: str


class Stalled(Struct, frozen=True, tag=True):
    """Agent: there is work, and nobody claims it; the idle runners are to be restarted."""

    text: str


class Leave(Struct, frozen=True, tag=True):
    """Supervisor: no runner is left; give the lease back and end."""


Word: TypeAlias = Registered | Failed | Terminate | Stalled | Leave
_decode = msgspec.json.Decoder(Word).decode


class Line:
    """One end of the connection. Nothing here waits but ``wait``."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._rest = b""
        self.closed = False
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        one, two = socket.socketpair()
        return cls(one), cls(two)

    @classmethod
    def of(cls, fd: int) -> Line:
        """The end that a process has inherited."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.socket.fileno()

    def say(self, word: Word) -> None:
        """Send. If the other end is gone, ``closed`` says so; if it does not read, the word is
        lost, as words may be: each is said again when it still holds."""
        try:
            self.socket.sendall(msgspec.json.encode(word) + b"\n")
        except BlockingIOError:
            return
        except OSError:
            self.closed = True

    def hear(self) -> list[Word]:
        """What has come in."""
        while not self.closed:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
            self._rest += data
            if len(self._rest) > _MOST:
                self.closed = True
        *lines, self._rest = self._rest.split(b"\n")
        return [_decode(line) for line in lines]

    def wait(self, timeout: float | None) -> bool:
        """Until something has come in, or the time is over; None: without end. Is there something
        to be heard, if only that the other end is gone?"""
        if self.closed:
            return True
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        return bool(poller.poll(None if timeout is None else max(timeout, 0.0) * 1000))

    def hang_up(self) -> None:
        """Say and hear nothing more; a thread that waits wakes up. It must be gone before
        ``close``: by then the number may be another file's."""
        self.closed = True
        with contextlib.suppress(OSError):  # the other end was first
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closed = True
        self.socket.close()
