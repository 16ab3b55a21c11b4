"""Run the first application with a worker of its own: ``python -m examples.first_app``."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.first_app.tasks import fetch, send
from examples.worker_process import own_worker


class Page(BaseHTTPRequestHandler):
    """A page to fetch, so that the example needs no network."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


async def from_asyncio(url: str) -> int:
    """The same from a coroutine: nothing here blocks the loop."""
    result = await fetch.adelay(url)
    return await asyncio.wait_for(result, timeout=30)


def main() -> None:
    with (
        own_worker("examples.first_app.tasks"),
        ThreadingHTTPServer(("127.0.0.1", 0), Page) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(send.delay("a@b.example", "hi").get(timeout=30))
        size = asyncio.run(from_asyncio(f"http://127.0.0.1:{server.server_address[1]}/"))
        print(f"fetched {size} bytes")
        server.shutdown()


if __name__ == "__main__":
    main()
