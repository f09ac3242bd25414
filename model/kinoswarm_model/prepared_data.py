"""A prepared data folder beside a model: paths by cluster, checked to be of its geometry. Owns that check."""

from dataclasses import dataclass
from pathlib import Path

from kinoswarm_model.data.data_manifest import DataManifest, read_manifest
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.specs import ModelSpec


@dataclass(frozen=True)
class PreparedData:
    """What `kinoswarm data prepare` made, for one model."""

    folder: Path
    manifest: DataManifest

    @classmethod
    def for_model(cls, folder: Path, model: ModelSpec) -> "PreparedData":
        """Read a folder. Raises DataError when it is none, LocalError when its clips or texts are not the model's."""
        manifest = read_manifest(folder)
        facts = {
            "clips": (manifest.clip_spec(), model.clip),
            "texts": (manifest.text_spec(), model.text),
            "latents": (manifest.vae, model.vae),
        }
        for what, (found, wanted) in facts.items():
            if found != wanted:
                raise LocalError(
                    f"the {what} in {folder} are not this model's ({found} instead of {wanted}); prepare the data as "
                    "the model's own was"
                )
        return cls(folder, manifest)

    def __len__(self) -> int:
        return len(self.manifest.clusters)

    @property
    def labels(self) -> list[str]:
        return [cluster.label for cluster in self.manifest.clusters]

    @property
    def shards_by_cluster(self) -> list[list[str]]:
        return [
            [str(self.folder / shard.path) for shard in cluster.shards]
            for cluster in self.manifest.clusters
        ]

    @property
    def heldout(self) -> list[str]:
        return [str(self.folder / cluster.heldout.path) for cluster in self.manifest.clusters]
