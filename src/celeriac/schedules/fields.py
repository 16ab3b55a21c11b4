"""The five fields of a crontab entry: text to sets of numbers.

``*``, ``*/n``, ``a``, ``a-b``, ``a-b/n``, and several of them with commas between. Ranges may wrap
(``fri-mon``, ``22-3``); days of the week and months may be named. The day of the week 7 is refused,
as Celery does: 0 is Sunday.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["FIELDS", "Field", "ParseException", "crontab_parser", "expand"]

_DAYS = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}
_MONTHS = {
    name: number
    for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}


class ParseException(ValueError):
    """A field that cannot be understood."""


class crontab_parser:
    """Reads the text of one field, whose values go from ``min_`` on, ``max_`` of them.

    ``names`` defaults to the days' for a field of 7 and the months' for one of 12 from 1 on.
    """

    ParseException = ParseException

    def __init__(
        self, max_: int = 60, min_: int = 0, *, names: Mapping[str, int] | None = None
    ) -> None:
        self.max_ = max_
        self.min_ = min_
        if names is None:
            names = _DAYS if (max_, min_) == (7, 0) else _MONTHS if (max_, min_) == (12, 1) else {}
        self._names = names

    def parse(self, spec: str) -> set[int]:
        """The numbers that the text stands for. Raises ParseException."""
        found: set[int] = set()
        for part in spec.split(","):
            found.update(self._part(part.strip(), spec))
        return found

    def _part(self, part: str, spec: str) -> list[int]:
        if not part:
            raise ParseException(f"{spec!r} has an empty part")
        base, slash, step_text = part.partition("/")
        values = self._base(base, part, stepped=bool(slash))
        if not slash:
            return values
        if not step_text.isascii() or not step_text.isdigit() or int(step_text) < 1:
            raise ParseException(f"{part!r}: the step behind / is a whole number from 1 on")
        return values[:: int(step_text)]

    def _base(self, base: str, part: str, *, stepped: bool) -> list[int]:
        last = self.min_ + self.max_ - 1
        if base == "*":
            return list(range(self.min_, last + 1))
        if base.startswith("-"):
            raise ParseException(f"{part!r}: negative numbers mean nothing here")
        first_text, dash, end_text = base.partition("-")
        if not dash:
            if stepped:
                raise ParseException(f"{part!r}: a step follows * or a range, as in */5 or 0-30/5")
            return [self._number(base, part)]
        first, end = self._number(first_text, part), self._number(end_text, part)
        if first <= end:
            return list(range(first, end + 1))
        return [*range(first, last + 1), *range(self.min_, end + 1)]

    def _number(self, text: str, part: str) -> int:
        text = text.strip()
        if text.isascii() and text.isdigit():
            return self.check(int(text), part)
        number = self._names.get(text[:3].lower()) if len(text) >= 3 and text.isalpha() else None
        if number is None:
            known = f", or one of {', '.join(self._names)}" if self._names else ""
            raise ParseException(f"{part!r}: {text!r} is not a number{known}")
        return number

    def check(self, number: int, part: object) -> int:
        """The number, if the field has it."""
        last = self.min_ + self.max_ - 1
        if not self.min_ <= number <= last:
            hint = " (Sunday is 0)" if (self.max_, number) == (7, 7) else ""
            raise ParseException(f"{part!r}: {number} is not within {self.min_}-{last}{hint}")
        return number


class Field:
    """One field by name, with its range."""

    def __init__(self, name: str, max_: int, min_: int = 0) -> None:
        self.name = name
        self.parser = crontab_parser(max_, min_)

    def expand(self, spec: Any) -> set[int]:
        """The numbers of a field given as number, text, or several of them. Raises ValueError,
        and TypeError for anything else."""
        try:
            return expand(spec, self.parser)
        except ParseException as wrong:
            raise ParseException(f"crontab: {self.name}={spec!r}: {wrong}") from None
        except TypeError:
            raise TypeError(
                f"crontab: {self.name}={spec!r}: a field is a number, a text such as '*/5', or "
                "a set of numbers"
            ) from None


def expand(spec: Any, parser: crontab_parser) -> set[int]:
    """See Field.expand."""
    if isinstance(spec, bool):
        raise TypeError
    if isinstance(spec, int):
        return {parser.check(spec, spec)}
    if isinstance(spec, str):
        return parser.parse(spec)
    if not isinstance(spec, Iterable):
        raise TypeError
    found: set[int] = set()
    for one in spec:
        if isinstance(one, Iterable) and not isinstance(one, str):
            raise TypeError
        found |= expand(one, parser)
    if not found:
        raise ParseException("it is empty")
    return found


FIELDS = {
    "minute": Field("minute", 60),
    "hour": Field("hour", 24),
    "day_of_week": Field("day_of_week", 7),
    "day_of_month": Field("day_of_month", 31, 1),
    "month_of_year": Field("month_of_year", 12, 1),
}
