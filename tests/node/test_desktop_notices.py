"""Which news is worth a notice on the desktop, and a real message bus that gets it."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from node.message_bus import answer_on_the_bus, session_bus  # noqa: F401  a fixture
from node.scripted import NOW_MS, World

from kinoswarm_node.desktop_notices import (
    AGAIN_MS,
    RESULTS_EVERY_MS,
    DesktopNotices,
    Level,
    Notice,
    Told,
    show,
    worth_telling,
)
from kinoswarm_node.life_state import NodeState, Phase
from kinoswarm_node.status_board import News

HOUR_MS = 3_600_000


@pytest.fixture
def calm(tmp_path: Path) -> News:
    return News(status=World(tmp_path).node().board.status, reason="Training on 'halls'.")


def told_of(news: list[News], level: Level, every_ms: int = 0) -> list[Notice]:
    told, notices = Told(), []
    for index, one in enumerate(news):
        told, notice = worth_telling(told, one, level, NOW_MS + index * every_ms)
        notices += [notice] if notice else []
    return notices


def test_ordinary_days_bring_no_notice(calm: News) -> None:
    paused = structs.replace(calm, reason="Paused: a program fills the screen.")
    accepted = structs.replace(calm, reason="Accepted: held-out loss fell.")
    assert told_of([calm, paused, accepted], "important") == []


def test_trouble_and_the_founder_are_told_once_a_day(calm: News) -> None:
    full = structs.replace(calm, reason="No space left on the disk.", needs_person=True)
    spoke = structs.replace(
        calm, status=structs.replace(calm.status, notices=["data was added"], update="1.2 is out")
    )
    told = told_of([full, full, spoke, spoke, spoke], "important", HOUR_MS)
    assert [notice.text for notice in told] == [full.reason, "1.2 is out", "data was added"]
    assert len(told_of([full, full], "important", AGAIN_MS)) == 2
    assert told_of([full, spoke], "off") == []


def test_results_come_when_they_are_asked_for_and_not_too_often(calm: News) -> None:
    accepted = structs.replace(calm, reason="Accepted: held-out loss fell.")
    assert len(told_of([accepted] * 4, "results", RESULTS_EVERY_MS // 2)) == 2


@pytest.mark.parametrize(
    ("state", "needed"),
    [
        (NodeState(phase=Phase.PAUSED), True),
        (NodeState(phase=Phase.PAUSED, by_person=True), False),
        (NodeState(phase=Phase.PAUSED, governed="Paused: on battery."), False),
        (NodeState(phase=Phase.STOPPED, fault="the swarm does not let this node in"), True),
        (NodeState(phase=Phase.STOPPED), False),
    ],
)
def test_a_person_is_needed_for_trouble_and_never_for_a_wish(
    tmp_path: Path, state: NodeState, needed: bool
) -> None:
    world = World(tmp_path)
    node = world.node()
    node.board.state_changed(state, "Because.", node.folder, lasting=True)
    assert world.news[-1].needs_person is needed


@pytest.mark.usefixtures("session_bus")
def test_the_desktop_gets_it_as_plain_text_in_place_of_the_one_before() -> None:
    heard: list[tuple[object, ...]] = []
    notice = Notice("From the founder", "<b>hello</b> & welcome")
    number = answer_on_the_bus(
        "org.freedesktop.Notifications", {"Notify": ("u", 7)}, lambda: show(notice, 3), heard
    )
    assert number == 7
    name, replaces, _, title, text, *_ = heard[0]
    assert (name, replaces, title) == ("Kinoswarm", 3, "From the founder")
    assert text == "&lt;b&gt;hello&lt;/b&gt; &amp; welcome"


def test_without_a_desktop_nothing_is_lost_and_a_restart_does_not_tell_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calm: News
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    full = structs.replace(calm, reason="No space left on the disk.", needs_person=True)
    heard: list[News] = []

    async def hear() -> None:
        notices = DesktopNotices(tmp_path, "important", lambda: NOW_MS, heard.append)
        notices.hear(full)
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(hear())
    assert heard == [full]
    kept = (tmp_path / "notices.json").read_bytes()
    asyncio.run(hear())
    assert (tmp_path / "notices.json").read_bytes() == kept


@pytest.mark.parametrize("raw", [b"", b"{", b'{"at_ms_by_text": 3}', b"\xff" * 99])
def test_a_damaged_memory_of_notices_is_none(tmp_path: Path, raw: bytes, calm: News) -> None:
    (tmp_path / "notices.json").write_bytes(raw)
    heard: list[News] = []
    DesktopNotices(tmp_path, "off", lambda: NOW_MS, heard.append).hear(calm)
    assert heard == [calm]
