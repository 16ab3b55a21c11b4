"""What a worker is told, worked out from settings and command line."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac
from celeriac.exceptions import ImproperlyConfigured
from celeriac.worker.options import WorkerOptions, expand_path, node_name


def make(given: dict[str, Any] | None = None, **conf: Any) -> WorkerOptions:
    app = Celeriac("options", broker="memory://", set_as_current=False, **conf)
    return WorkerOptions.from_conf(app.conf, app="options:app", **(given or {}))


def test_the_defaults() -> None:
    options = make()
    assert options.pool == "processes"
    assert options.concurrency == len(os.sched_getaffinity(0))
    assert options.queues == ["celery"]
    assert options.hostname.startswith("celery@")
    assert options.lease_name.startswith(options.hostname)
    assert (options.lease, options.heartbeat_interval, options.grace) == (15.0, 5.0, 25.0)


def test_the_command_line_wins() -> None:
    options = make(
        {"concurrency": 3, "time_limit": 7.0, "pool": None, "loglevel": "info"},
        worker_concurrency=8,
        task_time_limit=60,
    )
    assert (options.concurrency, options.time_limit, options.loglevel) == (3, 7.0, "INFO")


def test_two_workers_never_share_a_lease() -> None:
    assert make().lease_name != make().lease_name


def test_they_travel_as_json() -> None:
    options = make({"queues": "a,b=3", "hostname": "w1@%h"}, worker_shutdown_grace=None)
    assert msgspec.json.decode(msgspec.json.encode(options), type=WorkerOptions) == options
    assert options.grace is None


def test_queues_and_weights() -> None:
    options = make({"queues": "a, b=3,a"}, worker_queue_weights={"a": 2})
    assert options.queues == ["a", "b"]
    assert options.queue_weights == {"a": 2, "b": 3}
    assert make(task_queues=["x", "y"]).queues == ["x", "y"]
    assert make(task_default_queue="other").queues == ["other"]


@pytest.mark.parametrize("queues", ["", "a=0", "a=b", " , "])
def test_bad_queues_are_refused(queues: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        make({"queues": queues})


def test_celerys_name_for_the_pool() -> None:
    assert make({"pool": "prefork"}).pool == "processes"
    with pytest.raises(ImproperlyConfigured, match="processes, threads, asyncio, solo"):
        make({"pool": "greenlets"})


@pytest.mark.parametrize(
    ("pool", "limit"),
    [
        ("threads", "time_limit"),
        ("threads", "soft_time_limit"),
        ("solo", "time_limit"),
        ("solo", "max_tasks_per_child"),
    ],
)
def test_a_limit_that_a_pool_cannot_keep_is_refused(pool: str, limit: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{limit}.*--pool=processes"):
        make({"pool": pool, limit: 5})
    make({"pool": "processes", limit: 5})


@pytest.mark.parametrize(
    "limit", ["time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child"]
)
def test_a_limit_below_zero_is_refused(limit: str) -> None:
    """Every task would be over it."""
    with pytest.raises(ImproperlyConfigured, match=f"{limit.replace('_', '-')} cannot be -3"):
        make({limit: -3})


def test_solo_runs_one_at_a_time() -> None:
    assert make({"pool": "solo", "concurrency": 4}).concurrency == 1


def test_a_heartbeat_slower_than_the_lease_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="worker_heartbeat_interval"):
        make({"lease": 2.0, "heartbeat_interval": 2.0})


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="prefetch"):
        make({"prefetch": 4})


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (None, "celery@george.example.com"),
        ("worker1", "celery@worker1"),
        ("worker1@%h", "worker1@george.example.com"),
        ("worker1@%n", "worker1@george"),
        ("worker1@%d", "worker1@example.com"),
        ("w%%%i%x@%h", "w%0%x@george.example.com"),
    ],
)
def test_node_names(pattern: str | None, name: str) -> None:
    assert node_name(pattern, "george.example.com") == name


@pytest.mark.parametrize(
    ("pattern", "index", "path"),
    [
        ("%n.log", 0, "w1.log"),
        ("%n%I.log", 0, "w1.log"),
        ("%n%I.log", 3, "w1-3.log"),
        ("%h/%i.log", 3, "george.example.com/3.log"),
        ("%p-%d", 0, "w1@george.example.com-example.com"),
    ],
)
def test_log_paths(pattern: str, index: int, path: str) -> None:
    assert expand_path(pattern, "w1@george.example.com", index) == path
