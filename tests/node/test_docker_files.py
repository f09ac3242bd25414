"""The docker files without a Docker engine: what they promise is written in them, and their commands exist."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinoswarm_cli.errors_and_exits import ExitCode
from kinoswarm_coordinator.database import engine_of
from kinoswarm_coordinator.settings import CoordinatorSettings
from kinoswarm_node.settings import NodeSettings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
FILES = ["node.Dockerfile", "coordinator.Dockerfile"]


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, arguments), continuation lines joined."""
    text = (DOCKER / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def commands(name: str) -> list[list[str]]:
    """What the entry point and the health check run."""
    found = [
        arguments[arguments.index("[") :]
        for instruction, arguments in instructions(name)
        if instruction in ("ENTRYPOINT", "HEALTHCHECK")
    ]
    return [json.loads(words) for words in found]


def tool(name: str) -> str:
    """A program beside this Python."""
    return str(Path(sys.executable).with_name(name))


@pytest.mark.skipif(not Path(tool("hadolint")).exists(), reason="hadolint has no wheel here")
@pytest.mark.parametrize("name", FILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    done = subprocess.run([tool("hadolint"), DOCKER / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_follows_the_compose_specification() -> None:
    arguments = ["--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml"]
    done = subprocess.run([tool("check-jsonschema"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", FILES)
def test_an_image_runs_as_nobody_special_and_says_how_it_is(name: str) -> None:
    found = instructions(name)
    kinds = [instruction for instruction, _ in found]
    assert dict(found)["USER"] == "10001:10001"
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert all(kind != "RUN" for kind in kinds[kinds.index("USER") :])
    assert {"HEALTHCHECK", "VOLUME"} <= set(kinds)
    assert re.search(r":[\w.\-]+$", dict(found)["FROM"]), "a base image has a tag"
    assert all(instruction != "ADD" for instruction, _ in found)


@pytest.mark.parametrize("name", FILES)
def test_what_an_image_copies_and_installs_exists(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for instruction, arguments in instructions(name):
        if instruction == "COPY":
            *sources, _ = arguments.split()
            assert all((ROOT / source).exists() for source in sources), arguments
        if instruction == "RUN" and "pip install" in arguments:
            extras_named = re.search(r'"\.\[([\w,]+)\]"', arguments)
            assert extras_named is not None
            assert set(extras_named[1].split(",")) <= set(extras)


def as_the_images_user(name: str) -> list[str]:
    """What to write before a command so that it runs as the image's user and group, without any privilege."""
    user, group = dict(instructions(name))["USER"].split(":")
    words = ["unshare", "--user", f"--map-user={user}", f"--map-group={group}", "--"]
    tried = subprocess.run(
        [*words, sys.executable, "-c", "import os; print(os.getuid(), os.getgid())"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.stdout.split() == [user, group]:
        return words
    if os.getuid() == 0:
        pytest.skip("this kernel lets nobody become another user")
    return []


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
@pytest.mark.parametrize("name", FILES)
def test_every_command_of_an_image_runs_as_its_user_in_a_bare_environment(
    name: str, tmp_path: Path
) -> None:
    before = as_the_images_user(name)
    for program, *words in commands(name):
        assert program == "/opt/venv/bin/kinoswarm"
        here = [word.replace("/swarm", str(tmp_path / "swarm")) for word in words]
        done = subprocess.run(
            [*before, sys.executable, "-m", "kinoswarm_cli.main", *here],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONDONTWRITEBYTECODE": "1",
                "KINOSWARM_NODE_HOME": str(tmp_path / "data"),
            },
        )
        assert done.returncode in (ExitCode.LOCAL, ExitCode.UNREACHABLE), done.stderr
        assert done.stderr.startswith("kinoswarm: "), done.stderr


def test_every_setting_of_the_files_exists() -> None:
    for path in DOCKER.iterdir():
        if not path.is_file():
            continue
        for prefix, settings in (("NODE", NodeSettings), ("COORDINATOR", CoordinatorSettings)):
            for name in re.findall(rf"KINOSWARM_{prefix}_([A-Z_]+)", path.read_text()):
                assert name.lower() in settings.model_fields, f"{path.name}: {name}"


@pytest.fixture
def composition() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def test_every_service_is_hardened_and_built_from_here_or_pinned(
    composition: dict[str, Any],
) -> None:
    for name, service in composition["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        else:
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name} names no version"
    assert "docker.sock" not in (DOCKER / "compose.yaml").read_text()


def test_a_service_needs_and_mounts_only_what_exists(composition: dict[str, Any]) -> None:
    for name, service in composition["services"].items():
        assert set(service.get("depends_on", [])) <= set(composition["services"]), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            made_by_the_operator = source == "./swarm" or source.startswith("./swarm/")
            if not source.startswith("."):
                assert source in composition["volumes"], f"{name}: {source}"
            elif not made_by_the_operator:
                assert (DOCKER / source).is_file(), f"{name}: {source}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"


def test_the_coordinator_keeps_its_log_in_the_database_and_the_password_out_of_the_files(
    composition: dict[str, Any],
) -> None:
    services = composition["services"]
    environment = services["coordinator"]["environment"]
    engine = engine_of(environment["KINOSWARM_COORDINATOR_DATABASE_URL"])
    assert engine.dialect.name == "postgresql"
    assert engine.url.host in services
    assert engine.url.username == services["postgresql"]["environment"]["POSTGRES_USER"]
    assert engine.url.password is None
    for secret in (
        environment["PGPASSWORD"],
        services["postgresql"]["environment"]["POSTGRES_PASSWORD"],
    ):
        assert secret.startswith("${KINOSWARM_DB_PASSWORD:?")
    engine.dispose()


def test_prometheus_asks_the_coordinator_where_it_listens(composition: dict[str, Any]) -> None:
    settings = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    coordinator = composition["services"]["coordinator"]
    address = coordinator["networks"]["swarm"]["ipv4_address"]
    assert target == f"{address}:{CoordinatorSettings.model_fields['http_port'].default}"
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_the_storage_knows_every_option_that_it_is_started_with(
    composition: dict[str, Any],
) -> None:
    program = Path(sys.executable).parent / "weed"
    kind, *options = composition["services"]["storage"]["command"]
    known = subprocess.run([program, "help", kind], capture_output=True, text=True)
    for option in options:
        assert f"\n  {option.partition('=')[0]}" in known.stdout + known.stderr, option


def test_the_coordinators_blobs_lie_in_the_storage_that_is_started_with_its_keys(
    composition: dict[str, Any],
) -> None:
    coordinator = composition["services"]["coordinator"]["environment"]
    storage = composition["services"]["storage"]
    bucket = coordinator["KINOSWARM_COORDINATOR_BLOBS"].split("/")[2]
    assert f"-bucket={bucket}" in storage["command"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert coordinator[name] == storage["environment"][name]
    assert coordinator["AWS_ENDPOINT_URL"] == "http://storage:8333"
    assert "ports" not in storage, "nobody but the coordinator needs it"
