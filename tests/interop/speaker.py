"""A client in a process of its own: reads expressions, answers with their values.

Every message is four bytes of length and a pickle, between this process and the test that started
it. An expression sees the names of shop.py and those that come with it.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import os
import pickle
import struct
import sys
import traceback
import uuid
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import shop


def _read(stream: Any) -> Any:
    head = stream.read(4)
    if len(head) < 4:
        return None
    return pickle.loads(stream.read(struct.unpack("!I", head)[0]))


def _write(stream: Any, value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(struct.pack("!I", len(data)) + data)
    stream.flush()


def _plain(value: Any) -> Any:
    """Something that the other process can read without this side's package."""
    try:
        data = pickle.dumps(value)
        if b"celer" not in data and b"shop" not in data and b"billiard" not in data:
            return value
        if isinstance(value, str | bytes | int | list | dict | tuple) or value is None:
            return value
    except Exception:
        return repr(value)
    return repr(value)


def _described(exc: BaseException) -> dict[str, Any]:
    cls = type(exc)
    return {
        "name": cls.__name__,
        "module": cls.__module__,
        "args": [_plain(arg) for arg in exc.args],
        "bases": [base.__name__ for base in cls.__mro__],
        "traceback": traceback.format_exc(),
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints goes to the log
    names = {
        **vars(shop),
        "base64": base64,
        "datetime": datetime,
        "decimal": decimal,
        "uuid": uuid,
        "described": _described,
        "result_of": shop.app.AsyncResult,
    }
    while True:
        asked = _read(sys.stdin.buffer)
        if asked is None:
            return
        source, given = asked
        try:
            scope = {**names, **given}
            value = _plain(eval(compile(source, "<asked>", "eval"), scope))
        except BaseException as exc:
            _write(answers, ("raised", _described(exc)))
        else:
            _write(answers, ("value", value))


if __name__ == "__main__":
    main()
