"""``celeriac`` itself: help, finding commands and applications, and errors."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from celeriac import Celeriac, __version__
from celeriac.cli import main
from celeriac.cli.foreign import ELSEWHERE
from celeriac.cli.root import COMMANDS, celeriac

if TYPE_CHECKING:
    from tests.cli.conftest import Project


def commands(group: click.Group = celeriac, path: str = "") -> list[tuple[str, click.Command]]:
    """Every command there is, with its subcommands."""
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((f"{path}{name}", command))
        if isinstance(command, click.Group):
            found += commands(command, f"{path}{name} ")
    return found


@pytest.mark.parametrize(("path", "command"), commands(), ids=[path for path, _ in commands()])
def test_help_teaches(path: str, command: click.Command) -> None:
    """Every command shows an example of itself, and says what each of its options does."""
    help_ = CliRunner().invoke(celeriac, [*path.split(), "--help"])
    assert help_.exit_code == 0
    assert f"celeriac -A tasks {path.split()[0]}" in help_.output
    if not isinstance(command, click.Group):
        assert f"celeriac -A tasks {path}" in help_.output
    assert command.short_help
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{path} {option.name}"


def test_help_needs_no_application(project: Project) -> None:
    """Neither the application nor a driver is imported for --help."""
    project.write("tasks.py", "raise SystemExit('imported')")
    code = (
        "import sys; from celeriac.cli import main\n"
        "try: main(['-A', 'tasks', '--help'])\n"
        "finally: print(sorted(m for m in sys.modules if m.startswith('celeriac')))"
    )
    done = project.run(command=(sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    *_, loaded = done.stdout.splitlines()
    for module in ("celeriac.app", "celeriac.conf", "celeriac.drivers", "celeriac.worker"):
        assert f"'{module}'" not in loaded


def test_module_is_the_command(project: Project) -> None:
    done = project.run("--version", command=(sys.executable, "-m", "celeriac"))
    assert (done.returncode, done.stdout) == (0, f"celeriac {__version__}\n")
    assert project.run("--version", CELERIAC_VERSION="image 7").stdout == done.stdout


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_commands_of_celerys(name: str, project: Project) -> None:
    """A command that Celery has and we have not says what to do instead."""
    assert name not in COMMANDS
    result = CliRunner().invoke(celeriac, [name, "--some-option"])
    assert result.exit_code == 2
    assert f"There is no command {name!r}" in result.output


def test_mistyped_command() -> None:
    result = CliRunner().invoke(celeriac, ["wroker"])
    assert result.exit_code == 2
    assert "Did you mean 'worker'?" in result.output


# --- the application ------------------------------------------------------------------------------


def test_no_application(project: Project) -> None:
    said = project.bad("status", code=2)
    assert "celeriac -A tasks" in said
    assert "tasks.py seems to hold one" in said


def test_missing_module(project: Project) -> None:
    said = project.bad("-A", "nowhere", "status")
    assert "'nowhere'" in said
    assert str(project.directory) in said


def test_module_without_application(project: Project) -> None:
    project.write("empty.py", "x = 1\n")
    assert "holds no Celeriac application" in project.bad("-A", "empty", "status")
    assert "has no 'missing'" in project.bad("-A", "tasks:missing", "status")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import celeriac\nimport no_such_module\n", ["no_such_module", "line 2", "Install"]),
        ("def f():\n    return 1 / 0\n\n\nf()\n", ["ZeroDivisionError", "line 2, in f", "1 / 0"]),
        ("def f(:\n", ["SyntaxError", "broken.py", "line 1"]),
        ("raise SystemExit('not today')\n", ["not today", "line 1"]),
    ],
    ids=["import", "error", "syntax", "exit"],
)
def test_error_inside_the_application(project: Project, text: str, words: list[str]) -> None:
    """What is wrong in the user's module is shown with file, line and error."""
    project.write("broken.py", text)
    said = project.bad("-A", "broken", "status")
    assert "'broken' cannot be loaded" in said
    for word in words:
        assert word in said


def test_wrong_setting(project: Project) -> None:
    text = "from celeriac import Celeriac\napp = Celeriac('x', broker_ulr='memory://')\n"
    project.write("tasks.py", text)
    assert "Did you mean broker_url?" in project.bad("-A", "tasks", "status")


def test_error_in_an_included_module(project: Project) -> None:
    """The frame shown is the user's, though the import is ours."""
    project.write("more.py", "x = 1\nx.missing\n")
    project.write(
        "tasks.py",
        "from celeriac import Celeriac\n"
        "app = Celeriac('x', broker='sqlite:///shop.db', include=['more'])\n",
    )
    said = project.bad("-A", "tasks", "call", "x")
    assert "more.py, line 2" in said
    assert "x.missing" in said
    assert "python -c 'import more'" in said  # importing tasks would show nothing


def test_an_included_module_that_is_not_there(project: Project) -> None:
    project.write(
        "tasks.py",
        "from celeriac import Celeriac\n"
        "app = Celeriac('x', broker='sqlite:///shop.db', include=['nowhere_at_all'])\n",
    )
    said = project.bad("-A", "tasks", "call", "x")
    assert "not there: 'nowhere_at_all', in include or imports" in said


def test_unknown_scheme_and_unusable_file(project: Project) -> None:
    said = project.bad("-b", "mongodb://user:secret@host/0", "status")
    assert "No driver is installed for mongodb://" in said
    assert "secret" not in said
    project.write("other.db", "this is no database" * 100)
    assert "other.db" in project.bad("-b", "sqlite:///other.db", "status")
    assert "missing/x.db" in project.bad("-b", "sqlite:///missing/x.db", "status")


def test_broker_alone_is_enough(project: Project) -> None:
    task_id = project.run("-b", project.url, "call", "tasks.add", "-a", "[1]").stdout.strip()
    assert project.json("queues", "list")[0]["waiting"] == 1
    said = project.bad("-b", project.url, "result", task_id)
    assert "waiting in celery" in said


def test_workdir_and_config(project: Project) -> None:
    inner = project.directory / "inner"
    inner.mkdir()
    project.write("inner/settings.py", 'task_default_queue = "elsewhere"\n')
    project.write("inner/tasks.py", (project.directory / "tasks.py").read_text())
    done = project.run(
        "--workdir", "inner", "-A", "tasks", "--config", "settings", "call", "tasks.add",
        "-a", "[1, 2]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (inner / "shop.db").exists()
    listed = project.run("--workdir", "inner", "-A", "tasks", "queues", "list")
    assert "elsewhere" in listed.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {"APP": "tasks"},
        {"CELERIAC_APP": "tasks", "APP": "nowhere"},
        {"CELERY_APP": "tasks"},
        {"CELERIAC_BROKER": "sqlite:///shop.db"},
        {"BROKER_URL": "sqlite:///shop.db"},
        {"CELERY_BROKER_URL": "sqlite:///shop.db"},
    ],
)
def test_environment(project: Project, environment: dict[str, str]) -> None:
    done = project.run("queues", "list", **environment)
    assert (done.returncode, done.stdout) == (0, "No queue holds anything.\n"), done.stderr


def test_options_of_commands_in_the_environment(project: Project) -> None:
    """CELERIAC_<COMMAND>_<OPTION>, then CELERY_<COMMAND>_<OPTION>; the line wins."""
    project.good("call", "tasks.add", "-a", "[1, 2]", CELERIAC_CALL_QUEUE="a")
    project.good("call", "tasks.add", CELERY_CALL_ARGS="[1, 2]", CELERY_CALL_QUEUE="b")
    project.good("call", "tasks.add", "-a", "[1, 2]", "--queue", "c", CELERIAC_CALL_QUEUE="d")
    assert [one["name"] for one in project.json("queues", "list")] == ["a", "b", "c"]


def test_misplaced_option(project: Project) -> None:
    said = project.bad("worker", "-A", "tasks", code=2)
    assert "-A stands before the command" in said


def test_memory_broker_is_explained(project: Project) -> None:
    done = project.run("-b", "memory://", "queues", "list")
    assert "lives in this process alone" in done.stderr
    assert project.run("-q", "-b", "memory://", "queues", "list").stderr == ""


# --- from a program -------------------------------------------------------------------------------


def test_main_with_an_application(capsys: pytest.CaptureFixture[str]) -> None:
    """app.start: the application needs no -A; returns when all went well."""
    with Celeriac("here", broker="memory://start", set_as_current=False) as app:
        app.send_task("some.task", queue="q")
        app.start(["queues", "list"])
        assert "some.task" not in capsys.readouterr().err
        app.start(["call", "other.task"])
        assert [info.waiting for info in app.admin().queues()] == [1, 1]
        with pytest.raises(SystemExit) as exit_:
            app.start(["dead", "show", "nothing"])
        assert exit_.value.code == 1
    with pytest.raises(SystemExit) as exit_:
        main(["nonsense"])
    assert exit_.value.code == 2


def test_plugin(project: Project) -> None:
    """An entry point of the group celeriac.commands is a command; a broken one is left out."""
    info = project.directory / "shop_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[celeriac.commands]\nhello = shop_plugin:hello\nbroken = shop_plugin:missing\n"
    )
    project.write(
        "shop_plugin.py",
        "import click\n"
        "@click.command(help='Say hello.')\n"
        "@click.pass_obj\n"
        "def hello(invocation): click.echo(f'hello {invocation.app.main}')\n",
    )
    path = {"PYTHONPATH": str(project.directory)}
    assert project.good("hello", **path) == "hello shop\n"
    listing = project.run("--help", **path)
    assert "Say hello." in listing.stdout
    assert "'broken' of the package shop-plugin cannot be loaded" in listing.stderr


def test_output_that_nobody_reads(project: Project) -> None:
    """As in ``celeriac … | head -1``: no traceback."""
    project.bury(*(f"dead-{number}" for number in range(300)))
    done = subprocess.run(
        f"{sys.executable} -m celeriac -A tasks dead list --limit 300 | head -1",
        shell=True,
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("ID ")
    assert "Traceback" not in done.stderr
