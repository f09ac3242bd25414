"""Who gets which lease. Owns the order of trusted work, the choice of a cluster and the length of a segment; pure.

A decision is (LeaseIssued, reason) or (None, reason, when to ask again): the reason is a sentence for the volunteer.
"""

from collections.abc import Set
from dataclasses import dataclass

from kinoswarm_coordinator.audits import Auditor, audit_for
from kinoswarm_coordinator.chance import derived_seed
from kinoswarm_coordinator.events import LeaseIssued
from kinoswarm_coordinator.referee import newcomers_steps
from kinoswarm_coordinator.state import LeaseState, LineageKey, Need, Purpose, Rules, SwarmState
from kinoswarm_coordinator.trust import is_proven
from kinoswarm_coordinator.trusted_work import next_trusted_work
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import Lease, Order, PullLease, TrainOrder

_FIRST_TIME_STEPS_SHARE = 0.25
_ONE_IN_SHORTER = 4
_TRUSTED_LEASE_S = 1_800.0
_RETRY_SOON_S = 2.0
_RETRY_LATER_S = 30.0
_RETRY_SHARE = 0.02
"""Of a segment's length: who may wait an hour for work need not ask every two seconds."""
_RETRY_BANNED_S = 600.0


@dataclass(frozen=True)
class Granted:
    """A lease, new (`event`) or the one that this node holds already."""

    lease: Lease
    event: LeaseIssued | None
    reason: str


@dataclass(frozen=True)
class Nothing:
    """No work now."""

    reason: str
    retry_after_s: float


@dataclass(frozen=True, kw_only=True)
class Pull:
    """One node asking for work, now."""

    peer: PeerId
    request_id: str
    body: PullLease
    now_ms: int
    seed: int
    """Fresh randomness of the shell: lease ids and training seeds come from it."""
    neighbours: Set[PeerId] = frozenset()
    """Machines behind the same range of addresses."""


def decide(state: SwarmState, rules: Rules, pull: Pull) -> Granted | Nothing:
    """The lease that this pull gets. The same pull again, or a pull while a lease is open, gets the same lease."""
    ban = state.ban_of(pull.peer, pull.now_ms)
    if ban is not None:
        hours = (ban.until_ms - pull.now_ms) / 3_600_000
        return Nothing(f"banned for {hours:.1f} hours more: {ban.sentence}", _RETRY_BANNED_S)
    held = _held_lease(state, rules, pull)
    if held is not None:
        return Granted(held.lease, None, "this lease is already yours")
    if pull.peer == rules.operator:
        return _trusted(state, rules, pull)
    return _training(state, rules, pull)


def _held_lease(state: SwarmState, rules: Rules, pull: Pull) -> LeaseState | None:
    repeated = state.lease_by_request.get((pull.peer, pull.request_id))
    if repeated is not None and state.leases[repeated].phase == "open":
        return state.leases[repeated]
    for lease_id in sorted(state.open_by_node.get(pull.peer, ())):
        lease = state.leases[lease_id]
        if lease.lease.deadline_ms > pull.now_ms or pull.peer == rules.operator:
            return lease
    return None


def _trusted(state: SwarmState, rules: Rules, pull: Pull) -> Granted | Nothing:
    work = next_trusted_work(state, rules, pull.now_ms, derived_seed(pull.seed, "work"))
    if work is None:
        return Nothing("nothing to check, merge, route or release now", _RETRY_SOON_S)
    return _granted(
        pull, work.purpose, work.order, _TRUSTED_LEASE_S, work.reason, audit_of=work.audit_of
    )


def _training(state: SwarmState, rules: Rules, pull: Pull) -> Granted | Nothing:
    if state.paused:
        return Nothing(f"the swarm's operators paused it: {state.paused}", _RETRY_LATER_S)
    audit = _audit(state, rules, pull)
    if audit is not None:
        return audit
    if pull.body.helper:
        return Nothing(_no_audit(rules), _RETRY_LATER_S)
    too_many = _too_many_leases(state, rules, pull) or _crowded(state, rules, pull)
    if too_many:
        return Nothing(too_many, _RETRY_LATER_S)
    key = _neediest(state, rules, set(pull.body.clusters_on_disk), _lineage(state, pull.peer))
    if key is None:
        return _no_training(state, rules)
    mode = next((mode for mode in pull.body.modes if mode in rules.charter.model.modes), None)
    if mode is None:
        return Nothing(_no_mode(rules), _RETRY_LATER_S)
    cluster, lineage = key
    base = state.newest(key)
    newcomer = not is_proven(state, rules, state.account_of(pull.peer))
    chance = derived_seed(pull.seed, "steps")
    steps = leased_steps(rules, pull.body.seconds_per_step, chance, newcomer)
    order = TrainOrder(
        cluster=cluster,
        lineage=lineage,
        base_version=base.version,
        base=base.checkpoint,
        mode=mode,
        steps=steps,
        batch_size=rules.charter.model.recipe.batch_size,
        seed=derived_seed(pull.seed, "train"),
    )
    label = rules.charter.clusters[cluster].label
    reason = f"expert {cluster} ({label}) needs version {base.version + 1}"
    return _granted(pull, "train", order, _lease_s(rules, order, pull), reason)


def _audit(state: SwarmState, rules: Rules, pull: Pull) -> Granted | None:
    """Somebody else's contribution to be done again: its account waits for it, so it comes first."""
    own = segment_steps(rules, pull.body.seconds_per_step)
    auditor = Auditor(
        peer=pull.peer,
        body=pull.body,
        now_ms=pull.now_ms,
        most_steps=rules.charter.policy.segment_steps_max if pull.body.helper else own,
        neighbours=pull.neighbours,
    )
    found = audit_for(state, rules, auditor)
    if found is None:
        return None
    primary, order = found
    lease_s = _lease_s(rules, order, pull)
    return _granted(pull, "audit", order, lease_s, f"{primary} is audited", primary)


def _too_many_leases(state: SwarmState, rules: Rules, pull: Pull) -> str:
    """A sentence when the machines of this account hold as many leases as one account may; else empty."""
    most = rules.charter.policy.account_leases
    account = state.account_of(pull.peer)
    if not most or account == pull.peer:
        return ""
    held = sum(
        len(state.open_by_node.get(peer, ()))
        for peer, delegation in state.delegations.items()
        if delegation.account == account
    )
    if held < most:
        return ""
    return f"this account's machines hold {held} leases; one account may hold {most} here"


def _crowded(state: SwarmState, rules: Rules, pull: Pull) -> str:
    """A sentence when newcomers of one range of addresses are at work as one range may have them; else empty.

    Fresh identities are cheap and addresses are not, so many at once from one place count as one person's.
    """
    most = rules.charter.policy.range_newcomers
    if not most or is_proven(state, rules, state.account_of(pull.peer)):
        return ""
    held = sum(
        len(state.open_by_node.get(peer, ()))
        for peer in pull.neighbours
        if not is_proven(state, rules, state.account_of(peer))
    )
    if held < most:
        return ""
    return (
        f"{held} newcomers of your range of addresses are at work, as many as one range may have here; "
        "it is your turn when one is done or proven"
    )


def _lease_s(rules: Rules, order: TrainOrder, pull: Pull) -> float:
    policy = rules.charter.policy
    expected_s = order.steps * pull.body.seconds_per_step or policy.segment_s
    return max(policy.lease_min_s, policy.lease_factor * expected_s)


def _granted(
    pull: Pull,
    purpose: Purpose,
    order: Order,
    lease_s: float,
    reason: str,
    audit_of: LeaseId | None = None,
) -> Granted:
    lease = Lease(
        lease_id=LeaseId(f"{derived_seed(pull.seed, 'a'):016x}{derived_seed(pull.seed, 'b'):016x}"),
        node=pull.peer,
        issued_at_ms=pull.now_ms,
        deadline_ms=pull.now_ms + round(lease_s * 1000),
        order=order,
    )
    event = LeaseIssued(
        at_ms=pull.now_ms,
        lease=lease,
        purpose=purpose,
        request_id=pull.request_id,
        audit_of=audit_of,
    )
    return Granted(lease, event, reason)


def segment_steps(rules: Rules, seconds_per_step: float) -> int:
    """Steps of a segment of about policy.segment_s at the node's measured speed; fewer while it is not measured."""
    policy = rules.charter.policy
    if seconds_per_step <= 0.0:
        wanted = round(policy.segment_steps_max * _FIRST_TIME_STEPS_SHARE)
    else:
        wanted = round(policy.segment_s / seconds_per_step)
    return max(policy.segment_steps_min, min(policy.segment_steps_max, wanted))


def leased_steps(rules: Rules, seconds_per_step: float, seed: int, newcomer: bool) -> int:
    """Steps of an ordinary lease. Where there are audits, one in four is a half, a quarter or an eighth as long.

    A node gets others' work orders to audit, and these have others' lengths: if its own were all alike, it could tell.
    """
    longest, policy = segment_steps(rules, seconds_per_step), rules.charter.policy
    if policy.audit_one_in and newcomer:
        return newcomers_steps(policy, longest)
    if not policy.audit_one_in or seed % _ONE_IN_SHORTER:
        return longest
    halvings = 1 + (seed // _ONE_IN_SHORTER) % 3
    return max(policy.segment_steps_min, longest >> halvings)


def _wants_training(state: SwarmState, rules: Rules, key: LineageKey) -> bool:
    """Whether this lineage is below its target and has less work under way than the charter lets it have.

    While withdrawn work is merged anew, what began now would be stale in minutes.
    """
    policy, merged = rules.charter.policy, state.newest(key).position
    if key in state.ahead and state.mergeable[key]:
        return False
    if policy.target_version and merged >= policy.target_version:
        return False
    last = policy.target_version and merged + 1 == policy.target_version
    ahead = 1.0 if last else policy.work_ahead
    return samples_under_way(state, key) < policy.quorum_samples * ahead


def samples_under_way(state: SwarmState, key: LineageKey) -> int:
    """Samples leased, awaiting a verdict, or accepted and unmerged."""
    return state.samples_under_way.get(key, 0)


def _lineage(state: SwarmState, peer: PeerId) -> int:
    """The one that this account trains, of every cluster: what it brings reaches no other, whatever gets through."""
    if state.num_lineages == 1:
        return 0
    return derived_seed(0, f"lineage of {state.account_of(peer)}") % state.num_lineages


def _neediest(
    state: SwarmState, rules: Rules, on_disk: set[int], lineage: int
) -> LineageKey | None:
    """Of its lineages that want training the one with the lowest version, then the least work under way.

    Among equals one whose data the node has.
    """
    best: Need | None = None
    need: Need
    for need in state.by_need:
        if best is not None and need[:2] != best[:2]:
            break
        key = need[2]
        if key[1] == lineage and _wants_training(state, rules, key):
            if key[0] in on_disk:
                return key
            best = best or need
    return best[2] if best is not None else None


def _no_audit(rules: Rules) -> str:
    if not rules.charter.policy.audit_one_in:
        return "this swarm does nobody's work again, so a helper only keeps and serves what others need"
    return "no audit waits that this machine could finish in time"


def _no_mode(rules: Rules) -> str:
    modes = ", ".join(mode.label for mode in rules.charter.model.modes)
    return f"none of the ways in which this machine can train is one of this swarm's: {modes}"


def _no_training(state: SwarmState, rules: Rules) -> Nothing:
    target = rules.charter.policy.target_version
    if target and state.lowest_version() >= target:
        return Nothing(
            f"every expert has reached version {target}, the swarm's goal; thank you",
            _RETRY_LATER_S,
        )
    return Nothing(
        "every expert has enough work under way; the next version is being checked and merged",
        min(_RETRY_LATER_S, max(_RETRY_SOON_S, _RETRY_SHARE * rules.charter.policy.segment_s)),
    )
