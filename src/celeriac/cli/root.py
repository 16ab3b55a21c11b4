"""``celeriac`` itself: the options that stand before the command, and finding the command."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import click

from celeriac import __version__
from celeriac.cli.errors import in_plain_words
from celeriac.cli.foreign import ELSEWHERE, without_effect
from celeriac.cli.invocation import Invocation
from celeriac.cli.params import PREFIX, option

if TYPE_CHECKING:
    from celeriac.app import Celeriac

PLUGINS = "celeriac.commands"
"""Entry points of this group are commands: the name, and a click command."""

COMMANDS: Mapping[str, str] = {
    "worker": "celeriac.cli.worker:worker",
    "beat": "celeriac.cli.beat:beat",
    "call": "celeriac.cli.call:call",
    "result": "celeriac.cli.result:result",
    "graph": "celeriac.cli.graph:graph",
    "status": "celeriac.cli.status:status",
    "queues": "celeriac.cli.queues:queues",
    "purge": "celeriac.cli.purge:purge",
    "schedules": "celeriac.cli.schedules:schedules",
    "dead": "celeriac.cli.dead:dead",
    "revoke": "celeriac.cli.revoke:revoke",
    "report": "celeriac.cli.report:report",
    "shell": "celeriac.cli.shell:shell",
}

_STARTED = "_CELERIAC_STARTED_IN"
_GLOBAL_OPTIONS = ("-A", "--app", "-b", "--broker", "--result-backend", "--config", "--workdir")


class Root(click.Group):
    """Loads commands when they are asked for, and says what went wrong in plain words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        plugin = _plugins().get(cmd_name)
        return _load_plugin(plugin) if plugin is not None else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(_unknown_command(name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with in_plain_words():
            try:
                return super().invoke(ctx)
            except click.NoSuchOption as exc:
                if exc.option_name in _GLOBAL_OPTIONS:
                    raise click.UsageError(
                        f"{exc.option_name} stands before the command, as in "
                        "celeriac -A tasks worker.",
                        exc.ctx,
                    ) from None
                raise


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGINS)}


def _load_plugin(point: EntryPoint) -> click.Command | None:
    """Somebody else's command; without it, and said so, if it cannot be imported."""
    try:
        command = point.load()
    except Exception as exc:
        click.echo(
            f"The command {point.name!r} of the package {point.dist and point.dist.name} cannot "
            f"be loaded: {type(exc).__name__}: {exc}",
            err=True,
        )
        return None
    return command if isinstance(command, click.Command) else None


def _unknown_command(name: str, known: Sequence[str]) -> str:
    if name in ELSEWHERE:
        return f"There is no command {name!r}: {ELSEWHERE[name]}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(known)}."
    return f"There is no command {name!r}. {hint}"


@click.group(
    "celeriac",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: celeriac worker --help. Options may be set in the "
    "environment, as CELERIAC_<COMMAND>_<OPTION>.",
)
@option(
    "-A",
    "--app",
    "spec",
    metavar="MODULE[:NAME]",
    envvar=["CELERIAC_APP", "CELERY_APP", "APP"],
    help="The module that holds your application, as in -A tasks or -A shop.tasks:app.",
)
@option(
    "-b",
    "--broker",
    metavar="URL",
    envvar=["CELERIAC_BROKER", "BROKER_URL"],
    help="Use this broker, whatever the application is configured with.",
)
@option(
    "--result-backend",
    metavar="URL",
    envvar=["CELERIAC_RESULT_BACKEND", "RESULT_BACKEND"],
    help="Use this result backend.",
)
@option(
    "--config",
    metavar="MODULE",
    envvar=["CELERIAC_CONFIG_MODULE", "CELERY_CONFIG_MODULE", "CONFIG_MODULE"],
    help="Read the settings from this module.",
)
@option(
    "--workdir",
    metavar="DIRECTORY",
    help="Change to this directory first.",
)
@option("-C", "--no-color", is_flag=True, envvar="NO_COLOR", help="Do not colour what is shown.")
@option("-q", "--quiet", is_flag=True, help="Say only what was asked for, and errors.")
@without_effect("--loader", reason="applications load themselves")
@without_effect("--skip-checks", is_flag=True, reason="nothing is checked that could be skipped")
@click.version_option(__version__, message="celeriac %(version)s", allow_from_autoenv=False)
@click.pass_context
def celeriac(
    ctx: click.Context,
    *,
    spec: str | None,
    broker: str | None,
    result_backend: str | None,
    config: str | None,
    workdir: str | None,
    no_color: bool,
    quiet: bool,
) -> None:
    """A distributed task queue: nothing that was accepted is ever lost.

    \b
    Start with a module that holds an application:
        # tasks.py
        from celeriac import Celeriac
        app = Celeriac("shop")
        @app.task
        def add(x, y): return x + y
    \b
    Then:
        celeriac -A tasks worker -l info
        celeriac -A tasks call tasks.add -a '[2, 3]' --wait 10
        celeriac -A tasks status
    """
    start_dir = _start_dir()
    if workdir:
        os.chdir(os.path.join(start_dir, workdir))
    if no_color:
        ctx.color = False
    ctx.obj = Invocation(
        given=ctx.obj,
        spec=spec,
        broker=broker,
        result_backend=result_backend,
        config=config,
        quiet=quiet,
        no_color=no_color,
        start_dir=start_dir,
    )


def _start_dir() -> str:
    """Where this process was started, though SIGHUP may have had it start its program anew."""
    pid, _, directory = os.environ.get(_STARTED, "").partition(":")
    if pid == str(os.getpid()):
        return directory
    os.environ[_STARTED] = f"{os.getpid()}:{os.getcwd()}"
    return os.getcwd()


def run(args: Sequence[str] | None, app: Celeriac | None) -> int:
    """Run the command line; the exit code. Errors were shown."""
    try:
        code = celeriac.main(
            args=None if args is None else list(args),
            prog_name="celeriac",
            obj=app,
            auto_envvar_prefix=PREFIX,
            standalone_mode=False,
        )
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("Stopped; nothing more was done.", err=True)
        return 1
    return code if isinstance(code, int) else 0
