"""Founding a swarm: common seed, keys, charter, invite. Owns the order of these steps; each can be run again.

A finished swarm has its invite; until then the same command goes on where it stopped.
"""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from pathlib import Path

from msgspec import structs

from kinoswarm_coordinator.charter_file import write_charter_file
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.settings import SETTINGS_FILE
from kinoswarm_coordinator.small_data import fit_to_data
from kinoswarm_model.data.data_manifest import VAE_FOLDER, DataFile, DataManifest, read_manifest
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.jobs import JobProgress, TrainDone, TrainJob
from kinoswarm_model.presets import Geometry, Preset, preset_for
from kinoswarm_model.pretrained import model_started_from
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.certificate import ensure_certificate
from kinoswarm_network.durable import write_atomic
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_protocol.charter import CHARTER, Charter, ClusterEntry, Licences, ShardEntry
from kinoswarm_protocol.charter_chain import chain_of, open_chain
from kinoswarm_protocol.envelope import peek_payload, seal
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import BlobId, PeerId, SwarmId, swarm_id_of
from kinoswarm_protocol.invite import Invite, write_invite
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES, MAX_SENTENCE
from kinoswarm_protocol.specs import ClipSpec, ModelSpec, Objective

Progress = Callable[[int, int, str], None]
_PROMPTS_PER_CLUSTER = 2
_MAX_PROMPTS = 8


@dataclass(frozen=True, kw_only=True)
class FoundingConfig:
    """What the founder decides."""

    name: str
    preset: str = "demo"
    own: Preset | None = None
    """The founder's own model and policy, taken as they are instead of a named preset."""
    hosts: tuple[str, ...] = ()
    """Addresses or names under which nodes reach this machine; empty is this machine alone (127.0.0.1)."""
    p2p_port: int = 0
    """0 picks a free port, which is then kept."""
    http_port: int = 0
    https: bool = False
    """Serve the web address over TLS with a certificate of its own, whose hash the invite carries."""
    target_version: int = 0
    """Versions to train per expert; 0 is the preset's, which may be without end."""
    content_note: str = ""
    data_licence: str = "CC0-1.0"
    seed: int = 0
    seed_steps: int = 0
    """0 is the preset's."""
    segment_steps: int = 0
    """Steps of every segment; 0 is the preset's policy."""
    threads: int = 0
    """CPU threads of the seed training; 0 is all cores."""
    device: str = "cpu"
    """Of the seed training."""
    start_from: Path | None = None
    """Folder of a pretrained Wan transformer that the common seed starts from; its shape replaces the preset's."""
    base_licence: str = ""
    """SPDX name of those weights' licence; needed with them."""
    epsilon: tuple[int, ...] = ()
    """Clusters, counted from 0, whose experts are trained on the noise instead of the velocity."""


@dataclass(frozen=True)
class Founded:
    swarm: SwarmId
    invite: str
    folder: Path
    notes: list[str]
    """What the founder should know about this data, in sentences."""


@dataclass(frozen=True)
class _Ports:
    p2p: int
    http: int


def create_swarm(
    data: Path, out: Path, config: FoundingConfig, progress: Progress | None = None
) -> Founded:
    """Found a swarm from a prepared data folder. Raises LocalError when `out` holds a finished swarm."""
    folder = SwarmFolder(out.resolve())
    if folder.invite.exists():
        raise LocalError(
            f"a swarm was founded in {out} already; serve it with `kinoswarm swarm serve {out}` "
            "or choose another folder"
        )
    manifest = read_manifest(data)
    objectives = objectives_of(len(manifest.clusters), config.epsilon)
    chosen, notes = _chosen_preset(manifest, config)
    founder = load_or_create_key(folder.founder_key)
    coordinator = load_or_create_key(folder.key)
    store = BlobStore(folder.store)
    report = progress or (lambda done, total, what: None)
    _keep_heldout(data, manifest, folder)
    if manifest.vae is not None:
        shutil.copytree(data / VAE_FOLDER, folder.vae, dirs_exist_ok=True)
    clusters = _cluster_entries(data, manifest, objectives, store, report)
    seed = _train_seed(data, manifest, chosen, folder, config, report)
    ports = _Ports(config.p2p_port or _free_port(), config.http_port or _free_port())
    addresses = _addresses(config, ports, coordinator.peer_id)
    charter = Charter(
        name=config.name,
        founder=founder.peer_id,
        created_at_ms=int(time.time() * 1000),
        content_note=config.content_note,
        licences=Licences(
            data=config.data_licence,
            base_weights=config.base_licence or "none: trained from nothing",
            contributions="Apache-2.0",
            release="Apache-2.0",
        ),
        model=chosen.model,
        clusters=clusters,
        seed_checkpoint=store.add_file(Path(seed.output_path)),
        seed_flops=seed.flops,
        seed_steps=seed.steps,
        policy=chosen.policy,
        coordinators=[coordinator.peer_id],
        addresses=addresses,
        min_version=package_version("kinoswarm"),
    )
    raw = seal(founder, CHARTER, "", charter)
    swarm = swarm_id_of(peek_payload(raw, MAX_CHARTER_BYTES))
    _write_settings(folder, config, ports, addresses, _prompts(data, manifest))
    write_atomic(folder.charter, raw)
    store.add_file(folder.charter)
    chain = open_chain(chain_of(raw), swarm)
    write_charter_file(folder, founder, chain, charter.created_at_ms)
    pin = _certificate_sha256(folder, config)
    invite = write_invite(founder, structs.replace(_invite(charter, swarm), certificate_sha256=pin))
    write_atomic(folder.invite, (invite + "\n").encode(), mode=0o644)
    return Founded(swarm, invite, folder.root, notes)


def _chosen_preset(manifest: DataManifest, config: FoundingConfig) -> tuple[Preset, list[str]]:
    """The preset as the data bears it and the founder wants it; the founder's own figures are taken as they are."""
    clip = manifest.clip_spec()
    if config.own is not None:
        _require_same_clips(config.own, clip)
        return config.own, []
    geometry = Geometry(
        frames=clip.frames,
        height=clip.height,
        width=clip.width,
        fps=clip.fps,
        num_clusters=len(manifest.clusters),
        vae=manifest.vae,
    )
    named = preset_for(config.preset, geometry)
    chosen, notes = fit_to_data(named, manifest)
    text = structs.replace(chosen.model.text, encoder=manifest.text_encoder, dim=manifest.text_dim)
    policy = structs.replace(
        chosen.policy, target_version=config.target_version or chosen.policy.target_version
    )
    if config.segment_steps:
        notes = []
        policy = structs.replace(
            policy,
            segment_steps_min=config.segment_steps,
            segment_steps_max=config.segment_steps,
            quorum_samples=config.segment_steps * chosen.model.recipe.batch_size,
        )
    fitted = replace(
        chosen,
        model=_started(structs.replace(chosen.model, text=text), config),
        policy=policy,
        seed_steps=config.seed_steps or chosen.seed_steps,
    )
    return fitted, notes


def _require_same_clips(own: Preset, clip: ClipSpec) -> None:
    if own.model.clip != clip:
        raise LocalError(f"the model is for clips {own.model.clip}, the data holds {clip}")


def _started(model: ModelSpec, config: FoundingConfig) -> ModelSpec:
    """The preset's model, or the shape of the pretrained one that it starts from."""
    if config.start_from is None:
        return model
    if not config.base_licence:
        raise LocalError("name the licence of the weights to start from: --base-licence")
    return model_started_from(config.start_from, model)


def _keep_heldout(data: Path, manifest: DataManifest, folder: SwarmFolder) -> None:
    """Copy the private files to the coordinator's home, so that the data folder may go."""
    for index, cluster in enumerate(manifest.clusters):
        target = folder.heldout(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".part")
        shutil.copyfile(data / cluster.heldout.path, temporary)
        os.replace(temporary, target)


def objectives_of(num_clusters: int, epsilon: Sequence[int]) -> list[Objective]:
    """What each cluster's expert is trained on. Raises LocalError for a cluster that is not there."""
    for cluster in epsilon:
        if not 0 <= cluster < num_clusters:
            raise LocalError(
                f"there is no cluster {cluster}: this data has {num_clusters}, counted from 0; "
                "`kinoswarm data inspect` shows them"
            )
    return ["epsilon" if index in epsilon else "velocity" for index in range(num_clusters)]


def _cluster_entries(
    data: Path,
    manifest: DataManifest,
    objectives: Sequence[Objective],
    store: BlobStore,
    report: Progress,
) -> list[ClusterEntry]:
    entries = []
    for index, cluster in enumerate(manifest.clusters):
        entries.append(
            ClusterEntry(
                label=cluster.label,
                num_clips=cluster.num_clips,
                num_heldout=cluster.heldout.num_clips,
                heldout_sha256=cluster.heldout.sha256,
                shards=[_shard_entry(data, shard, store) for shard in cluster.shards],
                objective=objectives[index],
            )
        )
        report(index + 1, len(manifest.clusters), "storing shards")
    return entries


def _shard_entry(data: Path, shard: DataFile, store: BlobStore) -> ShardEntry:
    blob: BlobId = store.add_file(data / shard.path)
    return ShardEntry(blob, shard.num_clips, shard.size_bytes)


def _train_seed(
    data: Path,
    manifest: DataManifest,
    chosen: Preset,
    folder: SwarmFolder,
    config: FoundingConfig,
    report: Progress,
) -> TrainDone:
    """Version 0: a short training over all clusters; resumes from its own resume points."""
    work = folder.work / "seed"
    work.mkdir(parents=True, exist_ok=True)
    shards = [str(data.resolve() / s.path) for c in manifest.clusters for s in c.shards]
    job = TrainJob(
        job_id="seed",
        model=chosen.model,
        work_dir=str(work),
        device=config.device,
        pretrained_dir=str(config.start_from.resolve()) if config.start_from else None,
        threads=config.threads or os.cpu_count() or 1,
        shard_paths=shards,
        steps=chosen.seed_steps,
        batch_size=chosen.model.recipe.batch_size,
        seed=config.seed,
        resume_every_s=30.0,
    )

    def on_progress(event: JobProgress) -> None:
        report(event.step, event.total, "training the common seed")

    async def train() -> TrainDone:
        supervisor = WorkerSupervisor(log_path=folder.work / "seed.log")
        try:
            done = await supervisor.run(job, on_progress)
        finally:
            await supervisor.stop()
        assert isinstance(done, TrainDone)
        return done

    return asyncio.run(train())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _addresses(config: FoundingConfig, ports: _Ports, peer: PeerId) -> list[str]:
    found = []
    for host in config.hosts or ("127.0.0.1",):
        kind = _address_kind(host)
        found.append(f"/{kind}/{host}/tcp/{ports.p2p}/p2p/{peer}")
        shown = f"[{host}]" if kind == "ip6" else host
        found.append(f"{'https' if config.https else 'http'}://{shown}:{ports.http}")
    return found


def _address_kind(host: str) -> str:
    if ":" in host:
        return "ip6"
    return "ip4" if host.replace(".", "").isdecimal() else "dns4"


def _prompts(data: Path, manifest: DataManifest) -> list[str]:
    """Frequent captions of every cluster: each release is sampled with them, so that progress is seen."""
    prompts: list[str] = []
    for cluster in manifest.clusters:
        shard = read_shard(data / cluster.shards[0].path)
        counts = sorted(
            (-int((shard.caption_index == index).sum()), caption)
            for index, caption in enumerate(shard.captions)
        )
        prompts += [caption for _, caption in counts[:_PROMPTS_PER_CLUSTER]]
    return prompts[:_MAX_PROMPTS]


def _write_settings(
    folder: SwarmFolder,
    config: FoundingConfig,
    ports: _Ports,
    addresses: list[str],
    prompts: list[str],
) -> None:
    listen, http_host = listening(config.hosts, ports.p2p)
    lines = [
        "# How the coordinator runs on this machine; see `kinoswarm swarm serve --help`.",
        f"listen = {_toml(listen)}",
        f"announce = {_toml(addresses)}",
        f"http_host = {_toml_text(http_host)}",
        f"http_port = {ports.http}",
        f"prompts = {_toml(prompts)}",
    ]
    write_atomic(folder.home / SETTINGS_FILE, ("\n".join(lines) + "\n").encode())


def listening(hosts: Sequence[str], p2p_port: int) -> tuple[list[str], str]:
    """Where libp2p and the page listen for those who know these hosts: on this machine alone when they are its own.

    The page's `::` takes IPv4 too.
    """
    if not hosts or set(hosts) <= {"127.0.0.1", "localhost"}:
        return [f"/ip4/127.0.0.1/tcp/{p2p_port}"], "127.0.0.1"
    has_ipv6 = any(_address_kind(host) == "ip6" for host in hosts)
    everywhere = [f"/ip4/0.0.0.0/tcp/{p2p_port}", f"/ip6/::/tcp/{p2p_port}"]
    return everywhere, "::" if has_ipv6 else "0.0.0.0"  # noqa: S104 (the founder named a public host)


def _toml(texts: list[str]) -> str:
    return "[" + ", ".join(_toml_text(text) for text in texts) + "]"


def _toml_text(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in text)
    return f'"{escaped}"'


def _certificate_sha256(folder: SwarmFolder, config: FoundingConfig) -> str:
    if not config.https:
        return ""
    hosts = config.hosts or ("127.0.0.1",)
    return ensure_certificate(folder.certificate, "Kinoswarm coordinator", hosts).sha256


def _invite(charter: Charter, swarm: SwarmId) -> Invite:
    return Invite(
        swarm=swarm,
        name=charter.name,
        founder=charter.founder,
        coordinators=charter.coordinators,
        addresses=charter.addresses,
        licences=charter.licences,
        content_note=charter.content_note[:MAX_SENTENCE],
    )
