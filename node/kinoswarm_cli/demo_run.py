"""The demo's phases in order, each in processes of its own. Owns what follows what, and what may be skipped.

A phase whose result lies in the folder already is skipped, so that the same command goes on after an interruption.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import FrameType
from typing import Any

from kinoswarm_cli.demo_processes import Child, ProcessTrees
from kinoswarm_cli.demo_report import DemoReport, facts_of_run, make_report
from kinoswarm_cli.demo_screen import Screen
from kinoswarm_cli.demo_status import page_address, read_status
from kinoswarm_cli.demo_watch import Watch
from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.data.scenes import SCENES
from kinoswarm_protocol.errors import LocalError

_LOOK_EVERY_S = 0.5
_TARGET_VERSION = 2
_CLIPS = 8
_DEFAULT_BUDGET_MINUTES = 8.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "KINOSWARM_NODE_RESUME_EVERY_S": "20",
    "KINOSWARM_NODE_WHEN_ACTIVE": "yes",
    "KINOSWARM_NODE_ON_BATTERY": "true",
    "KINOSWARM_NODE_SHARE_GPU": "true",
    "KINOSWARM_NODE_MAX_OTHER_CPU_PERCENT": "0",
    "KINOSWARM_NODE_NICE": "0",
    "KINOSWARM_NODE_PAGE_PORT": "0",
}
"""One thread for whatever asks for as many as there are cores; resume points often, because segments are short.
Somebody watches a demo and wants it to run: its nodes share the machine with each other and with whoever sits at it."""

_PATIENCE = 4.0  # the run is called stuck after this many budgets


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the command line says."""

    nodes: int
    clusters: int
    out: Path
    seed: int
    budget_minutes: float
    preset: str
    clips_per_scene: int
    evaluation_clips: int
    as_json: bool


def run_demo(config: DemoConfig) -> None:
    """All phases; ends with the report. Raises LocalError when a phase fails, with the end of its log."""
    config.out.mkdir(parents=True, exist_ok=True)
    trees = ProcessTrees(config.out / "logs", _ENVIRONMENT)
    watch = Watch(trees.processes)
    with (
        _signals_as_interrupt(),
        watch.sampling(),
        Screen(quiet=config.as_json) as screen,
    ):
        demo = _Demo(config, trees, watch, screen)
        try:
            report = demo.run()
        finally:
            screen.say("ending all processes")
            trees.end()
    _tell(config, report)


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order, leaving nothing behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Demo:
    """One run."""

    def __init__(
        self, config: DemoConfig, trees: ProcessTrees, watch: Watch, screen: Screen
    ) -> None:
        self.config = config
        self.trees = trees
        self.watch = watch
        self.screen = screen
        self.out = config.out

    def run(self) -> DemoReport:
        self._data()
        self._found()
        coordinator, nodes = self._start_swarm()
        facts = self._train(coordinator, nodes)
        self._download()
        self.trees.end(nodes)
        self._generate()
        self._evaluate()
        status = self._status(coordinator)
        report = make_report(self.out, status, facts, self.watch)
        self.trees.end([coordinator])
        return report

    # --- phases ---------------------------------------------------------------------------------

    def _data(self) -> None:
        config, clips, data = self.config, self.out / "clips", self.out / "data"
        if (data / "manifest.json").is_file():
            return
        if len(list(clips.glob("*.txt"))) < len(SCENES) * config.clips_per_scene:
            flags = _flags(clips_per_scene=config.clips_per_scene, seed=config.seed)
            arguments = ["data", "render", str(clips), *flags]
            self._phase("render", "rendering captioned clips of calm places", arguments)
        flags = _flags(clusters=config.clusters, seed=config.seed)
        arguments = ["data", "prepare", str(clips), str(data), *flags]
        self._phase("prepare", "decoding, embedding and clustering", arguments)

    def _found(self) -> None:
        config, swarm = self.config, self.out / "swarm"
        if (swarm / "invite.txt").is_file():
            return
        flags = _flags(
            out=swarm,
            name="Kinoswarm demo",
            preset=config.preset,
            target_version=_TARGET_VERSION,
            seed=config.seed,
            note="Rendered walks through calm places of the Freedoom maps.",
            **_steps_for(config),
        )
        arguments = ["swarm", "create", str(self.out / "data"), *flags]
        self._phase("found", "training the common seed, signing the charter", arguments)

    def _start_swarm(self) -> tuple[Child, list[Child]]:
        with self.watch.phase("start"):
            self.screen.say("starting the coordinator")
            arguments = ["swarm", "serve", str(self.out / "swarm"), "--try-per-hour", "60"]
            coordinator = self.trees.start("coordinator", arguments)
            self._wait_for(lambda: self._status(coordinator) is not None, coordinator, "the page")
            self.screen.page = page_address(self.out / "swarm")
            self.screen.say(f"the swarm's page is at {self.screen.page}")
            nodes = [self._start_node(index) for index in range(self.config.nodes)]
        return coordinator, nodes

    def _start_node(self, index: int) -> Child:
        flags = _flags(
            home=self.out / "nodes" / f"node-{index}",
            threads=1,
            pseudonym=f"volunteer-{index + 1}",
            listen="/ip4/127.0.0.1/tcp/0",
        )
        invite = str(self.out / "swarm" / "invite.txt")
        return self.trees.start(f"node-{index}", ["join", invite, "--yes", "--go", *flags])

    def _train(self, coordinator: Child, nodes: list[Child]) -> dict[str, Any]:
        facts = facts_of_run(coordinator, nodes)
        started = time.monotonic()
        with self.watch.phase("train"):

            def finished() -> bool:
                status = self._status(coordinator)
                self.screen.show(status)
                if status is None:
                    return False
                facts.note_progress(status, time.monotonic() - started)
                return facts.is_finished(status, _TARGET_VERSION)

            self._wait_for(finished, coordinator, "the release", nodes)
        return facts.as_dict()

    def _download(self) -> None:
        model = self.out / "model"
        if not model.is_dir():
            invite = str(self.out / "swarm" / "invite.txt")
            arguments = ["download", invite, *_flags(out=model)]
            self._phase("download", "downloading the release as a fifth identity", arguments)

    def _generate(self) -> None:
        clips = self.out / "generated"
        if len(list(clips.glob("*.mp4"))) < _CLIPS:
            prompts = heldout_captions(self.out, _CLIPS)
            flags = _flags(model=self.out / "model", out=clips / "clip.mp4", seed=self.config.seed)
            what = f"generating {len(prompts)} clips from held-out captions"
            self._phase("generate", what, ["generate", *prompts, *flags])

    def _evaluate(self) -> None:
        report = self.out / "evaluation.json"
        if not report.is_file():
            flags = _flags(
                seed_checkpoint=seed_checkpoint(self.out),
                out=report,
                clips=self.config.evaluation_clips,
                contact_sheet=self.out / "contact-sheet.png",
            )
            arguments = ["evaluate", str(self.out / "model"), str(self.out / "data"), *flags]
            self._phase("evaluate", "measuring the release against its seed", arguments)

    # --- helpers --------------------------------------------------------------------------------

    def _phase(self, name: str, what: str, arguments: Sequence[str]) -> None:
        """Run one command to its end; its last log line is shown meanwhile."""
        with self.watch.phase(name):
            self.screen.say(what)
            child = self.trees.start(name, arguments)
            while child.running:
                self.screen.detail(child.last_words(1))
                time.sleep(_LOOK_EVERY_S)
            if child.process.returncode != 0:
                raise LocalError(f"{what} failed; the end of {child.log}:\n{child.last_words()}")

    def _wait_for(
        self,
        condition: Callable[[], bool],
        coordinator: Child,
        what: str,
        others: Sequence[Child] = (),
    ) -> None:
        deadline = time.monotonic() + _PATIENCE * 60 * self.config.budget_minutes
        while not condition():
            for child in [coordinator, *others]:
                if not child.running:
                    raise LocalError(
                        f"{child.name} ended; the end of {child.log}:\n{child.last_words()}"
                    )
            if time.monotonic() > deadline:
                raise LocalError(f"waited too long for {what}; see the logs in {self.out / 'logs'}")
            time.sleep(_LOOK_EVERY_S)

    def _status(self, coordinator: Child) -> dict[str, Any] | None:
        return read_status(page_address(self.out / "swarm")) if coordinator.running else None


def _flags(**values: object) -> list[str]:
    """Keyword arguments as command-line flags."""
    return [
        text
        for name, value in values.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]


def _steps_for(config: DemoConfig) -> dict[str, int]:
    """The preset's own steps at the usual budget; proportionally more or fewer otherwise."""
    if config.budget_minutes == _DEFAULT_BUDGET_MINUTES:
        return {}
    from kinoswarm_model.presets import preset

    chosen = preset(config.preset, frames=8, height=32, width=32, num_clusters=config.clusters)
    factor = config.budget_minutes / _DEFAULT_BUDGET_MINUTES
    return {
        "seed_steps": max(1, round(chosen.seed_steps * factor)),
        "segment_steps": max(1, round(chosen.segment_steps * factor)),
    }


def heldout_captions(out: Path, count: int) -> list[str]:
    """`count` captions of held-out clips, in turn from every cluster; the same again when there are too few."""
    from kinoswarm_model.data.shards import read_shard

    manifest = read_manifest(out / "data")
    by_cluster = [
        read_shard(out / "data" / cluster.heldout.path).captions for cluster in manifest.clusters
    ]
    rounds = range(max(len(captions) for captions in by_cluster))
    in_turn = [captions[r % len(captions)] for r in rounds for captions in by_cluster]
    return list(islice(cycle(dict.fromkeys(in_turn)), count))


def seed_checkpoint(out: Path) -> Path:
    """The common seed's file in the coordinator's store."""
    from kinoswarm_coordinator.home import SwarmFolder
    from kinoswarm_network.blob_store import BlobStore
    from kinoswarm_protocol.charter import open_charter
    from kinoswarm_protocol.invite import read_invite

    folder = SwarmFolder(out / "swarm")
    swarm = read_invite(folder.invite.read_text()).body.swarm
    charter = open_charter(folder.charter.read_bytes(), swarm).body
    path = BlobStore(folder.store).path_of(charter.seed_checkpoint)
    if path is None:
        raise LocalError(f"the seed checkpoint is gone from {folder.store}; start a new demo")
    return path


def _tell(config: DemoConfig, report: DemoReport) -> None:
    if config.as_json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        sys.stdout.write(report.in_words() + "\n")
