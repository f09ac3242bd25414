"""How often one client may ask. Owns the token buckets; pure: time is a parameter, and memory is bounded.

Clients are told apart by address, which never leaves this table. IPv6 clients own whole networks of addresses, so they
are told apart by their /64 (RFC 4291).
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

_MOST_CLIENTS = 20_000


@dataclass
class _Bucket:
    tokens: float
    at_s: float


class RateLimit:
    """Token buckets by client: `rate` requests a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, client: str, now_s: float) -> float:
        """0 when `client` may ask now (and has then asked), else the seconds until it may."""
        key = network_of(client)
        bucket = self._buckets.pop(key, None) or _Bucket(self.burst, now_s)
        elapsed = max(0.0, now_s - bucket.at_s)
        bucket.tokens = min(self.burst, bucket.tokens + elapsed * self.rate)
        bucket.at_s = now_s
        self._buckets[key] = bucket
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / self.rate


def limit_or_none(rate: float, burst: int) -> RateLimit | None:
    """As settings have it: a rate of 0 is no limit."""
    return RateLimit(rate, burst) if rate else None


def network_of(client: str) -> str:
    """Who a client counts as: of IPv6 the /64, which one household has whole; IPv4 in IPv6 form as IPv4."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
