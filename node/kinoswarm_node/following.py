"""Follows the founder's amendments: fetch, check, keep, put in force, tell. Owns which charter this node goes by.

The longest chain that the founder signed counts, whoever brought it: a coordinator that holds an amendment back, or
whose key has ended, can't make a node forget it. A recommended version is told; nothing of it is ever fetched.
"""

import contextlib
from collections.abc import Sequence

from kinoswarm_node.context import NodeContext, program_version
from kinoswarm_protocol.charter import Amendment, in_words, version_numbers
from kinoswarm_protocol.charter_chain import OpenedChain, chain_of, open_chain
from kinoswarm_protocol.errors import LocalError, RemoteError, VersionMismatch
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES
from kinoswarm_protocol.messages import ProviderHint, Welcome

CHAIN_NAME = "chain.bin"
"""The charter with its amendments, in the swarm's folder: known before anybody is reached."""

NOTICES_SHOWN = 3
_PART_BYTES = MAX_CHARTER_BYTES + 1024


async def recall(node: NodeContext) -> None:
    """Go by what an earlier life knew: its coordinators may not be the invite's any more."""
    raw = node.folder.text(CHAIN_NAME)
    if raw is None or node.chain is not None:
        return
    try:
        await _put_in_force(node, open_chain(raw, node.invite.swarm))
    except RemoteError:
        return  # a torn or foreign file; the swarm tells it again


async def hear(node: NodeContext, welcome: Welcome) -> bool:
    """Fetch what a coordinator's welcome names beyond what is known; returns whether that was anything.

    Raises HashMismatch, BadSignature or another RemoteError for what the founder did not sign in this order.
    """
    if node.chain is not None and len(welcome.amendments) <= node.chain.number:
        return False
    parts = [await _part(node, blob) for blob in (welcome.charter, *welcome.amendments)]
    return await adopt(node, open_chain(chain_of(parts[0], parts[1:]), node.invite.swarm))


async def learn(node: NodeContext) -> bool:
    """A reply was signed by a key that is no coordinator's: look for an amendment that says otherwise."""
    found = False
    for raw in await node.network.charter_chains():
        try:
            found = await adopt(node, open_chain(raw, node.invite.swarm)) or found
        except RemoteError:
            continue  # anybody may have brought it; only what the founder signed counts
    return found


async def adopt(node: NodeContext, chain: OpenedChain) -> bool:
    """Put a chain in force unless a longer one is known; returns whether it is new."""
    if node.chain is not None and chain.number <= node.chain.number:
        return False
    node.folder.keep_text(CHAIN_NAME, chain.raw)
    await _put_in_force(node, chain)
    return True


def served_chains(node: NodeContext) -> list[BlobId]:
    """The amended charter as a blob that this node serves: found by the DHT when every address of an invite is gone."""
    return [node.chain_blob] if node.chain_blob is not None else []


async def _serve(node: NodeContext) -> None:
    """Hold the chain for others; a courtesy, so a full disk does not keep an amendment from counting."""
    before = node.chain_blob
    with contextlib.suppress(LocalError):
        node.chain_blob = await node.network.add_blob(node.folder.root / CHAIN_NAME)
        if before is not None and before != node.chain_blob:
            await node.network.unpin(before)


async def _put_in_force(node: NodeContext, chain: OpenedChain) -> None:
    charter = chain.charter
    node.chain, node.charter = chain, charter
    node.client.coordinators = frozenset(charter.coordinators)
    await node.network.believe(charter.founder, charter.coordinators, charter.addresses)
    amendments = [opened.body for opened in chain.amendments]
    if amendments:
        await _serve(node)
    node.board.amended(
        [in_words(amendment) for amendment in amendments[-NOTICES_SHOWN:]][::-1],
        update_of(amendments, program_version()),
    )


def update_of(amendments: Sequence[Amendment], running: str) -> str:
    """What to tell of the newest recommended version; empty when this program is as new."""
    for amendment in reversed(amendments):
        if amendment.new_version is not None:
            if version_numbers(running) >= version_numbers(amendment.new_version):
                return ""
            notes = f" What is new: {amendment.version_notes}" if amendment.version_notes else ""
            return (
                f"Version {amendment.new_version} is out, this is {running}.{notes} Update when it suits you: "
                "pip install --upgrade kinoswarm (nothing is fetched by itself)."
            )
    return ""


def check_version(oldest: str) -> None:
    """Raise VersionMismatch when the swarm asks for a newer program."""
    if version_numbers(program_version()) < version_numbers(oldest):
        raise VersionMismatch(
            f"the swarm needs version {oldest} or newer, this is {program_version()}; "
            "update with: pip install --upgrade kinoswarm"
        )


def coordinator_hints(node: NodeContext) -> list[ProviderHint]:
    """The coordinators as providers: they serve every blob of the swarm."""
    coordinators: Sequence[PeerId] = node.invite.coordinators
    addresses: Sequence[str] = node.invite.addresses
    if node.charter is not None:
        coordinators, addresses = node.charter.coordinators, node.charter.addresses
    return [
        ProviderHint(
            peer=peer, addresses=[a for a in addresses if a.startswith("/") and a.endswith(peer)]
        )
        for peer in coordinators
    ]


async def _part(node: NodeContext, blob: BlobId) -> bytes:
    path = await node.network.blob_path(blob)
    if path is None:
        path = await node.network.fetch_blob(blob, coordinator_hints(node), _quietly)
    with path.open("rb") as file:
        return file.read(_PART_BYTES)


def _quietly(done: int, total: int) -> None:
    """A charter arrives in an instant."""
