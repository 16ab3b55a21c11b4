"""Importing what settings and applications name."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def imported(value: Any) -> Any:
    """A class, or the class that ``"module:Class"`` or ``"module.Class"`` names."""
    if not isinstance(value, str):
        return value
    module, _, name = value.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def import_related(package: str, related_name: str | None) -> None:
    """Import ``package.related_name`` if there is such a module; errors inside it come out. A
    class in a package (Django's ``polls.apps.PollsConfig``) stands for the package."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as exc:
        outer = package.rpartition(".")[0]
        if not outer or not (exc.name == package or package.startswith(f"{exc.name}.")):
            raise
        return import_related(outer, related_name)
    if not related_name:
        return
    name = f"{package}.{related_name}"
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return
    if spec is not None:
        importlib.import_module(name)
