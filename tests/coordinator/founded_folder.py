"""What `kinoswarm swarm create` leaves in a folder, without the training."""

from pathlib import Path

from msgspec import structs
from protocol.samples import COORDINATOR, FOUNDER, charter, invite

from kinoswarm_coordinator.charter_file import write_charter_file
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_network.identity import key_text
from kinoswarm_protocol.charter import CHARTER
from kinoswarm_protocol.charter_chain import chain_of, open_chain
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.invite import write_invite

FOUNDED_AT_MS = 1_700_000_000_000


def founded_folder(root: Path) -> SwarmFolder:
    """Keys, charter and invite of the sample swarm."""
    found = SwarmFolder(root)
    found.home.mkdir(parents=True)
    own = f"/ip4/127.0.0.1/tcp/7/p2p/{COORDINATOR.peer_id}"
    document = structs.replace(charter(), addresses=[own, "http://127.0.0.1:1"])
    raw = seal(FOUNDER, CHARTER, "", document)
    chain = open_chain(chain_of(raw))
    found.charter.write_bytes(raw)
    found.founder_key.write_text(key_text(FOUNDER))
    found.key.write_text(key_text(COORDINATOR))
    shown = structs.replace(invite(), swarm=chain.swarm, addresses=document.addresses)
    found.invite.write_text(write_invite(FOUNDER, shown))
    write_charter_file(found, FOUNDER, chain, FOUNDED_AT_MS)
    return found
