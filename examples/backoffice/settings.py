"""Where the outside world is. The demo starts the servers and tells the worker through the
environment; in a company this would be the configuration of the application."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIGEST_EVERY = 1.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses and folders that the tasks need."""

    out: Path
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 8025
    shop_url: str = "http://127.0.0.1:8080"
    queue: str = "backoffice"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        return cls(
            out=Path(environ.get("BACKOFFICE_OUT", Path(__file__).parent / "out")),
            smtp_host=environ.get("BACKOFFICE_SMTP_HOST", cls.smtp_host),
            smtp_port=int(environ.get("BACKOFFICE_SMTP_PORT", cls.smtp_port)),
            shop_url=environ.get("BACKOFFICE_SHOP_URL", cls.shop_url),
            queue=environ.get("BACKOFFICE_QUEUE", cls.queue),
        )

    def environ(self) -> dict[str, str]:
        """The variables from which another process reads the same settings."""
        return {
            "BACKOFFICE_OUT": str(self.out),
            "BACKOFFICE_SMTP_HOST": self.smtp_host,
            "BACKOFFICE_SMTP_PORT": str(self.smtp_port),
            "BACKOFFICE_SHOP_URL": self.shop_url,
            "BACKOFFICE_QUEUE": self.queue,
        }

    @property
    def digest(self) -> str:
        """The name of the periodic task."""
        return f"digest of {self.queue}"

    @property
    def inbox(self) -> Path:
        """What the mail server received, one file a message."""
        return self.out / "mail"

    @property
    def pictures(self) -> Path:
        return self.out / "pictures"

    @property
    def thumbnails(self) -> Path:
        return self.out / "thumbnails"

    @property
    def sales(self) -> Path:
        return self.out / "sales"

    @property
    def report(self) -> Path:
        return self.out / "report"

    @property
    def orders(self) -> Path:
        """What the shop's API booked, one line an accepted request."""
        return self.out / "orders.jsonl"

    @property
    def attempts(self) -> Path:
        """When which task began and ended, in which process."""
        return self.out / "attempts.jsonl"

    @property
    def sent(self) -> Path:
        """What the demo handed to the queue."""
        return self.out / "sent.json"
