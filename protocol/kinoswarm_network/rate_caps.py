"""How fast and how much may be moved: rate caps and a monthly cap. Owns the arithmetic and the month's file.

The arithmetic is pure: time is a parameter. What was counted since the last write of the file is lost in a crash;
the file is written every few megabytes.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.errors import Code, LocalError, Refused
from kinoswarm_protocol.limits import CHUNK_TIMEOUT_S, MIB

_BURST_S = 0.25
_LEAST_BURST = MIB
_log = logging.getLogger(__name__)
_WRITE_EVERY_BYTES = 16 * MIB
_PROCESS_MONTH, _SERVICE_MONTH = "month.json", "web-month.json"


@dataclass
class TokenBucket:
    """`rate` bytes a second on average; 0 is no cap. What is spent ahead is waited for afterwards."""

    rate: float
    tokens: float = 0.0
    at_s: float = 0.0

    def wait_s(self, num_bytes: int, now_s: float) -> float:
        """Spend `num_bytes`; how long to wait before the next may be moved."""
        if self.rate <= 0:
            return 0.0
        burst = max(_LEAST_BURST, self.rate * _BURST_S)
        earned = max(0.0, now_s - self.at_s) * self.rate if self.at_s else burst
        self.tokens = min(burst, self.tokens + earned) - num_bytes
        self.at_s = now_s
        return max(0.0, -self.tokens / self.rate)

    def debt_s(self, now_s: float) -> float:
        """How long ahead of the rate it is already."""
        if self.rate <= 0 or not self.at_s:
            return 0.0
        return max(0.0, -(self.tokens + max(0.0, now_s - self.at_s) * self.rate) / self.rate)


class MonthlyCap:
    """Bytes in both directions in one calendar month (UTC); 0 is no cap.

    `beside` is the file of another process that moves bytes for the same node: the cap is for both together.
    """

    def __init__(
        self,
        path: Path,
        cap_bytes: int,
        now: Callable[[], datetime],
        beside: Path | None = None,
    ) -> None:
        self._path = path
        self._beside = beside
        self._cap = cap_bytes
        self._now = now
        self._unwritten = 0
        self._month, self._used = self._read(path)

    @property
    def used_bytes(self) -> int:
        """What this month has seen, of another process as far as it is written."""
        self._turn_page()
        return self._used + (self._read(self._beside)[1] if self._beside is not None else 0)

    def count(self, num_bytes: int) -> None:
        """Note what was moved."""
        self._turn_page()
        self._used += num_bytes
        self._unwritten += num_bytes
        if self._unwritten >= _WRITE_EVERY_BYTES:
            self.write()

    def write(self) -> None:
        """Put the month's sum on disk."""
        record = json.dumps({"month": self._month, "bytes": self._used})
        write_atomic(self._path, record.encode())
        self._unwritten = 0

    def write_last(self) -> None:
        """The same on the way out, which a full disk must not bar: some megabytes may then be counted too few."""
        try:
            self.write()
        except (LocalError, OSError) as error:
            _log.warning("the month's sum could not be written: %s", error)

    def check(self) -> None:
        """Raise Refused when the month's cap is reached."""
        if self._cap and self.used_bytes >= self._cap:
            raise Refused(
                Code.OVERLOADED,
                f"this month's cap of {self._cap / 1e9:.1f} GB is used up; it starts anew with the next month, or "
                "raise max_month_gb",
            )

    def _turn_page(self) -> None:
        month = _month_of(self._now())
        if month != self._month:
            self._month, self._used = month, 0

    def _read(self, path: Path) -> tuple[str, int]:
        """This month's sum; a file of another month or a torn one counts as nothing used."""
        month = _month_of(self._now())
        try:
            record = json.loads(path.read_bytes()[:1_024])
            if record["month"] == month:
                return month, max(0, int(record["bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return month, 0
        return month, 0


def month_of_process(folder: Path, cap_bytes: int) -> MonthlyCap:
    """The network process's month, beside its service's."""
    return MonthlyCap(folder / _PROCESS_MONTH, cap_bytes, utc_now, beside=folder / _SERVICE_MONTH)


def month_of_service(folder: Path, cap_bytes: int) -> MonthlyCap:
    """The month of a service that goes over HTTPS where its network process, if it has one, finds no way."""
    return MonthlyCap(folder / _SERVICE_MONTH, cap_bytes, utc_now, beside=folder / _PROCESS_MONTH)


class Caps:
    """All caps of one process."""

    def __init__(self, up: float, down: float, month: MonthlyCap) -> None:
        self.month = month
        self._up = TokenBucket(up)
        self._down = TokenBucket(down)

    async def sending(self, num_bytes: int) -> None:
        """Wait until these bytes may be sent.

        Raises Refused when the month is used up, or when so much is promised already that the asker would give up.
        """
        if self._up.debt_s(asyncio.get_running_loop().time()) > CHUNK_TIMEOUT_S / 3:
            raise Refused(
                Code.OVERLOADED, "this node's upload is in full use; ask another, or later"
            )
        await self._spend(self._up, num_bytes)

    async def delivering(self, num_bytes: int) -> None:
        """Wait until these bytes of our own result may be sent. Raises Refused when the month is used up."""
        await self._spend(self._up, num_bytes)

    async def fetching(self, num_bytes: int) -> None:
        """Wait until these bytes may be asked for. Raises Refused when the month is used up."""
        await self._spend(self._down, num_bytes)

    async def _spend(self, bucket: TokenBucket, num_bytes: int) -> None:
        self.month.check()
        wait_s = bucket.wait_s(num_bytes, asyncio.get_running_loop().time())
        self.month.count(num_bytes)
        if wait_s > 0:
            await asyncio.sleep(wait_s)


def utc_now() -> datetime:
    """The wall clock, for months."""
    return datetime.now(UTC)


def _month_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m")
