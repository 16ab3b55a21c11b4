"""Results: what became of a call, read from the result backend."""

from celeriac.result.async_result import AsyncResult
from celeriac.result.blocking import allow_join_result, assert_will_not_block
from celeriac.result.eager import EagerResult
from celeriac.result.groups import GroupResult
from celeriac.result.sets import ResultSet
from celeriac.result.trees import oldest
from celeriac.result.tuples import result_from_tuple

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "oldest",
    "result_from_tuple",
]
