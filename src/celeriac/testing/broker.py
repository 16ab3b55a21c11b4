"""Everything that a broker must do, in one suite."""

from __future__ import annotations

from celeriac.testing.cancelling import CancelTests
from celeriac.testing.claiming import ClaimTests
from celeriac.testing.fencing import FenceTests
from celeriac.testing.joining import JoinTests
from celeriac.testing.keeping import KeepTests
from celeriac.testing.leases import LeaseTests
from celeriac.testing.maintaining import MaintainTests
from celeriac.testing.publishing import PublishTests
from celeriac.testing.settling import SettleTests
from celeriac.testing.threads import ThreadTests


class BrokerSuite(
    PublishTests,
    ClaimTests,
    SettleTests,
    KeepTests,
    FenceTests,
    LeaseTests,
    MaintainTests,
    CancelTests,
    JoinTests,
    ThreadTests,
):
    """The Broker contract and the rules of DESIGN.md that a broker alone can show. Those about
    records and joins in the same transaction are skipped without a result backend."""
