"""Changed inputs: bytes, and the values inside MessagePack and JSON. A pure function of the input and the seed."""

import json
from random import Random
from typing import Any

import msgpack

_NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**64 - 1, -(2**63), 10**30)
_FLOATS = (0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "\0", "../../x", "C:\\x", "/etc/x", "é" * 300, "\ud800", "0" * 5_000, "NaN", "1e999")
_DEEP = 3_000


def mutated(raw: bytes, chance: Random, max_bytes: int) -> bytes:
    """Another input near `raw`: half of them keep the form and change what is in it."""
    if chance.random() < 0.5:
        for change in (_msgpack_changed, _json_changed):
            found = change(raw, chance)
            if found is not None:
                return found[:max_bytes]
    return _bytes_changed(bytearray(raw), chance)[:max_bytes]


def _msgpack_changed(raw: bytes, chance: Random) -> bytes | None:
    """Also behind a leading byte that chooses the type."""
    for skipped in (0, 1):
        try:
            value = msgpack.unpackb(raw[skipped:], strict_map_key=False)
            changed: bytes = msgpack.packb(_changed(value, chance), unicode_errors="surrogatepass")
        except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
            continue
        if isinstance(value, list | dict):
            return raw[:skipped] + changed
    return None


def _json_changed(raw: bytes, chance: Random) -> bytes | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return json.dumps(_changed(value, chance), default=lambda raw: raw.decode()).encode()


def _changed(value: Any, chance: Random) -> Any:
    """One place in a tree of lists and dictionaries is another."""
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        return [_changed(item, chance) if at == place else item for at, item in enumerate(value)]
    if isinstance(value, dict) and value and chance.random() < 0.85:
        place = chance.choice(list(value))
        return {
            key: _changed(item, chance) if key == place else item for key, item in value.items()
        }
    return _another(value, chance)


def _another(value: Any, chance: Random) -> Any:
    match chance.randrange(8):
        case 0:
            return chance.choice(_NUMBERS)
        case 1:
            return chance.choice(_FLOATS)
        case 2:
            return chance.choice(_TEXTS)
        case 3:
            return [value] * chance.choice((0, 2, 50))
        case 4:
            return {"": value}
        case 5:
            return None
        case 6:
            return _nested(chance.choice((20, _DEEP)))
        case _:
            return value + 1 if isinstance(value, int) else b"\0" * chance.randrange(70)


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(min(depth, 500)):
        value = [value]
    return value


def _bytes_changed(raw: bytearray, chance: Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(raw) + 1)
        match chance.randrange(5):
            case 0:
                raw[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del raw[place : place + chance.choice((1, 4, 64))]
            case 2:
                raw[place:place] = chance.randbytes(chance.choice((1, 4, 64)))
            case 3:
                raw[place : place + 8] = chance.choice(
                    (b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7)
                )
            case _:
                raw[place:place] = chance.choice((b"[" * _DEEP, b"\x91" * _DEEP, b'{"":' * 900))
    return bytes(raw)
