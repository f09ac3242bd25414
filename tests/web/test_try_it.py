"""The "try it" box: off by default, bounded, signed; and in a real browser with a real worker and release."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from protocol.samples import COORDINATOR, FOUNDER, SWARM
from release.tiny_release import write_tiny_release
from web.browsing import CHROMIUM, DESKTOP, PHONE, Served, Visit
from web.served import DESK_RULES, sources, with_desk

from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_model.jobs import GenerateDone, GenerateJob, JobProgress
from kinoswarm_model.supervisor import WorkerDied, WorkerSupervisor
from kinoswarm_node.clip_note import read_clip_note
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import BadSignature, HashMismatch, LocalError
from kinoswarm_protocol.invite import read_invite
from kinoswarm_protocol.provenance import PROVENANCE, open_provenance

ENOUGH_DATA = 4
"""readyState of a clip that plays."""


class ScriptedWorker:
    """Denoises in three steps, or dies as often as it is told to."""

    def __init__(self, deaths: int = 0, clip: bytes = b"an mp4") -> None:
        self.deaths = deaths
        self.clip = clip
        self.jobs: list[GenerateJob] = []

    async def run(self, job: GenerateJob, on_progress: Callable[[JobProgress], None]):
        self.jobs.append(job)
        for step, expert in enumerate([1, 1, 0], start=1):
            on_progress(
                JobProgress(
                    job_id=job.job_id, step=step, total=3, loss=None, what="", expert=expert
                )
            )
            if self.deaths and step == 2:
                self.deaths -= 1
                raise WorkerDied("the worker was killed")
        path = Path(job.work_dir) / "clip.mp4"
        path.write_bytes(self.clip)
        return GenerateDone(clip_path=str(path), expert_by_step=[1, 1, 0], guidance=1.5, top_k=1)


def asking(served: WebSources, *steps: Callable[[httpx.AsyncClient], object]) -> list:
    """Answers to requests made one after another; a coroutine of no client is awaited as it is."""

    async def run() -> list:
        transport = httpx.ASGITransport(create_app(served, clock=lambda: 0.0))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return [await step(client) for step in steps]

    return asyncio.run(run())


def posted(prompt: str, seed: int | None = 7):
    return lambda client: client.post("/api/v1/try", json={"prompt": prompt, "seed": seed})


def serving(served: WebSources, worker: ScriptedWorker):
    return lambda client: served.desk.serve_next(worker)


def test_the_box_is_off_unless_the_operator_wants_it(tmp_path: Path) -> None:
    page, form, sent = asking(
        sources(tmp_path),
        lambda client: client.get("/"),
        lambda client: client.get("/try"),
        posted("a hall"),
    )
    assert 'href="/try"' not in page.text
    assert form.status_code == 404
    assert sent.status_code in (404, 405)


def test_a_wish_becomes_a_clip_with_a_note_that_proves_it(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    worker = ScriptedWorker()
    (sent,) = asking(served, posted("  a hall of grey stone "))
    assert sent.status_code == 202
    asked = sent.json()
    assert (asked["phase"], asked["prompt"], asked["release"]) == (
        "waiting",
        "a hall of grey stone",
        2,
    )
    where = sent.headers["location"]
    _, state, clip, note, part, page = asking(
        served,
        serving(served, worker),
        lambda client: client.get(where),
        lambda client: client.get(f"{where}/clip.mp4"),
        lambda client: client.get(f"{where}/note"),
        lambda client: client.get(f"{where}/clip.mp4", headers={"Range": "bytes=3-5"}),
        lambda client: client.get(f"/try/{asked['wish_id']}"),
    )
    assert state.json()["phase"] == "done"
    assert state.json()["expert_by_step"] == [1, 1, 0]
    assert (clip.content, part.content) == (b"an mp4", b"mp4")
    opened = open_provenance(note.content, clip.content, SWARM, COORDINATOR.peer_id)
    assert (opened.body.prompt, opened.body.seed, opened.body.release) == (
        "a hall of grey stone",
        7,
        2,
    )
    with pytest.raises(HashMismatch, match="it was changed"):
        open_provenance(note.content, clip.content + b"!", SWARM)
    assert worker.jobs[0].release_dir.endswith("releases/2")
    assert page.text.count('title="step') == 3


def test_a_form_works_without_any_script(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    form, sent = asking(
        served,
        lambda client: client.get("/try"),
        lambda client: client.post("/try", data={"prompt": "a <b>hall</b>", "seed": "x"}),
    )
    assert 'action="/try"' in form.text
    assert "form-action 'self'" in form.headers["content-security-policy"]
    assert sent.status_code == 303
    (page,) = asking(served, lambda client: client.get(sent.headers["location"]))
    assert "a &lt;b&gt;hall&lt;/b&gt;" in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text
    assert "0 before you" in page.text


def test_prompts_and_people_are_bounded_and_told_so(tmp_path: Path) -> None:
    served = with_desk(tmp_path, per_hour=2)
    long, control, form = asking(
        served,
        posted("x" * 41),
        posted("a\x00hall"),
        lambda client: client.post("/try", data={"prompt": " "}),
    )
    assert (long.status_code, control.status_code, form.status_code) == (422, 422, 422)
    assert "at most 40 here" in long.json()["detail"]
    assert "the prompt is empty" in form.text
    first, second, third = asking(served, posted("a"), posted("b"), posted("c"))
    assert first.status_code == 202
    assert second.status_code == 429
    assert "your last clip is still being made" in second.json()["detail"]
    assert third.status_code == 429
    assert int(third.headers["retry-after"]) > 0


def test_another_site_cannot_send_the_form(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    foreign, own = asking(
        served,
        lambda client: client.post(
            "/try", data={"prompt": "a"}, headers={"Sec-Fetch-Site": "cross-site"}
        ),
        lambda client: client.post(
            "/try", data={"prompt": "a"}, headers={"Sec-Fetch-Site": "same-origin"}
        ),
    )
    assert (foreign.status_code, own.status_code) == (403, 303)


def test_a_worker_that_dies_gets_the_wish_again_and_then_it_is_told(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    once, always = ScriptedWorker(deaths=1), ScriptedWorker(deaths=9)
    first, _ = asking(served, posted("a"), serving(served, once))
    second, _ = asking(served, posted("b"), serving(served, always))
    assert served.desk.queue.get(first.json()["wish_id"]).phase == "done"
    failed = served.desk.queue.get(second.json()["wish_id"])
    assert (failed.phase, failed.sentence) == ("failed", "the worker was killed")
    assert served.desk.clip(failed.wish_id) is None
    (page,) = asking(served, lambda client: client.get(f"/try/{failed.wish_id}"))
    assert "It could not be made: the worker was killed" in page.text


def test_a_restart_keeps_whole_results_and_clears_the_rest(tmp_path: Path) -> None:
    """Killed between the clip and its note, and with a note of somebody else: both folders go."""
    served = with_desk(tmp_path)
    sent, _ = asking(served, posted("a"), serving(served, ScriptedWorker()))
    kept = sent.json()["wish_id"]
    half, forged = served.folder.tried / ("1" * 16), served.folder.tried / ("2" * 16)
    half.mkdir()
    (half / "clip.mp4").write_bytes(b"half a clip")
    forged.mkdir()
    note = open_provenance(served.desk.note(kept).read_bytes(), b"an mp4", SWARM).body
    (forged / "note.bin").write_bytes(seal(FOUNDER, PROVENANCE, SWARM, note))
    again = TryDesk(service=served.service, folder=served.folder, rules=DESK_RULES, max_prompt=40)
    assert again.queue.get(kept).phase == "done"
    assert again.clip(kept).read_bytes() == b"an mp4"
    assert [path.name for path in served.folder.tried.iterdir()] == [kept]


def test_only_the_last_results_are_kept(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    names = []
    for prompt in "abc":
        sent, _ = asking(served, posted(prompt), serving(served, ScriptedWorker()))
        names.append(sent.json()["wish_id"])
    gone, here = asking(
        served,
        lambda client: client.get(f"/api/v1/try/{names[0]}"),
        lambda client: client.get(f"/api/v1/try/{names[2]}/clip.mp4"),
    )
    assert (gone.status_code, here.status_code) == (404, 200)
    assert sorted(path.name for path in served.folder.tried.iterdir()) == sorted(names[1:])


def test_the_stream_tells_every_step_and_ends_with_the_clip(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    (sent,) = asking(served, posted("a"))
    where = sent.headers["location"]
    _, stream = asking(
        served, serving(served, ScriptedWorker()), lambda client: client.get(f"{where}/events")
    )
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.count("event: wish") == 1
    assert '"phase":"done"' in stream.text


def test_the_note_is_checked_against_the_invite_by_hand(tmp_path: Path) -> None:
    served = with_desk(tmp_path)
    sent, _ = asking(served, posted("a"), serving(served, ScriptedWorker()))
    wish_id = sent.json()["wish_id"]
    clip, note = served.desk.clip(wish_id), served.desk.note(wish_id)
    invite = read_invite(served.invite).body
    assert read_clip_note(clip, note, invite).body.seed == 7
    stranger = tmp_path / "stranger.note"
    body = open_provenance(note.read_bytes(), b"an mp4", SWARM).body
    stranger.write_bytes(seal(FOUNDER, PROVENANCE, SWARM, body))
    with pytest.raises(BadSignature, match="no coordinator of the invite's swarm"):
        read_clip_note(clip, stranger, invite)
    with pytest.raises(LocalError, match="save it again"):
        read_clip_note(tmp_path / "none.mp4", note, invite)


@pytest.fixture(scope="module")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with a real worker behind it and a real release of the tiny preset."""
    folder = tmp_path_factory.mktemp("swarm")
    done, _ = write_tiny_release(tmp_path_factory.mktemp("release"))
    live = Served(folder, can_try=True)
    for name in done.files:
        target = live.sources.folder.releases / "2" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(Path(done.release_dir) / name, target)
    stop = threading.Event()
    supervisor = WorkerSupervisor(folder / "worker.log")

    async def work() -> None:
        while not stop.is_set():
            if not await live.sources.desk.serve_next(supervisor):
                await live.sources.desk.next_change(0.2)
        await supervisor.kill()

    working = asyncio.run_coroutine_threadsafe(work(), live.loop)
    yield live
    stop.set()
    working.result(30)
    live.stop()


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_visitor_watches_a_clip_being_made(browser, trying: Served) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, trying.address + "try", viewport=DESKTOP)
    visit.page.fill("#prompt", "a long corridor")
    visit.page.click("form.try button")
    visit.page.wait_for_selector("video", timeout=120_000)
    assert visit.page.locator("#picks li").count() == 4
    expect(visit.page.locator("video")).to_have_js_property("readyState", ENOUGH_DATA)
    visit.keep("try-desktop")
    visit.close()
    phone = Visit(browser, visit.page.url, viewport=PHONE)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    phone.keep("try-phone")
    phone.close()
