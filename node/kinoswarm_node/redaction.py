"""Removes from a text what must not leave the machine: keys, invites, addresses, names of people and hosts. Pure."""

import ipaddress
import re
from collections.abc import Callable, Mapping

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"kinoswarm-key-\d+\s+\S+(\s+\S+)?"), "<key>"),
    (re.compile(r"kinoswarm\d*:[A-Za-z0-9_\-=+/.]{16,}"), "<invite>"),
    (
        re.compile(r"(?i)\b(token|password|passphrase|secret|authorization)(\W{1,4})[^\s\"',;&]+"),
        r"\1\2<secret>",
    ),
    (re.compile(r"/(ip4|ip6|ip6zone|dns|dns4|dns6|dnsaddr)/[^/\s\"']+"), r"/\1/<address>"),
    (re.compile(r"(?i)\b[0-9a-f]{64,}\b"), "<64 digits>"),
    (re.compile(r"(?i)\b(https?|wss?)://[^\s\"'<>/]+"), r"\1://<address>"),
    (re.compile(r"[\w.+\-]{1,64}@[\w\-]{1,63}(\.[\w\-]{1,63}){1,8}"), "<mail>"),
)
_IP4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
_IP6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?")


def redacted(text: str, private: Mapping[str, str]) -> str:
    """`text` without secrets and addresses. `private` maps texts of this machine (folders, user, host) to a word."""
    for pattern, word in _RULES:
        text = pattern.sub(word, text)
    text = _IP4.sub(_address(lambda found: found), text)
    text = _IP6.sub(_address(lambda found: found.partition("%")[0].strip(".")), text)
    for secret in sorted(private, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, private[secret])
    return text


def _address(clean: Callable[[str], str]) -> Callable[["re.Match[str]"], str]:
    """Replaces what really is an address: a time of day has colons too."""

    def replace(match: "re.Match[str]") -> str:
        try:
            ipaddress.ip_address(clean(match[0]))
        except ValueError:
            return match[0]
        return "<address>"

    return replace
