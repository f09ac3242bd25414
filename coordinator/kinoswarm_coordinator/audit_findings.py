"""What a comparison of runs leads to: cover, refutation, bans, withdrawn versions. Owns these consequences; pure."""

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.audits import finding, waited_in_vain
from kinoswarm_coordinator.fold_merging import lineage_of
from kinoswarm_coordinator.rolling_back import Rollback, rolled_back
from kinoswarm_coordinator.state import LeaseState, LineageKey, Rules, SwarmState
from kinoswarm_coordinator.trust import penalty
from kinoswarm_coordinator.verdicts import rejected, unaudited
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import CompareOrder, CompareOutcome

_REFUTED = (
    "two other machines did this segment too and agree with each other, not with this one; either this machine "
    "computes wrongly or it did not do what the lease asked for"
)
_TAINTED = "a contribution in it was refuted by an audit"


def after_comparison(
    state: SwarmState, rules: Rules, lease: LeaseState, outcome: CompareOutcome, now_ms: int
) -> list[ev.Event]:
    """Events of a comparison; none when its case was closed, or lost one of the runs, meanwhile."""
    order, primary = lease.order, state.audit_of[LeaseId(lease.lease.lease_id)]
    assert isinstance(order, CompareOrder)
    if primary not in state.audits_open:
        return []
    case = state.audits[primary]
    runs = case.runs[: len(order.deltas)]
    if [state.delta_of(run) for run in runs] != order.deltas:
        return []
    pairs = [pair for pair in outcome.distances if pair.first < pair.second < len(runs)]
    found = finding(state, rules, runs, primary, pairs)
    compared = ev.RunsCompared(
        at_ms=now_ms,
        lease_id=primary,
        result=found.result,
        runs=runs,
        distances=pairs,
        agreeing=found.agreeing,
        differing=found.differing,
        covered=_covered(state, found.agreeing),
    )
    consequences = _refuted(state, rules, found.differing, now_ms) if found.differing else []
    return [*consequences, compared]


def given_up(state: SwarmState, rules: Rules, now_ms: int) -> list[ev.Event]:
    """Audits that nobody could finish: their contributions go on with held-out losses alone."""
    return [
        ev.AuditGivenUp(at_ms=now_ms, lease_id=lease_id)
        for lease_id in waited_in_vain(state, rules, now_ms)
    ]


def _covered(state: SwarmState, agreeing: list[LeaseId]) -> list[LeaseId]:
    """What the confirmed accounts had handed in up to the confirmed work: any of it might have been looked at."""
    found: set[LeaseId] = set()
    for confirmed in agreeing:
        until_ms = state.work[confirmed].received_at_ms
        account = state.answers_for(confirmed)
        found |= {
            lease_id
            for lease_id in state.uncovered.get(account, {})
            if state.work[lease_id].received_at_ms <= until_ms
        }
    return sorted(found)


def _refuted(
    state: SwarmState, rules: Rules, differing: list[LeaseId], now_ms: int
) -> list[ev.Event]:
    """Verdicts on what was refuted and on all that nobody checked of these accounts, bans, and versions taken back."""
    events: list[ev.Event] = []
    accounts = sorted({state.answers_for(lease_id) for lease_id in differing})
    doubtful = [
        lease_id
        for account in accounts
        for lease_id in _unchecked(state, account)
        if lease_id not in differing
    ]
    for lease_id in differing:
        verdict = rejected(
            lease_id, state.work[lease_id].node, Code.AUDIT_MISMATCH, _REFUTED, now_ms
        )
        events.append(ev.VerdictGiven(at_ms=now_ms, verdict=verdict))
    for lease_id in doubtful:
        verdict = unaudited(lease_id, state.work[lease_id].node, now_ms)
        events.append(ev.VerdictGiven(at_ms=now_ms, verdict=verdict))
    for account in accounts:
        ban = penalty(state, rules, account, now_ms)
        events.append(
            ev.AccountPenalised(
                at_ms=now_ms, account=account, until_ms=ban.until_ms, sentence=ban.sentence
            )
        )
    return [*_taken_back(state, rules, frozenset([*differing, *doubtful]), now_ms), *events]


def _unchecked(state: SwarmState, account: PeerId) -> list[LeaseId]:
    """Of an account: accepted work that no audit stands for, and what awaits its verdict."""
    waiting = [
        lease_id for lease_id in sorted(state.undecided) if state.answers_for(lease_id) == account
    ]
    return [*state.uncovered.get(account, {}), *waiting]


def _taken_back(
    state: SwarmState, rules: Rules, refused: frozenset[LeaseId], now_ms: int
) -> list[ev.Event]:
    """Rollbacks of lineages whose newest versions hold refuted work, so that they are merged anew without it.

    Only as many versions as work may be stale by: below that, each version since has passed the paired test, and honest
    work of many would be lost with one delta of little weight. An operator may go further.
    """
    events: list[ev.Event] = []
    tainted = {lease_id for lease_id in refused if state.work[lease_id].phase == "merged"}
    for key, version in sorted(oldest_tainted(state, rules, tainted).items()):
        target = _last_good(state, key, version)
        wanted = Rollback(
            key=key, to_version=target, sentence=_TAINTED, refused=refused, keeps_resting=True
        )
        events += rolled_back(state, rules, wanted, now_ms)
    return events


def oldest_tainted(state: SwarmState, rules: Rules, tainted: set[LeaseId]) -> dict[LineageKey, int]:
    """By lineage, the oldest version within an audit's reach that holds such work; reach is counted in merges."""
    reach = rules.charter.policy.max_staleness + 1
    found: dict[LineageKey, int] = {}
    for key in {lineage_of(state, lease_id) for lease_id in tainted}:
        withdrawn = state.withdrawn.get(key, set())
        line = state.versions[key]
        bad = [
            version.version
            for version in line
            if line[-1].position - version.position < reach
            and version.version not in withdrawn
            and tainted.intersection(version.contributions)
        ]
        if bad:
            found[key] = min(bad)
    return found


def _last_good(state: SwarmState, key: LineageKey, bad: int) -> int:
    withdrawn = state.withdrawn.get(key, set())
    return max(
        version
        for version in range(bad)
        if version not in withdrawn and not state.is_forgotten(key, version)
    )
