"""How this coordinator runs on this machine. Owns its settings: TOML file, environment, flags; flags win."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kinoswarm_coordinator.retention import Keep
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import MAX_PROMPT

SETTINGS_FILE = "settings.toml"


class CoordinatorSettings(BaseSettings):
    """Every field can be set in settings.toml, or as KINOSWARM_COORDINATOR_<NAME> in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="KINOSWARM_COORDINATOR_", frozen=True, extra="forbid"
    )

    listen: list[str] = Field(
        default=["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"],
        description="Multiaddresses that libp2p listens on.",
    )
    relay_for_others: bool = Field(
        default=False,
        description="Let strangers who can't dial each other meet through this machine: libp2p circuits of "
        "2 minutes and 128 KiB each, outside all rate caps.",
    )
    announce: list[str] = Field(
        default=[],
        description="Addresses that nodes are told to dial: multiaddresses and http(s) URLs.",
    )
    http_host: str = Field(default="127.0.0.1", description="Address that the page listens on.")
    http_port: int = Field(
        default=8700, ge=0, le=65_535, description="Port of the page and API; 0 is any free one."
    )
    threads: int = Field(
        default=1, ge=1, le=1_024, description="CPU threads of the operator's worker."
    )
    device: str = Field(default="cpu", max_length=16, description="Device of that worker.")
    referee: bool = Field(
        default=True,
        description="When runs of a newcomer's work differ, that worker does it once more, every other time before "
        "its other work, and its run decides; without it other volunteers' runs do.",
    )
    prompts: list[str] = Field(
        default=[], max_length=64, description="Prompts that every release is sampled with."
    )
    tick_s: float = Field(
        default=1.0, gt=0.0, le=60.0, description="Seconds between looks at expired leases."
    )
    announce_every_s: float = Field(
        default=120.0, gt=0.0, le=3_600.0, description="Seconds between announcements in the DHT."
    )
    idle_s: float = Field(
        default=0.5, gt=0.0, le=60.0, description="Pause of the idle operator's worker, in seconds."
    )
    requests_per_s: float = Field(
        default=20.0,
        ge=0.0,
        le=1e6,
        description="Pages and API answers a second that one address may ask for; 0 is no limit.",
    )
    request_burst: int = Field(
        default=200, ge=1, le=10**6, description="How many of them it may ask for at once."
    )
    control_per_s: float = Field(
        default=50.0,
        ge=0.0,
        le=1e6,
        description="Requests a second (hello, pull, submit …) of all nodes at one web address, or of one "
        "peer over libp2p; 0 is no limit.",
    )
    newcomers_per_hour: float = Field(
        default=60.0,
        ge=0.0,
        le=1e6,
        description="New volunteers an hour from one address, an hour's worth of them at once; 0 is no limit.",
    )
    control_burst: int = Field(
        default=500, ge=1, le=10**6, description="How many of them may come at once."
    )
    copy_every_s: float = Field(
        default=600.0,
        ge=0.0,
        le=86_400.0,
        description="Seconds between signed copies of the pages for mirrors; 0 makes none.",
    )
    try_per_hour: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Clips of their own prompts that visitors at one address may have made in an hour; 0 is off.",
    )
    try_waiting: int = Field(
        default=8, ge=1, le=1_000, description="People that may wait for such a clip at once."
    )
    try_prompt: int = Field(
        default=200, ge=1, le=MAX_PROMPT, description="Characters of such a prompt."
    )
    admins: list[str] = Field(
        default=[],
        max_length=32,
        description="Keys (peer ids) that may ban, roll back, pause and release, beside the coordinator's own.",
    )
    admin_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Port on 127.0.0.1 that takes signed admin requests too; 0 is the local socket only.",
    )
    head_every_s: float = Field(
        default=300.0,
        gt=0.0,
        le=86_400.0,
        description="Seconds between signatures on where the event log ends.",
    )
    blobs: str = Field(
        default="",
        max_length=500,
        description="S3-compatible storage of all blobs, s3://BUCKET/PREFIX; empty keeps them in the folder alone. "
        "Keys and endpoint come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION.",
    )
    cache_gb: float = Field(
        default=0.0,
        ge=0.0,
        le=1e6,
        description="Blobs kept in the folder when `blobs` names a storage, in GB; 0 keeps all.",
    )
    keep_versions: int = Field(
        default=8,
        ge=0,
        le=10**6,
        description="Newest versions of every lineage whose checkpoints and contributions are kept, at least two more "
        "than work may be stale by; 0 keeps all.",
    )
    keep_releases: int = Field(
        default=3,
        ge=0,
        le=10**6,
        description="Newest releases whose files are kept; 0 keeps all.",
    )
    tidy_every_s: float = Field(
        default=3_600.0,
        ge=0.0,
        le=604_800.0,
        description="Seconds between rounds that delete the blobs that nothing needs any more; 0 deletes nothing.",
    )
    database_url: str = Field(
        default="",
        max_length=500,
        description="Database of the event log, e.g. postgresql://USER@HOST/NAME; empty is SQLite at home.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (init) over environment over the file that `load_settings` names."""
        file = TomlConfigSettingsSource(settings_cls, _file_in_use)
        return init_settings, env_settings, file

    @property
    def keep(self) -> Keep:
        """What is kept of versions and releases."""
        return Keep(versions=self.keep_versions, releases=self.keep_releases)

    @property
    def cache_bytes(self) -> int:
        """The folder's quota: only where a storage behind it has everything."""
        return int(self.cache_gb * 1e9) if self.blobs else 0


_file_in_use: Path | None = None


def load_settings(home: Path, **flags: Any) -> CoordinatorSettings:
    """Settings of a coordinator's home. Raises LocalError naming setting, value and what is allowed."""
    global _file_in_use
    _file_in_use = home / SETTINGS_FILE
    try:
        return CoordinatorSettings(**{k: v for k, v in flags.items() if v is not None})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])} = {e.get('input')!r}: {e['msg']}"
            for e in error.errors()
        )
        raise LocalError(f"coordinator settings ({_file_in_use}): {problems}") from error
    except tomllib.TOMLDecodeError as error:
        raise LocalError(f"{_file_in_use} is not TOML: {error}") from error
    finally:
        _file_in_use = None
