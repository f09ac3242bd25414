"""Which addresses are likely one person's: an IPv4 /24, an IPv6 /48 (what a provider gives to one site, RFC 6177)."""

import ipaddress


def range_of(host: str) -> str:
    """The range of a public IP address; empty for every other text: machines at home share one on purpose."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return ""
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))
