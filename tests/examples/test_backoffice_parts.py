"""The back office's data, servers, record and count, each alone and without a worker."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import smtplib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from examples.backoffice import count, data, pictures, report
from examples.backoffice.__main__ import missing, parse
from examples.backoffice.attempts import Attempts, Event, write
from examples.backoffice.files import append, replacing
from examples.backoffice.kills import Killer
from examples.backoffice.mail import compose, message_id
from examples.backoffice.mail_server import HOST, MailServer
from examples.backoffice.progress import Progress
from examples.backoffice.settings import Settings
from examples.backoffice.shop_api import ShopApi
from examples.backoffice.shop_client import ShopBusy, post_order
from PIL import Image

SEND = ("send_invoice",)


# --- input


def test_the_kept_recipients_are_what_the_generator_makes() -> None:
    assert data.read_recipients() == data.make_recipients()


def test_recipients_are_500_and_nobody_real() -> None:
    recipients = data.read_recipients()
    assert len({recipient.email for recipient in recipients}) == 500
    assert len({message_id(recipient) for recipient in recipients}) == 500
    assert all(recipient.email.endswith(".example") for recipient in recipients)


def test_a_mail_is_personal() -> None:
    recipient = data.read_recipients()[7]
    message = compose(recipient)
    text = message.get_content()
    assert recipient.email in message["To"]
    assert recipient.name.split()[0] in text
    assert recipient.amount in text
    assert "{" not in text


def test_sales_and_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        data.write_sales(tmp_path / name, rows_a_month=50)
        pictures.write_pictures(tmp_path / name, 4)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 16


def test_pictures_vary(tmp_path: Path) -> None:
    sizes = set()
    for path in pictures.write_pictures(tmp_path, 12):
        with Image.open(path) as picture:
            sizes.add(picture.size)
            assert len(picture.getcolors(1 << 24) or []) > 2
    assert len(sizes) > 2


# --- files


def test_a_failed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as draft:
            draft.write_text("half of the ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    threads = [
        threading.Thread(target=lambda c=c: [append(path, c * 500) for _ in range(50)])
        for c in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    lines = path.read_text().splitlines()
    assert len(lines) == 200
    assert {len(set(line)) for line in lines} == {1}


# --- servers


def test_the_mail_server_keeps_what_it_accepts(tmp_path: Path) -> None:
    recipients = data.read_recipients()[:5]
    settings = Settings(out=tmp_path)
    with (
        MailServer(settings.inbox, busy_share=0.0, pause=0.0) as server,
        smtplib.SMTP(HOST, server.port, timeout=10) as client,
    ):
        for recipient in [*recipients, recipients[0]]:
            client.send_message(compose(recipient))
    repeats = {message_id(recipients[0]): 2}
    assert count.mails(settings) == {message_id(row): 1 for row in recipients} | repeats


def test_a_busy_mail_server_raises_what_the_task_retries(tmp_path: Path) -> None:
    kinds = set()
    with MailServer(tmp_path, busy_share=1.0) as server:
        for _ in range(20):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - two kinds, both looked at below
                smtplib.SMTP(HOST, server.port, timeout=10)
            kinds.add(caught.type)
        assert server.refused == 20
    assert smtplib.SMTPConnectError in kinds
    assert kinds <= {
        smtplib.SMTPConnectError,
        smtplib.SMTPServerDisconnected,
        ConnectionResetError,
    }
    assert list(tmp_path.iterdir()) == []


def test_a_sender_that_vanishes_leaves_the_mail_server_working(tmp_path: Path) -> None:
    recipient = data.read_recipients()[0]
    with MailServer(tmp_path, busy_share=0.0, pause=0.0) as server:
        client = smtplib.SMTP(HOST, server.port, timeout=10)
        client.ehlo()
        client.docmd("MAIL", "FROM:<a@b.example>")
        client.close()
        with smtplib.SMTP(HOST, server.port, timeout=10) as client:
            client.send_message(compose(recipient))
    assert len(list(tmp_path.glob("*.eml"))) == 1


def test_the_shop_books_an_order_once_but_notes_every_call(tmp_path: Path) -> None:
    order = data.make_orders(1)[0]
    settings = Settings(out=tmp_path)
    with ShopApi(settings.orders, busy_share=0.0, delays=(0.0, 0.0)) as shop:
        assert post_order(shop.url, order)["status"] == "Created"
        assert post_order(shop.url, order)["status"] == "OK"
    assert count.orders(settings) == {order.id: 2}


def test_the_shop_is_as_flaky_each_time(tmp_path: Path) -> None:
    orders = data.make_orders(100)
    refusals = []
    for _ in range(2):
        with ShopApi(tmp_path / "book", delays=(0.0, 0.0)) as shop:
            refused = set()
            for order in orders:
                try:
                    post_order(shop.url, order)
                except ShopBusy:
                    refused.add(order.id)
            refusals.append(refused)
            assert shop.refused == len(refused)
    assert refusals[0] == refusals[1]
    assert 5 <= len(refusals[0]) <= 30


def test_a_shop_that_is_gone_is_a_connection_error(tmp_path: Path) -> None:
    with ShopApi(tmp_path / "book") as shop:
        url = shop.url
    with pytest.raises(ConnectionError, match="cannot be reached"):
        post_order(url, data.make_orders(1)[0], timeout=5)


# --- the record of attempts


def event(what: str, **values: object) -> Event:
    defaults = {"task": "send_invoice", "id": "a", "retries": 0, "pid": 1, "at": 0.0}
    return Event(what=what, **{**defaults, **values})  # type: ignore[arg-type]


def record(path: Path, *events: Event) -> Attempts:
    for one in events:
        write(path, one)
    attempts = Attempts(path)
    attempts.update()
    return attempts


def test_a_retry_is_no_redelivery(tmp_path: Path) -> None:
    attempts = record(
        tmp_path / "log",
        event("begin"),
        event("end", state="RETRY"),
        event("begin", retries=1),
        event("end", retries=1, state="SUCCESS"),
    )
    assert attempts.retried(SEND) == 1
    assert attempts.repeated(SEND) == []
    assert attempts.succeeded(SEND) == 1
    assert attempts.running == {}


def test_a_second_begin_of_the_same_try_is_a_redelivery(tmp_path: Path) -> None:
    again = event("begin", pid=2, redelivered=True)
    attempts = record(tmp_path / "log", event("begin"), again)
    assert attempts.retried(SEND) == 0
    assert attempts.repeated(SEND) == [again]
    assert attempts.repeated(("place_order",)) == []
    assert set(attempts.running) == {1, 2}


def test_a_line_that_is_not_whole_yet_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    attempts = record(path, event("begin"))
    line = json.dumps(dataclasses.asdict(event("end", state="SUCCESS"))) + "\n"
    with path.open("a") as file:
        file.write(line[:20])
        file.flush()
        attempts.update()
        assert attempts.succeeded(SEND) == 0
        file.write(line[20:])
    attempts.update()
    assert attempts.succeeded(SEND) == 1


def test_no_record_yet_is_no_error(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "log")
    attempts.update()
    assert attempts.last(SEND) is None


# --- the killer


@pytest.fixture
def sleeper():
    """A process with a child, as a worker has runners."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, child], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


def test_the_killer_kills_a_busy_runner(tmp_path: Path, sleeper) -> None:
    worker, runner = sleeper
    attempts = record(tmp_path / "log", event("begin", pid=runner))
    told: list[str] = []
    killer = Killer(Attempts(attempts.path), worker=worker.pid, after=[1, 1], notify=told.append)
    killer.start()
    assert worker.wait(10) == 0  # its child is gone
    killer.stop()
    assert [kill.pid for kill in killer.killed] == [runner]
    assert told == [f"killed runner {runner} with SIGKILL while it ran send_invoice"]


def test_the_killer_spares_the_idle_and_the_foreign(tmp_path: Path, sleeper) -> None:
    worker, runner = sleeper
    idle = [event("begin", pid=runner), event("end", pid=runner, state="SUCCESS")]
    attempts = record(tmp_path / "log", *idle, event("begin", pid=os.getpid(), id="b"))
    killer = Killer(Attempts(attempts.path), worker=worker.pid, after=[1], notify=print)
    killer.start()
    time.sleep(0.1)  # it looks every 2 ms: time enough to do wrong
    killer.stop()
    assert killer.killed == []
    assert worker.poll() is None


# --- the count


@pytest.fixture
def finished(tmp_path: Path) -> Settings:
    """A run in which everything arrived, without a queue."""
    settings = Settings(out=tmp_path)
    recipients = data.read_recipients()[:4]
    settings.inbox.mkdir()
    for number, recipient in enumerate(recipients):
        (settings.inbox / f"{number}.eml").write_bytes(compose(recipient).as_bytes())
    settings.thumbnails.mkdir()
    paths = pictures.write_pictures(settings.pictures, 4)
    for path in paths:
        with Image.open(path) as picture:
            picture.thumbnail((256, 256))
            picture.save(settings.thumbnails / path.name)
    months = data.write_sales(settings.sales, rows_a_month=100)
    report.write_year([report.month_totals(month) for month in months], settings.report)
    orders = data.make_orders(3)
    for order in orders:
        append(settings.orders, json.dumps({"id": order.id, "status": 201}))
    keys = {
        "mail": [message_id(recipient) for recipient in recipients],
        "thumbnails": [path.name for path in paths],
        "sales": [*(path.stem for path in months), count.REPORT],
        "orders": [order.id for order in orders],
    }
    count.write_sent(settings.sent, keys, time.time())
    return settings


def lost(settings: Settings) -> dict[str, int]:
    rows = count.count(settings)
    assert all(row.sent == row.done + row.lost for row in rows)
    assert (count.status(rows) == 0) is (not any(row.lost for row in rows))
    return {row.kind: row.lost for row in rows if row.lost}


def test_a_whole_run_has_lost_nothing(finished: Settings, capsys) -> None:
    assert lost(finished) == {}
    assert count.main([str(finished.out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "kind", "sent", "done", "retried", "redelivered", "lost", "seconds",
    ]  # fmt: skip
    assert lines[1].split()[:6] == ["mail", "4", "4", "0", "0", "0"]
    assert lines[-1].split()[:6] == ["all", "24", "24", "0", "0", "0"]


def test_a_deleted_mail_is_lost(finished: Settings, capsys) -> None:
    (finished.inbox / "2.eml").unlink()
    assert lost(finished) == {"mail": 1}
    assert count.main([str(finished.out)]) == 1
    assert "lost of mail: <invoice-2025-0003@" in capsys.readouterr().out


def test_a_mail_to_the_wrong_one_is_lost(finished: Settings) -> None:
    path = finished.inbox / "2.eml"
    third, fourth = data.read_recipients()[2:4]
    path.write_text(path.read_text().replace(third.email, fourth.email))
    assert lost(finished) == {"mail": 1}


def test_half_a_thumbnail_is_lost(finished: Settings) -> None:
    for path in finished.thumbnails.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert lost(finished) == {"thumbnails": 4}


def test_a_copy_is_no_thumbnail(finished: Settings) -> None:
    path = next(finished.thumbnails.iterdir())
    shutil.copy(finished.pictures / path.name, path)
    assert lost(finished) == {"thumbnails": 1}


def test_a_wrong_month_is_lost(finished: Settings) -> None:
    path = finished.report / "sales.csv"
    rows = list(csv.reader(io.StringIO(path.read_text())))
    rows[3][2] = "1.00"
    del rows[5]
    path.write_text("\n".join(",".join(row) for row in rows))
    assert lost(finished) == {"sales": 2}


def test_no_report_is_all_of_the_sales(finished: Settings) -> None:
    shutil.rmtree(finished.report)
    assert lost(finished) == {"sales": 13}


def test_an_order_that_was_not_booked_is_lost(finished: Settings) -> None:
    finished.orders.write_text(finished.orders.read_text().splitlines()[0] + "\n")
    assert lost(finished) == {"orders": 2}


def test_what_arrived_twice_is_said_and_no_loss(finished: Settings) -> None:
    shutil.copy(finished.inbox / "2.eml", finished.inbox / "99.eml")
    write(finished.attempts, event("begin", at=time.time()))
    write(finished.attempts, event("begin", pid=2, at=time.time() + 2))
    rows = count.count(finished)
    assert count.status(rows) == 0
    assert (rows[0].done, rows[0].twice, rows[0].redelivered) == (4, 1, 1)
    assert rows[0].seconds > 1
    assert "arrived twice: 1 of mail (" in count.render(rows)


def test_a_folder_without_a_run_is_said(tmp_path: Path, capsys) -> None:
    assert count.main([str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_nothing_sent_is_not_success() -> None:
    assert count.status([]) == 1


# --- the report, the progress, the arguments


def test_the_report_is_for_people(finished: Settings) -> None:
    text = (finished.report / "sales.md").read_text()
    assert "best month 2025-" in text
    assert "| office chair " in text
    assert text.count("| 2025-") == 12


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_without_a_terminal(tmp_path: Path) -> None:
    attempts = record(tmp_path / "log", event("begin"), event("end", state="SUCCESS"))
    stream = io.StringIO()
    progress = Progress(attempts, {"mail": 4, "orders": 2}, stream)
    progress.show()
    progress.show()  # too soon
    progress.note("killed somebody")
    progress.show()
    lines = [line.split("s  ", 1)[1] for line in stream.getvalue().splitlines()]
    now = "mail 1/4, orders 0/2, 0 retried"
    assert lines == [now, "killed somebody", now]


def test_progress_draws_over_itself_on_a_terminal(tmp_path: Path) -> None:
    attempts = record(tmp_path / "log", event("begin"), event("end", state="SUCCESS"))
    stream = Terminal()
    progress = Progress(attempts, {"mail": 4, "orders": 2}, stream)
    progress.show(now=True)
    progress.show(now=True)
    assert stream.getvalue().count("\x1b[2A") == 1
    assert "█" * 8 + "░" * 24 in stream.getvalue()


def test_settings_travel_through_the_environment(tmp_path: Path) -> None:
    settings = Settings(out=tmp_path, smtp_port=1, shop_url="http://x", queue="q")
    assert Settings.from_environ(settings.environ()) == settings


def test_all_that_the_demo_needs_is_here_and_what_is_not_is_named(monkeypatch) -> None:
    assert missing() == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "PIL" else name)
    assert missing() == ["pillow"]


def test_a_scale_of_nothing_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(["--scale", "0"])
    assert "not more than 0" in capsys.readouterr().err
