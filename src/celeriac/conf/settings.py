"""What an application is configured with: the values, where each came from, and who wins."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from celeriac.conf import objects, secrets
from celeriac.conf.kinds import BY_TYPE, Kind
from celeriac.conf.setting import ACCEPTED, Setting
from celeriac.conf.table import ENVIRONMENT, OLD_NAMES, SETTINGS, Change, Table, hint, nearest
from celeriac.exceptions import ImproperlyConfigured, UnknownSetting

log = logging.getLogger("celeriac.conf")

# From the weakest to the strongest.
_DEFAULTS, _OBJECT, _CODE, _ENVIRONMENT, _OVERRIDE = range(5)

_DERIVED = tuple(row for row in SETTINGS.values() if row.derived is not None)
_generations = itertools.count(1)
_told: set[str] = set()  # the accepted settings this process has spoken of


class Settings(Table):
    """The settings of one application, by attribute or item, by new or old name.

    Who wins, from the strongest: ``override()`` (the command line, tests); the environment;
    what code sets (constructor, ``update()``, assignment); the configuration object; defaults.
    That the environment wins over code is Celery's rule for ``CELERY_BROKER_URL``: whoever
    deploys an application can say where it runs without editing it. Here it holds for every
    setting, as ``CELERIAC_<NAME>``.

    ``generation`` grows with each change and is no other Settings' in this process, so that what
    was computed from settings can be kept for as long as it stays the same. Values live in the
    instance's own dict: reading one costs no call.
    """

    generation: int
    _layers: tuple[dict[str, Change], ...]
    _rows: dict[str, Setting[Any]]

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        environ: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        inner = self.__dict__
        inner["generation"] = 0
        inner["_layers"] = tuple({} for _ in range(_OVERRIDE + 1))
        inner["_rows"] = dict(SETTINGS)
        for name, row in SETTINGS.items():
            inner[name] = _fresh(row.default)
        self.read_environment(os.environ if environ is None else environ)
        self.update(values or {}, **more)
        self._compute(())

    # Reading

    def __getattr__(self, name: str) -> Any:
        # Reached only for what the instance's dict does not hold: old and unknown names.
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__dict__[self._name_of(name)]

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name if name in self._rows else self._name_of(name)]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` if there is no such setting."""
        found = self._resolve(name)
        return default if found is None else self.__dict__[found]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._resolve(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> KeysView[str]:
        """The names of all settings."""
        return self._rows.keys()

    def values(self) -> ValuesView[Any]:
        """The values of all settings."""
        return self._current().values()

    def items(self) -> ItemsView[str, Any]:
        """All settings with their values."""
        return self._current().items()

    def _current(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self._rows}

    def setting(self, name: str) -> Setting[Any]:
        """What is known about the setting itself."""
        return self._rows[self._name_of(name)]

    def _resolve(self, name: str) -> str | None:
        return name if name in self._rows else OLD_NAMES.get(name)

    def _name_of(self, name: str) -> str:
        found = self._resolve(name)
        if found is None:
            raise UnknownSetting(f"There is no setting {name}.{hint(name, self._rows)}")
        return found

    # Setting

    def __setattr__(self, name: str, value: Any) -> None:
        self._set(_CODE, {name: value}, "code")

    __setitem__ = __setattr__

    def __delattr__(self, name: str) -> None:
        found = self._name_of(name)
        self._layers[_CODE].pop(found, None)
        self._compute((found,))

    __delitem__ = __delattr__

    def update(
        self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any
    ) -> None:
        """Set several at once, or none if one of them is wrong."""
        self._set(_CODE, {**dict(values), **more}, "code")

    def setdefault(self, name: str, default: Any) -> Any:
        """Set it if nobody has yet; what it is then."""
        if self.source(name) == "default":
            self._set(_CODE, {name: default}, "code")
        return self[name]

    def add_defaults(self, values: Mapping[str, Any], *, source: str = "added defaults") -> None:
        """Set what everything else wins over."""
        self._set(_DEFAULTS, values, source)

    def override(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        source: str = "command line",
        **more: Any,
    ) -> None:
        """Set what wins over everything else, the environment too: for command line options."""
        self._set(_OVERRIDE, {**(values or {}), **more}, source)

    def define(self, name: str, type_: type | Kind[Any] | Any, default: Any, doc: str = "") -> None:
        """Add a setting of somebody else's, for integrations: before the configuration is read,
        which would refuse it. Defining the same again changes nothing."""
        if name in self._rows and name not in SETTINGS:
            return
        taken = hasattr(Settings, name) or name in self.__dict__
        if taken or not name.isidentifier() or name.startswith("_"):
            raise ImproperlyConfigured(
                f"A setting cannot be named {name!r}: the name is taken, or is none. Give it a "
                "prefix of its own."
            )
        kind = type_ if isinstance(type_, Kind) else BY_TYPE.get(type_)
        if kind is None:
            raise ImproperlyConfigured(
                f"The setting {name} cannot be of type {type_!r}: use one of "
                f"{', '.join(sorted(getattr(known, '__name__', str(known)) for known in BY_TYPE))}."
            )
        row: Setting[Any] = Setting(kind, default, (), doc=doc, own=True)
        row.__set_name__(Settings, name)
        row.group, row.secret = "Defined by the application", secrets.is_secret_name(name)
        self._rows[name] = row
        self.__dict__[name] = _fresh(default)
        text = os.environ.get(row.environment[0])
        if text:
            change = Change(row.parse(text), f"environment {row.environment[0]}")
            self._layers[_ENVIRONMENT][name] = change
        self._compute((name,))

    def load_object(self, obj: Any, namespace: str | None = None, silent: bool = False) -> bool:
        """Read a configuration object: a dotted path (``"pkg.mod"``, ``"pkg.mod:attr"``), a
        module, class, instance or mapping. It replaces the one read before.

        With a namespace (``"CELERY"``, ``"CELERIAC"``) names carry it as a prefix. Unknown names
        raise UnknownSetting in a mapping, and are a CeleriacWarning in anything else, where
        others' names are to be expected. With ``silent`` a path that leads nowhere is no error;
        the answer says whether something was read.
        """
        path = obj if isinstance(obj, str) else None
        if path is not None:
            try:
                obj = objects.locate(path)
            except ImproperlyConfigured:
                if silent:
                    return False
                raise
        source = objects.describe(obj, path)
        found = objects.read(obj, self._resolve, namespace, source)
        checked = self._checked(found)
        layer = self._layers[_OBJECT]
        before = set(layer)
        layer.clear()
        layer.update(checked)
        self._tell(_OBJECT, checked)
        self._compute(before | set(checked))
        return True

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Take over the environment variables of the settings; an empty one is not set. Done
        once with ``os.environ`` when the settings are made."""
        found: dict[str, Change] = {}
        for variable, name in ENVIRONMENT.items():  # the first variable of a setting wins
            text = environ.get(variable)
            if not text or name in found:
                continue
            try:
                found[name] = Change(SETTINGS[name].parse(text), f"environment {variable}")
            except ImproperlyConfigured as exc:
                raise ImproperlyConfigured(f"{exc} (environment {variable})") from exc
        _warn_of_misspelt(environ)
        layer = self._layers[_ENVIRONMENT]
        before = set(layer)
        layer.clear()
        layer.update(found)
        self._tell(_ENVIRONMENT, found)
        self._compute(before | set(found))

    def _set(self, layer: int, values: Mapping[str, Any], source: str) -> None:
        found = {self._name_of(name): Change(value, source) for name, value in values.items()}
        checked = self._checked(found)
        self._layers[layer].update(checked)
        self._tell(layer, checked)
        self._compute(checked)

    def _checked(self, changes: Mapping[str, Change]) -> dict[str, Change]:
        checked = {}
        for name, (value, source) in changes.items():
            try:
                checked[name] = Change(self._rows[name].convert(value), source)
            except ImproperlyConfigured as exc:
                raise ImproperlyConfigured(f"{exc} ({source})") from exc
        return checked

    def _compute(self, names: Iterable[str]) -> None:
        """Bring the values that are read up to date with the layers."""
        inner = self.__dict__
        for name in names:
            given = self._given(name)
            inner[name] = _fresh(self._rows[name].default) if given is None else given.value
        for row in _DERIVED:
            given = self._given(row.name)
            if row.derived is not None and (given is None or given.value is None):
                inner[row.name] = row.derived(self)
        inner["generation"] = next(_generations)

    def _given(self, name: str) -> Change | None:
        """What the strongest layer says."""
        for layer in self._layers[::-1]:
            if name in layer:
                return layer[name]
        return None

    def _tell(self, layer: int, changes: Mapping[str, Change]) -> None:
        """Say what a change does not do."""
        for name, (value, source) in changes.items():
            row = self._rows[name]
            if row.status == ACCEPTED and value != row.default and name not in _told:
                _told.add(name)
                log.warning("The setting %s (%s) has no effect: %s.", name, source, row.reason)
            for stronger in self._layers[layer + 1 :]:
                if name in stronger and stronger[name].value != value:
                    log.info(
                        "The setting %s (%s) has no effect: %s wins.",
                        name,
                        source,
                        stronger[name].source,
                    )
                    break

    # Showing

    def source(self, name: str) -> str:
        """Where the value comes from: "default", "code", "object module.name",
        "environment CELERIAC_BROKER_URL", "command line", …"""
        found = self._name_of(name)
        given = self._given(found)
        if given is not None:
            return given.source
        # People add to conf.beat_schedule in place.
        default = self._rows[found].default
        return (
            "code" if isinstance(default, dict) and self.__dict__[found] != default else "default"
        )

    @property
    def changes(self) -> dict[str, Change]:
        """What is not the default, with its value and source."""
        return {
            name: Change(self.__dict__[name], source)
            for name in self._rows
            if (source := self.source(name)) != "default"
        }

    def value_set_for(self, name: str) -> bool:
        """Whether somebody gave a value."""
        return self.source(name) != "default"

    def without_effect(self) -> dict[str, str]:
        """The settings given that have no meaning here, and why: for the worker's banner."""
        return {
            name: self._rows[name].reason
            for name, change in self.changes.items()
            if self._rows[name].status == ACCEPTED and change.value != self._rows[name].default
        }

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """The settings that were changed, or all, by name; secrets are masked."""
        names = self._rows if with_defaults else self.changes
        shown = {name: self.__dict__[name] for name in names}
        if not censored:
            return shown
        return {
            name: secrets.MASK if value and self._rows[name].secret else secrets.hide(value)
            for name, value in shown.items()
        }

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The same as text: a line for each, with its source."""
        return "\n".join(
            f"{name}: {value!r} ({self.source(name)})"
            for name, value in self.table(with_defaults, censored).items()
        )

    def __repr__(self) -> str:
        return f"<Settings: {len(self.changes)} of {len(self)} changed>"

    def check(self) -> None:
        """Raise ImproperlyConfigured if settings contradict each other. The worker and the
        application call it when they start; single values are checked when they are set."""
        if self.worker_heartbeat_interval >= self.worker_lease:
            raise ImproperlyConfigured(
                f"worker_heartbeat_interval ({self.worker_heartbeat_interval:g} s) must be less "
                f"than worker_lease ({self.worker_lease:g} s), or workers take each other for "
                "dead; a third of it is the default."
            )
        hard, soft = self.task_time_limit, self.task_soft_time_limit
        if hard and soft and soft > hard:
            raise ImproperlyConfigured(
                f"task_soft_time_limit ({soft:g} s) must not be above task_time_limit "
                f"({hard:g} s): the soft one would never be raised."
            )


def _fresh(default: Any) -> Any:
    """A default of its own for each application: people add to dicts in place."""
    return dict(default) if isinstance(default, dict) else default


def _warn_of_misspelt(environ: Mapping[str, str]) -> None:
    """A variable that is nearly one of ours has no effect, and nobody would notice."""
    for variable in environ:
        if not variable.startswith("CELERIAC_") or variable in ENVIRONMENT or variable in _told:
            continue
        near = nearest(variable, ENVIRONMENT, cutoff=0.9)
        if near:
            _told.add(variable)
            log.warning(
                "The environment variable %s is no setting. Did you mean %s?", variable, near
            )
