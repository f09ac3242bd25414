"""Where a coordinator keeps what. Owns the names of files in a swarm's folder."""

from dataclasses import dataclass
from pathlib import Path

from kinoswarm_protocol.errors import LocalError


@dataclass(frozen=True)
class SwarmFolder:
    """The founder's folder; the coordinator's home is a part of it that can be moved to another machine."""

    root: Path

    @property
    def founder_key(self) -> Path:
        return self.root / "founder.key"

    @property
    def invite(self) -> Path:
        return self.root / "invite.txt"

    @property
    def home(self) -> Path:
        return self.root / "coordinator"

    @property
    def charter(self) -> Path:
        return self.home / "charter.bin"

    @property
    def amended(self) -> Path:
        """The charter as amended, with the founder's record of it (charter_file.py)."""
        return self.home / "amended.bin"

    @property
    def charter_blobs(self) -> Path:
        """The charter's parts as files, to be served as blobs."""
        return self.home / "charter"

    @property
    def key(self) -> Path:
        return self.home / "key"

    @property
    def next_key(self) -> Path:
        """A key that an amendment brings into force; it becomes `key` at the next start."""
        return self.home / "key.next"

    @property
    def certificate(self) -> Path:
        """Of the coordinator's web address, where it has its own instead of a CA's; its key lies beside it."""
        return self.home / "web.crt"

    @property
    def log(self) -> Path:
        return self.home / "log.sqlite"

    @property
    def tidy_lock(self) -> Path:
        """Held while a backup reads the log and the store, or blobs go (tidy_lock.py)."""
        return self.home / "tidy.lock"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def network(self) -> Path:
        return self.home / "network"

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def admin_socket(self) -> Path:
        """Where admin requests are taken: a socket that only this user may open."""
        return self.home / "admin.sock"

    @property
    def vae(self) -> Path:
        """The VAE of a swarm on latents."""
        return self.home / "vae"

    @property
    def frames(self) -> Path:
        """Frames of the data, for the page."""
        return self.home / "frames"

    @property
    def tried(self) -> Path:
        """Clips that visitors of the page asked for."""
        return self.home / "tried"

    def copy(self, generation: int) -> Path:
        """One of two signed copies of the public pages: one is served while the other is made."""
        return self.home / f"copy-{generation % 2}"

    def heldout(self, cluster: int) -> Path:
        """The private held-out file of a cluster; never in the store, never served."""
        return self.home / "heldout" / f"cluster-{cluster:02d}.safetensors"

    def require_founded(self) -> None:
        """Raise LocalError unless a swarm was founded here."""
        if not self.invite.is_file() or not self.charter.is_file():
            raise LocalError(
                f"no swarm was founded in {self.root}; run `kinoswarm swarm create DATA --name NAME --out {self.root}`"
            )
