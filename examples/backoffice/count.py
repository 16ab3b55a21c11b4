"""Counts what really arrived: in the mail server's inbox, in the folders, in the shop's book.

``python -m examples.backoffice.count [OUT]`` counts a finished run again; it exits with 0 only if
nothing that was sent is missing.
"""

from __future__ import annotations

import csv
import email
import email.policy
import email.utils
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from PIL import Image

from examples.backoffice.attempts import Attempts
from examples.backoffice.data import read_recipients
from examples.backoffice.mail import BOSS, message_id
from examples.backoffice.settings import Settings

REPORT = "the report"
TASKS = {
    "mail": ("send_invoice",),
    "thumbnails": ("make_thumbnail",),
    "sales": ("sum_sales", "write_report"),
    "orders": ("place_order",),
    "digest": ("send_digest",),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the final table. ``done`` and ``lost`` make ``sent``; ``twice`` arrived more
    than once; ``missing`` names what was lost."""

    kind: str
    sent: int
    done: int
    retried: int
    redelivered: int
    lost: int
    seconds: float
    twice: int
    missing: tuple[str, ...]


def write_sent(path: Path, sent: dict[str, list[str]], at: float) -> None:
    """Note what was handed to the queue and when: by kind, the keys to look for afterwards."""
    path.write_text(json.dumps({"at": at, "sent": sent}, indent=1), encoding="utf-8")


def count(settings: Settings) -> list[Row]:
    """Hold what was sent against what arrived."""
    document = json.loads(settings.sent.read_text(encoding="utf-8"))
    attempts = Attempts(settings.attempts)
    attempts.update()
    rows = []
    for kind, keys in document["sent"].items():
        arrived = ARRIVED[kind](settings)
        missing = tuple(key for key in keys if not arrived[key])
        tasks = TASKS[kind]
        rows.append(
            Row(
                kind=kind,
                sent=len(keys),
                done=len(keys) - len(missing),
                retried=attempts.retried(tasks),
                redelivered=len(attempts.repeated(tasks)),
                lost=len(missing),
                seconds=max(0.0, (attempts.last(tasks) or document["at"]) - document["at"]),
                twice=sum(1 for key in keys if arrived[key] > 1),
                missing=missing,
            )
        )
    return rows


def mails(settings: Settings) -> Counter[str]:
    """Message-IDs in the inbox, of those with the right recipient and amount in them."""
    expected = {message_id(recipient): recipient for recipient in read_recipients()}
    found: Counter[str] = Counter()
    for path in settings.inbox.glob("*.eml"):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        recipient = expected.get(message["Message-ID"])
        if recipient is None:
            continue
        _, address = email.utils.parseaddr(message["To"])
        if address == recipient.email and recipient.amount in message.get_content():
            found[message["Message-ID"]] += 1
    return found


def digests(settings: Settings) -> Counter[str]:
    """Message-IDs in the inbox of the mails to the boss."""
    found: Counter[str] = Counter()
    for path in settings.inbox.glob("*.eml"):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if message["To"] == BOSS:
            found[message["Message-ID"]] += 1
    return found


def thumbnails(settings: Settings) -> Counter[str]:
    """Names of the small pictures that can be opened, are small, and not distorted."""
    found: Counter[str] = Counter()
    for path in settings.thumbnails.glob("[!.]*"):
        found[path.name] += is_thumbnail(path, settings.pictures / path.name)
    return found


def is_thumbnail(path: Path, picture: Path) -> bool:
    try:
        with Image.open(path) as small, Image.open(picture) as large:
            small.load()
            distortion = abs(large.width / large.height - small.width / small.height)
            return max(small.size) == 256 and distortion < 0.02
    except (OSError, SyntaxError):  # Pillow's words for "no picture" and "a broken PNG"
        return False


def sales(settings: Settings) -> Counter[str]:
    """Months whose figures in the report are those of their files, added up here without pandas;
    and the report itself, if it is there for people to read."""
    found: Counter[str] = Counter()
    table = settings.report / "sales.csv"
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                path = settings.sales / f"{row['month']}.csv"
                if path.exists() and Decimal(row["revenue"]) == revenue(path):
                    found[row["month"]] += 1
    found[REPORT] += (settings.report / "sales.md").exists()
    return found


def revenue(path: Path) -> Decimal:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return sum((int(row["quantity"]) * Decimal(row["unit_price"]) for row in rows), Decimal(0))


def orders(settings: Settings) -> Counter[str]:
    """Order ids in the shop's book, with how often the shop accepted a call for them."""
    if not settings.orders.exists():
        return Counter()
    lines = settings.orders.read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["id"] for line in lines)


ARRIVED: dict[str, Callable[[Settings], Counter[str]]] = {
    "mail": mails,
    "thumbnails": thumbnails,
    "sales": sales,
    "orders": orders,
    "digest": digests,
}


def render(rows: Iterable[Row]) -> str:
    """The table, with a sentence for what a reader will ask about."""
    rows = list(rows)
    columns = ["sent", "done", "retried", "redelivered", "lost", "seconds"]
    lines = [f"{'kind':<12}" + "".join(f"{column:>13}" for column in columns)]
    for row in rows:
        numbers = (row.sent, row.done, row.retried, row.redelivered, row.lost)
        cells = [f"{number:>13,}" for number in numbers] + [f"{row.seconds:>13.1f}"]
        lines.append(f"{row.kind:<12}" + "".join(cells))
    sums = [sum(getattr(row, column) for row in rows) for column in columns[:-1]]
    longest = max((row.seconds for row in rows), default=0.0)
    cells = [f"{number:>13,}" for number in sums] + [f"{longest:>13.1f}"]
    lines += ["-" * len(lines[0]), f"{'all':<12}" + "".join(cells), ""]
    if twice := ", ".join(f"{row.twice} of {row.kind}" for row in rows if row.twice):
        lines.append(
            f"arrived twice: {twice} (a task that is killed after its work and before it could"
            " say so is run again)"
        )
    lines += [f"lost of {row.kind}: {shorten(row.missing)}" for row in rows if row.missing]
    return "\n".join(lines).rstrip()


def shorten(names: tuple[str, ...], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def status(rows: Iterable[Row]) -> int:
    """The exit status: 0 only if something was sent and nothing of it was lost."""
    rows = list(rows)
    return 0 if rows and not any(row.lost for row in rows) else 1


def main(arguments: list[str]) -> int:
    out = Path(arguments[0]) if arguments else Settings.from_environ().out
    try:
        rows = count(Settings(out=out))
    except FileNotFoundError as error:
        print(f"there is no finished run in {out}: {error.filename} is missing", file=sys.stderr)
        return 2
    print(render(rows))
    return status(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
