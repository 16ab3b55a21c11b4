"""Results are documents that both clients read, wait for and forget (wire-format.md 4.1, 4.2)."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import pytest
from tests.interop.conftest import ACCEPT, Way
from tests.interop.parties import PATIENCE, Scene, until

# --- documents


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    return [_shape(one) for one in value] if isinstance(value, list) else type(value).__name__


def _documents(town: Scene, name: str, *args: Any, **options: Any) -> list[dict[str, Any]]:
    """What Celery's worker and ours store of the same call; what ours adds is taken out."""
    found = []
    for queue in ("old", "new"):
        id = town.client("celery").send(name, *args, queue=queue, **options)
        until(lambda: town.document(id) is not None, "the result")  # noqa: B023
        document = town.document(id)
        document.pop("celeriac", None)
        assert document["task_id"] == id
        found.append(document)
    return found


@pytest.mark.parametrize("call", [("add", 1, 2), ("fail", "plain"), ("fail", "custom")])
def test_our_documents_look_like_celerys(town: Scene, call: tuple[Any, ...]) -> None:
    theirs, ours = _documents(town, *call)
    assert list(ours) == list(theirs)
    assert _shape(ours) == _shape(theirs)
    for name in ("status", "result", "children"):
        assert ours[name] == theirs[name]
    done = datetime.datetime.fromisoformat(ours["date_done"])
    assert abs(done - datetime.datetime.fromisoformat(theirs["date_done"])).total_seconds() < 30
    assert done.utcoffset() == datetime.timedelta(0)


def test_children_parent_and_root(way: Way) -> None:
    id = way.send("spawn", "new" if way.queue == "old" else "old")
    child = way.client.get(id)
    for client in (way.client, way.other):
        told = client.get(child)
        assert told["root_id"] == told["parent_id"] == id
        assert told["side"] != way.side
        assert client("[one.id for one in result_of(id).children]", id=id) == [child]
        collected = "[(one.id, one.state) for one, value in result_of(id).collect()]"
        assert client(collected, id=id) == [(id, "SUCCESS"), (child, "SUCCESS")]
    document = way.town.document(child)
    assert document["parent_id"] == id


def test_every_view_of_a_result(way: Way) -> None:
    good, bad = way.send("add", 1, 2), way.send("fail", "plain")
    way.client.get(good)
    way.client.error(bad)
    look = (
        "(lambda r: [r.ready(), r.successful(), r.failed(), r.state, r.status, r.traceback is None,"
        " r.get(propagate=False) if r.failed() is False else type(r.get(propagate=False)).__name__,"
        " r.date_done.astimezone(datetime.timezone.utc).timestamp()])(result_of(id))"
    )
    for id, wanted in (
        (good, [True, True, False, "SUCCESS", "SUCCESS", True, 3]),
        (bad, [True, False, True, "FAILURE", "FAILURE", False, "ValueError"]),
    ):
        seen = [client(look, id=id) for client in (way.client, way.other)]
        assert seen[0] == seen[1]
        assert seen[0][:-1] == wanted
        assert abs(seen[0][-1] - time.time()) < 60


# --- waiting and forgetting


def test_waiting_for_a_result_is_by_subscription(way: Way) -> None:
    """Each client waits before the task ends, and hears of it at once."""
    marker = way.town.file()
    key = str(uuid.uuid4())
    id = way.send("hold", key, str(marker))
    way.town.until_noted(1, "start", key)
    channel = f"celery-task-meta-{id}"
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(client.get, id) for client in (way.client, way.other)]
        count = "PUBSUB NUMSUB".split()
        until(lambda: way.town.wire(*count, channel)[1] >= 2, "both to have subscribed")
        marker.touch()
        assert [wait.result(PATIENCE) for wait in waits] == [key, key]


def test_a_wait_that_ends_too_early(way: Way) -> None:
    marker = way.town.file()
    id = way.send("hold", "waited", str(marker))
    for client in (way.client, way.other):
        assert client.error(id, timeout=0.3).name == "TimeoutError"
    marker.touch()
    assert way.client.get(id) == way.other.get(id) == "waited"


def test_forgetting(way: Way) -> None:
    for forgetful, other in ((way.client, way.other), (way.other, way.client)):
        id = way.send("add", 1, 2)
        assert other.get(id) == 3
        forgetful("result_of(id).forget()", id=id)
        assert way.town.document(id) is None
        assert way.town.wire("KEYS", f"*{id}*") == []
        assert other.state(id) == "PENDING"


def test_results_of_many(way: Way) -> None:
    ids = [way.send("add", number, 1) for number in range(50)]
    get = "[one.get(timeout=20) for one in map(result_of, ids)]"
    for client in (way.client, way.other):
        assert client(get, ids=ids) == [number + 1 for number in range(50)]


def test_a_success_is_final(town: Scene) -> None:
    """Whoever stores it, and whoever would store something else."""
    store = {
        "celery": "app.backend.store_result(id, value, state)",
        "celeriac": "add.update_state(task_id=id, state=state, meta=value)",
    }
    for first, then in (("celery", "celeriac"), ("celeriac", "celery")):
        id = town.client(first).send("add", 1, 2, queue="old" if first == "celery" else "new")
        assert town.client(then).get(id) == 3
        town.client(then)(store[then], id=id, value={"n": 1}, state="PROGRESS")
        assert [town.client(side).get(id) for side in (first, then)] == [3, 3]


def test_a_retried_task_replaces_a_failure(town: Scene) -> None:
    """The same id sent again after it has failed: the new outcome counts, on either side."""
    for first, then in (("old", "new"), ("new", "old")):
        client = town.client("celery")
        id = client.send("fail", "plain", queue=first)
        assert client.error(id).name == "ValueError"
        client.send("add", 1, 2, queue=then, task_id=id)
        until(lambda: town.client("celeriac").state(id) == "SUCCESS", "success")  # noqa: B023
        assert town.new_client("celery").get(id) == 3


def test_saved_groups(way: Way) -> None:
    make = (
        "(lambda r: (r.save() and r.id, [one.id for one in r.results]))"
        "(group(add.s(n, 1).set(queue=queue) for n in range(3)).apply_async())"
    )
    gid, ids = way.client(make, queue=way.queue)
    for client in (way.client, way.other):
        restore = "app.GroupResult.restore(gid).get(timeout=20)"
        assert client(restore, gid=gid) == [1, 2, 3]
        names = "[one.id for one in app.GroupResult.restore(gid).results]"
        assert client(names, gid=gid) == ids
    way.other("app.GroupResult.restore(gid).delete()", gid=gid)
    assert way.client("app.GroupResult.restore(gid)", gid=gid) is None


# --- other settings


def test_extended_results_prefixes_and_lifetimes(scene: Callable[..., Scene]) -> None:
    town = scene(
        result_extended=True,
        result_expires=100,
        broker_transport_options={"global_keyprefix": "shop:"},
        result_backend_transport_options={"global_keyprefix": "kept"},
    )
    workers = [
        town.start(side, "-P", "solo", "-Q", queue, "-n", f"{queue}@%h")
        for side, queue in (("celery", "old"), ("celeriac", "new"))
    ]
    town.client("celery"), town.client("celeriac")
    town.wait_ready(*workers)
    documents = []
    for sender in ("celery", "celeriac"):
        for queue in ("old", "new"):
            client = town.client(sender)
            id = client.send("add", 1, 2, queue=queue)
            look = (
                "(lambda r: [r.name, list(r.args), r.kwargs, r.worker.partition('@')[0], r.retries,"
                " r.queue])(result_of(id))"
            )
            for reader in ("celery", "celeriac"):
                assert town.client(reader).get(id) == 3
                told = town.client(reader)(look, id=id)
                assert told == ["shop.add", [1, 2], {}, queue, 0, queue]
            key = f"kept_celery-task-meta-{id}"
            assert 0 < town.wire("TTL", key) <= 100
            document = json.loads(town.wire("GET", key))
            document.pop("celeriac", None)
            documents.append(document)
            bad = client.send("fail", "custom", queue=queue)
            assert town.client("celery").error(bad).name == "OutOfStock"
            assert town.client("celeriac").error(bad).name == "OutOfStock"
            insist = client.send("insist", 1, ["old" if queue == "new" else "new"], queue=queue)
            assert client.get(insist)[1:3] == [insist, 1]
            chain_ = "chain(add.s(1, 2).set(queue='old'), add.s(3).set(queue='new')).delay().id"
            assert client.get(client(chain_)) == 6
            for part in ("old", "new"):
                assert town.wire("EXISTS", part) == 0
    assert all(list(document) == list(documents[0]) for document in documents)
    assert all(_shape(document) == _shape(documents[0]) for document in documents)
    strangers = [
        key
        for key in town.wire("KEYS", "*")
        if not key.startswith((b"shop:", b"kept_", b"celeriac:", b"unacked"))
    ]
    assert strangers == []


RESULTS = [
    ("pickle", None),
    ("msgpack", None),
    ("yaml", None),
    ("json", "gzip"),
    ("pickle", "bzip2"),
    ("msgpack", "zstd"),
]


@pytest.mark.parametrize(("serializer", "compression"), RESULTS)
def test_result_serializers_and_compression(
    town: Scene, serializer: str, compression: str | None
) -> None:
    """Stored by one client in place, read by the other."""
    conf = {
        "result_serializer": serializer,
        "result_compression": compression,
        "result_accept_content": ACCEPT,
        "task_store_eager_result": True,
    }
    label = f"{serializer} {compression}"
    clients = [town.new_client(side, f"{side} {label}", **conf) for side in ("celery", "celeriac")]
    for writer in clients:
        for name, args, wanted in (
            ("kinds", (1, "x"), ["int", "str"]),
            ("echo", ("x" * 5000,), {"args": ["x" * 5000], "kwargs": {}, "kinds": ["str"]}),
        ):
            id = str(writer(f"{name}.apply(args).id", args=args))
            assert [reader.get(id) for reader in clients] == [wanted, wanted]
            assert [reader.state(id) for reader in clients] == ["SUCCESS", "SUCCESS"]
        bad = str(writer("fail.apply(('custom',)).id"))
        for reader in clients:
            error = reader.error(bad)
            assert (error.name, error.raised_args) == ("OutOfStock", ["tea", 3])
    for client in clients:
        client.end()


def test_a_worker_with_pickled_and_compressed_results(scene: Callable[..., Scene]) -> None:
    """The fences hold for values that are no JSON documents, too."""
    town = scene(
        accept_content=ACCEPT,
        result_accept_content=ACCEPT,
        task_serializer="pickle",
        result_serializer="pickle",
        result_compression="gzip",
        result_extended=True,
    )
    workers = [
        town.start(side, "-P", "solo", "-Q", queue)
        for side, queue in (("celery", "old"), ("celeriac", "new"))
    ]
    town.client("celery"), town.client("celeriac")
    town.wait_ready(*workers)
    for sender in ("celery", "celeriac"):
        for queue in ("old", "new"):
            id = town.client(sender).send("add", [b"\xff"], [(1, 2)], queue=queue)
            for reader in ("celery", "celeriac"):
                assert town.client(reader).get(id) == [b"\xff", (1, 2)]
            there = "old" if queue == "new" else "new"
            insist = town.client(sender).send("insist", 1, [there], queue=queue)
            assert town.client(sender).get(insist)[1:3] == [insist, 1]
            bad = town.client(sender).send("fail", "custom", queue=queue)
            for reader in ("celery", "celeriac"):
                assert town.client(reader).error(bad).name == "OutOfStock"
            total = (
                "chord([add.s(n, 1).set(queue=queue) for n in range(3)],"
                " total.s().set(queue=queue)).delay().id"
            )  # of all on one side: Celery counts parts in with the serializer of the results
            assert town.client(sender).get(town.client(sender)(total, queue=queue)) == 6


def test_databases_of_their_own(scene: Callable[..., Scene]) -> None:
    """Broker and results in two databases of one server; times to live without an end."""
    town = scene(result_expires=0)
    split = town.url.rpartition("/")[0] + "/15"
    workers = [
        town.start(side, "-P", "solo", "-Q", queue, result_backend=split)
        for side, queue in (("celery", "old"), ("celeriac", "new"))
    ]
    clients = [town.new_client(side, result_backend=split) for side in ("celery", "celeriac")]
    town.wait_ready(*workers)
    for sender in clients:
        for queue in ("old", "new"):
            id = sender.send("add", 1, 2, queue=queue)
            assert [reader.get(id) for reader in clients] == [3, 3]
            assert town.wire("EXISTS", f"celery-task-meta-{id}") == 0


def test_dates_are_in_utc(town: Scene) -> None:
    before = datetime.datetime.now(UTC)
    for side, queue in (("celery", "new"), ("celeriac", "old")):
        id = town.client(side).send("add", 1, 2, queue=queue)
        town.client(side).get(id)
        for reader in ("celery", "celeriac"):
            done = town.client(reader)("result_of(id).date_done", id=id)
            assert before <= done <= datetime.datetime.now(UTC)
