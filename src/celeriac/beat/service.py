"""What runs a scheduler: as a process of its own (``celeriac beat``), or as a thread of a worker's
agent (``celeriac worker -B``)."""

from __future__ import annotations

import importlib
import logging
import os
import random
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from celeriac import drivers, signals
from celeriac.beat.shared import SharedScheduler
from celeriac.exceptions import ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.beat.scheduler import Scheduler

__all__ = ["EmbeddedService", "Service", "scheduler_class"]

logger = logging.getLogger("celeriac.beat")

ENTRY_POINTS: Final = ("celeriac.beat_schedulers", "celery.beat_schedulers")
_FIRST_PAUSE, _LAST_PAUSE = 0.25, 3.0
_STOPPING = 5.0  # seconds that a thread gets to end


class Bell:
    """Ends a wait, from any thread and from a signal handler: it takes no lock."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.rung = False

    def ring(self) -> None:
        self.rung = True
        try:
            os.write(self._write, b"!")
        except (BlockingIOError, OSError):
            pass  # full, which wakes as well, or closed: nobody waits

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung, or so long. Has it been?"""
        if not self.rung:
            select.select([self._read], [], [], max(0.0, seconds))
        return self.rung

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Service:
    """Runs one scheduler until ``stop``. ``scheduler_cls`` is a class, ``"module:Class"`` or the
    name of an entry point. Errors are logged and stop nothing; while the broker cannot be reached
    it is tried again and again."""

    scheduler_cls: Any = SharedScheduler

    def __init__(
        self,
        app: Celeriac,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.scheduler_cls = scheduler_class(
            scheduler_cls or app.conf.beat_scheduler or self.scheduler_cls
        )
        self._bell = Bell()
        self._scheduler: Scheduler | None = None
        self._pause = _FIRST_PAUSE
        self._down_since: float | None = None
        self._told = self._embedded = False

    def get_scheduler(
        self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers"
    ) -> Scheduler:
        return self.scheduler_cls(  # type: ignore[no-any-return]
            app=self.app,
            schedule_filename=self.schedule_filename,
            max_interval=self.max_interval,
            lazy=lazy,
        )

    @property
    def scheduler(self) -> Scheduler:
        if self._scheduler is None:
            self._scheduler = self.get_scheduler()
        return self._scheduler

    def _tell_begun(self) -> None:
        """Before the first tick: there are schedulers that take a lock when they hear it."""
        if not self._told:
            self._told = True
            signals.beat_init.send(sender=self)
            if self._embedded:
                signals.beat_embedded_init.send(sender=self)

    def start(self, embedded_process: bool = False) -> None:
        """Run until told to stop. Raises ImproperlyConfigured if it cannot begin."""
        self._embedded = embedded_process
        try:
            while not self._bell.rung:
                wait = self._turn()
                if wait > 0:
                    self._bell.wait(wait)
        finally:
            self._close()

    def _turn(self) -> float:
        """One tick; the seconds until the next."""
        try:
            scheduler = self.scheduler
            self._tell_begun()
            wait = scheduler.tick()
            if scheduler.should_sync():
                scheduler._do_sync()
        except ImproperlyConfigured:
            if self._scheduler is None:
                raise
            logger.exception("The scheduler cannot go on, trying again")
            return self._longer()
        except OperationalError as error:
            if self._down_since is None:
                self._down_since = time.monotonic()
                logger.error("Periodic tasks cannot be sent, trying again: %s", error)
            return self._longer()
        except Exception:
            logger.exception("The scheduler failed, trying again")
            return self._longer()
        if self._down_since is not None:
            down = time.monotonic() - self._down_since
            logger.warning("Periodic tasks are sent again after %.1f s", down)
            self._down_since = None
        self._pause = _FIRST_PAUSE
        return wait

    def _longer(self) -> float:
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, _LAST_PAUSE)
        return pause

    def sync(self) -> None:
        if self._scheduler is not None:
            self._scheduler._do_sync()

    def stop(self, wait: bool = False) -> None:
        """End after what is being done now. From any thread, and from a signal handler."""
        self._bell.ring()

    def _close(self) -> None:
        try:
            if self._scheduler is not None:
                self._scheduler.close()
        except OperationalError as error:
            logger.warning("The scheduler could not be closed: %s", error)


class EmbeddedService(threading.Thread):
    """A Service in a thread of its own. ``thread`` is Celery's, where it may be a process."""

    def __init__(
        self,
        app: Celeriac,
        max_interval: float | None = None,
        *,
        thread: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(name="celeriac-beat", daemon=True)
        self.service = Service(app, max_interval=max_interval, **kwargs)

    def run(self) -> None:
        try:
            self.service.start(embedded_process=True)
        except ImproperlyConfigured as error:
            logger.critical("Periodic tasks are not sent: %s", error)
        except Exception:
            logger.critical("The scheduler ended by an error", exc_info=True)

    def stop(self) -> None:
        """Have it end, and wait for it for a while."""
        self.service.stop()
        if self.ident is not None:
            self.join(_STOPPING)

    terminate = stop


def scheduler_class(wanted: Any) -> Any:
    """The class itself, or the one that a text names: an entry point of the group
    ``celeriac.beat_schedulers`` or ``celery.beat_schedulers``, ``"module:Class"`` or
    ``"module.Class"``. Raises ImproperlyConfigured."""
    if not isinstance(wanted, str):
        return wanted
    known: list[str] = []
    for group in ENTRY_POINTS:
        for point in drivers.entry_points(group=group):
            if point.name == wanted:
                return point.load()
            known.append(point.name)
    module, _, name = wanted.replace(":", ".").rpartition(".")
    if module == "celery.beat":  # the names are the same here
        module = "celeriac.beat"
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        installed = f" Installed: {', '.join(sorted(known))}." if known else ""
        raise ImproperlyConfigured(
            f"There is no scheduler {wanted!r} ({error}): write module:Class, or the name of an "
            f"entry point of the group {ENTRY_POINTS[0]}.{installed}"
        ) from error
