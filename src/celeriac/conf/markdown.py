"""The settings as a page of the documentation."""

from __future__ import annotations

from typing import Any

from celeriac.conf.setting import ACCEPTED, LATER, Setting
from celeriac.conf.table import SETTINGS

_HEAD = """\
# Settings

Every setting, by group. This page is made from the table in `celeriac.conf`
(`python -m celeriac.conf > docs/settings.md`); a test holds the two together.

A setting can be given

1. by `app.conf.override(…)`, which is what command line options do,
2. by the environment variable `CELERIAC_<NAME>`, for example `CELERIAC_TASK_DEFAULT_QUEUE`
   (lists with commas, dicts as JSON, `none` for None); `CELERY_BROKER_URL`,
   `CELERY_RESULT_BACKEND`, `CELERY_BROKER_READ_URL` and `CELERY_BROKER_WRITE_URL` are read, too,
3. in code: `Celeriac(task_default_queue="shop")`, `app.conf.task_default_queue = "shop"`,
   `app.conf.update(…)`,
4. by a configuration object: `app.config_from_object("shop.celeryconfig")`, or with a namespace
   `app.config_from_object("django.conf:settings", namespace="CELERY")`, where the name is
   `CELERY_TASK_DEFAULT_QUEUE`,

and the first of these wins. That the environment wins over code is Celery's rule for
`CELERY_BROKER_URL`; here it holds for every setting. `app.conf.source("broker_url")` says which
one it was, and `celeriac report` lists them all.

Names from before Celery 4 are understood everywhere and stand in the last column. A name that is
no setting is an error that names the nearest one, and a warning when it came in a whole module. A
value of the wrong type is an error. Durations are seconds or a `timedelta`.

Settings marked *no effect* are Celery's, without a meaning here; giving one is allowed, and said
once in the log. Those marked *later* are kept for a driver or feature that this version does not
have.
"""


def markdown_table() -> str:
    """The page ``docs/settings.md``."""
    groups: dict[str, list[Setting[Any]]] = {}
    for row in SETTINGS.values():
        groups.setdefault(row.group, []).append(row)
    return _HEAD + "".join(
        f"\n## {group}\n\n"
        "| Setting | Default | Meaning | Old name |\n|---|---|---|---|\n"
        + "".join(_line(row) for row in rows)
        for group, rows in groups.items()
    )


def _line(row: Setting[Any]) -> str:
    default = row.default_text or f"`{row.default!r}`"
    meaning = row.doc
    if row.status == ACCEPTED:
        meaning += f" *No effect:* {row.reason}."
    elif row.status == LATER:
        meaning += " *Later.*"
    old = ", ".join(f"`{name}`" for name in row.old)
    cells = (f"`{row.name}`", default, meaning, old)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
