"""Clips that visitors of the page ask for, made by the operator's worker between its leases. Owns their files.

A finished clip lies in home/tried/ID with its signed note; both are read again after a restart. What was waiting then
is lost and is asked for again: it belongs to a visitor, not to the swarm.
"""

import asyncio
import hashlib
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.state import ReleaseState
from kinoswarm_coordinator.try_queue import TryQueue, TryRules, Turned, Wish
from kinoswarm_model.jobs import GenerateDone, GenerateJob, JobProgress
from kinoswarm_model.supervisor import WorkerDied, WorkerSupervisor
from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import LocalError, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.provenance import PROVENANCE, Provenance

_log = structlog.get_logger("try")
_TRIES = 2
"""A worker that dies gets the same wish once more."""
_NOTE = "note.bin"
_CLIP = "clip.mp4"
_MAX_NOTE_FILE = PROVENANCE.max_bytes + 1_024


@dataclass(kw_only=True)
class TryDesk:
    """Takes wishes, has them made one after another, keeps the last results."""

    service: Service
    folder: SwarmFolder
    rules: TryRules
    max_prompt: int
    device: str = "cpu"
    threads: int = 1
    queue: TryQueue = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.queue = TryQueue(rules=self.rules)
        self._read_kept()

    def newest_release(self) -> ReleaseState | None:
        """The newest release that is published and laid out here."""
        for release in reversed(self.service.journal.state.releases):
            if release.manifest is not None and self._release_dir(release.version).is_dir():
                return release
        return None

    def ask(self, prompt: str, seed: int | None, client: str) -> Wish | Turned:
        """Queue a prompt for the newest release. The text must have been checked by `problem_with`."""
        release = self.newest_release()
        if release is None:
            return Turned("there is no release yet; come back when there is one", 300)
        wish = Wish(
            wish_id=secrets.token_hex(8),
            prompt=prompt.strip(),
            seed=secrets.randbelow(2**31) if seed is None else seed,
            release=release.version,
            asked_at_ms=self.service.now_ms(),
        )
        turned = self.queue.ask(wish, client)
        if turned is not None:
            return turned
        self._announce()
        return wish

    def problem_with(self, prompt: str) -> str:
        """What is wrong with a prompt, in a sentence; empty when nothing is."""
        if not prompt.strip():
            return 'the prompt is empty: say what to show, as in "a corridor with torches"'
        if len(prompt) > self.max_prompt:
            return f"the prompt has {len(prompt)} characters; at most {self.max_prompt} here"
        if not prompt.isprintable():
            return "the prompt has characters that can't be printed; type it anew"
        return ""

    async def next_change(self, timeout_s: float) -> None:
        """Return after any wish changed, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def clip(self, wish_id: str) -> Path | None:
        """The finished clip of a wish."""
        return self._file(wish_id, _CLIP)

    def note(self, wish_id: str) -> Path | None:
        """Its signed note."""
        return self._file(wish_id, _NOTE)

    async def serve_next(self, supervisor: WorkerSupervisor) -> bool:
        """Make the clip that waited longest; False when nobody waits."""
        wish = self.queue.begin()
        if wish is None:
            return False
        self._announce()
        try:
            problem = await self._made(wish, supervisor)
        except LocalError as error:
            problem = str(error)
        if problem:
            _log.warning("no clip", wish=wish.wish_id, why=problem)
        self.queue.finish(wish.wish_id, problem[:500])
        self._remove_forgotten()
        self._announce()
        return True

    async def _made(self, wish: Wish, supervisor: WorkerSupervisor) -> str:
        """Make a clip; a sentence when it can't be made. Raises LocalError when the release can't be read."""
        problem = ""
        for _ in range(_TRIES):
            try:
                done = await supervisor.run(self._job(wish), self._on_progress)
            except WorkerDied as error:
                problem = str(error)
            else:
                assert isinstance(done, GenerateDone)
                await asyncio.to_thread(self._sign, wish, done)
                return ""
        return problem

    def _job(self, wish: Wish) -> GenerateJob:
        work_dir = self._wish_dir(wish.wish_id)
        work_dir.mkdir(parents=True, exist_ok=True)
        return GenerateJob(
            job_id=wish.wish_id,
            model=self.service.rules.charter.model,
            work_dir=str(work_dir),
            device=self.device,
            threads=self.threads,
            release_dir=str(self._release_dir(wish.release)),
            prompt=wish.prompt,
            seed=wish.seed,
        )

    def _on_progress(self, progress: JobProgress) -> None:
        self.queue.step(progress.job_id, progress.step, progress.total, progress.expert)
        self._announce()

    def _sign(self, wish: Wish, done: GenerateDone) -> None:
        clip = Path(done.clip_path).read_bytes()
        note = Provenance(
            clip_sha256=hashlib.sha256(clip).hexdigest(),
            clip_bytes=len(clip),
            release=wish.release,
            release_table=self._table_of(wish.release),
            prompt=wish.prompt,
            seed=wish.seed,
            guidance=done.guidance,
            top_k=done.top_k,
            expert_by_step=done.expert_by_step,
            made_at_ms=self.service.now_ms(),
        )
        raw = seal(self.service.key, PROVENANCE, self.service.swarm, note)
        write_atomic(self._wish_dir(wish.wish_id) / _NOTE, raw, mode=0o644)

    def _table_of(self, version: int) -> BlobId:
        table = self.service.journal.state.releases[version - 1].manifest
        assert table is not None, "only published releases are tried"
        return table

    def _read_kept(self) -> None:
        """Results of earlier runs, oldest first; a folder without a whole note is removed."""
        found: list[tuple[int, Wish]] = []
        for path in self.folder.tried.iterdir() if self.folder.tried.is_dir() else ():
            try:
                note = self._read_note(path / _NOTE)
            except (OSError, RemoteError):
                shutil.rmtree(path, ignore_errors=True)
                continue
            found.append((note.made_at_ms, _finished(path.name, note)))
        for _, wish in sorted(found, key=lambda pair: pair[0]):
            self.queue.remember(wish)
        self._remove_forgotten()

    def _read_note(self, path: Path) -> Provenance:
        with path.open("rb") as file:
            raw = file.read(_MAX_NOTE_FILE)
        service = self.service
        return open_envelope(raw, PROVENANCE, service.swarm, service.key.peer_id).body

    def _remove_forgotten(self) -> None:
        for wish_id in self.queue.forgotten:
            shutil.rmtree(self._wish_dir(wish_id), ignore_errors=True)
        self.queue.forgotten.clear()

    def _file(self, wish_id: str, name: str) -> Path | None:
        wish = self.queue.get(wish_id)
        if wish is None or wish.phase != "done":
            return None
        path = self._wish_dir(wish_id) / name
        return path if path.is_file() else None

    def _wish_dir(self, wish_id: str) -> Path:
        return self.folder.tried / wish_id

    def _release_dir(self, version: int) -> Path:
        return self.folder.releases / str(version)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _finished(wish_id: str, note: Provenance) -> Wish:
    return Wish(
        wish_id=wish_id,
        prompt=note.prompt,
        seed=note.seed,
        release=note.release,
        asked_at_ms=note.made_at_ms,
        phase="done",
        step=len(note.expert_by_step),
        total=len(note.expert_by_step),
        expert_by_step=list(note.expert_by_step),
    )
