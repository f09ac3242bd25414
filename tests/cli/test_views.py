"""What people and programs read: join's lines, status tables, generate's file names."""

import io
import json
from pathlib import Path

import pytest
from msgspec import structs
from protocol.samples import NODE, SWARM, invite
from rich.console import Console

from kinoswarm_cli import join_view, why_command
from kinoswarm_cli.consent import invite_in_words, obtain_consent
from kinoswarm_cli.join_view import describe_progress
from kinoswarm_cli.run_generate import GenerateRequest, clip_paths, run_generate
from kinoswarm_cli.show_status import show_node, status_as_objects, watch_node
from kinoswarm_cli.status_view import node_table, swarm_table
from kinoswarm_node.node_status import NodeStatus, SegmentStatus, write_status
from kinoswarm_node.status_board import News
from kinoswarm_node.swarm_folder import SwarmFolder
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.swarm_status import ClusterLine, NodeLine, SwarmStatus

SEGMENT = SegmentStatus(
    lease_id="0" * 32,
    cluster=0,
    label="stone halls",
    base_version=1,
    step=30,
    total=60,
    loss=0.125,
    steps_per_s=2.5,
)
STATUS = NodeStatus(
    pid=2**22 + 1,
    peer_id=NODE.peer_id,
    pseudonym="heron",
    swarm=SWARM,
    swarm_name="Test swarm",
    state="training",
    since_ms=1,
    updated_at_ms=2,
    reason="Training on 'stone halls'.",
    segment=SEGMENT,
    accepted=3,
    rejected=1,
    last_verdict="the held-out loss went down",
)
SWARM_STATUS = SwarmStatus(
    swarm_name="[bold]Test[/bold] swarm",
    now_ms=100_000,
    nodes=[
        NodeLine(
            peer=NODE.peer_id,
            pseudonym="heron",
            device="Test CPU",
            state="training",
            cluster=0,
            accepted=3,
            rejected=1,
            last_seen_ms=70_000,
        )
    ],
    num_nodes=40,
    clusters=[
        ClusterLine(
            cluster=0,
            label="stone halls",
            version=2,
            heldout_loss=0.25,
            seed_loss=0.5,
            training=1,
            share=0.6,
        )
    ],
    release=None,
    accepted=3,
    rejected=1,
    sentence="Training goes on.",
)


def text_of(renderable: object, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def news(**changes: object) -> News:
    return structs.replace(News(status=STATUS, what="training", done=30, total=60), **changes)


def test_progress_tells_how_far_how_fast_and_the_loss() -> None:
    assert describe_progress(news()) == "training: step 30 of 60, 2.50 steps/s, loss 0.1250"
    fetching = news(what="shard 1 of 2", done=1_500_000, total=3_000_000, in_bytes=True)
    assert describe_progress(fetching) == "shard 1 of 2: 1.5 of 3.0 MB"


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    lines: list[str] = []
    now = [0.0]
    listen = join_view._lines(lines.append, lambda: now[0])
    listen(news(reason="Joined Test swarm."))
    for second in range(25):
        now[0] = float(second)
        listen(news())
    assert lines[0].endswith("Joined Test swarm.")
    assert [line.split(" ", 1)[1] for line in lines[1:]] == [describe_progress(news())] * 2


def test_json_lines_hold_the_whole_status() -> None:
    lines: list[str] = []
    listen = join_view._json_lines(lines.append)
    listen(news())
    listen(news(reason="Joined."))
    assert [json.loads(line)["segment"]["step"] for line in lines] == [30]


def test_the_status_of_a_swarm_shows_members_clusters_and_release() -> None:
    shown = text_of(swarm_table(SWARM_STATUS))
    for words in (
        "heron",
        "stone halls",
        "version 2",
        "0.2500",
        "no release yet",
        "60%",
        "30 s ago",
    ):
        assert words in shown
    assert "… of 40 nodes" in shown


def test_a_strangers_words_are_not_markup() -> None:
    assert "[bold]Test[/bold] swarm" in text_of(swarm_table(SWARM_STATUS))


def test_the_status_of_the_own_node_says_what_it_does_and_why() -> None:
    shown = text_of(node_table(STATUS, running=True))
    for words in ("training", "step 30 of 60", "because", "3, not accepted 1", "went down"):
        assert words in shown


def test_an_address_is_whole_in_a_narrow_terminal() -> None:
    address = f"/ip4/127.0.0.1/tcp/39983/p2p/{NODE.peer_id}"
    shown = text_of(
        node_table(structs.replace(STATUS, addresses=[address]), running=True), width=60
    )
    assert address in "".join(line.strip() for line in shown.splitlines())


def test_a_node_that_does_not_run_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(tmp_path / "status.json", STATUS)
    show_node(tmp_path, as_json=False)
    assert "not running (last: training)" in capsys.readouterr().out
    show_node(tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["running"] is False


def test_watching_shows_the_status_until_ctrl_c(tmp_path: Path) -> None:
    write_status(tmp_path / "status.json", STATUS)
    screen, looks = io.StringIO(), iter([None, None])

    def wait(seconds: float) -> None:
        if next(looks, "over") == "over":
            raise KeyboardInterrupt
        write_status(tmp_path / "status.json", structs.replace(STATUS, reason="Something new."))

    console = Console(file=screen, force_terminal=True, width=100)
    with pytest.raises(KeyboardInterrupt):
        watch_node(tmp_path, console, wait)
    assert "Training on" in screen.getvalue()
    assert "Something new." in screen.getvalue()


def test_why_is_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(tmp_path / "status.json", STATUS)
    why_command.why(home=tmp_path, as_json=False)
    shown = capsys.readouterr().out
    for heading in ("Now", "What became of your work", "Credit", "Next step"):
        assert heading in shown
    assert len(shown.splitlines()) <= 40
    why_command.why(home=tmp_path, as_json=True)
    assert "next_step" in json.loads(capsys.readouterr().out)


def test_the_json_status_has_names() -> None:
    plain = status_as_objects(SWARM_STATUS)
    assert isinstance(plain, dict)
    assert plain["nodes"][0]["pseudonym"] == "heron"
    assert plain["clusters"][0]["heldout_loss"] == 0.25


def test_consent_shows_licences_note_and_privacy() -> None:
    words = invite_in_words(invite())
    for expected in ("Test swarm", "CC0-1.0", "Apache-2.0", "rendered corridors", "address"):
        assert expected in words


def test_consent_is_asked_once_per_set_of_licences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SwarmFolder(tmp_path, SWARM)
    obtain_consent(invite(), folder, yes=True, now_ms=5)
    capsys.readouterr()
    obtain_consent(invite(), folder, yes=False, now_ms=6)
    assert capsys.readouterr().err == ""
    changed = structs.replace(
        invite(), licences=structs.replace(invite().licences, release="CC-BY-4.0")
    )
    with pytest.raises(LocalError, match="pass --yes"):
        obtain_consent(changed, folder, yes=False, now_ms=7)


def generate_request(**changes: object) -> GenerateRequest:
    given: dict[str, object] = {
        "prompts": ["a corridor"],
        "model": Path("/nowhere/model"),
        "out": Path("clip.mp4"),
        "seed": 0,
        "steps": None,
        "guidance": None,
        "top_k": None,
        "threshold": None,
        "num": 1,
        "scale": 1,
        "frames": None,
        "device": "cpu",
        "dtype": "float32",
        "experts_in_memory": 0,
        "allow_missing_experts": False,
        "as_json": False,
    }
    return GenerateRequest(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": ["  "]}, "the prompt is empty"),
        ({"prompts": ["x" * 1001]}, "1001 characters; at most 1000"),
        ({"out": Path("clip.gif")}, r"written as \.mp4, pictures as \.png"),
        ({}, "kinoswarm download INVITE --out /nowhere/model"),
    ],
)
def test_what_can_not_be_generated_is_said_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalError, match=words):
        run_generate(generate_request(**changes))


def test_a_model_folder_that_is_not_whole_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(LocalError, match="model"):
        run_generate(generate_request(model=tmp_path / "model", out=tmp_path / "clip.mp4"))


def test_several_clips_get_numbers() -> None:
    assert clip_paths(Path("/a/clip.mp4"), 1) == [Path("/a/clip.mp4")]
    assert [p.name for p in clip_paths(Path("/a/clip.mp4"), 2)] == ["clip-0.mp4", "clip-1.mp4"]


def test_what_a_coordinator_says_is_no_markup_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(
        join_view, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=100)
    )
    with join_view._bars() as listen:
        listen(news(what="[blink]shard[/blink]"))
        listen(news(reason="[red]Refused[/red]: [link=http://evil]here[/link]."))
    assert "[red]Refused[/red]: [link=http://evil]here[/link]." in shown.getvalue()
