"""One request in, events and a reply out. Owns which request leads to which decision; pure."""

from collections.abc import Set
from dataclasses import dataclass, field

from kinoswarm_coordinator import accounts
from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.scheduling import Granted, Pull, decide
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.submissions import Arrival, Denied, receive
from kinoswarm_protocol.charter import version_numbers
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.errors import Code, RemoteError
from kinoswarm_protocol.ids import LeaseId, PeerId, SwarmId
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    AskStatus,
    AskVerdicts,
    Hello,
    Lease,
    Lookup,
    Noted,
    NoWork,
    Progress,
    ProgressNoted,
    PullLease,
    Refusal,
    Request,
    RevokeMachine,
    Submit,
    Verdict,
)

# --- what to say back; the shell signs and fills in what it knows -------------------------------


@dataclass(frozen=True)
class SayWelcome:
    notice: str = ""


@dataclass(frozen=True)
class SayLease:
    lease: Lease


@dataclass(frozen=True)
class SayReceipt:
    lease_id: LeaseId
    verdict: Verdict | None


@dataclass(frozen=True)
class SayVerdicts:
    verdicts: list[Verdict]


@dataclass(frozen=True)
class SayRecords:
    key: str


@dataclass(frozen=True)
class SayStatus:
    pass


Say = (
    SayWelcome
    | SayLease
    | SayReceipt
    | SayVerdicts
    | SayRecords
    | SayStatus
    | NoWork
    | Noted
    | ProgressNoted
    | Refusal
)


@dataclass(frozen=True)
class Decision:
    """What a request leads to. `reason` is for the log."""

    say: Say
    events: list[ev.Event] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A verified request, and the shell's clock and chance."""

    signer: PeerId
    request: Request
    swarm: SwarmId
    now_ms: int
    seed: int
    neighbours: Set[PeerId] = frozenset()
    """Machines that were last heard from the same range of addresses."""


def handle(state: SwarmState, rules: Rules, asked: Asked) -> Decision:
    """Decide about one request."""
    match asked.request.body:
        case Hello() as hello:
            return _hello(state, rules, asked, hello)
        case PullLease() as pull:
            return _pull(state, rules, asked, pull)
        case Progress() as progress:
            return _progress(state, asked, progress)
        case Submit() as submit:
            return _submit(state, rules, asked, submit)
        case AskVerdicts() as ask:
            return Decision(SayVerdicts(_own_verdicts(state, asked.signer, ask)))
        case Lookup() as lookup:
            return Decision(SayRecords(lookup.key))
        case AskStatus():
            return Decision(SayStatus())
        case RevokeMachine() as revoke:
            return _revoke(state, asked, revoke)


def _outdated(rules: Rules, version: str) -> str:
    """Why a program of this version may not take part; empty when it may."""
    oldest = rules.charter.min_version
    if version_numbers(version) >= version_numbers(oldest):
        return ""
    return f"the swarm needs version {oldest} or newer, this is {version[:20]}; update the program"


def _hello(state: SwarmState, rules: Rules, asked: Asked, hello: Hello) -> Decision:
    outdated = _outdated(rules, hello.program_version)
    if outdated:
        return _refuse(Code.VERSION_MISMATCH, outdated)
    event = ev.NodeJoined(
        at_ms=asked.now_ms,
        peer=asked.signer,
        pseudonym=hello.pseudonym,
        device=hello.machine.device,
        program_version=hello.program_version,
        addresses=list(hello.addresses),
        seconds_per_step=hello.machine.seconds_per_step,
    )
    before = state.nodes.get(asked.signer)
    known = before is not None and all(
        getattr(before, name) == getattr(event, name)
        for name in ("pseudonym", "device", "program_version", "addresses", "seconds_per_step")
    )
    try:
        claimed = accounts.claim(state, asked.signer, hello.delegation, asked.now_ms)
    except RemoteError as error:
        return _refuse(error.code, str(error))
    joined: list[ev.Event] = [] if known else [event]
    return Decision(
        SayWelcome(claimed.sentence), joined + claimed.events, f"hello of {hello.pseudonym}"
    )


def _revoke(state: SwarmState, asked: Asked, revoke: RevokeMachine) -> Decision:
    try:
        released = accounts.release(state, revoke.revocation, asked.now_ms)
    except RemoteError as error:
        return _refuse(error.code, str(error))
    return Decision(Noted(sentence=released.sentence), released.events, released.sentence)


def _pull(state: SwarmState, rules: Rules, asked: Asked, pull: PullLease) -> Decision:
    if asked.signer not in state.nodes and asked.signer != rules.operator:
        return _refuse(Code.NOT_PERMITTED, "say hello before asking for work")
    node = state.nodes.get(asked.signer)
    outdated = _outdated(rules, node.program_version) if node is not None else ""
    if outdated:
        return _refuse(Code.VERSION_MISMATCH, outdated)
    answer = decide(
        state,
        rules,
        Pull(
            peer=asked.signer,
            request_id=asked.request.request_id,
            body=pull,
            now_ms=asked.now_ms,
            seed=asked.seed,
            neighbours=asked.neighbours,
        ),
    )
    if isinstance(answer, Granted):
        events: list[ev.Event] = [answer.event] if answer.event else []
        return Decision(SayLease(answer.lease), events, answer.reason)
    say = NoWork(code="no_work", sentence=answer.reason, retry_after_s=answer.retry_after_s)
    return Decision(say, reason=answer.reason)


def _progress(state: SwarmState, asked: Asked, progress: Progress) -> Decision:
    lease = state.leases.get(LeaseId(progress.lease_id))
    if lease is None or lease.lease.node != asked.signer:
        return _refuse(Code.UNKNOWN_LEASE, "no such lease was given to you; pull a new one")
    if lease.phase == "open":
        return Decision(ProgressNoted(go_on=True, sentence="go on"))
    sentence = {
        "expired": "the lease has expired and its work was given to others",
        "failed": "you gave this lease back as failed",
        "submitted": "its contribution is here already",
    }[lease.phase]
    return Decision(ProgressNoted(go_on=False, sentence=sentence))


def _submit(state: SwarmState, rules: Rules, asked: Asked, submit: Submit) -> Decision:
    try:
        opened = open_envelope(submit.contribution, CONTRIBUTION, asked.swarm, asked.signer)
    except RemoteError as error:
        return _refuse(error.code, str(error))
    lease_id = LeaseId(opened.body.lease_id)
    arrival = Arrival(raw=submit.contribution, now_ms=asked.now_ms, seed=asked.seed)
    result = receive(state, rules, asked.signer, opened.body, arrival)
    if isinstance(result, Denied):
        return _refuse(result.code, result.sentence)
    work = state.work.get(lease_id)
    return Decision(SayReceipt(lease_id, work.verdict if work else None), result, "contribution")


def _own_verdicts(state: SwarmState, signer: PeerId, ask: AskVerdicts) -> list[Verdict]:
    found = [state.work.get(LeaseId(lease_id)) for lease_id in ask.lease_ids]
    return [
        work.verdict
        for work in found
        if work is not None and work.verdict is not None and work.node == signer
    ]


def _refuse(code: str, sentence: str) -> Decision:
    return Decision(Refusal(code=code, sentence=sentence[:500]), reason=f"refused: {sentence}")
