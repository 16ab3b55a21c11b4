"""Queues, and the way from a task's name to one of them."""

from __future__ import annotations

import re
import sys
import types
import uuid
from typing import Any

import pytest

from celeriac.conf import Settings
from celeriac.exceptions import ImproperlyConfigured, QueueNotFound
from celeriac.routing import (
    Broadcast,
    Exchange,
    Queue,
    Queues,
    Route,
    Router,
    parse_queue_weights,
    topic_matches,
)


def router(**values: Any) -> Router:
    return Router(Settings(values, environ={}))


def queues(**values: Any) -> Queues:
    return Queues(Settings(values, environ={}))


def by_shape(**attributes: Any) -> Any:
    """What a kombu Queue or Exchange looks like from outside."""
    return types.SimpleNamespace(**attributes)


KOMBU_EXCHANGE = by_shape(
    name="media",
    type="topic",
    arguments=None,
    durable=True,
    passive=False,
    auto_delete=False,
    delivery_mode=None,
    no_declare=False,
)
KOMBU_QUEUE = by_shape(
    name="videos",
    exchange=KOMBU_EXCHANGE,
    routing_key="media.#",
    queue_arguments={"x-max-priority": 10},
    binding_arguments=None,
    consumer_arguments=None,
    durable=True,
    exclusive=False,
    auto_delete=False,
    no_ack=False,
    alias=None,
    bindings=set(),
    no_declare=None,
    expires=None,
    message_ttl=None,
    max_length=None,
    max_length_bytes=None,
    max_priority=None,
)


class TestQueue:
    def test_written_as_with_kombu(self) -> None:
        queue = Queue("mail", Exchange("shop", type="direct"), routing_key="mail")
        assert (queue.name, queue.exchange.name, queue.routing_key) == ("mail", "shop", "mail")
        assert queue.durable
        assert not queue.auto_delete
        assert Queue("mail", "shop").exchange == Exchange("shop")  # type: ignore[arg-type]
        assert Queue("mail", None).exchange == Exchange("")  # type: ignore[arg-type]
        assert Queue("mail", KOMBU_EXCHANGE).exchange == Exchange("media", "topic")

    def test_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Queue("mail").name = "other"  # type: ignore[misc]

    def test_of(self) -> None:
        queue = Queue("mail")
        assert Queue.of(queue) is queue
        assert Queue.of("mail") == queue
        assert Queue.of(KOMBU_QUEUE) == Queue(
            "videos", Exchange("media", "topic"), "media.#", {"x-max-priority": 10}
        )
        assert Queue.of(by_shape(name="a", routing_key=None)) == Queue("a")
        assert Queue.of(
            ("mail", {"exchange": "shop", "exchange_type": "topic", "binding_key": "m.*"})
        ) == Queue("mail", Exchange("shop", "topic"), "m.*")
        assert Queue.of(("mail", {})).routing_key == "mail"
        assert Queue.of(("mail", {"exchange": KOMBU_EXCHANGE})).exchange.type == "topic"

    def test_broadcast(self) -> None:
        """kombu gives it a name made up in each process: the alias is what they have in common."""

        kombus = type("Broadcast", (types.SimpleNamespace,), {})
        whole = vars(KOMBU_QUEUE) | {"exchange": by_shape(name="news", type="fanout")}
        whole |= {"auto_delete": True, "alias": "news", "routing_key": ""}
        found = Queue.of(kombus(**whole | {"name": f"bcast.{uuid.uuid4()}"}))
        assert (found.name, found.broadcast, found.exchange.type) == ("news", True, "fanout")
        known = queues(task_queues=["celery", found])
        assert known["news"].broadcast
        mine = known["news"].own("w1.f00")
        assert (mine.name, mine.broadcast, mine.auto_delete) == ("bcast.news.w1.f00", False, False)
        assert (mine.exchange.name, mine.expires) == ("news", 1800.0)

        shared = Queue.of(kombus(**whole | {"name": "ours"}))  # one that the user has named
        assert (shared.name, shared.broadcast) == ("ours", False)
        assert known["celery"].own("w1.f00") is known["celery"]

    def test_our_broadcast(self) -> None:
        assert Broadcast("news").exchange == Exchange("news", "fanout")
        assert Broadcast("news", Exchange("all", "topic"), "n.*").exchange.name == "all"
        assert Broadcast("news", expires=1.0).own("w").expires == 300.0
        found = queues(task_queues=[Broadcast("news")])
        assert found["news"] == Broadcast("news", routing_key="celery")
        route = router(task_queues=[Broadcast("news")]).route({"queue": "news"}, "tasks.t")
        assert (route.queue, route.exchange, route.routing_key) == ("news", "news", "celery")

    def test_what_is_none(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="3 is no queue"):
            Queue.of(3)
        with pytest.raises(ImproperlyConfigured, match=r"'mail'.*colour.*queue_arguments"):
            Queue.of(("mail", {"colour": "red"}))
        with pytest.raises(ImproperlyConfigured, match="no exchange"):
            Exchange.of(3)


class TestQueues:
    def test_only_the_default_one(self) -> None:
        found = queues()
        assert dict(found) == {"celery": Queue("celery", Exchange("celery"), "celery")}
        assert queues(task_default_queue="shop")["shop"].exchange.name == "shop"

    def test_default_exchange_and_key(self) -> None:
        found = queues(
            task_queues=[Queue("a"), Queue("b", Exchange("e"), "k")],
            task_default_exchange="x",
            task_default_exchange_type="topic",
            task_default_routing_key="r",
        )
        assert found["a"] == Queue("a", Exchange("x", "topic"), "r")
        assert found["b"] == Queue("b", Exchange("e"), "k")

    @pytest.mark.parametrize(
        "given",
        [
            ["a", "b"],
            ("a", Queue("b")),
            {"a": {}, "b": {"routing_key": "celery"}},
            {"a": None, "b": Queue("b")},
            [("a", {}), "b"],
        ],
    )
    def test_forms(self, given: Any) -> None:
        assert list(queues(task_queues=given)) == ["a", "b"]

    def test_missing_ones_are_made(self) -> None:
        found = queues()
        assert found["new"] == Queue("new", Exchange("new"), "new")
        assert "new" in found
        assert found.configured == ("celery",)
        assert found.get("other") is None

    def test_missing_ones_are_made_as_asked(self) -> None:
        found = queues(
            task_create_missing_queue_type="quorum",
            task_create_missing_queue_exchange_type="topic",
            task_default_queue_type="quorum",
        )
        assert found["new"].queue_arguments == {"x-queue-type": "quorum"}
        assert found["new"].exchange.type == "topic"
        assert found["celery"].queue_arguments == {"x-queue-type": "quorum"}

    def test_missing_ones_are_refused(self) -> None:
        found = queues(task_queues=["a", "b"], task_create_missing_queues=False)
        with pytest.raises(QueueNotFound, match=r"^The queue 'c' is not among .*a, b"):
            _ = found["c"]

    def test_max_priority(self) -> None:
        own = Queue("own", queue_arguments={"x-max-priority": 3, "x": 1})
        found = queues(task_queue_max_priority=9, task_queues=["a", own])
        assert found["a"].queue_arguments == {"x-max-priority": 9}
        assert found["own"].queue_arguments == {"x-max-priority": 3, "x": 1}
        assert found["new"].queue_arguments == {"x-max-priority": 9}

    def test_alias(self) -> None:
        found = queues(task_queues=[Queue("a", alias="the-a")])
        assert found["the-a"].name == "a"
        assert list(found) == ["a"]

    def test_bound(self) -> None:
        found = queues(
            task_queues=[
                Queue("one", Exchange("e"), "k"),
                Queue("k", Exchange("e"), "k"),
                Queue("news", Exchange("t", "topic"), "news.#"),
                Queue("all", Exchange("f", "fanout")),
            ]
        )
        assert found.bound("", "anything") == "anything"
        assert found.bound("e", "k") == "k"
        assert found.bound("e", "other") is None
        assert found.bound("t", "news.sport") == "news"
        assert found.bound("f", "whatever") == "all"

    @pytest.mark.parametrize(
        ("pattern", "key", "matches"),
        [
            ("a.b", "a.b", True),
            ("a.b", "a.c", False),
            ("a.*", "a.b", True),
            ("a.*", "a", False),
            ("a.*", "a.b.c", False),
            ("a.#", "a", True),
            ("a.#", "a.b.c", True),
            ("#", "", True),
            ("#", "a.b", True),
            ("#.c", "a.b.c", True),
            ("#.c", "a.b", False),
            ("*.#.c", "c", False),
            ("*.#.c", "a.c", True),
            ("a.#.#", "a", True),
        ],
    )
    def test_topics(self, pattern: str, key: str, matches: bool) -> None:
        assert topic_matches(pattern, key) is matches


class TestRoutes:
    def test_the_default_queue(self) -> None:
        assert router().route({}, "t") == Route("celery", "", "celery")
        assert router(task_default_queue="shop").route({}, "t") == Route("shop", "", "shop")

    @pytest.mark.parametrize(
        "routes",
        [
            {"shop.mail": "q"},
            {"shop.mail": {"queue": "q"}},
            {"shop.*": "q"},
            {"*.mail": {"queue": "q"}},
            {re.compile(r"shop\.(mail|print)$"): "q"},
            {"shop.mail": Queue("q")},
            {"shop.mail": by_shape(name="q", routing_key="")},
            [("shop.mail", "q")],
            [("other", "x"), ("shop.*", "q")],
            (("other", "x"), (re.compile("shop"), {"queue": "q"})),
            ([("other", "x"), ("shop.*", "q")],),
            [{"other": "x"}, {"shop.mail": "q"}],
            [{"other": "x"}, ("shop.mail", "q")],
            {"shop.*": "x", "shop.mail": "q"},  # a name before all patterns
            {"shop.m*": "q", "shop.*": "x"},  # patterns in their order
            [{"shop.mail": "q"}, {"shop.mail": "x"}],
        ],
    )
    def test_forms(self, routes: Any) -> None:
        found = router(task_routes=routes)
        assert found.static
        assert found.route({}, "shop.mail").queue == "q"
        assert found.route({}, "elsewhere").queue == "celery"

    def test_a_question_mark_is_no_glob(self) -> None:
        assert router(task_routes={"shop.?": "q"}).route({}, "shop.a").queue == "celery"

    def test_what_else_a_route_says(self) -> None:
        found = router(task_routes={"t": {"queue": "q", "priority": 3, "time_limit": None}})
        assert found.route({}, "t").options == {"priority": 3}
        assert found.route({"priority": None}, "t").options == {"priority": 3}
        assert found.route({"priority": 5}, "t") == Route("q", "", "q")
        assert found.route({"priority": 5, "queue": "x"}, "t") == Route("x", "", "x")
        assert found.route({}, "t").options == {"priority": 3}  # and the kept route is unhurt

    def test_a_route_without_a_queue(self) -> None:
        found = router(task_routes={"t": {"priority": 4}, "u": {}})
        assert found.route({}, "t") == Route("celery", "", "celery", {"priority": 4})
        assert found.route({}, "u").queue == "celery"

    @pytest.mark.parametrize("queue", ["x", Queue("x"), by_shape(name="x", routing_key="")])
    def test_the_queue_of_the_call_wins(self, queue: Any) -> None:
        found = router(task_routes={"t": {"queue": "q", "priority": 3}})
        assert found.route({"queue": queue}, "t") == Route("x", "", "x", {"priority": 3})
        assert found.route({"queue": None}, "t").queue == "q"

    def test_not_found(self) -> None:
        found = router(
            task_queues=["a"],
            task_default_queue="a",
            task_create_missing_queues=False,
            task_routes={"t": "b"},
        )
        assert found.route({}, "u").queue == "a"
        with pytest.raises(QueueNotFound, match="'b'"):
            found.route({}, "t")
        with pytest.raises(QueueNotFound, match="'c'"):
            found.route({"queue": "c"}, "u")

    @pytest.mark.parametrize("routes", [3, [3], {"t": 3}, [[("a", "b", "c")]], ["json:nope"]])
    def test_mistakes(self, routes: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"task_routes|no route"):
            router(task_routes=routes).route({}, "t")

    def test_made_up_names_do_not_fill_the_memory(self) -> None:
        found = router()
        for n in range(10_100):
            found.route({}, f"made.up.{n}")
        assert len(found._known) <= 10_000

    def test_generation(self) -> None:
        conf = Settings(environ={})
        found = Router(conf)
        assert found.generation == conf.generation
        conf.task_routes = {"t": "q"}
        assert found.generation != conf.generation
        assert Router(conf).route({}, "t").queue == "q"


class TestExchanges:
    QUEUES = [
        Queue("a"),
        Queue("b", Exchange("e"), "k"),
        Queue("c", Exchange("t", "topic"), "news.#"),
    ]

    def make(self, **more: Any) -> Router:
        return router(task_queues=self.QUEUES, task_default_queue="a", **more)

    def test_exchange_and_key_find_the_queue_bound_so(self) -> None:
        found = self.make()
        assert found.route({"exchange": "e", "routing_key": "k"}, "t") == Route("b", "e", "k")
        assert found.route({"exchange": "t", "routing_key": "news.x"}, "t") == Route(
            "c", "t", "news.x"
        )
        exchange = Exchange("e")
        assert found.route({"exchange": exchange, "routing_key": "k"}, "t").queue == "b"

    def test_without_such_a_queue_the_key_names_it(self) -> None:
        found = self.make()
        assert found.route({"exchange": "z", "routing_key": "k"}, "t") == Route("k", "z", "k")
        assert found.route({"exchange": "", "routing_key": "k"}, "t") == Route("k", "", "k")

    def test_from_a_route(self) -> None:
        found = self.make(task_routes={"t": {"exchange": "e", "routing_key": "k"}})
        assert found.route({}, "t") == Route("b", "e", "k")
        assert found.route({"queue": "a"}, "t").queue == "a"

    def test_exchange_and_key_of_the_call_win_over_the_queue_of_the_route(self) -> None:
        found = self.make(task_routes={"t": "a"})
        assert found.route({"exchange": "e", "routing_key": "k"}, "t").queue == "b"

    def test_a_direct_queue_is_reached_by_its_name(self) -> None:
        """As in Celery, where a key alone changes nothing for a direct exchange."""
        found = self.make(task_routes={"t": "b"})
        assert found.route({}, "t") == Route("b", "", "b")
        assert found.route({"routing_key": "x"}, "t") == Route("b", "", "b")

    def test_any_other_queue_through_its_exchange(self) -> None:
        found = self.make()
        assert found.route({"queue": "c"}, "t") == Route("c", "t", "news.#")
        assert found.route({"queue": "c", "routing_key": "news.x"}, "t") == Route(
            "c", "t", "news.x"
        )

    def test_an_exchange_alone_finds_a_queue_bound_to_it(self) -> None:
        found = self.make()
        assert found.route({"exchange": "t"}, "t").queue == "c"
        assert found.route({"exchange": "a"}, "t").queue == "a"
        assert found.route({"exchange": "nowhere"}, "t").queue == "a"


class TestFunctions:
    def test_asked_each_time_with_all_there_is(self) -> None:
        asked: list[Any] = []

        def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any):
            asked.append((name, args, kwargs, options, task))
            return {"queue": f"q{args[0]}", "priority": 3}

        found = router(task_routes=(route,))
        assert not found.static
        assert found.route({"expires": 5, "eta": None}, "t", (1,), {"k": 2}, "task") == Route(
            "q1", "", "q1", {"priority": 3}
        )
        assert found.route({}, "t", (2,)).queue == "q2"
        assert asked == [("t", (1,), {"k": 2}, {"expires": 5}, "task"), ("t", (2,), {}, {}, None)]

    def test_none_asks_the_next(self) -> None:
        found = router(task_routes=[lambda *a, **k: None, {"t": "q"}, lambda *a, **k: "last"])
        assert found.route({}, "t").queue == "q"
        assert found.route({}, "u").queue == "last"

    def test_an_answer_of_nothing_is_the_default(self) -> None:
        found = router(task_routes=[lambda *a, **k: {}, {"t": "q"}])
        assert found.route({}, "t").queue == "celery"

    def test_what_it_raises_is_raised(self) -> None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            router(task_routes=broken).route({}, "t")

    def test_an_answer_that_is_none(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="3 is no route"):
            router(task_routes=lambda *a, **k: 3).route({}, "t")

    def test_by_path_and_imported_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Old:
            def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> str:
                return f"old-{task}"

        found = [router(task_routes=path) for path in ("shoproutes.route", "shoproutes:Old")]
        found += [router(task_routes=["shoproutes:instance"]), router(task_routes="shoproutes.d")]
        module = types.ModuleType("shoproutes")
        module.__dict__.update(
            route=lambda name, *args, **kwargs: f"new-{name}",
            Old=Old,
            instance=Old(),
            d={"t": "dict"},
        )
        monkeypatch.setitem(sys.modules, "shoproutes", module)
        answers = [one.route({}, "t").queue for one in found]
        assert answers == ["new-t", "old-t", "old-t", "dict"]
        assert router(task_routes=Old()).route({}, "t").queue == "old-t"


class TestQueuesForWorker:
    def names(self, router: Router, *args: Any) -> list[str]:
        return [queue.name for queue in router.queues_for_worker(*args)]

    def test_the_configured_ones(self) -> None:
        found = router(task_queues=["a", "b"], task_routes={"t": "c"})
        found.route({}, "t")
        assert self.names(found) == ["a", "b"]
        assert self.names(router()) == ["celery"]

    def test_selected_ones_in_order(self) -> None:
        found = router(task_queues=["a", "b"])
        assert self.names(found, ["c", "a", "c"]) == ["c", "a"]

    def test_excluded_ones(self) -> None:
        found = router(task_queues=["a", Queue("b", alias="bb")])
        assert self.names(found, None, ["a", "unknown"]) == ["b"]
        assert self.names(found, ["a", "b", "c"], ["b"]) == ["a", "c"]

    def test_none_left(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="No queue is left"):
            router(task_queues=["a"]).queues_for_worker(None, ["a"])

    def test_unknown_ones(self) -> None:
        found = router(task_queues=["a"], task_create_missing_queues=False)
        with pytest.raises(QueueNotFound, match="'b'"):
            found.queues_for_worker(["b"])


class TestWeights:
    def test_forms(self) -> None:
        assert parse_queue_weights(["a", "b=3"]) == {"a": 1, "b": 3}
        assert parse_queue_weights(["b = 3 ,a,", "a"]) == {"b": 3, "a": 1}
        assert list(parse_queue_weights(["b,a"])) == ["b", "a"]
        assert parse_queue_weights([]) == {}
        assert parse_queue_weights(["{c}=x=2"]) == {"{c}=x": 2}

    @pytest.mark.parametrize("text", ["a=0", "a=-1", "a=x", "=3", "a=", "a=1.5", "a=2,a=3"])
    def test_mistakes(self, text: str) -> None:
        with pytest.raises(ImproperlyConfigured):
            parse_queue_weights([text])
