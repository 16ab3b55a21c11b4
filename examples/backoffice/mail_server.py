"""A mail server that keeps what it accepts, and is now and then too busy to accept anything."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path
from types import TracebackType
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from examples.backoffice.files import replacing

HOST = "127.0.0.1"


class Inbox:
    """aiosmtpd's handler: every accepted message is a file on the disk before the sender hears
    "250 OK", so the files are exactly what was received, repeats included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self._number += 1
        path = self.folder / f"{self._number:05}.eml"
        await asyncio.to_thread(self._keep, path, cast(bytes, envelope.content))
        return "250 2.0.0 OK"

    @staticmethod
    def _keep(path: Path, content: bytes) -> None:
        with replacing(path) as draft, draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


class Busy(asyncio.Protocol):
    """A connection that comes to nothing: refused with a 421, or dropped without a word."""

    def __init__(self, *, polite: bool) -> None:
        self.polite = polite

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if self.polite:
            transport.write(b"421 4.3.2 too busy, try again later\r\n")
            transport.close()
        else:
            transport.abort()


class MailServer:
    """Listens on a free port of this machine, in a thread, for the length of a ``with`` block.

    ``busy_share`` of the connections come to nothing. Each takes ``pause`` seconds, about what a
    real server takes to look at a message.
    """

    def __init__(
        self, folder: Path, *, busy_share: float = 0.05, pause: float = 0.05, seed: str = "mail"
    ) -> None:
        self.folder = folder
        self.busy_share = busy_share
        self.pause = pause
        self.port = 0
        self.refused = 0
        self._pick = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="mail server", daemon=True)
        self._listening = threading.Event()
        self._stopped = asyncio.Event()
        self._error: OSError | None = None

    def __enter__(self) -> MailServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        if not self._listening.wait(10):
            raise TimeoutError("the demo's mail server did not start listening within 10 s")
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        inbox = Inbox(self.folder)
        try:
            server = await self._loop.create_server(lambda: self._answer(inbox), HOST, 0)
        except OSError as error:
            self._error = error
            self._listening.set()
            return
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self._listening.set()
            await self._stopped.wait()

    def _answer(self, inbox: Inbox) -> asyncio.Protocol:
        if self._pick.random() < self.busy_share:
            self.refused += 1
            return Busy(polite=self._pick.random() < 0.5)
        return SlowSMTP(inbox, self.pause, self._loop)


class SlowSMTP(SMTP):
    """aiosmtpd's server, which takes its time before it accepts a message."""

    def __init__(self, inbox: Inbox, pause: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inbox, hostname="mail.example", loop=loop)
        self._pause = pause

    async def smtp_DATA(self, arg: str) -> None:
        await asyncio.sleep(self._pause)
        await super().smtp_DATA(arg)
