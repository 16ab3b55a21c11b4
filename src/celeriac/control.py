"""Control: acting on tasks and queues, by Celery's names. Everything here goes through the broker
and holds though no worker may be running; commands that workers answer come later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Control"]


class Control:
    """``app.control``."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **kwargs: Any,
    ) -> None:
        """Cancel one task or several: those that wait will not run; those that run are killed
        with ``terminate``. The broker remembers the ids for ``revoke_expires`` seconds. It holds
        for all workers, so ``destination`` and Celery's options for replies have no meaning."""
        self.app.revoke(task_id, terminate=terminate, signal=signal)

    def terminate(
        self,
        task_id: str | Sequence[str],
        destination: Any = None,
        signal: str = "SIGTERM",
        **kwargs: Any,
    ) -> None:
        """``revoke`` with ``terminate=True``."""
        self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any] | Sequence[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **kwargs: Any,
    ) -> None:
        """Cancel the tasks that carry one of these stamps: see ``app.revoke_stamped``."""
        self.app.revoke_stamped(headers, terminate=terminate, signal=signal)

    def purge(self, connection: Any = None, *, queues: Iterable[str] | None = None) -> int:
        """Remove the waiting and delayed messages of the queues (those that the application's
        workers take from, unless named); how many. What belongs to a workflow is settled as
        REVOKED, so that nobody waits for it."""
        names = list(self.app.queues.configured if queues is None else queues)
        admin = self.app.admin()
        count = 0
        with self.app.operating() as owner:
            for name in names:
                removed = admin.purge(owner, name)
                self.app.settle_removed(removed.parts, "purged")
                count += removed.count + len(removed.parts)
        return count

    discard_all = purge
