"""Every way in which a person may hand over an invite, and every way in which it may be wrong."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from protocol.samples import FOUNDER, NODE, invite

from kinoswarm_node.invites import get_invite, invite_text
from kinoswarm_protocol.errors import (
    BadSignature,
    KinoswarmError,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Unreachable,
)
from kinoswarm_protocol.invite import PREFIX, read_invite, write_invite

TEXT = write_invite(FOUNDER, invite())


@contextmanager
def serving(text: str, path: str = "/invite.txt") -> Iterator[str]:
    """A web server on loopback that answers `path` with `text`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            if self.path == path:
                self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_invite_is_read_from_its_text() -> None:
    assert get_invite(TEXT).body == invite()


@given(st.data())
def test_line_breaks_spaces_and_quote_marks_of_a_mail_are_forgiven(data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(["\n", " ", "\r\n", "\t", "\n  "])) + text[at:]
    assert get_invite(text).body == invite()


def test_an_invite_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my invite.txt"
    path.write_text(TEXT[:50] + "\n" + TEXT[50:] + "\n")
    assert get_invite(str(path)).body == invite()


def test_an_invite_is_fetched_from_a_coordinators_address() -> None:
    with serving(TEXT + "\n") as address:
        assert get_invite(address).body == invite()
        assert get_invite(address + "/").body == invite()


def test_an_address_without_an_invite_says_its_status() -> None:
    with (
        serving(TEXT) as address,
        pytest.raises(Unreachable, match=r"other\.txt answered with status 404"),
    ):
        get_invite(address + "/other.txt")


def test_an_address_that_sends_without_end_is_cut_off() -> None:
    with serving("x" * 1_000_000) as address, pytest.raises(LimitExceeded, match="more than"):
        get_invite(address)


def test_nobody_at_the_address_is_said() -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1/invite\.txt can't be reached"):
        get_invite("http://127.0.0.1:1")


def test_an_address_without_a_host_is_said() -> None:
    with pytest.raises(LocalError, match="names no host"):
        get_invite("http://")


def test_something_else_entirely_is_named() -> None:
    with pytest.raises(LocalError, match="'hello' is no invite: neither text that starts with"):
        get_invite("hello")


def test_a_tampered_invite_is_refused() -> None:
    raw = bytearray(base64.urlsafe_b64decode(TEXT[len(PREFIX) :] + "=="))
    at = raw.index(b"Test swarm")
    raw[at : at + 4] = b"Evil"
    with pytest.raises(BadSignature, match="altered or is incomplete; ask for it again"):
        get_invite(PREFIX + base64.urlsafe_b64encode(bytes(raw)).decode())


def test_half_an_invite_is_refused() -> None:
    with pytest.raises(MalformedBytes, match="altered or is incomplete"):
        get_invite(TEXT[: len(TEXT) // 2])


def test_an_invite_signed_by_another_than_its_founder_is_refused() -> None:
    with pytest.raises(BadSignature, match="not signed by the founder"):
        get_invite(write_invite(NODE, invite()))


def test_an_invite_can_be_written_down_again() -> None:
    assert read_invite(invite_text(get_invite(TEXT))).raw == get_invite(TEXT).raw


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: PREFIX + b.hex()))
@example("~nobody-of-this-name/invite.txt")
def test_any_text_is_an_invite_or_a_clear_error(text: str) -> None:
    if text.strip().lower().startswith("http"):
        return
    with pytest.raises(KinoswarmError):
        get_invite(text)
