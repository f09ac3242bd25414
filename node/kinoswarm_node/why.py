"""Why the node does what it does, in words. Pure: from its status, history and settings to lines for one screen."""

from collections.abc import Sequence

from msgspec import Struct

from kinoswarm_node.node_status import NodeStatus, SegmentStatus
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.swarm_folder import HistoryLine

SHOWN_VERDICTS = 5


class Why(Struct, frozen=True, kw_only=True):
    """The screen's parts; every line is a sentence or a short phrase."""

    now: list[str]
    not_more: list[str]
    sees: dict[str, str]
    verdicts: list[str]
    credit: list[str]
    safe: list[str]
    founder: list[str]
    """What the founder amended and said, and whether a newer version is out."""
    log: list[str]
    """Whether everybody was shown the same history of the coordinator's decisions."""
    next_step: str


def explain(
    status: NodeStatus,
    running: bool,
    history: Sequence[HistoryLine],
    settings: NodeSettings,
    now_ms: int,
) -> Why:
    """All that a volunteer may ask, from files alone: it also answers when the node does not run."""
    governor = status.governor if running else None
    return Why(
        now=_now(status, running, now_ms),
        not_more=_not_more(status, running, settings),
        sees=governor.sees if governor else {},
        verdicts=_verdicts(history, now_ms),
        credit=_credit(status, history),
        safe=_safe(status, settings),
        founder=[*([status.update] if status.update else []), *status.notices],
        log=[line for line in (status.log_conflict, status.log_seen) if line],
        next_step=_next_step(status, running, history),
    )


def _now(status: NodeStatus, running: bool, now_ms: int) -> list[str]:
    if not running:
        return [f"Not running. When it ended it was {status.state}: {status.reason}"]
    lines = [f"{status.state.replace('_', ' ').capitalize()} for {ago(now_ms - status.since_ms)}."]
    lines += [status.reason] if status.reason else []
    if status.segment:
        lines.append(_segment(status.segment))
    return [*lines, status.keeps] if status.keeps else lines


def _segment(segment: SegmentStatus) -> str:
    line = f"Segment on {segment.label!r}: step {segment.step} of {segment.total}"
    if segment.steps_per_s:
        left = ago(int(1000 * (segment.total - segment.step) / segment.steps_per_s))
        line += f", {segment.steps_per_s:.2g} steps a second, about {left} left"
    return f"{line}."


def _not_more(status: NodeStatus, running: bool, settings: NodeSettings) -> list[str]:
    """What holds it back now, then the limits that were set."""
    lines = [status.governor.reason] if running and status.governor else []
    limits = {
        "share_percent": settings.share_percent < 100
        and f"{settings.share_percent:g} % of the time",
        "threads": settings.threads and f"{settings.threads} processor thread(s)",
        "hours": settings.hours,
        "max_vram_gib": settings.max_vram_gib and f"{settings.max_vram_gib:g} GiB of the card",
        "max_ram_gib": settings.max_ram_gib and f"{settings.max_ram_gib:g} GiB of memory",
        "power_limit_w": settings.power_limit_w and f"{settings.power_limit_w} W",
        "quiet_programs": ", ".join(settings.quiet_programs),
    }
    if settings.role == "helper":
        lines.append("A helper: it does others' segments again and trains nothing of its own.")
    lines += [status.fit] if status.fit else []
    lines += [f"Your limit {name}: {text}." for name, text in limits.items() if text]
    if running and status.confined:
        lines.append(f"The worker: {', '.join(status.confined)}.")
    if running and status.governor and status.governor.blind:
        lines.append(f"Can't be seen on this machine: {', '.join(status.governor.blind)}.")
    return lines


def _verdicts(history: Sequence[HistoryLine], now_ms: int) -> list[str]:
    newest = list(history)[-SHOWN_VERDICTS:]
    lines = [_verdict(line, now_ms) for line in reversed(newest)]
    return lines or ["No segment is finished yet."]


def _verdict(line: HistoryLine, now_ms: int) -> str:
    where = "" if line.cluster is None else f" (cluster {line.cluster})"
    code = "" if line.code in ("", line.state) else f" [{line.code}]"
    return f"{ago(now_ms - line.at_ms)} ago, {line.state}{where}: {line.sentence}{code}"


def _credit(status: NodeStatus, history: Sequence[HistoryLine]) -> list[str]:
    accepted = [line for line in history if line.state == "accepted"]
    samples, seconds = (
        sum(line.samples for line in accepted),
        sum(line.seconds for line in accepted),
    )
    spent = f"{samples} clips in {ago(int(seconds * 1000))} of training"
    lines = [f"{len(accepted)} segment(s) accepted: {spent}." if accepted else "None yet."]
    refused: dict[str, int] = {}
    for line in history:
        if line.state != "accepted":
            refused[line.code or line.state] = refused.get(line.code or line.state, 0) + 1
    if refused:
        reasons = ", ".join(f"{count} x {code}" for code, count in sorted(refused.items()))
        lines.append(f"{sum(refused.values())} not accepted: {reasons}.")
    if status.awaiting_verdict or status.unsent:
        lines.append(
            f"{status.awaiting_verdict} sent and not judged yet, {status.unsent} kept here until they can be sent."
        )
    whose = f"the account {status.account_name!r} ({status.account})" if status.account else ""
    lines.append(f"It counts for {whose or 'this machine alone'}.")
    return lines


def _safe(status: NodeStatus, settings: NodeSettings) -> list[str]:
    """What a power cut would cost now."""
    budget = f"at most {settings.max_writes_gb_per_day:g} GB of writes a day"
    segment = status.segment
    if segment is None:
        return [f"Resume points every {ago(int(settings.resume_every_s * 1000))}, {budget}."]
    every = ago(int((segment.save_every_s or settings.resume_every_s) * 1000))
    lines = [f"Saved up to step {segment.saved_step}; a resume point every {every}, {budget}."]
    if segment.save_problem:
        lines.append(f"Careful: {segment.save_problem}.")
    return lines


def _next_step(status: NodeStatus, running: bool, history: Sequence[HistoryLine]) -> str:
    """One thing to do, or that there is nothing to do."""
    last = history[-1] if history else None
    if not running:
        return "Start it with `kinoswarm join`."
    if "before you say go" in status.reason:
        return "Say go: `kinoswarm resume`."
    if status.state == "paused" and "Paused by you" in status.reason:
        return "`kinoswarm resume` lets it go on."
    if status.governor and status.governor.rule:
        return (
            f"Nothing to do: it goes on by itself. If you want it otherwise, the setting is {status.governor.rule}: on "
            "the page (`kinoswarm page --open`) or in settings.toml."
        )
    if last is not None and last.code == "not_finite":
        return "Numbers went wrong here: check for overclocking and heat, then run `kinoswarm join` again."
    if last is not None and last.state in ("rejected", "quarantined"):
        return (
            "Nothing to do: single segments are rejected now and then. If it goes on, `kinoswarm report` packs a "
            "report for the project."
        )
    return "Nothing to do."


def ago(ms: int) -> str:
    """A duration for people."""
    seconds = max(0, ms) / 1000
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
