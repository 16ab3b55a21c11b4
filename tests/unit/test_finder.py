"""What ``-A`` finds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.exceptions import ImproperlyConfigured
from celeriac.finder import find_app

APP = 'from celeriac import Celeriac\n{name} = Celeriac("{main}", broker="memory://")\n'

FILES = {
    "plain_mod.py": APP.format(name="app", main="plain"),
    "named_celery.py": APP.format(name="celery", main="as celery"),
    "any_name.py": APP.format(name="whatever", main="any"),
    "derived.py": (
        "from celeriac import Celeriac\n"
        "class Own(Celeriac): pass\n"
        'thing = Own("derived", broker="memory://")\n'
    ),
    "two.py": APP.format(name="first", main="one") + APP.format(name="app", main="two"),
    "deep.py": APP.format(name="inner", main="deep") + "class Holder: app = inner\ninner2 = 5\n",
    "proxies.py": "from celeriac import current_app, current_app as app\n",
    "proxy_and_own.py": "from celeriac import current_app\n" + APP.format(name="own", main="own"),
    "none.py": "x = 1\n",
    "broken.py": "import not_there_at_all\n",
    "failing.py": "1/0\n",
    "proj/__init__.py": "",
    "proj/celery.py": APP.format(name="app", main="proj.celery"),
    "other/__init__.py": "",
    "other/celeriac.py": APP.format(name="app", main="other.celeriac"),
    "exporting/__init__.py": "from exporting.celery import app as celery_app\n",
    "exporting/celery.py": APP.format(name="app", main="exporting"),
    "empty/__init__.py": "",
}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    before, path_before = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path_before
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("spec", "main"),
    [
        ("plain_mod", "plain"),
        ("plain_mod:app", "plain"),
        ("plain_mod.app", "plain"),
        ("named_celery", "as celery"),
        ("any_name", "any"),
        ("derived", "derived"),
        ("two", "two"),
        ("two:first", "one"),
        ("deep:Holder.app", "deep"),
        ("proxy_and_own", "own"),
        ("proj", "proj.celery"),
        ("proj.celery", "proj.celery"),
        ("other", "other.celeriac"),
        ("exporting", "exporting"),
        ("exporting:celery_app", "exporting"),
    ],
)
def test_found(spec: str, main: str) -> None:
    assert find_app(spec).main == main


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "no module 'nowhere'"),
        ("nowhere.at.all", "no module"),
        ("plain_mod:nothing", "has no 'nothing'"),
        ("plain_mod.nothing", "Cannot find"),
        ("deep:inner2", "is a int, not"),
        ("none", "holds no Celeriac application"),
        ("empty", "holds no Celeriac application"),
        ("proxies", "holds no Celeriac application"),
    ],
)
def test_not_found_says_what_was_looked_for(spec: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        find_app(spec)


def test_errors_inside_the_module_come_out_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        find_app("broken")
    with pytest.raises(ZeroDivisionError):
        find_app("failing")
