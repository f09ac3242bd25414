"""Settings: flags over environment over file; a bad value names the setting, the value and what is allowed."""

from pathlib import Path

import pytest

from kinoswarm_node.settings import NodeSettings, default_home, load_settings
from kinoswarm_protocol.errors import LocalError


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text('threads = 2\npseudonym = "file"\nmicro_batch = 3\n')
    monkeypatch.setenv("KINOSWARM_NODE_PSEUDONYM", "environment")
    monkeypatch.setenv("KINOSWARM_NODE_MICRO_BATCH", "5")
    found = load_settings(home=tmp_path, micro_batch=7, pseudonym=None)
    assert (found.threads, found.pseudonym, found.micro_batch) == (2, "environment", 7)


def test_the_file_is_looked_for_in_the_home_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text("threads = 3\n")
    monkeypatch.setenv("KINOSWARM_NODE_HOME", str(tmp_path))
    assert load_settings().threads == 3


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("threads", -1, "1 to 1024"),
        ("micro_batch", "many", "1 to 65536"),
        ("device", "gpu9", "auto, cpu, cuda"),
        ("pseudonym", "<b>", "letters, digits"),
        ("resume_every_s", 0, "1 to 86400"),
        ("max_disk_gib", -3, "0 is no limit"),
        ("announce_every_s", 900, "5 to 80"),
    ],
)
def test_a_bad_value_names_the_setting_the_value_and_what_is_allowed(
    tmp_path: Path, name: str, value: object, allowed: str
) -> None:
    with pytest.raises(LocalError) as caught:
        load_settings(home=tmp_path, **{name: value})
    message = str(caught.value)
    assert f"setting '{name}' = {value!r} is not allowed" in message
    assert allowed in message


def test_a_bad_value_is_told_alone(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        load_settings(home=tmp_path, threads=-1)
    assert str(caught.value) == (
        "setting 'threads' = -1 is not allowed: CPU threads of the worker, 1 to 1024; 0 takes half of the cores."
    )


def test_an_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("thread = 2\n")
    with pytest.raises(LocalError, match=r"setting 'thread' does not exist; there are .*threads"):
        load_settings(home=tmp_path)


def test_a_broken_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("threads = = 2\n")
    with pytest.raises(LocalError, match="can't be read"):
        load_settings(home=tmp_path)


def test_every_setting_is_described() -> None:
    for name, field in NodeSettings.model_fields.items():
        assert field.description, name
        assert field.description[-1] == ".", name


def test_the_home_has_a_default() -> None:
    assert default_home().name == "kinoswarm"
    assert default_home().is_absolute()
