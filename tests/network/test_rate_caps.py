"""Rate caps and the monthly cap: the arithmetic with time as a number, the month's file, and a real transfer."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from network.peers import Nodes, config, echo, provider

from kinoswarm_network.client import NetworkClient
from kinoswarm_network.rate_caps import MonthlyCap, TokenBucket, month_of_process, month_of_service
from kinoswarm_protocol.errors import LocalError, Refused, RemoteError
from kinoswarm_protocol.limits import MIB

NOVEMBER, DECEMBER = datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@given(
    rate=st.floats(1e4, 1e9),
    sizes=st.lists(st.integers(1, MIB), min_size=1, max_size=50),
)
def test_whoever_waits_as_told_stays_within_rate_and_burst(rate: float, sizes: list[int]) -> None:
    bucket, now_s = TokenBucket(rate), 1_000.0
    for size in sizes:
        now_s += bucket.wait_s(size, now_s)
    allowed = max(MIB, rate * 0.25) + rate * (now_s - 1_000.0)
    assert sum(sizes) <= allowed * (1 + 1e-6) + 1


def test_without_a_cap_nothing_waits() -> None:
    bucket = TokenBucket(0.0)
    assert [bucket.wait_s(10**12, float(second)) for second in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.debt_s(0.0) == 0.0


def test_a_pause_earns_no_more_than_a_burst() -> None:
    bucket = TokenBucket(1e6)
    bucket.wait_s(MIB, 1.0)
    bucket.wait_s(0, 1e6)
    assert bucket.wait_s(2 * MIB, 1e6) == pytest.approx(MIB / 1e6)


def test_debt_tells_how_far_ahead_it_is() -> None:
    bucket = TokenBucket(1e6)
    wait_s = bucket.wait_s(11 * MIB, 1.0)
    assert bucket.debt_s(1.0) == pytest.approx(wait_s)
    assert bucket.debt_s(1.0 + wait_s) == pytest.approx(0.0, abs=1e-9)


def test_the_month_survives_a_restart_and_begins_anew(tmp_path: Path) -> None:
    cap = MonthlyCap(tmp_path / "month.json", 100, lambda: NOVEMBER)
    cap.count(60)
    cap.write()
    again = MonthlyCap(tmp_path / "month.json", 100, lambda: NOVEMBER)
    again.check()
    again.count(40)
    with pytest.raises(Refused, match=r"cap of 0\.0 GB"):
        again.check()
    again.write()
    MonthlyCap(tmp_path / "month.json", 100, lambda: DECEMBER).check()


def test_the_month_turns_while_the_program_runs(tmp_path: Path) -> None:
    moments = [NOVEMBER]
    cap = MonthlyCap(tmp_path / "month.json", 100, lambda: moments[0])
    cap.count(100)
    moments[0] = DECEMBER
    cap.check()
    assert cap.used_bytes == 0


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"month": 3}', b"\xff" * 2000])
def test_a_torn_file_counts_as_nothing_used(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "month.json").write_bytes(torn)
    assert MonthlyCap(tmp_path / "month.json", 100, lambda: NOVEMBER).used_bytes == 0


def test_a_node_fetches_no_faster_than_its_cap_and_stops_at_the_months(
    runner: asyncio.Runner, nodes: Nodes, source: Path, tmp_path: Path
) -> None:
    source.write_bytes(bytes(6 * MIB))
    blob = runner.run(nodes.first.add_blob(source))
    other = tmp_path / "other"
    other.write_bytes(b"more" * MIB)
    late = runner.run(nodes.first.add_blob(other))

    async def fetch_both() -> float:
        capped = config(
            tmp_path / "capped",
            bootstrap=nodes.first.addresses,
            down_bytes_per_s=4 * MIB,
            month_bytes=6 * MIB,
        )
        node = await NetworkClient.start(capped, echo)
        try:
            start = time.monotonic()
            await node.fetch_blob(blob, [provider(nodes.first)])
            took = time.monotonic() - start
            with pytest.raises(RemoteError, match="this month's cap"):
                await node.fetch_blob(late, [provider(nodes.first)])
        finally:
            await node.stop()
        return took

    assert (
        runner.run(fetch_both()) >= (6 - 1 - 1) / 4
    )  # a burst is free, the last chunk is not waited for


def test_a_month_counts_what_the_service_and_its_network_process_moved_together(
    tmp_path: Path,
) -> None:
    process, service = month_of_process(tmp_path, 100), month_of_service(tmp_path, 100)
    process.count(60)
    process.write()
    service.check()
    service.count(40)
    assert service.used_bytes == 100
    with pytest.raises(Refused, match="cap"):
        service.check()
    process.check()  # it sees what the other wrote
    service.write()
    with pytest.raises(Refused, match="cap"):
        process.check()


def test_a_full_disk_does_not_bar_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, raw: bytes) -> None:
        raise LocalError("the disk is full")

    monkeypatch.setattr("kinoswarm_network.rate_caps.write_atomic", full)
    cap = month_of_service(tmp_path, 100)
    cap.count(1)
    cap.write_last()
    with pytest.raises(LocalError):
        cap.write()
