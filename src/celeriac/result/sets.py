"""Several results, asked together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from celeriac import states
from celeriac.exceptions import TimeoutError
from celeriac.result.async_result import SLOW_POLL, AsyncResult
from celeriac.result.blocking import assert_will_not_block
from celeriac.result.ending import note_end, when_all_ended
from celeriac.result.trees import leaves, refresh, revoke, value_of

if TYPE_CHECKING:
    from celeriac.app import Celeriac


class ResultSet:
    """Several results, asked together."""

    def __init__(
        self, results: Iterable[AsyncResult[Any]], app: Celeriac | None = None, **kwargs: Any
    ) -> None:
        self.results: list[AsyncResult[Any]] = list(results)
        self._app = app

    @property
    def app(self) -> Celeriac:
        if self._app is None:
            self._app = self.results[0].app if self.results else None
        if self._app is None:
            from celeriac.app import get_current_app

            self._app = get_current_app()
        return self._app

    @property
    def backend(self) -> Any:
        """Where results are stored; None without a result backend."""
        return self.app.backend

    @property
    def supports_native_join(self) -> bool:
        return True

    @property
    def _members(self) -> list[AsyncResult[Any]]:
        return self.results

    def add(self, result: AsyncResult[Any]) -> None:
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: AsyncResult[Any] | str) -> None:
        """Raises KeyError if it is not among them."""
        try:
            self.results.remove(cast("AsyncResult[Any]", result))
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: AsyncResult[Any] | str) -> None:
        if result in self.results:
            self.remove(result)

    def update(self, results: Iterable[AsyncResult[Any]]) -> None:
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results.clear()

    def _refresh(self) -> list[AsyncResult[Any]]:
        """Read all that have not ended, in one round trip; those of groups inside too."""
        found = leaves(self.results)
        if any(one._meta is None and not one.ignored for one in found):
            refresh(found, self.app)
        return found

    def _states(self) -> list[str | None]:
        found = self._refresh()
        return [None if one._meta is None else one._meta["status"] for one in found]

    def ready(self) -> bool:
        """Have all ended? Those without results are not waited for."""
        return all(one._meta is not None or one.ignored for one in self._refresh())

    def waiting(self) -> bool:
        return not self.ready()

    def successful(self) -> bool:
        return all(
            one._meta["status"] == states.SUCCESS if one._meta is not None else one.ignored
            for one in self._refresh()
        )

    def failed(self) -> bool:
        return any(state == states.FAILURE for state in self._states())

    def completed_count(self) -> int:
        """How many succeeded."""
        return sum(state == states.SUCCESS for state in self._states())

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        self._refresh()
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def iterate(
        self, timeout: float | None = None, propagate: bool = True
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """``(result, value)`` as they end. Raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pending: dict[str, list[AsyncResult[Any]]] = {}
        for result in leaves(self.results):
            if result._meta is None and not result.ignored:
                pending.setdefault(result.id, []).append(result)
            else:
                yield result, result._conclude(propagate)
        app = self.app
        while pending:
            left = SLOW_POLL if deadline is None else deadline - time.monotonic()
            found = app.results_or_raise().wait(list(pending), max(0.0, min(SLOW_POLL, left)))
            for record in found:
                meta = app.records.read(record)
                for result in pending.pop(record.id, ()):
                    note_end(result, meta)
                    yield result, result._conclude(propagate)
            if pending and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{len(pending)} of the tasks did not end within {timeout} s.")

    def then(
        self,
        callback: Callable[[Any], object],
        on_error: Callable[[Any], object] | None = None,
        weak: bool = False,
    ) -> None:
        """Call ``callback(self)`` once it is known here that all have ended: see
        ``AsyncResult.then``."""
        when_all_ended(self, self._refresh(), callback, on_error)

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,
        on_message: Any = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> list[Any]:
        """Wait for all; their values in order, None for an ignored one. Raises the first error
        that comes."""
        if disable_sync_subtasks:
            assert_will_not_block()
        for result, _ in self.iterate(timeout, propagate=False):
            if propagate:
                result._conclude(True)
            if on_interval is not None:
                on_interval()
        values = [value_of(result, propagate) for result in self.results]
        if callback is None:
            return values
        for result, value in zip(self.results, values, strict=True):
            callback(result.id, value)
        return []

    get = join_native = join

    def iter_native(self, timeout: float | None = None, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """``(id, document)`` as they end."""
        for result, _ in self.iterate(timeout, propagate=False):
            yield result.id, result._meta

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """``get`` for coroutines."""
        assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        for one in self._refresh():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            await one.aget(left, propagate)
        return [value_of(result, propagate) for result in self.results]

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def revoke(self, connection: Any = None, terminate: bool = False, **kwargs: Any) -> None:
        """Cancel every task that has not ended."""
        revoke([self], self.app, terminate, kwargs.get("signal"))

    def forget(self) -> None:
        for result in leaves(self.results):
            result._meta = None
        self.app.results_or_raise().delete([result.id for result in leaves(self.results)])

    @property
    def children(self) -> list[AsyncResult[Any]]:
        return self.results

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any]:
        return self.results[index]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(result.id for result in self.results)}]>"
