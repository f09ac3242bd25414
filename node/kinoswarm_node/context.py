"""What the daemon's activities share: the parts they act on and the few facts that joining found out. No behaviour."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field

from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_node.governor.watch import Governor
from kinoswarm_node.live_settings import LiveSettings
from kinoswarm_node.ports import Network, Trainer
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.status_board import StatusBoard
from kinoswarm_node.swarm_folder import SelfTest, SwarmFolder
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.charter_chain import OpenedChain
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.version_steps import VersionStep


def program_version() -> str:
    """The installed version of this program."""
    return importlib.metadata.version("kinoswarm")


@dataclass
class NodeContext:
    """The parts are fixed; what stands below `live` is found out while joining and working."""

    settings: NodeSettings
    key: KeyPair
    invite: Invite
    folder: SwarmFolder
    network: Network
    trainer: Trainer
    client: CoordinatorClient
    now_ms: Callable[[], int]
    board: StatusBoard
    wishes: WishFiles
    """What a person wants of the running node; see wishes.py."""
    governor: Governor
    live: LiveSettings
    """The settings in force now; `settings` are those of the start."""
    chain: OpenedChain | None = None
    """The charter with its amendments; see following.py."""
    chain_blob: BlobId | None = None
    """The same as a blob that this node serves; None while nothing is amended."""
    charter: Charter | None = None
    """As amended."""
    self_test: SelfTest | None = None
    told_delegation: bytes | None = None
    """The account's paper that the coordinator was shown last."""
    greeted_at_ms: int = 0
    no_samples: str = ""
    """Why no clips of the expert are made until the next start; empty while they are."""
    hints: dict[LeaseId, list[ProviderHint]] = field(default_factory=dict)
    """Who serves the blobs of a lease; lost at a restart, and only hints."""
    steps: dict[LeaseId, list[VersionStep]] = field(default_factory=dict)
    """How to come to a lease's base from an older version; lost at a restart, and only hints."""

    def the_charter(self) -> Charter:
        """The verified charter; raises LocalError before joining."""
        if self.charter is None:
            raise LocalError("the swarm's charter is not known yet; join first")
        return self.charter

    async def device(self) -> str:
        """Where to train: as set, else the best that the worker found. Raises WorkerDied."""
        if self.settings.device != "auto":
            return self.settings.device
        await self.trainer.start()
        return next(iter(self.trainer.devices), "cpu")

    @property
    def is_helper(self) -> bool:
        """Whether this machine trains nothing of its own."""
        return self.settings.role == "helper"

    def threads(self, cores: int) -> int:
        """CPU threads for the worker: as set, else half of the cores."""
        return self.settings.threads or max(1, cores // 2)
