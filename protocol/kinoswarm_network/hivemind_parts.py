"""The few classes of hivemind that we use, imported without torch. The only file that imports hivemind.

`import hivemind` loads its averaging, mixture-of-experts and optimizer parts and torch with them: 2.4 s and 290 MB.
The DHT and the libp2p daemon's client need none of that: 0.1 s and 40 MB. So the three packages whose `__init__` pulls
torch in are put into sys.modules as bare packages with the right search path before their submodules are imported.
hivemind is pinned to one version; should another one not load like this, it is imported the ordinary way.

`python -m kinoswarm_network` is the only program that may import this.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kinoswarm_protocol.errors import LocalError

_BARE_PACKAGES = ("hivemind", "hivemind.utils", "hivemind.dht")
_UTILS_NAMES = {
    "hivemind.utils.logging": ("get_logger",),
    "hivemind.utils.serializer": ("MSGPackSerializer", "SerializerBase"),
    "hivemind.utils.timed_storage": (
        "DHTExpiration",
        "TimedStorage",
        "ValueWithExpiration",
        "get_dht_time",
    ),
}
"""What hivemind's own DHT modules import from `hivemind.utils` itself."""


@dataclass(frozen=True)
class HivemindParts:
    """hivemind's names; it has no type information."""

    DHTID: Any
    DHTNode: Any
    DHTRecord: Any
    MSGPackSerializer: Any
    DictionaryDHTValue: Any
    RecordValidatorBase: Any
    P2P: Any
    PeerID: Any
    Multiaddr: Any
    AddressError: Any
    P2PDaemonError: Any
    P2PHandlerError: Any
    PingRequest: Any
    p2pd: Path
    """The libp2p daemon's program file."""


def load_hivemind() -> HivemindParts:
    """Import hivemind's DHT and P2P. Raises LocalError when it is not installed."""
    if "hivemind" not in sys.modules:
        try:
            _import_without_torch()
        except (ImportError, AttributeError):
            _forget()
    try:
        return _parts()
    except ImportError as error:
        raise LocalError(
            f"the peer-to-peer network needs hivemind, which cannot be imported ({error}); install kinoswarm[network], "
            "take part over HTTPS alone, or download with --light"
        ) from error


def _import_without_torch() -> None:
    spec = importlib.util.find_spec("hivemind")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("hivemind is not installed")
    root = Path(spec.submodule_search_locations[0])
    for name in _BARE_PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    utils = sys.modules["hivemind.utils"]
    for module_name, names in _UTILS_NAMES.items():
        module = importlib.import_module(module_name)
        for name in names:
            setattr(utils, name, getattr(module, name))
    importlib.import_module("hivemind.dht.node")


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "hivemind"]:
        del sys.modules[name]


def _parts() -> HivemindParts:
    node = importlib.import_module("hivemind.dht.node")
    p2p = importlib.import_module("hivemind.p2p")
    programs = importlib.import_module("hivemind.hivemind_cli")
    validation = importlib.import_module("hivemind.dht.validation")
    assert programs.__file__ is not None
    return HivemindParts(
        DHTID=node.DHTID,
        DHTNode=node.DHTNode,
        DHTRecord=validation.DHTRecord,
        DictionaryDHTValue=node.DictionaryDHTValue,
        MSGPackSerializer=node.MSGPackSerializer,
        RecordValidatorBase=validation.RecordValidatorBase,
        P2P=p2p.P2P,
        PeerID=p2p.PeerID,
        Multiaddr=importlib.import_module("hivemind.utils.multiaddr").Multiaddr,
        AddressError=importlib.import_module("hivemind.utils.multiaddr.exceptions").Error,
        P2PDaemonError=p2p.P2PDaemonError,
        P2PHandlerError=p2p.P2PHandlerError,
        PingRequest=importlib.import_module("hivemind.proto.dht_pb2").PingRequest,
        p2pd=Path(programs.__file__).parent / "p2pd",
    )
