"""Options as all commands read them: from the line, then from the environment."""

from __future__ import annotations

import functools
import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    ParamType: TypeAlias = click.ParamType[Any]
else:
    ParamType = click.ParamType  # a generic class in later versions only

PREFIX = "CELERIAC"
_CELERY_PREFIX = "CELERY"


class Option(click.Option):
    """Reads ``CELERIAC_<COMMAND>_<OPTION>``, and then Celery's ``CELERY_<COMMAND>_<OPTION>``."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        found = super().resolve_envvar_value(ctx)
        prefix = ctx.auto_envvar_prefix
        if found or not (prefix and self.name and self.allow_from_autoenv):
            return found
        inner = prefix.removeprefix(PREFIX)
        return os.environ.get(f"{_CELERY_PREFIX}{inner}_{self.name.upper()}") or None


option = functools.partial(click.option, cls=Option)

json_option = option("-j", "--json", "as_json", is_flag=True, help="As JSON, for programs.")
force_option = option("-f", "--force", is_flag=True, help="Do not ask.")


class Json(ParamType):
    """A JSON value of one type, such as the list of a call's arguments."""

    name = "json"

    def __init__(self, wanted: type, example: str) -> None:
        self.wanted = wanted
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, self.wanted):
            return value
        try:
            found = json.loads(value)
        except ValueError as exc:
            self.fail(f"{value!r} is not JSON ({exc}): write it like {self.example}", param, ctx)
        if not isinstance(found, self.wanted):
            kind = "a list" if self.wanted is list else "an object"
            self.fail(f"{value!r} is not {kind}: write it like {self.example}", param, ctx)
        return found


class Moment(ParamType):
    """A time in ISO 8601, as a datetime that may be naive; with ``seconds`` a number too."""

    name = "time"

    def __init__(self, *, seconds: bool = False) -> None:
        self.seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if self.seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            number = "a number of seconds, or " if self.seconds else ""
            self.fail(
                f"{value!r} is not a time: write {number}ISO 8601, like 2030-12-24T18:00 or "
                "2030-12-24T18:00+01:00",
                param,
                ctx,
            )


class Names(ParamType):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return list(dict.fromkeys(filter(None, (name.strip() for name in value.split(",")))))
