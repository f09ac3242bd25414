"""manifest.json of a prepared data folder. Owns its types and reading; written last, so its presence means complete."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_model.data.errors import DataError
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.ids import RelativePath
from kinoswarm_protocol.limits import MAX_CLUSTERS
from kinoswarm_protocol.specs import ClipSpec, Name, TextSpec, VaeSpec

MANIFEST_NAME = "manifest.json"
VAE_FOLDER = "vae"
"""Of the data folder: the VAE that made its latents."""
_MAX_BYTES = 64 * 1024 * 1024


class DataFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One shard or held-out file."""

    path: RelativePath
    num_clips: int
    size_bytes: int
    sha256: str


class DataCluster(Struct, frozen=True, forbid_unknown_fields=True):
    label: Name
    num_clips: int
    """In the public shards."""
    shards: list[DataFile]
    heldout: DataFile


class Clip(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    frames: int
    height: int
    width: int
    fps: int


class DataManifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `data prepare` made."""

    clip: Clip
    text_encoder: Name
    text_dim: int
    text_tokens: int
    seed: int
    num_sources: int
    left_out: dict[str, int]
    """Number of files, or of clips of otherwise good files, left out, by reason."""
    clusters: Annotated[list[DataCluster], Meta(min_length=1, max_length=MAX_CLUSTERS)]
    vae: VaeSpec | None = None
    """Of latents; None when shards hold pixels."""
    latents: tuple[int, int, int] = (0, 0, 0)
    """Frames, rows and columns of a clip's latents; zeros when shards hold pixels."""
    fingerprint: str = ""
    """Of the sources and settings it was made from; empty when unknown."""

    @property
    def num_clips(self) -> int:
        return sum(cluster.num_clips + cluster.heldout.num_clips for cluster in self.clusters)

    def clip_spec(self) -> ClipSpec:
        """The geometry that experts see, as a charter states it."""
        clip = self.clip
        frames, height, width = (clip.frames, clip.height, clip.width)
        if self.vae is not None:
            frames, height, width = self.latents
        return ClipSpec(
            codec="pixel" if self.vae is None else "vae",
            channels=3 if self.vae is None else len(self.vae.mean),
            frames=frames,
            height=height,
            width=width,
            fps=clip.fps,
        )

    def text_spec(self) -> TextSpec:
        """The text encoder as a charter states it."""
        return TextSpec(encoder=self.text_encoder, dim=self.text_dim, max_tokens=self.text_tokens)


def read_manifest(folder: Path) -> DataManifest:
    """The manifest of a prepared folder. Raises DataError when it is missing, damaged, or files are gone."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise DataError(
            f"{folder} is not a prepared data folder (no {MANIFEST_NAME}); run `kinoswarm data prepare SRC {folder}`"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} is larger than any manifest; prepare the data again")
    try:
        manifest = decode_json(path.read_bytes(), DataManifest)
    except MalformedBytes as error:
        raise DataError(f"{path} is damaged ({error}); prepare the data again") from error
    for cluster in manifest.clusters:
        for file in [*cluster.shards, cluster.heldout]:
            if not (folder / file.path).is_file():
                raise DataError(f"{folder / file.path} is missing; prepare the data again")
    return manifest
