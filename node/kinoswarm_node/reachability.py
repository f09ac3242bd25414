"""What it means when peers could or could not dial this node back. Owns the verdict and its words; pure."""

import ipaddress

from kinoswarm_network.client import ReachReport


def is_cut_off(report: ReachReport) -> bool:
    """Whether strangers on the internet cannot dial this node.

    What peers of the same home or machine say counts for nothing, and neither does silence.
    """
    return report.asked > 0 and not report.reached and _is_public(report.host)


def reach_in_words(report: ReachReport) -> str:
    """One sentence for the volunteer, with what to do; empty when nobody tried."""
    if not report.asked:
        return ""
    if not _is_public(report.host):
        way = "reached" if report.reached else "did not reach"
        return f"a peer in your own network {way} this node; nobody outside has tried yet"
    where = f"port {report.port} at your internet address"
    if report.reached:
        return f"yes: a peer dialled {where} and got through"
    return (
        f"no: a peer dialled {where} and did not get through, so this node only dials out, which is enough to take "
        f"part. To serve others as well, forward TCP port {report.port} of your router to this machine and let it "
        "through the firewall; set listen to that fixed port"
    )


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False
