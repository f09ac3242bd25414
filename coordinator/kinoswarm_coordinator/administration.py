"""What an operator's signed request leads to. Owns the conditions, the events and the sentences; pure.

Every action is one event in the log with its signer: who did what to the swarm stays readable by everybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.retention import forgotten_sentence
from kinoswarm_coordinator.rolling_back import Rollback, merged_since, rolled_back
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_protocol.admin import (
    MAX_AGE_MS,
    AdminAction,
    AdminAnswer,
    AdminRequest,
    BanNode,
    MakeRelease,
    PauseSwarm,
    ResumeSwarm,
    RollBack,
    UnbanNode,
)
from kinoswarm_protocol.ids import PeerId


@dataclass(frozen=True)
class Administered:
    """The answer, and the events that make it true."""

    answer: AdminAnswer
    events: list[ev.Event] = field(default_factory=list)


def administer(
    state: SwarmState,
    rules: Rules,
    admins: frozenset[PeerId],
    signer: PeerId,
    asked: AdminRequest,
    now_ms: int,
) -> Administered:
    """Decide about a request whose signature holds."""
    refused = _refused(state, admins, signer, asked, now_ms)
    if refused:
        return _no(refused)
    acted = ev.AdminActed(
        at_ms=now_ms, signer=signer, request_id=asked.request_id, action=asked.action
    )
    match asked.action:
        case PauseSwarm(sentence=sentence):
            return _yes(f"the swarm is paused: {sentence}", [acted])
        case ResumeSwarm():
            return _yes("training goes on", [acted]) if state.paused else _no("it is not paused")
        case BanNode(peer=peer):
            return _yes(f"{peer} is banned", [acted])
        case UnbanNode(peer=peer):
            banned = PeerId(peer) in state.bans
            return _yes(f"{peer} may take part again", [acted]) if banned else _no("no such ban")
        case MakeRelease():
            if state.router is None:
                return _no("there is no router yet, so no release can be made")
            return _yes("a release of the newest versions is the worker's next task", [acted])
        case RollBack() as wanted:
            return _roll_back(state, rules, acted, wanted, now_ms)


def _refused(
    state: SwarmState, admins: frozenset[PeerId], signer: PeerId, asked: AdminRequest, now_ms: int
) -> str:
    if signer not in admins:
        return "this key is no admin's; the coordinator's settings name those that are"
    if abs(now_ms - asked.at_ms) > MAX_AGE_MS:
        return "the request is too old or from the future; check both clocks and ask again"
    if asked.request_id in state.admin_requests:
        return "this request was carried out before"
    return ""


def _roll_back(
    state: SwarmState, rules: Rules, acted: ev.AdminActed, wanted: RollBack, now_ms: int
) -> Administered:
    key = (wanted.cluster, wanted.lineage)
    line = state.versions.get(key)
    if line is None:
        return _no(f"there is no expert {wanted.cluster}, lineage {wanted.lineage}")
    if wanted.to_version >= line[-1].version:
        return _no(f"expert {wanted.cluster} is at version {line[-1].version}; choose an older one")
    if wanted.to_version in state.withdrawn.get(key, set()):
        return _no(f"version {wanted.to_version} was itself withdrawn")
    if state.is_forgotten(key, wanted.to_version):
        return _no(forgotten_sentence(state, key, wanted.to_version))
    rollback = Rollback(
        key=key,
        to_version=wanted.to_version,
        sentence=wanted.sentence,
        refused=frozenset(merged_since(state, key, wanted.to_version)),
        keeps_resting=False,
    )
    events = rolled_back(state, rules, rollback, now_ms)
    sentence = (
        f"expert {wanted.cluster} is at version {len(line)} with the content of version {wanted.to_version}; "
        f"{_set_aside(events)} contributions that rested on what is withdrawn are set aside"
    )
    return _yes(sentence, [acted, *events])


def _set_aside(events: Sequence[ev.Event]) -> int:
    """Contributions that a rollback leaves without a use, judged or not."""
    judged = sum(isinstance(event, ev.VerdictGiven) for event in events)
    rolled = [event for event in events if isinstance(event, ev.VersionRolledBack)]
    return judged + sum(len(event.contributions) for event in rolled)


def action_sentence(action: AdminAction) -> str:
    """What an operator did, for the public log."""
    match action:
        case PauseSwarm(sentence=why):
            return f"paused the swarm: {why}"
        case ResumeSwarm():
            return "let training go on"
        case BanNode(peer=peer, sentence=why):
            return f"banned {peer}: {why}"
        case UnbanNode(peer=peer):
            return f"ended the ban of {peer}"
        case MakeRelease():
            return "asked for a release of the newest versions"
        case RollBack(cluster=cluster, to_version=to, sentence=why):
            return f"rolled expert {cluster} back to version {to}: {why}"


def _yes(sentence: str, events: list[ev.Event]) -> Administered:
    return Administered(AdminAnswer(done=True, sentence=sentence[:500]), events)


def _no(sentence: str) -> Administered:
    return Administered(AdminAnswer(done=False, sentence=sentence[:500]))
