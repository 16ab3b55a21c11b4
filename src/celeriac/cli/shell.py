"""``celeriac shell``: Python with the application at hand."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.params import option

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_NAMES = ("AsyncResult", "chain", "chord", "group", "signature", "uuid")


@click.command(short_help="Start Python with the application loaded.")
@option("-I", "--ipython", "kind", flag_value="ipython", help="Use IPython.")
@option("-P", "--python", "kind", flag_value="python", help="Use Python's own prompt.")
@option("-T", "--without-tasks", is_flag=True, help="Do not define the tasks as names.")
@click.pass_obj
def shell(invocation: Invocation, *, kind: str | None, without_tasks: bool) -> None:
    """Start Python with app, its tasks and AsyncResult defined. IPython is used if installed.

    \b
    celeriac -A tasks shell
    >>> add.delay(2, 3).get(timeout=10)
    5
    """
    app = invocation.whole_app()
    names = namespace(app, with_tasks=not without_tasks)
    if kind is None:
        kind = "ipython" if importlib.util.find_spec("IPython") else "python"
    invocation.note("Defined: " + ", ".join(sorted(names)))
    if kind == "ipython":
        _ipython(names)
    else:
        _python(names)


def namespace(app: Celeriac, *, with_tasks: bool) -> dict[str, Any]:
    """What the shell knows. A task goes by its short name, unless that is taken."""
    import celeriac

    names: dict[str, Any] = {"app": app, "celery": app, "celeriac": celeriac}
    for name in _NAMES:
        value = getattr(app, name, None) if name == "AsyncResult" else _public(celeriac, name)
        if value is not None:
            names[name] = value
    if with_tasks:
        for name, task in app.tasks.items():
            if not name.startswith("celery."):
                names.setdefault(name.rpartition(".")[2], task)
    return names


def _public(package: Any, name: str) -> Any:
    return getattr(package, name) if name in package.__all__ else None


def _python(names: dict[str, Any]) -> None:
    import code

    try:
        import readline
        import rlcompleter
    except ImportError:  # some builds of Python have no line editing
        pass
    else:
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner="", local=names, exitmsg="")


def _ipython(names: dict[str, Any]) -> None:
    try:
        terminal = importlib.import_module("IPython")
    except ImportError:
        raise click.ClickException(
            "IPython is not installed: pip install ipython, or use --python."
        ) from None
    terminal.start_ipython(argv=["--no-banner"], user_ns=names, display_banner=False)
