"""The slot table: the one small memory that the processes of a worker share.

A header (written by the supervisor and the agent), then a slot for each task that can run at once
(written by its runner), then the buckets of rate limits (worker/limits.py). Every field has one
writer at a time and is one aligned word, except the record of the running task. That record is
framed by its sequence number: it counts only if both ends agree, so a reader which has stopped
the writer (SIGSTOP), or outlived it, never sees half of one.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import tempfile
from typing import Final

from msgspec import Struct

from celeriac.message import Tag
from celeriac.worker.bell import Bell

MAGIC: Final = 0x3130_544F_4C53_4C43  # "CLSLOT01", read as a little-endian word
MAX_TAG: Final = 64
MAX_ID: Final = 160
MAX_NAME: Final = 160

_HEADER_SIZE = 256
_SLOT_SIZE = 640
BUCKET_SIZE: Final = 256

# Words of the header, 8 bytes each.
_H_MAGIC, _H_SLOTS, _H_BUCKETS, _H_SUPERVISOR, _H_STOPPING, _H_EPOCH, _H_AGENT, _H_RATES = range(8)
_HD_DEADLINE, _HD_BEAT = 8, 9

# Words of a slot. The running record follows at _RECORD.
_S_PID, _S_INCARNATION, _S_STATE, _S_CANCEL, _S_RSS = range(5)
_S_COUNTERS = 5  # claimed, done, failed, retried, deferred
_RECORD = 96
# seq, started, soft, hard, int tag, lengths of tag (0: the int), id and name; bytes of them; seq
_RUNNING = struct.Struct(f"=QdddqHHHH{MAX_TAG}s{MAX_ID}s{MAX_NAME}sQ")
assert _RECORD + _RUNNING.size <= _SLOT_SIZE


class Stopping(enum.IntEnum):
    """What the whole worker is doing."""

    NO = 0
    WARM = 1  # claim nothing more, finish what runs
    COLD = 2  # everything is killed and given back


class SlotState(enum.IntEnum):
    """What a runner process is doing."""

    STARTING = 0  # not yet able to claim; what its predecessor held may not be settled
    IDLE = 1  # waits for messages
    CLAIMING = 2
    RUNNING = 3
    DRAINING = 4  # claims nothing more and will end
    GONE = 5  # no process


class Counters(Struct, frozen=True):
    """What a slot has done since the worker started, all its processes together."""

    claimed: int
    done: int
    failed: int
    retried: int
    deferred: int


class Running(Struct, frozen=True):
    """The task that a slot runs. ``started`` is CLOCK_MONOTONIC; a limit of 0 is none."""

    seq: int
    tag: Tag
    task_id: str
    name: str
    started: float
    soft: float
    hard: float


class SlotView(Struct, frozen=True):
    """One reading of a slot. ``rss`` is in KiB, as last reported by the runner."""

    index: int
    pid: int
    incarnation: int
    state: SlotState
    running: Running | None
    counters: Counters
    rss: int


class Slot:
    """One slot, as written by its runner and read by anyone."""

    __slots__ = ("_buffer", "_record", "_seq", "_word", "_words", "index")

    def __init__(self, table: SlotTable, index: int) -> None:
        self.index = index
        offset = _HEADER_SIZE + index * _SLOT_SIZE
        self._buffer = table.buffer
        self._words = table.words
        self._word = offset // 8
        self._record = offset + _RECORD
        self._seq = 0

    def start(
        self,
        tag: Tag,
        task_id: str,
        name: str,
        started: float,
        soft: float = 0.0,
        hard: float = 0.0,
    ) -> int:
        """This slot runs the task from now on; the number of this run in its process. Long ids
        and names are cut; a tag that does not fit raises ValueError."""
        self._seq = seq = self._seq + 1
        ident = task_id.encode()[:MAX_ID]
        title = name.encode()[:MAX_NAME]
        if tag.__class__ is int:
            number, text = tag, b""
        else:
            number, text = 0, str(tag).encode()
            if len(text) > MAX_TAG:
                raise ValueError(f"delivery tag of {len(text)} bytes; {MAX_TAG} at most: {tag!r}")
        _RUNNING.pack_into(
            self._buffer,
            self._record,
            seq,
            started,
            soft,
            hard,
            number,
            len(text),
            len(ident),
            len(title),
            0,
            text,
            ident,
            title,
            seq,
        )
        return seq

    def finish(self) -> None:
        """This slot runs nothing."""
        self._words[self._record // 8] = 0

    def set_state(self, state: SlotState) -> None:
        self._words[self._word + _S_STATE] = state

    def set_rss(self, kib: int) -> None:
        self._words[self._word + _S_RSS] = kib

    def count(
        self,
        *,
        claimed: int = 0,
        done: int = 0,
        failed: int = 0,
        retried: int = 0,
        deferred: int = 0,
    ) -> None:
        """Add to the counters."""
        words, at = self._words, self._word + _S_COUNTERS
        if done:
            words[at + 1] += done
        if claimed:
            words[at] += claimed
        if failed:
            words[at + 2] += failed
        if retried:
            words[at + 3] += retried
        if deferred:
            words[at + 4] += deferred

    @property
    def claimed(self) -> int:
        """How many messages this slot has claimed (cheap; for the watchdog)."""
        return self._words[self._word + _S_COUNTERS]

    @property
    def pid(self) -> int:
        return self._words[self._word + _S_PID]

    @property
    def state(self) -> SlotState:
        return SlotState(self._words[self._word + _S_STATE])

    @property
    def incarnation(self) -> int:
        return self._words[self._word + _S_INCARNATION]

    def next_incarnation(self) -> int:
        """The process in this slot becomes another owner (its lease was lost), or gets a
        successor."""
        at = self._word + _S_INCARNATION
        self._words[at] += 1
        return self._words[at]

    def occupy(self, pid: int) -> None:
        """A process starts in this slot (written by the supervisor). Pid 0: none is there."""
        self._words[self._record // 8] = 0
        self._words[self._word + _S_CANCEL] = 0
        self._words[self._word + _S_STATE] = SlotState.STARTING if pid else SlotState.GONE
        self._words[self._word + _S_PID] = pid

    def set_pid(self, pid: int) -> None:
        self._words[self._word + _S_PID] = pid

    def request_cancel(self, seq: int) -> None:
        """Ask the process, where it runs several tasks, to cancel this run."""
        self._words[self._word + _S_CANCEL] = seq

    @property
    def cancel_requested(self) -> int:
        """The number of the run that is to be cancelled, or 0."""
        return self._words[self._word + _S_CANCEL]

    def running(self) -> Running | None:
        """The task that runs, or None. Whole only while the process is stopped or gone; one read
        while it works is a hint."""
        fields = _RUNNING.unpack_from(self._buffer, self._record)
        seq, started, soft, hard, number, tag_len, id_len, name_len, _, text, ident, title, end = (
            fields
        )
        if seq == 0 or seq != end:
            return None
        tag: Tag = text[:tag_len].decode(errors="replace") if tag_len else number
        return Running(
            seq,
            tag,
            ident[:id_len].decode(errors="replace"),
            title[:name_len].decode(errors="replace"),
            started,
            soft,
            hard,
        )

    def hard_deadline(self) -> float:
        """When the running task passes its hard limit (CLOCK_MONOTONIC), 0.0 if it has none. A
        hint, cheap enough to be asked of every slot many times a second."""
        record = self._record
        if not self._words[record // 8]:
            return 0.0
        started, _, hard = _LIMITS.unpack_from(self._buffer, record + 8)
        return started + hard if hard else 0.0

    def read(self) -> SlotView:
        words, at = self._words, self._word
        return SlotView(
            self.index,
            words[at + _S_PID],
            words[at + _S_INCARNATION],
            SlotState(words[at + _S_STATE]),
            self.running(),
            Counters(*words[at + _S_COUNTERS : at + _S_COUNTERS + 5]),
            words[at + _S_RSS],
        )


_LIMITS = struct.Struct("=ddd")


class SlotTable:
    """The memory as one process maps it. ``fd`` may be inherited: by fork as it is, and by a
    spawned process, which calls ``attach``. ``bell`` rings when the worker is to stop."""

    def __init__(self, fd: int, bell: Bell) -> None:
        size = os.fstat(fd).st_size
        self.fd = fd
        self.bell = bell
        self._map = mmap.mmap(fd, size)
        self.buffer = memoryview(self._map)
        self.words: memoryview[int] = self.buffer.cast("Q")
        self._doubles: memoryview[float] = self.buffer.cast("d")
        self.size: int = self.words[_H_SLOTS]
        self.buckets: int = self.words[_H_BUCKETS]
        self.buckets_at = _HEADER_SIZE + self.size * _SLOT_SIZE
        self._slots = [Slot(self, index) for index in range(self.size)]

    @classmethod
    def create(cls, slots: int, buckets: int = 0) -> SlotTable:
        """A new table, owned by the calling process as its supervisor."""
        fd = _anonymous_file(_HEADER_SIZE + slots * _SLOT_SIZE + buckets * BUCKET_SIZE)
        header = struct.pack("=QQQQ", MAGIC, slots, buckets, os.getpid())
        os.pwrite(fd, header, 0)
        table = cls(fd, Bell.hung())
        for slot in table._slots:
            slot.set_state(SlotState.GONE)
        return table

    @classmethod
    def attach(cls, fd: int, bell_fd: int) -> SlotTable:
        """The table behind inherited file descriptors."""
        if os.pread(fd, 8, 0) != struct.pack("=Q", MAGIC):
            raise ValueError(f"file descriptor {fd} is not a slot table")
        return cls(fd, Bell(bell_fd))

    def close(self) -> None:
        """Unmap; the slots of this table must not be used any more."""
        self._slots = []
        self.words.release()
        self._doubles.release()
        self.buffer.release()
        self._map.close()
        os.close(self.fd)
        self.bell.close()

    def slot(self, index: int) -> Slot:
        return self._slots[index]

    def slots(self) -> list[Slot]:
        return list(self._slots)

    @property
    def supervisor_pid(self) -> int:
        return self.words[_H_SUPERVISOR]

    @property
    def stopping(self) -> int:
        """See Stopping; an int, as runners look at it between any two tasks."""
        return self.words[_H_STOPPING]

    def stop(self, mode: Stopping, deadline: float = 0.0) -> None:
        """Tell every process. ``deadline`` (CLOCK_MONOTONIC): when running tasks are killed; 0
        never."""
        self._doubles[_HD_DEADLINE] = deadline
        self.words[_H_STOPPING] = mode
        self.bell.ring()

    @property
    def stop_deadline(self) -> float:
        return self._doubles[_HD_DEADLINE]

    @property
    def lease_epoch(self) -> int:
        """0 until the lease is registered for the first time; grows whenever it was lost and
        registered anew: runners must then become new owners."""
        return self.words[_H_EPOCH]

    def bump_lease_epoch(self) -> int:
        self.words[_H_EPOCH] += 1
        return self.words[_H_EPOCH]

    @property
    def agent_incarnation(self) -> int:
        return self.words[_H_AGENT]

    def next_agent_incarnation(self) -> int:
        self.words[_H_AGENT] += 1
        return self.words[_H_AGENT]

    @property
    def agent_beat(self) -> float:
        """When the agent was last seen in its loop (CLOCK_MONOTONIC)."""
        return self._doubles[_HD_BEAT]

    def beat(self, now: float) -> None:
        self._doubles[_HD_BEAT] = now

    @property
    def rates_generation(self) -> int:
        """Grows whenever a rate limit is set; see worker/limits.py."""
        return self.words[_H_RATES]

    def bump_rates_generation(self) -> None:
        self.words[_H_RATES] += 1


def _anonymous_file(size: int) -> int:
    """A file without a name. Forked processes have it; process.py hands it to spawned ones."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("celeriac-slots", 0)
    else:
        fd, path = tempfile.mkstemp(prefix="celeriac-slots-")
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd
