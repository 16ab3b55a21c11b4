"""``@app.task(pydantic=True)``: arguments and results that are pydantic models.

On the wire they are plain dictionaries. In the worker, arguments whose parameters are annotated
with a model are validated from them; a model that the task returns is dumped.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import MissingDependency

if TYPE_CHECKING:
    from pydantic import BaseModel


def validated(
    function: Callable[..., Any], *, bind: bool, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """``function``, taking dictionaries (or models) for its models and returning plain data.

    ``bind``: its first parameter is the task. From ``options``: ``pydantic_strict`` and
    ``pydantic_context`` go to ``model_validate``, ``pydantic_dump_kwargs`` to ``model_dump``
    (default: ``mode="json"``). Raises MissingDependency without pydantic. The result raises
    pydantic's ValidationError for arguments that do not fit.
    """
    base = _base_model()
    converter = _Converter(function, bind, base, options)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = converter.arguments(args, kwargs)
            return converter.returned(await function(*args, **kwargs))

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = converter.arguments(args, kwargs)
        return converter.returned(function(*args, **kwargs))

    return called


def _base_model() -> type[BaseModel]:
    try:
        from pydantic import BaseModel
    except ModuleNotFoundError as missing:
        if missing.name != "pydantic":
            raise
        raise MissingDependency(
            "A task with pydantic=True needs the package pydantic, which is not installed: "
            "pip install celeriac[pydantic]"
        ) from missing
    return BaseModel


class _Converter:
    """What is known of one function: its models are found at the first call, when names that its
    annotations refer to are defined."""

    def __init__(
        self,
        function: Callable[..., Any],
        bind: bool,
        base: type[BaseModel],
        options: Mapping[str, Any],
    ) -> None:
        self.function = function
        self.signature = inspect.signature(function)
        self.skipped = next(iter(self.signature.parameters), None) if bind else None
        self.base = base
        self.strict: bool | None = options.get("pydantic_strict") or None
        self.context: Any = options.get("pydantic_context")
        dump = options.get("pydantic_dump_kwargs")
        self.dump: dict[str, Any] = {"mode": "json", **(dump or {})}
        self._models: dict[str, type[BaseModel]] | None = None

    @property
    def models(self) -> dict[str, type[BaseModel]]:
        """The model of each parameter that has one."""
        if self._models is None:
            hints = typing.get_type_hints(self.function)
            found = {name: self._model(hint) for name, hint in hints.items()}
            self._models = {
                name: model
                for name, model in found.items()
                if model is not None and name not in ("return", self.skipped)
            }
        return self._models

    def _model(self, hint: Any) -> type[BaseModel] | None:
        """``Model``, also out of ``Model | None``."""
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            others = [part for part in typing.get_args(hint) if part is not type(None)]
            hint = others[0] if len(others) == 1 else None
        return hint if isinstance(hint, type) and issubclass(hint, self.base) else None

    def arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = self.signature.bind(*args, **kwargs)
        for name, model in self.models.items():
            value = bound.arguments.get(name)
            if value is None:
                continue
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._validate(model, one) for one in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {k: self._validate(model, v) for k, v in value.items()}
            else:
                bound.arguments[name] = self._validate(model, value)
        return bound.args, bound.kwargs

    def _validate(self, model: type[BaseModel], value: Any) -> BaseModel:
        return model.model_validate(value, strict=self.strict, context=self.context)

    def returned(self, value: Any) -> Any:
        return value.model_dump(**self.dump) if isinstance(value, self.base) else value
