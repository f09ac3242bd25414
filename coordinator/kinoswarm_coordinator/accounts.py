"""Which account a machine counts for. Owns the decisions and their sentences; pure.

A statement that is forged or another's is refused. One that is only out of date lets the machine train on under its
own name, and says so: nobody should lose work over an expired paper.
"""

from dataclasses import dataclass, field

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.accounts import Delegation, open_delegation, open_revocation, why_not_at
from kinoswarm_protocol.errors import Code, Refused
from kinoswarm_protocol.ids import PeerId


@dataclass(frozen=True)
class Accounted:
    """What a statement leads to; `sentence` is for the machine that brought it, empty when all is as before."""

    events: list[ev.Event] = field(default_factory=list)
    sentence: str = ""


def claim(state: SwarmState, peer: PeerId, raw: bytes | None, now_ms: int) -> Accounted:
    """A machine says hello with a delegation, or without one, which leaves everything as it is.

    Raises BadSignature or another RemoteError for a statement that this machine may not bring.
    """
    if raw is None:
        return Accounted()
    delegation = open_delegation(raw, peer).body
    if delegation.account in state.delegations or peer in state.account_names:
        raise Refused(Code.NOT_PERMITTED, "an account can't itself be a machine of another account")
    why_not = why_not_at(delegation, now_ms) or _revoked(state, delegation)
    if why_not:
        return Accounted(sentence=f"{why_not}. Until then it counts under its own name.")
    held = state.delegations.get(peer)
    if held is not None and held.serial >= delegation.serial:
        return Accounted()
    event = ev.MachineDelegated(
        at_ms=now_ms,
        peer=peer,
        account=delegation.account,
        name=delegation.name,
        serial=delegation.serial,
        expires_at_ms=delegation.expires_at_ms,
        raw=raw,
    )
    return Accounted([event], f"this machine's work counts for {delegation.name} from now on.")


def release(state: SwarmState, raw: bytes, now_ms: int) -> Accounted:
    """A revocation came. Raises a RemoteError when nobody entitled signed it, Refused for a machine never seen."""
    said = open_revocation(raw).body
    account, machine = PeerId(said.account), PeerId(said.machine)
    if machine not in state.nodes:
        raise Refused(Code.NOT_FOUND, f"no machine {machine} ever joined this swarm")
    done = f"{machine} no longer counts for {account}; what it earned before stays there"
    if state.revoked.get((account, machine), 0) >= said.serial:
        return Accounted(sentence=done)
    event = ev.MachineReleased(
        at_ms=now_ms, peer=machine, account=account, serial=said.serial, raw=raw
    )
    return Accounted([event], done)


def expired_delegations(state: SwarmState, now_ms: int) -> list[ev.Event]:
    """Delegations whose time is over: their machines count for themselves again."""
    return [
        ev.MachineReleased(at_ms=now_ms, peer=peer, account=held.account, serial=held.serial)
        for peer, held in sorted(state.delegations.items())
        if held.expires_at_ms <= now_ms
    ]


def _revoked(state: SwarmState, delegation: Delegation) -> str:
    key = PeerId(delegation.account), PeerId(delegation.machine)
    if delegation.serial > state.revoked.get(key, 0):
        return ""
    return "this machine's account delegation was revoked; ask its owner for a new one"
