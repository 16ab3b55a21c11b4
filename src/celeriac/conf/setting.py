"""One setting: everything there is to know about it, said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from celeriac.conf.kinds import NOTHING, Kind
from celeriac.exceptions import ImproperlyConfigured

T = TypeVar("T")

USED = "used"
ACCEPTED = "accepted"  # Celery has it; here it has no meaning, and whoever gives it is told why
LATER = "later"  # its meaning comes with a driver or feature of its own


class Setting(Generic[T]):
    """A setting, declared as a class attribute of a table; its name is the attribute's.

    ``old``: Celery's upper-case names from before version 4. ``derived``: where the value comes
    from while the setting is not given (``default_text`` says so in words). ``reason``: why the
    status is "accepted". ``own``: Celery does not have it.
    """

    def __init__(
        self,
        kind: Kind[Any],
        default: Any,
        old: tuple[str, ...],
        *,
        doc: str,
        status: str = USED,
        reason: str = "",
        environment: tuple[str, ...] = (),
        secret: bool = False,
        own: bool = False,
        derived: Callable[[Any], Any] | None = None,
        default_text: str = "",
    ) -> None:
        self.name = ""
        self.group = ""
        self.kind = kind
        self.default = default
        self.own = own
        self.given_old = old
        self.old: tuple[str, ...] = old
        self.doc = doc
        self.status = status
        self.reason = reason
        self.extra_environment = environment
        self.environment: tuple[str, ...] = ()
        self.secret = secret
        self.nullable = kind.nullable or default is None
        self.derived = derived
        self.default_text = default_text

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.group = str(getattr(owner, "group", ""))
        # What has no old name of another form was written like this: BROKER_URL.
        self.old = self.given_old or (() if self.own else (name.upper(),))
        self.environment = (f"CELERIAC_{name.upper()}", *self.extra_environment)

    def __repr__(self) -> str:
        return f"<Setting {self.name}>"

    def convert(self, value: Any) -> T:
        """The value as it is kept. Raises ImproperlyConfigured, which does not name the source."""
        if value is None and self.nullable:
            return value  # type: ignore[return-value] # nullable: T includes None
        try:
            return self.kind.convert(value)  # type: ignore[no-any-return]
        except (ValueError, TypeError, OverflowError) as exc:
            shown = "********" if self.secret else repr(value)
            or_none = ", or None" if self.nullable and "None" not in self.kind.expected else ""
            raise ImproperlyConfigured(
                f"The setting {self.name} cannot be {shown}: "
                f"expected {self.kind.expected}{or_none}."
            ) from exc

    def parse(self, text: str) -> T:
        """The value that an environment variable's text means."""
        if self.nullable and text.strip().lower() in NOTHING:
            return self.convert(None)
        return self.convert(text)

    # A table's attribute is read through the instance's own dict, which costs no call. So that
    # the reader's type checker knows its type all the same, it is shown a descriptor.
    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Setting[T]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...
        def __set__(self, instance: object, value: T) -> None: ...


@overload
def setting(
    kind: Kind[T], default: None, *old: str, doc: str, **more: Any
) -> Setting[T | None]: ...
@overload
def setting(kind: Kind[T], default: T, *old: str, doc: str, **more: Any) -> Setting[T]: ...
def setting(kind: Kind[Any], default: Any, *old: str, doc: str, **more: Any) -> Setting[Any]:
    """A setting with a meaning here. A default of None means that None may be given, too."""
    return Setting(kind, default, old, doc=doc, **more)


@overload
def later(kind: Kind[T], default: None, *old: str, doc: str, **more: Any) -> Setting[T | None]: ...
@overload
def later(kind: Kind[T], default: T, *old: str, doc: str, **more: Any) -> Setting[T]: ...
def later(kind: Kind[Any], default: Any, *old: str, doc: str, **more: Any) -> Setting[Any]:
    """A setting whose meaning comes with a driver or feature of its own."""
    return Setting(kind, default, old, doc=doc, status=LATER, **more)


@overload
def accepted(
    kind: Kind[T], default: None, *old: str, doc: str, reason: str, **more: Any
) -> Setting[T | None]: ...
@overload
def accepted(
    kind: Kind[T], default: T, *old: str, doc: str, reason: str, **more: Any
) -> Setting[T]: ...
def accepted(
    kind: Kind[Any], default: Any, *old: str, doc: str, reason: str, **more: Any
) -> Setting[Any]:
    """A setting of Celery's without a meaning here, and why."""
    return Setting(kind, default, old, doc=doc, status=ACCEPTED, reason=reason, **more)


def derived(
    kind: Kind[T],
    source: Callable[[Any], T],
    *old: str,
    doc: str,
    default_text: str,
    status: str = USED,
    environment: tuple[str, ...] = (),
    own: bool = False,
) -> Setting[T]:
    """A setting whose default is taken from another one. Giving None means not giving it."""
    return Setting(
        kind,
        None,
        old,
        doc=doc,
        status=status,
        derived=source,
        own=own,
        default_text=default_text,
        environment=environment,
    )
