"""An application as far as its settings go."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any

from celeriac import signals
from celeriac.app import stores
from celeriac.conf import Settings
from celeriac.exceptions import ImproperlyConfigured
from celeriac.records import Records
from celeriac.retry import RetryPolicy
from celeriac.routing import Queues, Router
from celeriac.sending import zone_of


class ConfiguredApp:
    """The settings, and what is worked out of them alone."""

    on_configure: Any = None  # a signal, unless a subclass has a method of this name

    def __init__(
        self,
        *,
        broker: str | None,
        backend: str | None,
        include: Iterable[str] | None,
        config_source: Any,
        namespace: str | None,
        settings: Mapping[str, Any],
    ) -> None:
        if self.on_configure is None:
            self.on_configure = signals.Signal("on_configure")
        self.on_after_configure = signals.Signal("on_after_configure", {"source"})
        self._conf: Settings | None = None
        self._config_source = (config_source, namespace, False) if config_source else None
        self._preconf = dict(settings)
        if broker is not None:
            self._preconf["broker_url"] = broker
        if backend is not None:
            self._preconf["result_backend"] = backend
        if include is not None:
            self._preconf["include"] = list(include)
        # Of all that is made once: the settings, the registry of tasks, the producer.
        self._lock = threading.RLock()
        self._periodic: dict[str, dict[str, Any]] = {}  # added before there were settings
        self._records: tuple[int, Records] | None = None
        self._queues: tuple[int, Queues] | None = None

    @property
    def conf(self) -> Settings:
        """The settings; read from their source when first used."""
        if self._conf is None:
            with self._lock:
                if self._conf is None:
                    self._conf = self._configure()
                    self._conf.beat_schedule.update(self._periodic)
                    self.on_after_configure.send(sender=self, source=self._conf)
        assert self._conf is not None
        return self._conf

    def _configure(self) -> Settings:
        conf = Settings()
        if self._config_source is not None:
            source, namespace, silent = self._config_source
            conf.load_object(source, namespace=namespace, silent=silent)
        if self._preconf:
            conf.update(self._preconf)
        hook = self.on_configure
        if not isinstance(hook, signals.Signal):
            self._conf = conf
            hook()
        elif hook.receivers:
            self._conf = conf
            hook.send(sender=self)
        return conf

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read the settings from a module, its dotted name, a class or a mapping; with
        ``namespace="CELERY"`` only ``CELERY_...`` names count. Read when first needed (``force``,
        or when settings were used already: now). What code has set still wins over it."""
        self._config_source = (obj, namespace, silent)
        if self._conf is not None:
            self._conf.load_object(obj, namespace=namespace, silent=silent)
        elif force:
            _ = self.conf

    def config_from_envvar(self, variable: str, silent: bool = False, force: bool = False) -> None:
        """As ``config_from_object``, with the module's name in an environment variable."""
        name = os.environ.get(variable)
        if name:
            self.config_from_object(name, silent=silent, force=force)
        elif not silent:
            raise ImproperlyConfigured(
                f"The environment variable {variable} is not set: set it to the name of the "
                "module that holds the settings."
            )

    def add_defaults(self, values: Mapping[str, Any]) -> None:
        """Settings that the configuration may override."""
        self.conf.add_defaults(values)

    # --- what the settings say ------------------------------------------------------------------

    @property
    def broker_url(self) -> str:
        """The URL of the broker; says once when it is the default one."""
        return stores.broker_url(self)

    @property
    def backend_url(self) -> str | None:
        """The URL of the result backend. Brokers that keep results themselves are the default."""
        return stores.backend_url(self)

    @property
    def timezone(self) -> tzinfo:
        return zone_of(self.conf.timezone)

    def now(self) -> datetime:
        """Now, in the application's time zone."""
        return datetime.now(self.timezone)

    @property
    def records(self) -> Records:
        generation = self.conf.generation
        if self._records is None or self._records[0] != generation:
            self._records = generation, Records(self)
        return self._records[1]

    def publish_policy(self) -> RetryPolicy:
        return RetryPolicy.of(self.conf.task_publish_retry_policy)

    @property
    def queues(self) -> Queues:
        generation = self.conf.generation
        if self._queues is None or self._queues[0] != generation:
            self._queues = generation, Queues(self.conf)
        return self._queues[1]

    @property
    def router(self) -> Router:
        return Router(self.conf, self.queues)

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add an entry to ``beat_schedule``; its name. ``schedule`` is a number of seconds, a
        timedelta, or one of ``celeriac.schedules``; ``sig`` a task or signature. ``opts`` are
        calling options, or such of the entry (``overlap``, ``catch_up``, ``jitter``, ...)."""
        from celeriac.schedules.periodic import periodic_entry

        name, entry = periodic_entry(schedule, sig, args, kwargs, name, opts)
        target = self._periodic if self._conf is None else self._conf.beat_schedule
        target[name] = entry
        return name
