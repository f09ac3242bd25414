"""Follows the founder's amendments while the coordinator runs. Owns how one comes into force; must not sign any."""

from dataclasses import dataclass

import structlog

from kinoswarm_coordinator.charter_file import read_chain, serve_chain
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.service import Service
from kinoswarm_network.client import NetworkClient
from kinoswarm_protocol.charter import is_coordinator
from kinoswarm_protocol.errors import LocalError, RemoteError

_log = structlog.get_logger("amendments")


@dataclass(kw_only=True)
class AmendmentWatch:
    """Looks at the charter's file; a look costs a stat while nothing changed."""

    service: Service
    folder: SwarmFolder
    network: NetworkClient
    _seen: tuple[int, int] = (0, 0)

    async def look(self) -> None:
        """Put what is new into force. Raises LocalError when an amendment ended this coordinator's own key."""
        if not self._changed():
            return
        try:
            chain, record = read_chain(self.folder, self.service.swarm)
        except (OSError, RemoteError) as error:
            _log.warning("the charter's file can't be used", why=str(error))
            return
        if chain.number <= self.service.in_force.chain.number:
            return
        await self.service.follow(serve_chain(self.folder, chain, record))
        await self.network.set_authority(chain.charter.founder, chain.charter.coordinators)
        _log.info("amended", number=chain.number)
        if not is_coordinator(chain.charter, self.service.key.peer_id):
            raise LocalError(
                f"amendment {chain.number} ended this coordinator's key; start it again with "
                "`kinoswarm swarm serve`, which takes the new one if it lies here"
            )

    def _changed(self) -> bool:
        try:
            found = self.folder.amended.stat()
        except FileNotFoundError:
            return False
        seen, self._seen = self._seen, (found.st_mtime_ns, found.st_size)
        return seen != self._seen
