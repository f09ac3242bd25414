"""What the doctor's readings mean: one finding each, with what to do. Pure; checkup_probes.py measures."""

import errno
import ipaddress
import os
import sys
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from kinoswarm_network.client import ReachReport
from kinoswarm_network.multiaddresses import tcp_port
from kinoswarm_node.reachability import is_cut_off, reach_in_words
from kinoswarm_protocol.limits import MAX_CLOCK_SKEW_MS

_GIB = 1024**3
_SET_CLOCK = {
    "linux": "`sudo timedatectl set-ntp true`",
    "darwin": "System Settings, Date & Time, set automatically",
    "win32": "Settings, Time & language, set time automatically",
}


class State(StrEnum):
    """How a finding bears on taking part."""

    FINE = "fine"
    ADVICE = "advice"
    """Works, and could work better."""
    WRONG = "wrong"


class Where(StrEnum):
    """Whose side a problem is on; it decides the exit code."""

    HERE = "here"
    THERE = "there"


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the doctor."""

    name: str
    state: State
    sentence: str
    to_do: str = ""
    """What to do; empty when there is nothing."""
    where: Where = Where.HERE


class Way(Struct, frozen=True, kw_only=True):
    """What became of one address of the invite: `problem` is empty when it answered."""

    address: str
    problem: str
    clock_ahead_ms: int | None = None
    """Its clock minus ours in ms, when it told."""


def judge_disk(free_bytes: int, keep_free_bytes: int, folder: str) -> Finding:
    """Work pauses below `keep_free_bytes`; twice that leaves room for a segment's files."""
    free = f"{free_bytes / _GIB:.1f} GiB free in {folder}"
    if free_bytes < keep_free_bytes:
        return Finding(
            name="disk",
            state=State.WRONG,
            sentence=f"{free}, and work pauses below {keep_free_bytes / _GIB:.1f} GiB",
            to_do="free some space, choose another folder with --home, or lower keep_free_gib",
        )
    if free_bytes < 2 * keep_free_bytes:
        return Finding(
            name="disk",
            state=State.ADVICE,
            sentence=f"{free}: little more than what is kept free",
            to_do="free some space before checkpoints arrive",
        )
    return Finding(name="disk", state=State.FINE, sentence=free)


def judge_card(device: str, has_card: bool) -> Finding:
    """`device` as set: auto, cpu, cuda or cuda:N; `has_card`: the NVIDIA driver answers for it."""
    if device == "cpu":
        return Finding(
            name="graphics card", state=State.FINE, sentence="not used: device is set to cpu"
        )
    if has_card:
        return Finding(name="graphics card", state=State.FINE, sentence="the NVIDIA driver answers")
    wanted = device.startswith("cuda")
    return Finding(
        name="graphics card",
        state=State.WRONG if wanted else State.ADVICE,
        sentence="no NVIDIA driver answers"
        + (f", but device is {device}" if wanted else ": training would run on the processor"),
        to_do="if this machine has a card, install its driver until `nvidia-smi` shows it"
        + ("; else set device to auto" if wanted else ""),
    )


def judge_reach(own_address: str, listen: Sequence[str]) -> Finding:
    """Whether strangers may dial this machine, as far as it can tell alone: its address and its ports."""
    if not listen:
        return Finding(
            name="reachability",
            state=State.FINE,
            sentence="this node only dials out (client mode); nothing has to be opened for it",
        )
    if not own_address:
        return Finding(
            name="reachability",
            state=State.WRONG,
            sentence="this machine has no network that leads anywhere",
            to_do="connect it to the network",
        )
    if ipaddress.ip_address(own_address).is_global:
        return Finding(
            name="reachability",
            state=State.FINE,
            sentence=f"{own_address} is a public address; others reach it if its firewall lets them",
        )
    ports = [port for address in listen if (port := tcp_port(address))]
    forward = (
        f"forward TCP port {ports[0]} of your router to {own_address}"
        if ports
        else "listen on a fixed port (`kinoswarm join INVITE --listen /ip4/0.0.0.0/tcp/4001`) and forward it in your "
        "router"
    )
    return Finding(
        name="reachability",
        state=State.ADVICE,
        sentence=f"{own_address} lies behind a router: the node dials out, others may not reach it. That is enough "
        "to take part",
        to_do=f"to serve others as well, {forward}",
    )


def judge_relay(relays: bool) -> Finding:
    """Whether strangers' traffic may go through this machine: only when its owner said so."""
    if not relays:
        return Finding(
            name="relay",
            state=State.FINE,
            sentence="nobody else's traffic goes through this machine (relay_for_others is off)",
        )
    return Finding(
        name="relay",
        state=State.FINE,
        sentence="strangers may meet through this machine, as you set it (relay_for_others): 2 minutes and 128 KiB "
        "at a time, outside your rate caps",
    )


def judge_dial_back(report: ReachReport) -> Finding | None:
    """What peers found that dialled this machine back; None when nobody tried."""
    if not report.asked:
        return None
    state = State.ADVICE if is_cut_off(report) else State.FINE
    return Finding(name="dialled back", state=state, sentence=reach_in_words(report))


def judge_port(address: str, fault: int | None, held_by: str, is_running: bool) -> Finding:
    """Whether the node can listen at `address`: `fault` is the errno of trying, None when it went well.

    `held_by` names the program that has the port, as far as this user may see it.
    """
    name, port = f"listening on {address}", tcp_port(address)
    if fault is None:
        sentence = f"port {port} is free" if port else "any free port will do"
        return Finding(name=name, state=State.FINE, sentence=sentence)
    if fault == errno.EADDRINUSE and is_running:
        return Finding(name=name, state=State.FINE, sentence="your running node listens there")
    if address.startswith("/ip6/") and fault in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
        sentence = "this machine has no such IPv6 address; the node does without"
        return Finding(name=name, state=State.FINE, sentence=sentence)
    sentence, to_do = _port_trouble(port, fault, held_by)
    return Finding(name=name, state=State.WRONG, sentence=sentence, to_do=to_do)


def _port_trouble(port: int, fault: int, held_by: str) -> tuple[str, str]:
    other = "kinoswarm join INVITE --listen /ip4/0.0.0.0/tcp/0"
    if fault == errno.EADDRINUSE:
        return (
            f"port {port} is taken by {held_by or 'another program'}",
            f"stop that program, or choose another port: `{other}` takes any free one",
        )
    if fault == errno.EADDRNOTAVAIL:
        return "this machine does not have that address", f"listen on all of its own: `{other}`"
    if fault in (errno.EACCES, errno.EPERM):
        return (
            f"this user may not open port {port}",
            f"choose one above 1023: `{other}` takes any free one",
        )
    return f"port {port} cannot be used ({os.strerror(fault)})", f"choose another: `{other}`"


def judge_way(way: Way, others_answer: bool) -> Finding:
    """One address of the invite, on its own line."""
    if not way.problem:
        return Finding(name=way.address, state=State.FINE, sentence="answers", where=Where.THERE)
    return Finding(
        name=way.address,
        state=State.ADVICE,
        sentence=way.problem,
        to_do="nothing: another address answers, and one is enough" if others_answer else "",
        where=Where.THERE,
    )


def judge_ways(ways: Sequence[Way]) -> Finding:
    """Whether any address of the invite leads into the swarm."""
    if not ways:
        return Finding(
            name="way to the swarm",
            state=State.WRONG,
            sentence="the invite holds no web address, and this node takes part over HTTPS alone (https_only)",
            to_do="ask for an invite with a web address, or set https_only to false",
        )
    working = sum(not way.problem for way in ways)
    if working:
        return Finding(
            name="way to the swarm",
            state=State.FINE,
            sentence=f"{working} of {len(ways)} addresses answer; one is enough",
            where=Where.THERE,
        )
    return Finding(
        name="way to the swarm",
        state=State.WRONG,
        sentence=f"none of {len(ways)} addresses of this invite answers",
        to_do="if other sites open, ask whoever invited you whether the swarm is up, and for a fresh invite; if "
        "they don't, check this machine's connection, and that its firewall lets programs out",
        where=Where.THERE,
    )


def judge_clock(ways: Sequence[Way]) -> Finding | None:
    """This machine's clock against those that told theirs; the median, so that one liar decides nothing."""
    told = sorted(way.clock_ahead_ms for way in ways if way.clock_ahead_ms is not None)
    if not told:
        return None
    ahead_ms = told[len(told) // 2]
    if abs(ahead_ms) <= MAX_CLOCK_SKEW_MS:
        return Finding(
            name="clock", state=State.FINE, sentence=f"within {MAX_CLOCK_SKEW_MS / 1000:g} s"
        )
    direction = "behind" if ahead_ms > 0 else "ahead of"
    off = duration_in_words(abs(ahead_ms))
    return Finding(
        name="clock",
        state=State.WRONG,
        sentence=f"this machine's clock is {off} {direction} the swarm's; beyond {MAX_CLOCK_SKEW_MS / 1000:g} s "
        "peers turn it away",
        to_do=f"set the clock by the network (NTP): {_SET_CLOCK.get(sys.platform, _SET_CLOCK['linux'])}; then run the "
        "doctor again",
    )


def duration_in_words(ms: int) -> str:
    """A length of time as people say it."""
    seconds = ms / 1000
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s"


def proven_ahead(ahead_ms: int, took_ms: int) -> int:
    """Of a clock's lead as seen when its reply arrived, what a reply that took `took_ms` cannot explain; in ms."""
    return ahead_ms if ahead_ms > 0 else min(0, ahead_ms + took_ms)
