"""Small pictures of the swarm: a badge for other pages, the invite as a QR code. Owns their drawing; pure."""

import io
from xml.sax.saxutils import escape

from kinoswarm_coordinator.views import SwarmView

_LETTER = 6.6  # width of a letter of Verdana 11, in SVG units
_PAD = 10


def badge(view: SwarmView) -> str:
    """An SVG badge: the swarm's name, who is on-line, the newest release."""
    newest = max((release.version for release in view.releases if release.published), default=0)
    volunteers = "1 volunteer" if view.online == 1 else f"{view.online} volunteers"
    told = f"{volunteers}, release {newest}" if newest else volunteers
    left, right = _width(view.name), _width(told)
    whole = left + right
    name, words = escape(view.name), escape(told)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="22" role="img" '
        f'aria-label="{escape(view.name, {chr(34): "&quot;"})}: {words}">'
        f'<rect width="{whole}" height="22" rx="4" fill="#1a1228"/>'
        f'<path d="M{left} 0h{right - 4}a4 4 0 0 1 4 4v14a4 4 0 0 1-4 4h-{right - 4}z" fill="#b3450c"/>'
        f'<g fill="#fffdf8" font-family="Verdana,sans-serif" font-size="11">'
        f'<text x="{_PAD}" y="15">{name}</text><text x="{left + _PAD}" y="15">{words}</text></g></svg>'
    )


def qr_code(text: str) -> bytes:
    """A QR code as SVG, dark on light in both colour schemes. Raises ValueError when the text is too long for one."""
    import segno

    made = io.BytesIO()
    segno.make_qr(text, error="l").save(
        made, kind="svg", scale=4, border=4, dark="#1e1630", light="#ffffff", xmldecl=False
    )
    return made.getvalue()


def _width(text: str) -> int:
    return round(len(text) * _LETTER) + 2 * _PAD
