"""The badge and the QR code: well formed, escaped, and what a camera would read."""

from xml.dom.minidom import parseString

from msgspec import structs
from protocol.samples import FOUNDER, invite
from web.showcase import HOSTILE, full_swing

from kinoswarm_coordinator.web.pictures import badge, qr_code
from kinoswarm_protocol.invite import write_invite


def test_the_badge_tells_name_volunteers_and_release() -> None:
    text = "".join(
        node.firstChild.data
        for node in parseString(badge(full_swing())).getElementsByTagName("text")
    )
    assert text == "Corridors & Canyons5 volunteers, release 3"


def test_a_hostile_name_stays_text_in_the_badge() -> None:
    drawn = parseString(badge(structs.replace(full_swing(), name=HOSTILE, releases=[], online=1)))
    assert drawn.getElementsByTagName("img").length == 0
    assert drawn.getElementsByTagName("text")[0].firstChild.data == HOSTILE


def test_an_invite_fits_a_code() -> None:
    drawn = parseString(qr_code(write_invite(FOUNDER, invite())))
    assert drawn.getElementsByTagName("path").length >= 1
