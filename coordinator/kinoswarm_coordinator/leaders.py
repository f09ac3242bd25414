"""Who gave most, by account, and what each machine of an account gave. Owns these views; pure.

Credit stays with the account for which it was earned. What a machine earned under its own name is shown with its
account while it has one.
"""

import heapq

from msgspec import Struct

from kinoswarm_coordinator.credit import Ledger
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.work_table import Sums
from kinoswarm_protocol.ids import PeerId

_LEADERS = 100


class Leader(Struct, frozen=True, kw_only=True):
    """A place on the leaderboard: an account with its machines, or a machine that counts for itself."""

    peer: str
    """The account's id, or the machine's."""
    pseudonym: str
    accepted: int
    rejected: int
    samples: int
    flops: float
    is_account: bool
    machines: int
    """How many count for an account now; 1 for a machine that counts for itself."""


class AccountMachine(Struct, frozen=True, kw_only=True):
    """One machine of an account."""

    peer: str
    pseudonym: str
    device: str
    flops: float
    """What it earned for this account, and under its own name while it counts for the account."""
    counts_now: bool
    """False once it was revoked, expired or moved to another account."""


class AccountStory(Struct, frozen=True, kw_only=True):
    """An account and its machines, those with most credit first."""

    account: str
    name: str
    flops: float
    machines: list[AccountMachine]


def leaders(state: SwarmState, rules: Rules, ledger: Ledger) -> list[Leader]:
    """Who has most credit; at most a hundred."""
    sums: dict[PeerId, float] = {}
    for holder, machines in ledger.by_account.items():
        if holder != rules.operator:
            owner = state.account_of(holder)
            sums[owner] = sums.get(owner, 0.0) + sum(machines.values())
    best = heapq.nsmallest(
        _LEADERS, ((-flops, owner) for owner, flops in sums.items() if flops > 0)
    )
    machines_by_account = _machines(state)
    return [
        _leader(state, owner, machines_by_account.get(owner, []), -flops) for flops, owner in best
    ]


def account_story(state: SwarmState, ledger: Ledger, account: str) -> AccountStory | None:
    """An account's page; None for one that no machine ever counted for."""
    owner = PeerId(account)
    if owner not in state.account_names:
        return None
    earned = dict(ledger.by_account.get(owner, {}))
    now = {peer for peer, held in state.delegations.items() if held.account == owner}
    for peer in now:
        own = ledger.by_account.get(peer, {}).get(peer, 0.0)
        earned[peer] = earned.get(peer, 0.0) + own
    machines = [
        AccountMachine(
            peer=peer,
            pseudonym=name_of(state, peer),
            device=state.nodes[peer].device if peer in state.nodes else "",
            flops=flops,
            counts_now=peer in now,
        )
        for peer, flops in sorted(earned.items(), key=lambda item: (-item[1], item[0]))
    ]
    return AccountStory(
        account=account,
        name=name_of(state, owner),
        flops=sum(machine.flops for machine in machines),
        machines=machines,
    )


def name_of(state: SwarmState, peer: PeerId) -> str:
    """What an account or a machine calls itself."""
    if peer in state.account_names:
        return state.account_names[peer].name
    node = state.nodes.get(peer)
    return node.pseudonym if node else "unknown"


def _machines(state: SwarmState) -> dict[PeerId, list[PeerId]]:
    found: dict[PeerId, list[PeerId]] = {}
    for peer, held in state.delegations.items():
        found.setdefault(held.account, []).append(peer)
    return found


def _leader(state: SwarmState, owner: PeerId, machines: list[PeerId], flops: float) -> Leader:
    sums = [state.work.sums_by_node.get(peer, Sums()) for peer in machines or [owner]]
    return Leader(
        peer=owner,
        pseudonym=name_of(state, owner),
        accepted=sum(one.accepted for one in sums),
        rejected=sum(one.rejected for one in sums),
        samples=sum(one.samples for one in sums),
        flops=flops,
        is_account=owner in state.account_names,
        machines=len(machines) if owner in state.account_names else 1,
    )
