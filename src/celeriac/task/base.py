"""Task: a function that can run elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, cast

from celeriac import execution, storing
from celeriac.canvas.signature import Signature
from celeriac.exceptions import Retry
from celeriac.request import Request, current_request, pop, push
from celeriac.task import replacing, retrying
from celeriac.task.calling import Calling, P, R
from celeriac.task.describing import Describing
from celeriac.task.handlers import Handlers
from celeriac.task.options import FROM_CONFIG, SENDING_OPTIONS

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.result import AsyncResult


class Task(Calling[P, R], Describing[P, R], Handlers, Generic[P, R]):
    """One task of an application. There is one object of it in each process, shared by all calls.

    Subclass it for behaviour shared by several tasks (``base=``), or write ``run`` and register
    an object of it. Options are class attributes; None means "as the settings say".
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "abstract" not in cls.__dict__:
            cls.abstract = False

    # --- life -------------------------------------------------------------------------------

    def bind(self, app: Celeriac) -> None:
        """Take from the settings what the options leave open. Called once, by the application."""
        conf = app.conf
        # What the task itself says goes over routes; a mere setting is used where nothing is said.
        self._sending = {
            option: value
            for option in SENDING_OPTIONS
            if (value := getattr(self, option, None)) is not None
        }
        for option, setting in FROM_CONFIG.items():
            if getattr(self, option, None) is None:
                setattr(self, option, getattr(conf, setting))
        self._sending["ignore_result"] = self.ignore_result
        if self.typing is None:
            self.typing = app.strict_typing
        self._names_shadow = type(self).shadow_name is not Task.shadow_name
        execution.prepare(self)
        self._bound = True
        self.on_bound(app)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if self._bound and name in SENDING_OPTIONS:  # changed later on, for calls from now on
            sending = {key: old for key, old in self._sending.items() if key != name}
            if value is not None:
                sending[name] = value
            object.__setattr__(self, "_sending", sending)
            object.__setattr__(self, "_plan", None)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body of the task; subclasses write it, the decorator sets it."""
        raise NotImplementedError(f"task {self.name} has no run(): define one")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, as a function."""
        running = current_request()
        if running is not None and running._entering and running._task is self:
            # A worker calls through an overridden __call__ that calls this one: the same call.
            running._entering = False
            return cast(R, self.run(*args, **kwargs))
        request = Request(args=args, kwargs=kwargs, task=self.name, called_directly=True)
        request._task = self
        request._outer = running
        token = push(request)
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            pop(token)

    @property
    def request(self) -> Request:
        """The call that this task runs for in this context; an empty one outside."""
        request = current_request()
        while request is not None and request._task is not self:
            request = request._outer
        return request if request is not None else Request(task=self.name)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make a request current by hand; for tests."""
        request = Request(*args, **kwargs)
        request._task = self
        request._outer = current_request()
        push(request)

    def pop_request(self) -> None:
        """Undo ``push_request``."""
        request = current_request()
        push(request._outer if request is not None else None)

    @property
    def backend(self) -> Any:
        return self.app.backend

    @property
    def __name__(self) -> str:
        return str(self.name).rsplit(".", 1)[-1]

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main if self.app else None}>"

    def __reduce__(self) -> Any:
        return _by_name, (self.name,)

    # --- while running ----------------------------------------------------------------------

    def retry(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Try this call again later: same id, ``retries`` + 1.

        Raises Retry (with ``throw=False`` returns it); ``exc``, or MaxRetriesExceededError, when
        it was retried ``max_retries`` times; called as a function, the error being handled.
        """
        return retrying.retry(
            self,
            args,
            kwargs,
            exc,
            throw=throw,
            when=eta if eta is not None else countdown,
            max_retries=self.max_retries if max_retries is None else max_retries,
            options=options,
        )

    def signature_from_request(
        self,
        request: Request | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> Signature[Any]:
        """The signature of the call that is running, with other arguments where given."""
        request = request if request is not None else self.request
        options = {**request.as_execution_options(), **extra}
        return self.signature(
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
            **{key: value for key, value in options.items() if value is not None},
        )

    subtask_from_request = signature_from_request

    def replace(self, sig: Signature[Any]) -> Any:
        """Let another task, or a whole workflow, take the place of this call: its id, what follows
        it, its part of a chord. A group gives the list of its results. Nothing after this line is
        run; ``raise self.replace(…)`` and ``return self.replace(…)`` are the same."""
        return self.on_replace(replacing.replacement(self, sig))

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Send what takes the place of this call; for subclasses."""
        return replacing.replace(self, sig)

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Let the chord that this call is part of wait for one more task, which is sent when this
        call has succeeded; its result comes after those of the header. Raises ValueError if the
        call is not part of a chord. ``lazy``: return the signature, else the result to be."""
        return replacing.add_to_chord(self, sig, lazy)

    def autoretry(self, exc: BaseException) -> None:
        """Raise Retry if ``autoretry_for`` names the error; ``exc`` itself when all tries are
        used up; otherwise return."""
        retrying.autoretry(self, exc)

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state of your own, with ``meta`` as what ``result.info`` gives."""
        request = self.request
        storing.store_state(self.app, task_id or request.id, request.run or "", state, meta)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """The result of the call with this id."""
        return cast("AsyncResult[R]", self.app.AsyncResult(task_id, **kwargs))


def _by_name(name: str) -> Any:
    from celeriac.app import get_current_app

    return get_current_app().tasks[name]
