"""How this system tells that a file was written to: inotify, kqueue, or asking SQLite."""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from celeriac.drivers.sqlite.watch import Versioned

__all__ = ["Source", "VersionSource", "file_source"]


class Source(Protocol):
    def arm(self, path: str) -> bool:
        """From now on, remember that the file is written to; False if that is impossible.
        Raises FileNotFoundError."""

    def wait(self, timeout: float) -> bool:
        """Was it written to (since the last time this was true)? Waits for it."""

    def interrupt(self) -> None:
        """Let a ``wait`` in another thread return."""

    def close(self) -> None: ...


def file_source() -> Source | None:
    """What the system offers; None: nothing."""
    try:
        return KqueueSource() if hasattr(select, "kqueue") else InotifySource()
    except (OSError, AttributeError):
        pass  # no more watches for this user, or a C library without them: ask SQLite
    return None


class _Bell:
    """A file descriptor that another thread can make readable."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self._writing, False)

    def ring(self) -> None:
        try:
            os.write(self._writing, b"!")
        except BlockingIOError:
            pass  # it is ringing

    def silence(self) -> None:
        try:
            while os.read(self.reading, 4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.reading)
        os.close(self._writing)


_IN_MODIFY = 0x2
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class InotifySource:
    """The -wal file is deleted when its last user closes it and made anew by the next one, so it
    is looked up by its path each time; watching a watched file once more changes nothing."""

    def __init__(self) -> None:
        import ctypes  # costs a millisecond that only a waiter needs to spend

        library = ctypes.CDLL(None, use_errno=True)
        self._errno: Any = ctypes.get_errno
        self._add: Any = library.inotify_add_watch
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._descriptor = int(library.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
        if self._descriptor < 0:
            raise OSError(self._errno(), "inotify_init1")
        self._bell = _Bell()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._bell.reading, select.POLLIN)

    def arm(self, path: str) -> bool:
        if self._add(self._descriptor, os.fsencode(path), _IN_MODIFY) >= 0:
            return True
        if self._errno() == errno.ENOENT:
            raise FileNotFoundError(path)
        return False

    def wait(self, timeout: float) -> bool:
        woken = False
        for descriptor, _ in self._poll.poll(timeout * 1000):
            if descriptor == self._descriptor:
                os.read(descriptor, 65536)
                woken = True
            else:
                self._bell.silence()
        return woken

    def interrupt(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        os.close(self._descriptor)
        self._bell.close()


class KqueueSource:
    """The same on macOS and the BSDs, which watch an open file."""

    def __init__(self) -> None:
        self._kernel: Any = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
        self._bell = _Bell()
        self._open: tuple[int, int, int] | None = None  # descriptor, device, inode
        self._watch(self._bell.reading, "KQ_FILTER_READ", 0)

    def _watch(self, descriptor: int, kind: str, notes: int) -> None:
        names: Any = select
        event = names.kevent(
            descriptor,
            filter=getattr(names, kind),
            flags=names.KQ_EV_ADD | names.KQ_EV_CLEAR,
            fflags=notes,
        )
        self._kernel.control([event], 0)

    def arm(self, path: str) -> bool:
        names: Any = select
        try:
            found = os.stat(path)
            if self._open and self._open[1:] == (found.st_dev, found.st_ino):
                return True
            descriptor = os.open(path, os.O_RDONLY | _IN_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError:
            return False
        self._let_go()
        self._open = (descriptor, found.st_dev, found.st_ino)
        self._watch(descriptor, "KQ_FILTER_VNODE", names.KQ_NOTE_WRITE | names.KQ_NOTE_EXTEND)
        return True

    def wait(self, timeout: float) -> bool:
        woken = False
        for event in self._kernel.control([], 8, timeout):
            if event.ident == self._bell.reading:
                self._bell.silence()
            else:
                woken = True
        return woken

    def interrupt(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        self._let_go()
        self._kernel.close()
        self._bell.close()

    def _let_go(self) -> None:
        if self._open:
            os.close(self._open[0])
            self._open = None


class VersionSource:
    """Where files cannot be watched: ask, often at first, then every 20 ms."""

    FIRST = 0.001
    LONGEST = 0.020

    def __init__(self, versions: Versioned) -> None:
        self._versions = versions
        self._seen: tuple[int, int] | None = None
        self._interrupted = False

    def arm(self, path: str) -> bool:
        if self._seen is None:
            self._seen = self._versions.data_version()
        return True

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        pause = self.FIRST
        while not self._interrupted:
            version = self._versions.data_version()
            if version != self._seen:
                self._seen = version
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.2, self.LONGEST)
        self._interrupted = False
        return False

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        pass
