"""Names that stand for an object found anew at each use (``current_app``, shared tasks)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Proxy(Generic[T]):
    """Stands for what ``find()`` returns at the time of use."""

    __slots__ = ("_Proxy__find", "__dict__")

    def __init__(self, find: Callable[[], T], name: str = "", doc: str | None = None) -> None:
        object.__setattr__(self, "_Proxy__find", find)
        if name:
            object.__setattr__(self, "__name__", name)
        if doc:
            object.__setattr__(self, "__doc__", doc)

    def _get_current_object(self) -> T:
        """The object itself."""
        find: Callable[[], T] = object.__getattribute__(self, "_Proxy__find")
        return find()

    @property
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a proxy cannot be set")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)  # type: ignore[operator]

    def __getitem__(self, key: Any) -> Any:
        return self._get_current_object()[key]  # type: ignore[index]

    def __contains__(self, key: Any) -> bool:
        return key in self._get_current_object()  # type: ignore[operator]

    def __or__(self, other: Any) -> Any:
        return self._get_current_object() | other

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:
            return False

    def __eq__(self, other: object) -> bool:
        return self._get_current_object() == other

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()


def maybe_evaluate(value: Any) -> Any:
    """The object that a proxy stands for; anything else as it is."""
    return value._get_current_object() if isinstance_proxy(value) else value


def isinstance_proxy(value: Any) -> bool:
    """Is this a proxy? (``isinstance`` asks the object it stands for.)"""
    return type(value) is Proxy
