"""A coordinator's service in this process: real decisions and signatures, a log in memory, a clock that stands."""

from collections.abc import Sequence
from typing import Any

from coordinator.small_swarm import unamended
from protocol.samples import COORDINATOR, SWARM

from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.events import Event
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.records_book import RecordsBook
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.state import Rules


def journal_of(history: Sequence[Event]) -> Journal:
    """What already happened, in memory."""
    log = MemoryLog()
    log.append(history)
    return Journal(log)


def service_over(journal: Journal, rules: Rules, **parts: Any) -> Service:
    """With other parts than the usual ones where a test names them."""
    usual = {
        "presence": Presence(),
        "book": RecordsBook(key=COORDINATOR, swarm=SWARM, addresses=[]),
        "now_ms": lambda: 1_000_000,
    }
    fixed = {"key": COORDINATOR, "swarm": SWARM, "in_force": unamended()}
    return Service(journal=journal, rules=rules, **fixed, **(usual | parts))
