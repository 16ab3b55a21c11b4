"""A supplier's HTTP API as they are: slow, and at times not there. It books each order id once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from examples.backoffice.files import append

HOST = "127.0.0.1"


class ShopApi(ThreadingHTTPServer):
    """``POST /orders`` with JSON and an ``Idempotency-Key``, on a free port, for the length of a
    ``with`` block. Answers 201 for a new order, 200 for one it has already, 503 in ``busy_share``
    of the calls, after ``delays`` seconds. Accepted calls are lines in ``book`` before the answer.

    What happens to the nth call for an order is fixed by ``seed``, in whatever order calls come.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        book: Path,
        *,
        busy_share: float = 0.15,
        delays: tuple[float, float] = (0.02, 0.15),
        seed: str = "shop",
    ) -> None:
        super().__init__((HOST, 0), Handler)
        self.book = book
        self.busy_share = busy_share
        self.delays = delays
        self.seed = seed
        self.refused = 0
        self._calls: Counter[str] = Counter()
        self._booked: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="shop API", daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    def __enter__(self) -> ShopApi:
        self.book.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(10)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed while it waited for the answer is no error here."""

    def order(self, key: str) -> HTTPStatus:
        """Take the order or don't, as it happens."""
        with self._lock:
            self._calls[key] += 1
            pick = random.Random(f"{self.seed}/{key}/{self._calls[key]}")
        time.sleep(pick.uniform(*self.delays))
        with self._lock:
            if pick.random() < self.busy_share:
                self.refused += 1
                return HTTPStatus.SERVICE_UNAVAILABLE
            status = HTTPStatus.OK if key in self._booked else HTTPStatus.CREATED
            append(self.book, json.dumps({"id": key, "status": status}), durable=True)
            self._booked.add(key)
            return status


class Handler(BaseHTTPRequestHandler):
    """One call."""

    server: ShopApi

    def do_POST(self) -> None:
        try:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers["Idempotency-Key"]
            valid = self.path == "/orders" and bool(key) and order["quantity"] > 0
        except (KeyError, TypeError, ValueError):
            valid = False
        status = self.server.order(key) if valid else HTTPStatus.BAD_REQUEST
        self._answer(status, {"order": key if valid else None, "status": status.phrase})

    def _answer(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: 100 lines of access log would bury the progress."""
