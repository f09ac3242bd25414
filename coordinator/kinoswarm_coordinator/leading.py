"""Becoming and staying the leader, as a running program does it. Owns the waiting; leadership.py decides."""

import asyncio
import os
import socket
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import OperationalError

from kinoswarm_coordinator.leadership import LEASE_MS, RENEW_EVERY_S, STANDBY_LOOKS_EVERY_S
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import PeerId

_log = structlog.get_logger("leading")


def holder_name(peer: PeerId) -> str:
    """This process, for the people who look at the database."""
    return f"{peer} on {socket.gethostname()}, process {os.getpid()}"


async def wait_to_lead(log: SqlLog, holder: str, on_standby: Callable[[str], None]) -> None:
    """Return once this process leads. `on_standby` hears once why it has to wait. Raises LocalError."""
    told = False
    while True:
        claim = await asyncio.to_thread(log.lead, holder)
        if claim.next is not None:
            _log.info("leads", why=claim.reason)
            return
        if (await asyncio.to_thread(log.leadership)).restored:
            raise LocalError(
                f"{claim.reason}: make sure that its old coordinator is off, then run `kinoswarm swarm promote`"
            )
        if not told:
            on_standby(claim.reason)
            told = True
        await asyncio.sleep(STANDBY_LOOKS_EVERY_S)


async def keep_leading(log: SqlLog) -> None:
    """Renew the lease until cancelled. Raises NotLeader when it is lost, LocalError when the database stays away."""
    held_since_s = time.monotonic()
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        try:
            await asyncio.to_thread(log.renew)
        except OperationalError as error:
            away_s = time.monotonic() - held_since_s
            if away_s * 1000 > LEASE_MS:
                raise LocalError(
                    f"{log.where} could not be reached for {away_s:.0f} s ({error.orig}), so another coordinator "
                    "may lead by now; start this one again when the database is back"
                ) from error
            _log.warning("lease not renewed", why=str(error.orig))
        else:
            held_since_s = time.monotonic()
