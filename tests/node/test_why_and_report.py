"""What the node says of itself: `why` on one screen, and a bug report without secrets and addresses."""

import ipaddress
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from protocol.samples import FOUNDER, NODE, SWARM, invite

from kinoswarm_network.identity import key_text
from kinoswarm_node.bug_report import pack_report
from kinoswarm_node.home import Home
from kinoswarm_node.joining import fit_in_words
from kinoswarm_node.node_status import GovernorStatus, NodeStatus, SegmentStatus, write_status
from kinoswarm_node.own_files import explain_home
from kinoswarm_node.redaction import redacted
from kinoswarm_node.settings import load_settings
from kinoswarm_node.status_board import News, logged
from kinoswarm_node.swarm_folder import HistoryLine, SelfTest, SwarmFolder
from kinoswarm_node.why import ago, explain
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.specs import ModeSpec

NOW_MS = 1_700_000_000_000
SETTINGS = load_settings(home=Path("/nowhere"), share_percent=60.0)
STATUS = NodeStatus(
    pid=1,
    peer_id=NODE.peer_id,
    pseudonym="heron",
    swarm=SWARM,
    swarm_name="Test swarm",
    state="training",
    since_ms=NOW_MS - 600_000,
    updated_at_ms=NOW_MS,
    reason="Training on 'halls'.",
    segment=SegmentStatus(
        lease_id="0" * 32,
        cluster=1,
        label="halls",
        base_version=2,
        step=30,
        total=90,
        steps_per_s=0.5,
        saved_step=20,
        save_every_s=420.0,
    ),
    awaiting_verdict=1,
    governor=GovernorStatus(
        allowance="throttle",
        share=0.6,
        reason="Slowed to 60%, as you set.",
        sees={"on battery": "no"},
        blind=["fullscreen"],
    ),
)
ACCEPTED = HistoryLine(
    at_ms=NOW_MS - 7_200_000,
    lease_id="a" * 32,
    state="accepted",
    code="accepted",
    sentence="the held-out loss went down",
    cluster=1,
    samples=1200,
    seconds=1200.0,
)
REJECTED = structs.replace(
    ACCEPTED,
    lease_id="b" * 32,
    state="rejected",
    code="worse_on_heldout",
    sentence="the held-out loss is worse by 2.1 %, more than the margin",
)


def test_why_says_what_it_does_why_not_more_what_became_of_the_work_and_what_is_safe() -> None:
    why = explain(STATUS, True, [ACCEPTED, REJECTED], SETTINGS, NOW_MS)
    assert why.now[0] == "Training for 10 min."
    assert "step 30 of 90" in why.now[2]
    assert "120 s left" in why.now[2] or "2 min left" in why.now[2]
    assert why.not_more[0] == "Slowed to 60%, as you set."
    assert "Your limit share_percent: 60 % of the time." in why.not_more
    assert "Can't be seen on this machine: fullscreen." in why.not_more
    assert "worse by 2.1 %" in why.verdicts[0]
    assert "[worse_on_heldout]" in why.verdicts[0]
    assert why.credit[0].startswith("1 segment(s) accepted: 1200 clips in 20 min")
    assert "1 x worse_on_heldout" in why.credit[1]
    assert "1 sent and not judged yet" in why.credit[2]
    assert why.safe == [
        "Saved up to step 20; a resume point every 7 min, at most 200 GB of writes a day."
    ]
    assert "rejected now and then" in why.next_step


def test_why_tells_the_mode_that_fits_and_those_that_do_not() -> None:
    full, small = ModeSpec(name="full"), ModeSpec(name="lora", rank=8)
    test = SelfTest(
        device="cuda",
        threads=1,
        device_name="Test GPU",
        memory_bytes=8 * 2**30,
        seconds_per_step=1.0,
        micro_batch=2,
        modes=[small],
    )
    told = fit_in_words(test, [full, small])
    assert told == (
        "Trains in mode lora-r8, 2 clip(s) at a time, as the self-test found; full would not fit."
    )
    assert told in explain(structs.replace(STATUS, fit=told), True, [], SETTINGS, NOW_MS).not_more
    assert fit_in_words(structs.replace(test, modes=[full, small]), [full, small]).endswith(
        "found."
    )
    assert fit_in_words(structs.replace(test, modes=[]), [full]) == ""


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("paused", "Nothing is computed before you say go: x.", "Say go"),
        ("paused", "Paused by you; x.", "kinoswarm resume"),
        ("training", "Training.", "Nothing to do."),
        ("paused", "Paused: on battery.", "the setting is on_battery: on the page"),
    ],
)
def test_the_next_step_fits_the_state(state: str, reason: str, words: str) -> None:
    rule = "on_battery" if "battery" in reason else ""
    governor = GovernorStatus(allowance="pause", share=0.0, reason=reason, rule=rule)
    status = structs.replace(STATUS, state=state, reason=reason, governor=governor)
    assert words in explain(status, True, [], SETTINGS, NOW_MS).next_step


def test_why_answers_from_files_when_the_node_does_not_run(tmp_path: Path) -> None:
    write_status(tmp_path / "status.json", STATUS)
    SwarmFolder(Home(tmp_path).swarm_root(SWARM), SWARM).close("b" * 32, REJECTED)
    why = explain_home(load_settings(home=tmp_path))
    assert "Not running. When it ended it was training" in why.now[0]
    assert "worse by 2.1 %" in why.verdicts[0]
    assert why.next_step == "Start it with `kinoswarm join`."


def test_a_resume_point_that_could_not_be_written_is_said() -> None:
    segment = structs.replace(STATUS.segment, save_problem="no space left")
    why = explain(structs.replace(STATUS, segment=segment), True, [], SETTINGS, NOW_MS)
    assert why.safe[-1] == "Careful: no space left."


@pytest.mark.parametrize(
    ("ms", "words"), [(-5, "0 s"), (90_000, "90 s"), (600_000, "10 min"), (9_000_000, "2 h")]
)
def test_durations_are_short(ms: int, words: str) -> None:
    assert ago(ms) == words


def test_every_reason_is_logged_and_progress_is_not() -> None:
    log: list[tuple[str, dict[str, object]]] = []

    class Log:
        def info(self, event: str, **facts: object) -> None:
            log.append((event, facts))

    heard: list[News] = []
    listen = logged(heard.append, Log())
    listen(News(status=STATUS, reason="Training on 'halls'."))
    listen(News(status=STATUS, what="training", done=1, total=2))
    assert len(heard) == 2
    assert log == [("Training on 'halls'.", {"state": "training", "lease": "0" * 32, "step": 30})]


# --- the report ---------------------------------------------------------------------------------


def test_a_report_holds_what_helps_and_nothing_that_names_anybody(tmp_path: Path) -> None:
    home = tmp_path / "home-of-alice"
    home.mkdir()
    write_status(home / "status.json", STATUS)
    secret_invite = write_invite(FOUNDER, invite())
    (home / "identity.key").write_text(key_text(NODE))
    (home / "node.log").write_text(
        f'{{"event": "dialled /ip4/203.0.113.7/tcp/4001 from {home}"}}\n'
        f"{key_text(NODE)}invite {secret_invite}\nat 12:30:45 lost 198.51.100.23 and 2001:db8::7\n"
        "http://user:pw@192.0.2.9:8000/?token=abcdef0123456789 alice@example.org\n"
    )
    settings = load_settings(home=home, listen=["/ip4/203.0.113.7/tcp/4001"])
    names = pack_report(settings, tmp_path / "report.zip")
    assert {"about.json", "settings.json", "status.json", "node.log"} <= set(names)
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    whole = "\n".join(texts.values())
    for private in (
        *("203.0.113.7", "198.51.100.23", "2001:db8::7", "192.0.2.9", "home-of-alice"),
        *(NODE.seed.hex(), secret_invite, "abcdef0123456789", "alice@example.org"),
    ):
        assert private not in whole, private
    assert "at 12:30:45 lost <address>" in texts["node.log"]
    assert "identity.key" not in texts
    assert "share_percent" in texts["settings.json"]


@given(
    st.ip_addresses().map(str),
    st.text(
        st.characters(codec="utf-8", exclude_characters=".:%0123456789abcdefABCDEF"), max_size=5
    ),
)
def test_no_address_survives(address: str, around: str) -> None:
    told = redacted(f"{around} {address} {around}", {})
    assert address not in told or not _is_telling(address)


def _is_telling(address: str) -> bool:
    return str(ipaddress.ip_address(address)) not in ("::",)


@given(st.text(max_size=200))
def test_any_text_can_be_redacted(text: str) -> None:
    redacted(text, {"alice": "<user>"})
