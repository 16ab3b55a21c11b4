"""Whether arguments fit a function, asked where a call is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, cast


def checked_args(name: str, args: Any) -> tuple[Any, ...]:
    """Arguments as a tuple. Raises TypeError for a text and the like, whose parts would be taken
    for arguments."""
    if args is None:
        return ()
    if isinstance(args, str | bytes | Mapping | Set) or not isinstance(args, Iterable):
        raise TypeError(f"{name}: args must be a list or tuple, not {type(args).__name__}")
    return tuple(args)


def argument_check(function: Callable[..., Any], *, skip_first: bool) -> Callable[..., object]:
    """A function with the same parameters that does nothing: calling it checks arguments at the
    price of a call. Of a builtin that does not tell its parameters, nothing is checked."""
    import inspect
    import keyword

    try:
        signature = inspect.signature(function)
    except ValueError:
        return lambda *args, **kwargs: None
    parameters = list(signature.parameters.values())
    if skip_first and parameters:
        parameters = parameters[1:]
    shown: list[str] = []
    star = False
    for position, parameter in enumerate(parameters):
        kind = parameter.kind
        text = parameter.name + ("" if parameter.default is inspect.Parameter.empty else "=None")
        if kind is inspect.Parameter.VAR_POSITIONAL:
            text, star = "*" + text, True
        elif kind is inspect.Parameter.VAR_KEYWORD:
            text = "**" + text
        elif kind is inspect.Parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        shown.append(text)
        following = parameters[position + 1] if position + 1 < len(parameters) else None
        last = following is None or following.kind is not inspect.Parameter.POSITIONAL_ONLY
        if kind is inspect.Parameter.POSITIONAL_ONLY and last:
            shown.append("/")
    name = getattr(function, "__name__", "task")
    name = name if name.isidentifier() and not keyword.iskeyword(name) else "task"
    space: dict[str, Any] = {}
    exec(f"def {name}({', '.join(shown)}): pass", space)  # only names that Python has accepted
    return cast("Callable[..., object]", space[name])
