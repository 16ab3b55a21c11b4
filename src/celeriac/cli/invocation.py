"""What was said before the command, and the application that it leads to."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.errors import fail_on_import, place
from celeriac.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app import Celeriac

_APPLICATION = re.compile(rb"^\w+(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)?(?:Celeriac|Celery)\(", re.M)
_LOOKED_THROUGH = 50  # files, when somebody has forgotten -A
_LOOKED_INTO = 64 * 1024


class Invocation:
    """One run of the command line; commands get it as ``click.pass_obj``."""

    def __init__(
        self,
        *,
        given: Celeriac | None = None,
        spec: str | None = None,
        broker: str | None = None,
        result_backend: str | None = None,
        config: str | None = None,
        quiet: bool = False,
        no_color: bool = False,
        start_dir: str = "",
    ) -> None:
        self.spec = spec
        self.broker = broker
        self.result_backend = result_backend
        self.config = config
        self.quiet = quiet
        self.no_color = no_color
        self.start_dir = start_dir or os.getcwd()
        self._given = given
        self._app: Celeriac | None = None

    # --- the application ----------------------------------------------------------------------

    @property
    def has_app(self) -> bool:
        """Was an application named, so that its tasks can be known?"""
        return self._given is not None or bool(self.spec)

    @property
    def app(self) -> Celeriac:
        """The application, configured. Without one a broker is enough, and stands for it."""
        if self._app is None:
            self._hand_on()
            self._app = self._found()
            self._configure(self._app)
        return self._app

    def whole_app(self) -> Celeriac:
        """The application with all its tasks imported."""
        app = self.app
        if self.has_app:
            self._run_theirs(app.import_modules)
            self._run_theirs(app.finalize)
        return app

    def need_app(self, command: str) -> None:
        """For commands that cannot do without the application's tasks."""
        if not self.has_app:
            raise click.UsageError(
                f"celeriac {command} needs the application: name its module before the command, "
                f"as in\n    celeriac -A tasks {command}\nwhere tasks.py holds "
                f'app = Celeriac("shop").{_suggestion(command)}'
            )

    def _found(self) -> Celeriac:
        if self._given is not None and not self.spec:
            return self._given
        if self.spec:
            from celeriac.finder import find_app

            spec = self.spec
            found: Celeriac = self._run_theirs(lambda: find_app(spec))
            return found
        from celeriac.app import Celeriac

        if not (self.broker or self.config or _broker_in_environment()):
            raise click.UsageError(
                "No application and no broker: name the module that holds your application, as "
                "in celeriac -A tasks …, or the broker, as in celeriac -b sqlite:///celeriac.db …"
                + _suggestion("…")
            )
        return Celeriac("celeriac")

    def _configure(self, app: Celeriac) -> None:
        if self.config:
            app.config_from_object(self.config)
        self._run_theirs(lambda: app.conf)
        urls = {"broker_url": self.broker, "result_backend": self.result_backend}
        given = {name: url for name, url in urls.items() if url}
        if given:
            app.conf.override(given)

    def _hand_on(self) -> None:
        """Processes of a worker that are spawned find the application anew, and these with it."""
        if self.broker:
            os.environ["CELERIAC_BROKER_URL"] = self.broker
        if self.result_backend:
            os.environ["CELERIAC_RESULT_BACKEND"] = self.result_backend

    def _run_theirs(self, call: Callable[[], Any]) -> Any:
        """Run what imports the user's modules; their errors are shown as theirs."""
        try:
            return call()
        except click.ClickException:
            raise
        except ImproperlyConfigured as exc:
            if place(exc) is None:  # ours: nothing of theirs was running
                raise
            self._fail(exc)
        except (Exception, SystemExit) as exc:
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        module = (self.spec or "").partition(":")[0]
        what = f"The application {self.spec!r}" if self.spec else "The application"
        fail_on_import(exc, what, module or "your_module")

    # --- saying -------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something that helps, on the error stream; not with --quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def note_unshared(self) -> None:
        """A broker inside this process is empty, and what is put into it is gone at once."""
        app = self.app
        if self._given is None and not app.producer.broker.capabilities.shared:
            from celeriac.conf import hide_in_url

            self.note(
                f"The broker {hide_in_url(app.broker_url)} lives in this process alone: nothing "
                "of another process is seen here, nor will it see anything of this one."
            )


def spec_of(app: Celeriac) -> str:
    """``module:name`` under which another process finds the application; empty if it cannot."""
    for name, module in list(sys.modules.items()):
        if name == "__main__" or module is None:
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{name}:{attribute}"
    return ""


def _broker_in_environment() -> bool:
    return bool(os.environ.get("CELERIAC_BROKER_URL") or os.environ.get("CELERY_BROKER_URL"))


def _suggestion(command: str) -> str:
    """The module of this directory that seems to hold an application, if there is one."""
    for entry in sorted(os.scandir("."), key=lambda entry: entry.name)[:_LOOKED_THROUGH]:
        if not entry.name.endswith(".py") or not entry.is_file():
            continue
        with open(entry.path, "rb") as file:
            if _APPLICATION.search(file.read(_LOOKED_INTO)):
                return f"\n{entry.name} seems to hold one: celeriac -A {entry.name[:-3]} {command}"
    return ""
