"""How events change audit cases and trust. Owns these parts of the state; decides nothing."""

from collections import deque
from collections.abc import Collection

from msgspec import structs

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator import fold_merging
from kinoswarm_coordinator.audit_band import KEPT, band_key
from kinoswarm_coordinator.state import (
    AuditCase,
    AuditResult,
    Ban,
    LineageKey,
    SwarmState,
    Trust,
)
from kinoswarm_coordinator.work_table import WorkPhase
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import TrainOrder, Verdict

BLAMELESS = (Code.BLOB_UNAVAILABLE, Code.STALE_BASE, Code.SET_ASIDE)
"""Rejections that say nothing about how a machine computes."""


def audit_opened(state: SwarmState, event: ev.AuditOpened) -> None:
    """A contribution is to be done again; its account is named first among those that may not take it."""
    contributor = state.answers_for(event.lease_id)
    state.audits[event.lease_id] = AuditCase(
        lease_id=event.lease_id,
        opened_at_ms=event.at_ms,
        holds=event.holds,
        accounts=[contributor],
    )
    state.audits_open[event.lease_id] = None
    state.audits_wanted[event.lease_id] = None
    fold_merging.audit_changed(state, event.lease_id)


def lease_issued(state: SwarmState, event: ev.LeaseIssued) -> None:
    """A copy is under way, or a comparison."""
    primary, lease_id = event.audit_of, LeaseId(event.lease.lease_id)
    if primary is None:
        return
    state.audit_of[lease_id] = primary
    if event.purpose == "compare":
        state.comparing.add(primary)
        return
    case = state.audits[primary]
    if event.purpose == "referee":
        state.audits[primary] = structs.replace(case, refereed=True)
    else:
        account = state.account_of(PeerId(event.lease.node))
        state.audits[primary] = structs.replace(case, accounts=[*case.accounts, account])
    for waiting in (state.audits_wanted, state.audits_disputed):
        waiting.pop(primary, None)


def lease_lost(state: SwarmState, lease_id: LeaseId) -> None:
    """A copy will not come, or a comparison: its case waits for somebody again."""
    primary = state.audit_of.get(lease_id)
    if primary is None:
        return
    if state.leases[lease_id].purpose == "compare":
        state.comparing.discard(primary)
    elif primary in state.audits_open:
        _want_run(state, primary)


def _want_run(state: SwarmState, primary: LeaseId) -> None:
    now, before = state.audits_wanted, state.audits_disputed
    if state.audits[primary].disputed_at_ms:
        now, before = before, now
    before.pop(primary, None)
    now[primary] = None


def referee_arrived(state: SwarmState, lease_id: LeaseId) -> None:
    """The operator's own run is here. No verdict is given on it: it is no contribution."""
    primary = state.audit_of[lease_id]
    if primary in state.audits_open:
        _add_run(state, primary, lease_id)


def base_withdrawn(state: SwarmState, key: LineageKey, versions: Collection[int]) -> None:
    """What rests on versions that were rolled back is lost, whatever its audit would say."""
    for primary in list(state.audits_open):
        order = state.leases[primary].order
        assert isinstance(order, TrainOrder)
        if (order.cluster, order.lineage) == key and order.base_version in versions:
            _close(state, primary, "moot")


def verdict_given(state: SwarmState, verdict: Verdict, before: WorkPhase) -> None:
    """A run was judged: it may be compared now, or is lost for its case. Its account's trust and cover follow."""
    lease_id = LeaseId(verdict.lease_id)
    account, accepted = state.answers_for(lease_id), verdict.state == "accepted"
    if accepted:
        state.uncovered.setdefault(account, {})[lease_id] = None
        trust = state.trust.get(account)
        if trust is not None and trust.refused:
            _set_trust(state, account, structs.replace(trust, refused=0))
    else:
        _no_longer_uncovered(state, account, [lease_id])
        if verdict.code not in BLAMELESS:
            trust = state.trust.get(account, Trust())
            refused = trust.refused + 1
            more = structs.replace(trust, confirmed=0, samples=0, refused=refused)
            _set_trust(state, account, more)
    primary = state.audit_of.get(lease_id, lease_id)
    if primary not in state.audits_open:
        return
    if primary == lease_id and not accepted:
        _close(state, primary, "moot")
    elif before == "available" and not _is_found_out(state, account, verdict.decided_at_ms):
        _add_run(state, primary, lease_id)
    elif primary != lease_id:
        _want_run(state, primary)


def _is_found_out(state: SwarmState, account: PeerId, now_ms: int) -> bool:
    """Whether an account was banned since it handed in; what comes of its own work is decided elsewhere."""
    ban = state.bans.get(account)
    return ban is not None and ban.until_ms > now_ms


def _lose_runs(state: SwarmState, account: PeerId) -> None:
    """An account was found out: its runs have no say in others' cases, and what is left of these is compared anew."""
    for primary in list(state.audits_open):
        theirs = {
            run
            for run in state.audits[primary].runs
            if run != primary and state.answers_for(run) == account
        }
        if theirs:
            _lose(state, primary, theirs)


def _lose(state: SwarmState, primary: LeaseId, lost: set[LeaseId]) -> None:
    case = state.audits[primary]
    runs = [run for run in case.runs if run not in lost]
    state.audits[primary] = structs.replace(case, runs=runs, compared=0, disputed_at_ms=0)
    for waiting in (state.audits_ready, state.audits_wanted, state.audits_disputed):
        waiting.pop(primary, None)
    if primary in runs and len(runs) > 1:
        state.audits_ready[primary] = None
    else:
        _want_run(state, primary)


def _add_run(state: SwarmState, primary: LeaseId, lease_id: LeaseId) -> None:
    case = state.audits[primary]
    runs = [*case.runs, lease_id]
    state.audits[primary] = structs.replace(case, runs=runs)
    if primary in runs and len(runs) > max(1, case.compared):
        state.audits_ready[primary] = None


def machine_delegated(state: SwarmState, peer: PeerId, account: PeerId) -> None:
    """What a machine did for itself, its account answers for from now on."""
    if peer in state.uncovered and peer != account:
        state.uncovered.setdefault(account, {}).update(state.uncovered.pop(peer))


def runs_compared(state: SwarmState, event: ev.RunsCompared) -> None:
    """What a comparison found, written into the case, the trust of all accounts in it and the band."""
    if event.result == "open":
        _want_another(state, event)
    else:
        _close(state, event.lease_id, event.result)
    for lease_id in event.agreeing:
        account = state.answers_for(lease_id)
        trust = state.trust.get(account, Trust())
        samples = trust.samples + state.leases[lease_id].samples
        more = structs.replace(trust, confirmed=trust.confirmed + 1, samples=samples)
        _set_trust(state, account, more)
    for lease_id in event.differing:
        account = state.answers_for(lease_id)
        trust = state.trust.get(account, Trust())
        _set_trust(state, account, Trust(refuted=trust.refuted + 1, bans=trust.bans))
    for account in {state.answers_for(lease_id) for lease_id in event.covered}:
        _no_longer_uncovered(state, account, event.covered)
    _note_distances(state, event)


def _set_trust(state: SwarmState, account: PeerId, trust: Trust) -> None:
    before = state.trust.get(account)
    if before is not None:
        state.by_confirmed.remove((before.confirmed, account))
    state.trust[account] = trust
    state.by_confirmed.add((trust.confirmed, account))


def _want_another(state: SwarmState, event: ev.RunsCompared) -> None:
    before = state.audits[event.lease_id]
    case = structs.replace(
        before,
        compared=min(len(event.runs), len(before.runs)),
        disputed_at_ms=before.disputed_at_ms or event.at_ms,
    )
    state.audits[event.lease_id] = case
    if len(case.runs) == case.compared:
        state.audits_ready.pop(event.lease_id, None)
        _want_run(state, event.lease_id)


def _note_distances(state: SwarmState, event: ev.RunsCompared) -> None:
    for pair in event.distances:
        first, second = event.runs[pair.first], event.runs[pair.second]
        if pair.distance is not None and first in event.agreeing and second in event.agreeing:
            key = band_key(state, first, second)
            state.audit_distances.setdefault(key, deque(maxlen=KEPT)).append(pair.distance)


def audit_given_up(state: SwarmState, event: ev.AuditGivenUp) -> None:
    """The contribution goes on without it."""
    _close(state, event.lease_id, "given_up")


def account_penalised(state: SwarmState, event: ev.AccountPenalised) -> None:
    """An account is banned until then, and does not speak against others."""
    _lose_runs(state, event.account)
    state.bans[event.account] = Ban(until_ms=event.until_ms, sentence=event.sentence)
    trust = state.trust.get(event.account, Trust())
    _set_trust(state, event.account, structs.replace(trust, refused=0, bans=trust.bans + 1))


def _close(state: SwarmState, primary: LeaseId, result: AuditResult) -> None:
    state.audits[primary] = structs.replace(state.audits[primary], result=result)
    for waiting in (
        state.audits_open,
        state.audits_wanted,
        state.audits_disputed,
        state.audits_ready,
    ):
        waiting.pop(primary, None)
    fold_merging.audit_changed(state, primary)


def _no_longer_uncovered(state: SwarmState, account: PeerId, lease_ids: list[LeaseId]) -> None:
    open_work = state.uncovered.get(account, {})
    for lease_id in lease_ids:
        open_work.pop(lease_id, None)
    if not open_work:
        state.uncovered.pop(account, None)
