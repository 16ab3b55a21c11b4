"""``pydantic=True``."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest
from core_stage import Stage

from celeriac import Celeriac
from celeriac.exceptions import MissingDependency
from celeriac.validation import validated

pydantic = pytest.importorskip("pydantic")


class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    number: int
    when: Any = None


class Receipt(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    order: Order
    total: Decimal = Decimal("1.50")


def test_dictionaries_become_models_and_models_dictionaries(app: Celeriac, stage: Stage) -> None:
    seen: list[Any] = []

    @app.task(pydantic=True)
    def job(
        order: Order,
        plain: int,
        maybe: Order | None = None,
        other: Order | None = None,
    ) -> Receipt:
        seen.append((order, plain, maybe, other))
        return Receipt(order=order)

    result = job.delay({"number": "5"}, 7, other={"number": 6})  # type: ignore[arg-type]
    stage.one()
    assert seen == [(Order(number=5), 7, None, Order(number=6))]
    assert result.get(timeout=1) == {"order": {"number": 5, "when": None}, "total": "1.50"}
    assert job(Order(number=1), 2) == {"order": {"number": 1, "when": None}, "total": "1.50"}
    assert job.__name__ == "job"


def test_bound_tasks_and_coroutines(app: Celeriac, stage: Stage) -> None:
    @app.task(pydantic=True, bind=True)
    async def job(self: Any, order: Order) -> Any:
        return Order(number=order.number + self.request.retries + 1)

    result = job.delay({"number": 5})
    stage.one()
    assert job.is_async is True
    assert result.get(timeout=1) == {"number": 6, "when": None}


def test_what_does_not_fit_fails_the_task(app: Celeriac, stage: Stage) -> None:
    @app.task(pydantic=True)
    def job(order: Order) -> None:
        raise AssertionError("it must not run")

    result = job.delay({"number": "five"})  # type: ignore[arg-type]
    stage.one()
    assert result.state == "FAILURE"
    with pytest.raises(pydantic.ValidationError):
        job.apply(({"number": "five"},)).get()
    with pytest.raises(TypeError):
        job.delay()  # type: ignore[call-arg]


def test_strict_context_and_dump_options() -> None:
    contexts: list[Any] = []

    class Watched(Order):
        @pydantic.field_validator("number", mode="before")
        @classmethod
        def watch(cls, value: Any, info: Any) -> Any:
            contexts.append(info.context)
            return value

    def job(order: Any) -> Any:
        return order

    job.__annotations__ = {"order": Watched, "return": Any}
    lax = validated(job, bind=False, options={"pydantic_context": {"tenant": 1}})
    assert lax({"number": "5"}) == {"number": 5, "when": None}
    assert contexts == [{"tenant": 1}]
    strict = validated(job, bind=False, options={"pydantic_strict": True})
    with pytest.raises(pydantic.ValidationError):
        strict({"number": "5"})
    dumping = validated(
        job, bind=False, options={"pydantic_dump_kwargs": {"exclude_none": True, "mode": "python"}}
    )
    assert dumping({"number": 5}) == {"number": 5}


def test_all_kinds_of_parameters() -> None:
    def job(first: Order, /, *rest: Order, key: Order, **more: Order) -> Any:
        return [first.number, [o.number for o in rest], key.number, sorted(more)]

    call = validated(job, bind=False, options={})
    n = {"number": 1}
    assert call(n, n, n, key=n, a=n, b=n) == [1, [1, 1], 1, ["a", "b"]]


def test_without_pydantic(monkeypatch: pytest.MonkeyPatch, app: Celeriac) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingDependency, match=r"celeriac\[pydantic\]"):
        app.task(pydantic=True)(lambda: None)
