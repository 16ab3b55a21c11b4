"""Records of tasks: written by workers, read by results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac import states
from celeriac.message import TaskRecord
from celeriac.protocol import results as documents
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app.configured import ConfiguredApp
    from celeriac.request import Request


class Records:
    """Writes and reads the records of one application, as its settings say."""

    def __init__(self, app: ConfiguredApp) -> None:
        conf = app.conf
        self.serializer: str = conf.result_serializer
        self.compression: str | None = conf.result_compression
        self.extended: bool = bool(conf.result_extended)
        expires = conf.result_expires
        self.expires: float | None = float(expires) if expires else None
        failure = conf.result_failure_expires
        self.failure_expires: float | None = float(failure) if failure else self.expires

    def write(
        self,
        id: str,
        run: str,
        state: str,
        value: Any,
        *,
        traceback: str | None = None,
        request: Request | None = None,
        children: Sequence[Any] = (),
        hostname: str = "",
        reply_to: str = "",
    ) -> TaskRecord:
        """The record of a task. ``value``: what it returned, an exception for the exception
        states, the meta of a custom state. Raises EncodeError if it cannot be written."""
        ready = state in states.READY_STATES
        now = time.time()
        if state in states.EXCEPTION_STATES and isinstance(value, BaseException):
            value = documents.exception_form(value, self.serializer)
        group = parent = None
        if request is not None:
            group, parent = request.group, request.parent_id
        payload = documents.encode_meta(
            id=id,
            state=state,
            result=value,
            traceback=traceback,
            children=children,
            date_done=now if ready else None,
            group_id=group,
            parent_id=parent,
            extended=self._extended(request, hostname) if self.extended and request else None,
            serializer=self.serializer,
            compression=self.compression,
        )
        expires = self.failure_expires if state == states.FAILURE else self.expires
        return TaskRecord(
            id=id,
            run=run,
            state=state,
            ready=ready,
            payload=payload,
            expires_at=now + expires if expires is not None else None,
            reply_to=reply_to or (request.reply_to or "" if request is not None else ""),
        )

    def _extended(self, request: Request, hostname: str) -> dict[str, Any]:
        extended: dict[str, Any] = {
            "name": request.task,
            "args": request.args,
            "kwargs": request.kwargs,
            "worker": hostname,
            "retries": request.retries,
            "queue": request.delivery_info.get("routing_key"),
        }
        if request.stamped_headers:
            extended["stamped_headers"] = request.stamped_headers
            extended.update(request.stamps or {})
        return extended

    def with_child(self, record: TaskRecord, child: Any) -> TaskRecord:
        """The record with one more result tuple among the children."""
        payload = documents.with_child(record.payload, child, self.serializer, self.compression)
        return replace(record, payload=payload)

    def write_group(self, id: str, tuples: Any) -> TaskRecord:
        """The record of a saved group: which results it has."""
        return TaskRecord(
            id=documents.group_key(id),
            run=uuid(),  # saved again, it is replaced
            state="GROUP",
            ready=True,
            payload=documents.encode_group(tuples, self.serializer),
            expires_at=time.time() + self.expires if self.expires is not None else None,
        )

    def read_group(self, record: TaskRecord) -> Any:
        """The tuples of a saved group. Raises DecodeError."""
        return documents.decode_group(record.payload, self.serializer)

    def read(self, record: TaskRecord) -> Mapping[str, Any]:
        """The document of a record, its exception rebuilt. Raises DecodeError."""
        meta = documents.decode_meta(record.payload, self.serializer)
        if meta.get("status") in states.EXCEPTION_STATES:
            form = meta.get("result")
            if form is not None and not isinstance(form, BaseException):
                meta["result"] = documents.exception_from_form(form)
        return meta
