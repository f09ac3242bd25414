"""How far an account is trusted, and what follows from it. Owns the arithmetic of trust; pure.

Adaptive replication in the manner of BOINC: all work of an account is done twice until enough of it was confirmed in a
row, then ever less, down to a floor; one refuted contribution and it starts anew.
"""

from msgspec import Struct

from kinoswarm_coordinator.chance import derived_seed
from kinoswarm_coordinator.credit import flops_per_sample
from kinoswarm_coordinator.state import Rules, SwarmState, Trust
from kinoswarm_protocol.ids import PeerId

_LONGEST_BAN_MS = 30 * 86_400_000
_CHANCES = 1 << 32
MOST_REFUSED = 5
"""Contributions in a row that checks refuse: honest ones are refused once in a hundred at most."""

REFUTED = "other machines did the same work and got something else"
_FASTER = 6
"""A proven account's work is audited once in so many times its confirmed contributions, down to the floor."""


class Penalty(Struct, frozen=True, kw_only=True):
    """A ban with its end and reason."""

    until_ms: int
    sentence: str


def trust_of(state: SwarmState, account: PeerId) -> Trust:
    """What audits found of an account so far."""
    return state.trust.get(account, Trust())


def is_proven(state: SwarmState, rules: Rules, account: PeerId) -> bool:
    """Whether enough of an account's work was confirmed, in number and in FLOPs."""
    policy, trust = rules.charter.policy, trust_of(state, account)
    if trust.confirmed < policy.audit_first:
        return False
    return trust.samples * flops_per_sample(rules.charter) >= policy.audit_first_flops


def wants_audit(state: SwarmState, rules: Rules, account: PeerId, seed: int) -> bool:
    """Whether a contribution of this account is to be done again by another one; `seed` is the coordinator's chance."""
    one_in = rules.charter.policy.audit_one_in
    if not may_be_audited(state, rules, account):
        return False
    if not is_proven(state, rules, account):
        return True
    confirmed = trust_of(state, account).confirmed
    return derived_seed(seed, "audit") % _CHANCES < _CHANCES / max(
        1, min(one_in, _FASTER * confirmed)
    )


def may_be_audited(state: SwarmState, rules: Rules, account: PeerId) -> bool:
    """Whether this swarm has audits, and somebody for them."""
    return bool(rules.charter.policy.audit_one_in) and others_could(state, rules, account)


def others_could(state: SwarmState, rules: Rules, account: PeerId) -> bool:
    """Whether another account takes part at all. A swarm of one goes on with held-out losses alone."""
    return any(peer != rules.operator and state.account_of(peer) != account for peer in state.nodes)


def num_proven(state: SwarmState, rules: Rules, at_most: int) -> int:
    """How many accounts are proven, counted up to `at_most`."""
    found = 0
    for confirmed, account in reversed(state.by_confirmed):
        if found >= at_most or confirmed < rules.charter.policy.audit_first:
            break
        found += is_proven(state, rules, account)
    return found


def penalty(
    state: SwarmState, rules: Rules, account: PeerId, now_ms: int, why: str = REFUTED
) -> Penalty:
    """A ban for bad work: each one twice as long as the one before, thirty days at most."""
    before = trust_of(state, account).bans
    first_ms = rules.charter.policy.ban_first_s * 1000
    lasts_ms = round(min(_LONGEST_BAN_MS, first_ms * 2.0 ** min(before, 40)))
    return Penalty(
        until_ms=now_ms + lasts_ms,
        sentence=f"{why}. If this machine is honest, it computes wrongly: see `kinoswarm doctor`, clock rates and "
        "memory",
    )
