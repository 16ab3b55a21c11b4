"""The results of a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from celeriac.protocol import results as documents
from celeriac.result.sets import ResultSet
from celeriac.utils import uuid

if TYPE_CHECKING:
    from celeriac.app import Celeriac


class GroupResult(ResultSet):
    """The results of the tasks of a group, in its order. Saved under its id, it can be restored
    by anybody who knows that."""

    _bound: Any = None  # app.GroupResult is a class of its own, which has its application here

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: Any = None,
        app: Celeriac | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results or (), app=app if app is not None else self._bound)
        self.id = id if id is not None else uuid()
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        return self.results

    def save(self, backend: Any = None) -> GroupResult:
        """Store which results it has (not what they are)."""
        self.app.results_or_raise().put([self.app.records.write_group(self.id, self.as_tuple())])
        return self

    def delete(self, backend: Any = None) -> None:
        """Remove what ``save`` has stored."""
        self.app.results_or_raise().delete([documents.group_key(self.id)])

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """The group that was saved under this id; None if there is none."""
        app = app if app is not None else cls._bound
        if app is None:
            from celeriac.app import get_current_app

            app = get_current_app()
        record = app.results_or_raise().get([documents.group_key(id)])[0]
        if record is None:
            return None
        from celeriac.result.tuples import result_from_tuple

        return cast(GroupResult, result_from_tuple(app.records.read_group(record), app))

    def as_tuple(self) -> Any:
        parent = self.parent
        head = self.id, parent.as_tuple() if parent is not None else None
        return head, [result.as_tuple() for result in self.results]

    def explain(self, file: Any = None) -> None:
        """Print the workflow that ends with these results, with the state of each task."""
        from celeriac.workflow import drawn, tree_of_result

        print(drawn(tree_of_result(self)), file=file)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results) == (self.id, self.results)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(result.id for result in self.results)}]>"

    def __reduce__(self) -> Any:
        return GroupResult, (self.id, self.results, self.parent)
