"""`kinoswarm simulate`: a swarm of thousands in virtual time. Owns flags and the table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kinoswarm_simulator.plan import Partition
    from kinoswarm_simulator.report import Report

app = typer.Typer()


@app.command()
def simulate(
    nodes: Annotated[int, typer.Option(min=2, max=100_000, help="Volunteers at a time.")] = 1_000,
    days: Annotated[float, typer.Option(min=0.01, max=365.0, help="Simulated time.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal runs.")] = 0,
    clusters: Annotated[
        int, typer.Option(min=0, max=4_096, help="Experts; 0 suits the number of nodes.")
    ] = 0,
    hostile: Annotated[
        list[str] | None,
        typer.Option(help="BEHAVIOUR=SHARE of hostile volunteers, as lazy=0.1; repeatable."),
    ] = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(
            help="SHARE:FROM-UNTIL of volunteers that reach nobody for some hours, as 0.5:6-9; repeatable."
        ),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Run the real scheduling, audits, trust and merge decisions with made-up machines, network and training."""
    import gc

    import msgspec

    from kinoswarm_simulator.plan import Plan, Wire
    from kinoswarm_simulator.report import check_invariants, report_of
    from kinoswarm_simulator.world import World

    plan = Plan(
        nodes=nodes,
        days=days,
        seed=seed,
        clusters=clusters,
        hostile=_shares(hostile or []),
        wire=Wire(partitions=tuple(_partition(text) for text in partition or [])),
    )
    world = World(plan)
    gc.disable()  # millions of entries without a cycle among them: looking for one takes a third of the time
    world.run()
    check_invariants(world)
    report = report_of(world)
    if plots is not None:
        from kinoswarm_simulator.plots import write_plots

        write_plots(plots, world, report)
    typer.echo(msgspec.json.encode(report).decode() if as_json else "\n".join(told(report)))


def _shares(typed: list[str]) -> dict[str, float]:
    from kinoswarm_protocol.errors import LocalError
    from kinoswarm_simulator.behaviours import HOSTILE

    found = {}
    for text in typed:
        name, _, share = text.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if name not in HOSTILE or not 0.0 <= value <= 1.0:
            raise LocalError(
                f"--hostile takes BEHAVIOUR=SHARE with a share from 0 to 1 and one of "
                f"{', '.join(HOSTILE)}; got {text[:60]!r}"
            )
        found[name] = value
    if sum(found.values()) > 1.0:
        raise LocalError("the shares of hostile volunteers come to more than 1")
    return found


def _partition(text: str) -> "Partition":
    from kinoswarm_protocol.errors import LocalError
    from kinoswarm_simulator.plan import HOUR_MS, Partition

    share, _, hours = text.partition(":")
    begin, _, end = hours.partition("-")
    try:
        found = Partition(
            share=float(share),
            from_ms=round(float(begin) * HOUR_MS),
            until_ms=round(float(end) * HOUR_MS),
        )
    except (ValueError, OverflowError):
        found = Partition(share=-1.0, from_ms=0, until_ms=0)
    if not 0.0 <= found.share <= 1.0 or not 0 <= found.from_ms < found.until_ms:
        raise LocalError(
            f"--partition takes SHARE:FROM-UNTIL, a share from 0 to 1 and two hours of the run as 0.5:6-9; "
            f"got {text[:60]!r}"
        )
    return found


def told(report: "Report") -> list[str]:
    """The table for people."""
    lost = ", ".join(f"{name} {share:.1%}" for name, share in report.lost.items()) or "nothing"
    lines = [
        f"{report.nodes} volunteers at a time ({report.joined} in all), {report.clusters} experts, "
        f"{report.days:g} days, seed {report.seed}: {report.events} events",
        f"  utilisation         {report.utilisation:.1%} (idle {report.idle:.1%}, lost: {lost})",
        f"  lost work reissued  after {report.reissue_s_median:.0f} s (median), {report.reissue_s_p99:.0f} s (p99)",
        f"  versions            {report.versions_least} to {report.versions_most}, median {report.versions_median:g}",
        f"  verification        {report.verification_share:.2%} of the training's FLOPs{_by_day(report)}",
        f"  FLOPs by lease      {_shares_of_training(report.charged)}",
        f"  blobs and messages  {report.coordinator_bytes_per_s / 1e6:.2f} MB/s",
        f"  leases              {_counts(report.leases)}",
        f"  contributions       {_counts(report.contributions)}",
        f"  trust               {report.proven_accounts} proven accounts, {report.honest_banned} honest ones banned",
    ]
    for found in report.detections:
        lines.append(
            f"  {found.behaviour:<19} {found.volunteers} volunteers, {found.banned} banned; "
            f"{found.contributions} such contributions, {found.refused} refused, {found.merged} merged"
        )
    return lines


def _by_day(report: "Report") -> str:
    days = ", ".join(f"{share:.1%}" for share in report.verification_by_day)
    return f"; by day {days}" if len(report.verification_by_day) > 1 else ""


def _shares_of_training(charged: dict[str, float]) -> str:
    return ", ".join(f"{share:.2%} {name}" for name, share in charged.items() if name != "train")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
