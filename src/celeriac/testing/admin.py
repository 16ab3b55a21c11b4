"""Everything that operators can do with the queues of a broker, in one suite."""

from __future__ import annotations

from celeriac.testing.looking import LookTests
from celeriac.testing.removing import RemoveTests


class QueueAdminSuite(LookTests, RemoveTests):
    """The QueueAdmin contract."""
