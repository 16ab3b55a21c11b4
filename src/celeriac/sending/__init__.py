"""From a call to a message: options, routing, id and run."""

from celeriac.sending.options import IGNORED_OPTIONS, OPTIONS, known_options
from celeriac.sending.plans import plan_of, planned
from celeriac.sending.properties import properties_of
from celeriac.sending.retrying import next_try
from celeriac.sending.sender import Sender
from celeriac.sending.times import zone_of

__all__ = [
    "IGNORED_OPTIONS",
    "OPTIONS",
    "Sender",
    "known_options",
    "next_try",
    "plan_of",
    "planned",
    "properties_of",
    "zone_of",
]
