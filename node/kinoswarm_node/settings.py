"""The volunteer's settings: flags over environment (KINOSWARM_NODE_*) over HOME/limits.json and settings.toml.

Owns their names, bounds and words. A bad value stops the start with a sentence that names setting, value and range.
"""

import sys
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, IPvAnyAddress, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from kinoswarm_node.governor.hours import MAX_TEXT, parse_hours
from kinoswarm_node.governor.rules import Rules
from kinoswarm_node.limits_file import read_limits
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import MAX_ADDRESS, MAX_ADDRESSES

ENV_PREFIX = "KINOSWARM_NODE_"
FILE_NAME = "settings.toml"
_GIB = 1024**3
_HELPERS_GB = 20.0
_FOLLOWS_FROM_ANOTHER = "default_factory_not_called"
"""What pydantic says of a default that depends on other settings when one of those is wrong."""


def default_home() -> Path:
    """Where a node keeps its key, settings, blobs, resume points and unsent contributions."""
    return Path(platformdirs.user_data_dir("kinoswarm", appauthor=False))


class NodeSettings(BaseSettings):
    """One volunteer's choices. Every field says its unit, its range and what "off" is."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True
    )

    home: Path = Field(
        default_factory=default_home,
        description="Folder of this node's key, settings, blobs, resume points and unsent results.",
    )
    pseudonym: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w .\-]+$")] = Field(
        default="anonymous",
        description="Name shown to the swarm: 1 to 64 letters, digits, spaces, dots, - and _.",
    )
    role: Literal["trainer", "helper"] = Field(
        default="trainer",
        description="trainer, or helper: trains nothing of its own, does others' segments again as audits when it can "
        "finish them in time, and keeps and serves releases, data and experts. For machines without a graphics card.",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d{1,2})?)$")] = Field(
        default="auto",
        description="Where to train: auto, cpu, cuda, cuda:0 (also on ROCm), xpu, mps.",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="CPU threads of the worker, 1 to 1024; 0 takes half of the cores."
    )
    nice: Annotated[int, Field(ge=0, le=19)] = Field(
        default=10,
        description="How much the worker yields the processor to other programs, 1 to 19; 0 is off.",
    )
    micro_batch: Annotated[int, Field(ge=0, le=65_536)] = Field(
        default=0, description="Clips per backward pass, 1 to 65536; 0 lets the worker choose."
    )
    compile_network: bool = Field(
        default=False,
        description="Compile the expert with torch.compile: faster on a GPU with Triton, slow to start; false is off.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Arithmetic of training: float32, bfloat16, or auto (bfloat16 on a graphics card that has it).",
    )
    resume_every_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = Field(
        default=300.0, description="Seconds between resume points, 1 to 86400."
    )
    max_disk_gib: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        default=50.0,
        description="GiB of disk for downloaded blobs, up to 1000000; 0 is no limit.",
    )
    keep_free_gib: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        default=1.0,
        description="GiB left free on the disk: below this, work is paused; 0 is off.",
    )
    listen: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS)]],
        Field(max_length=MAX_ADDRESSES),
    ] = Field(
        default_factory=lambda: ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"],
        description="Multiaddresses to listen on; an empty list only dials out. One that this machine lacks "
        "does no harm beside one that it has.",
    )
    find_at_home: bool = Field(
        default=False,
        description="Find other machines of the swarm in your own network by mDNS, also when no known address answers; "
        "everybody in that network can see that this machine takes part.",
    )
    relay_for_others: bool = Field(
        default=False,
        description="Let strangers who can't dial each other meet through this machine: libp2p circuits of "
        "2 minutes and 128 KiB each, outside your rate caps. True or false.",
    )
    https_only: bool = Field(
        default_factory=lambda: sys.platform == "win32",
        description="Take part over the coordinator's web address alone, without any peer-to-peer program: true or "
        "false. On Windows, which has no such program, true from the start.",
    )
    upload_mb_s: Annotated[float, Field(ge=0.0, le=1e5)] = Field(
        default=0.0,
        description="MB a second at most for blobs sent to others, up to 100000; 0 is off. What no peer takes goes "
        "to the coordinator over HTTPS, at most as fast.",
    )
    download_mb_s: Annotated[float, Field(ge=0.0, le=1e5)] = Field(
        default=0.0,
        description="MB a second at most for blobs fetched from peers, up to 100000; 0 is off. What no peer brings "
        "comes over HTTPS, at most as fast.",
    )
    max_month_gb: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        default=0.0,
        description="GB of blobs in both directions in a calendar month, up to 1000000; 0 is no limit.",
    )
    keep_release_gb: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        default_factory=lambda chosen: _HELPERS_GB if chosen.get("role") == "helper" else 1.0,
        description="GB that the swarm's newest release may take here, kept and served to others, up to 1000000; 0 "
        "keeps none. A helper, whose data and experts count too, starts with 20, a trainer with 1.",
    )
    keep_every_s: Annotated[float, Field(ge=5.0, le=3_000.0)] = Field(
        default=900.0,
        description="Seconds between announcing the swarm's signed records again, 5 to 3000.",
    )
    sample_every: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=4,
        description="A clip of the expert in work after so many segments, for the local page; 0 makes none.",
    )
    announce_every_s: Annotated[float, Field(ge=5.0, le=80.0)] = Field(
        default=60.0,
        description="Seconds between announcements of this node in the DHT, 5 to 80.",
    )

    when_active: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Train while a person uses the machine: yes, no, or auto (yes on a processor, no on a "
        "graphics card).",
    )
    idle_minutes: Annotated[float, Field(ge=0.0, le=1440.0)] = Field(
        default=3.0,
        description="Minutes that nobody must have touched the machine, 0 to 1440; used where when_active is no.",
    )
    on_battery: bool = Field(
        default=False, description="Train while the machine runs on its battery: true or false."
    )
    on_metered: bool = Field(
        default=False, description="Train while the network connection is metered: true or false."
    )
    share_gpu: bool = Field(
        default=False,
        description="Train while another program uses the graphics card or fills the screen: true or false.",
    )
    quiet_programs: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=64)
    ] = Field(
        default_factory=list,
        description="Names of up to 64 programs while which nothing is trained; an empty list is off.",
    )
    max_other_cpu_percent: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        default=50.0,
        description="Pause while other programs use more than this percentage of the processor, 1 to 100; 0 is off.",
    )
    max_temperature_c: Annotated[float, Field(ge=0.0, le=120.0)] = Field(
        default=83.0,
        description="Degrees Celsius of the training device above which it is slowed down, 40 to 120; 0 is off.",
    )
    share_percent: Annotated[float, Field(ge=5.0, le=100.0)] = Field(
        default=100.0, description="Percentage of the time that the worker may compute, 5 to 100."
    )
    calm_s: Annotated[float, Field(ge=1.0, le=3600.0)] = Field(
        default=60.0,
        description="Seconds that the cause of a pause must be gone before work goes on, 1 to 3600.",
    )
    power_limit_w: Annotated[int, Field(ge=0, le=2000)] = Field(
        default=0,
        description="Power limit of the graphics card in watts, up to 2000, where the driver permits it; 0 is off.",
    )
    max_vram_gib: Annotated[float, Field(ge=0.0, le=1024.0)] = Field(
        default=0.0,
        description="GiB of the graphics card's memory to use, up to 1024; 0 is no limit.",
    )
    max_ram_gib: Annotated[float, Field(ge=0.0, le=65_536.0)] = Field(
        default=0.0, description="GiB of memory the worker may use, up to 65536; 0 is no limit."
    )
    keep_free_ram_gib: Annotated[float, Field(ge=0.0, le=1024.0)] = Field(
        default=0.5,
        description="GiB of memory left free: below this, work is paused, up to 1024; 0 is off.",
    )
    hours: Annotated[str, Field(max_length=MAX_TEXT)] = Field(
        default="",
        description='Local hours in which to train, as "22:00-07:00" or "mon-fri 18:00-24:00 sat-sun 00:00-24:00"; '
        "empty is always.",
    )
    desktop_notices: Literal["off", "important", "results"] = Field(
        default="important",
        description="Notices on a Linux desktop: important (a person is needed, or the founder speaks), results (also "
        "what was accepted, at most every half hour), off.",
    )
    page_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=7420,
        description="Port of your node's own page, 1 to 65535; any free one when it is taken; 0 is off.",
    )
    page_host: IPvAnyAddress = Field(
        default=IPv4Address("127.0.0.1"),
        description="IP address that the page listens on; any but a loopback address is served over TLS.",
    )
    max_writes_gb_per_day: Annotated[float, Field(ge=0.1, le=100_000.0)] = Field(
        default=200.0,
        description="Gigabytes a day that resume points may write, 0.1 to 100000: an SSD's life is finite.",
    )

    @field_validator("hours")
    @classmethod
    def _hours_can_be_read(cls, text: str) -> str:
        try:
            parse_hours(text)
        except LocalError as error:
            raise ValueError(str(error)) from error
        return text

    def rules(self) -> Rules:
        """The governor's rules that these settings amount to."""
        return Rules(
            when_active=self.when_active,
            idle_ms=int(self.idle_minutes * 60_000),
            on_battery=self.on_battery,
            on_metered=self.on_metered,
            share_gpu=self.share_gpu,
            quiet_programs=frozenset(name.lower() for name in self.quiet_programs),
            max_other_cpu=self.max_other_cpu_percent / 100,
            max_temperature_c=self.max_temperature_c,
            share=self.share_percent / 100,
            min_free_ram_bytes=int(self.keep_free_ram_gib * _GIB),
            min_free_disk_bytes=self.keep_free_bytes,
            hours=parse_hours(self.hours),
            calm_ms=int(self.calm_s * 1000),
        )

    def with_changes(self, changes: Mapping[str, Any]) -> "NodeSettings":
        """These settings but for `changes`. Raises pydantic's ValidationError."""
        return NodeSettings(**{**self.model_dump(), **changes})

    @property
    def max_disk_bytes(self) -> int:
        """Quota of the blob store in bytes; 0 is no limit."""
        return int(self.max_disk_gib * _GIB)

    @property
    def keep_free_bytes(self) -> int:
        return int(self.keep_free_gib * _GIB)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the local page's changes and the file of the home that the first two name."""
        home = {**env_settings(), **init_settings()}.get("home") or default_home()
        toml = TomlConfigSettingsSource(settings_cls, Path(str(home)) / FILE_NAME)
        limits = InitSettingsSource(settings_cls, init_kwargs=read_limits(Path(str(home))))
        return init_settings, env_settings, limits, toml


def load_settings(**flags: object) -> NodeSettings:
    """The settings in force. Flags that are None count as not given. Raises LocalError naming the bad setting."""
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    return explain_settings(lambda: NodeSettings(**given))


def explain_settings(make: Callable[[], NodeSettings]) -> NodeSettings:
    """What `make` gives; what pydantic says of a bad value becomes a LocalError that names setting, value and range."""
    try:
        return make()
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["type"] != _FOLLOWS_FROM_ANOTHER]
        raise LocalError("; ".join(_explain(item) for item in wrong)) from error
    except (SettingsError, ValueError, OSError) as error:
        raise LocalError(f"the settings can't be read: {error}") from error


def _explain(item: Any) -> str:
    name = str(item["loc"][0]) if item["loc"] else "settings"
    field = NodeSettings.model_fields.get(name)
    if field is None:
        known = ", ".join(sorted(NodeSettings.model_fields))
        return f"setting {name!r} does not exist; there are {known}"
    return f"setting {name!r} = {item['input']!r} is not allowed: {field.description}"
