"""The application of a worker that was given ``--config``, for its processes that are spawned:
they import the application anew, and would miss what only the command line said."""

from __future__ import annotations

import os

from celeriac.app import Celeriac
from celeriac.exceptions import ImproperlyConfigured
from celeriac.finder import find_app

SPEC = "celeriac.cli.configured:app"
_SPEC = "_CELERIAC_CONFIGURED_APP"
_CONFIG = "_CELERIAC_CONFIGURED_WITH"


def hand_on(spec: str, config: str) -> str:
    """What to give to processes instead of ``spec``, so that they read ``config`` too."""
    os.environ[_SPEC] = spec
    os.environ[_CONFIG] = config
    return SPEC


def __getattr__(name: str) -> Celeriac:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    spec, config = os.environ.get(_SPEC), os.environ.get(_CONFIG)
    if not spec or not config:
        raise ImproperlyConfigured(f"{SPEC} is found only by processes of a worker.")
    found = find_app(spec)
    found.config_from_object(config)
    globals()["app"] = found
    return found
