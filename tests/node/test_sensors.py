"""The real senses against stand-ins of what they ask: NVML, D-Bus services, terminals; and this very machine."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node.message_bus import answer_on_the_bus, session_bus  # noqa: F401  a fixture

from kinoswarm_node.governor import desktop_senses as desktop
from kinoswarm_node.governor import sensors as machine
from kinoswarm_node.governor.gpu_sense import GpuSense, open_gpu_sense
from kinoswarm_node.governor.readings import Reading, in_words
from kinoswarm_node.governor.sensors import MachineSensors


class NvmlError(Exception):
    pass


class ScriptedNvml:
    """The few functions of NVML that are asked, for one card."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, compute: dict[int, int], graphics: dict[int, int]) -> None:
        self.compute, self.graphics = compute, graphics
        self.watts = 450
        self.gib = [24]
        self.permitted = True

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return ["GPU-a", "GPU-b", "GPU-c"].index(uuid)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gib)

    def nvmlDeviceGetName(self, card: int) -> str:
        return "Scripted 4090"

    def nvmlDeviceGetTemperature(self, card: int, kind: int) -> int:
        return 71

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:
        raise NvmlError("not supported")

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:
        return SimpleNamespace(free=5 * 2**30, total=self.gib[card] * 2**30)

    def nvmlDeviceGetComputeRunningProcesses(self, card: int) -> list[Any]:
        return [SimpleNamespace(pid=p, usedGpuMemory=b) for p, b in self.compute.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, card: int) -> list[Any]:
        return [SimpleNamespace(pid=p, usedGpuMemory=b) for p, b in self.graphics.items()]

    def nvmlDeviceGetProcessUtilization(self, card: int, since_us: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, smUtil=40) for pid in self.graphics]

    def nvmlDeviceGetPowerManagementLimit(self, card: int) -> int:
        return self.watts * 1000

    def nvmlDeviceSetPowerManagementLimit(self, card: int, milliwatts: int) -> None:
        if not self.permitted:
            raise NvmlError("Insufficient Permissions")
        self.watts = milliwatts // 1000


PARENT, OWN, UNSEEN = os.getppid(), os.getpid(), 2**22 + 5


def test_other_programs_on_the_card_are_named_and_our_own_are_left_out() -> None:
    card = GpuSense(ScriptedNvml({OWN: 2**30}, {PARENT: 2**29}), 0).read({OWN})
    assert [(user.pid, user.memory_bytes, user.busy) for user in card.others] == [
        (PARENT, 2**29, 0.4)
    ]
    assert card.others[0].name
    assert (card.temperature_c, card.power_w, card.name) == (71.0, None, "Scripted 4090")


def test_a_process_that_cannot_be_seen_counts_only_while_no_worker_of_ours_runs() -> None:
    """In a container NVML names the host's processes: our own worker must not pause itself."""
    sense = GpuSense(ScriptedNvml({UNSEEN: 2**30}, {}), 0)
    assert sense.read({OWN, PARENT}).others == []
    assert [user.pid for user in sense.read({OWN}).others] == [UNSEEN]


def test_a_power_limit_is_set_and_taken_back_or_the_refusal_is_told() -> None:
    nvml = ScriptedNvml({}, {})
    sense = GpuSense(nvml, 0)
    assert (sense.limit_power(0), nvml.watts) == ("", 450), "nothing to take back"
    assert sense.limit_power(220) == "the card's power limit is 220 W"
    assert (sense.limit_power(180), nvml.watts) == ("the card's power limit is 180 W", 180)
    assert (sense.limit_power(0), nvml.watts) == ("the card's power limit is 450 W", 450)
    nvml.permitted = False
    assert "Insufficient Permissions" in sense.limit_power(200)


def test_a_terminal_that_was_just_used_means_somebody_is_there(tmp_path: Path) -> None:
    (tmp_path / "ptmx").touch()
    with pytest.raises(desktop.NotHere):
        desktop.terminal_idle_s(tmp_path)
    for name, used_s in (("0", 500), ("1", 900)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (used_s, used_s))
    assert desktop.terminal_idle_s(tmp_path, now_s=lambda: 1000.0) == 100.0


@pytest.mark.usefixtures("session_bus")
def test_logind_says_since_when_nobody_is_there() -> None:
    login, now_s = "org.freedesktop.login1", 2000.0
    idle = {"IdleHint": ("b", True), "IdleSinceHint": ("t", 1_700_000_000)}

    def ask() -> float:
        return desktop.logind_idle_s("SESSION", lambda: now_s)

    assert answer_on_the_bus(login, idle, ask) == 300.0
    assert answer_on_the_bus(login, {"IdleHint": ("b", False)}, ask) == 0.0


@pytest.mark.usefixtures("session_bus")
def test_gnome_and_kde_say_how_long_nobody_touched_anything() -> None:
    mutter = answer_on_the_bus(
        "org.gnome.Mutter.IdleMonitor", {"GetIdletime": ("t", 4500)}, desktop.mutter_idle_s
    )
    plasma = answer_on_the_bus(
        "org.freedesktop.ScreenSaver",
        {"GetSessionIdleTime": ("u", 7000)},
        desktop.screensaver_idle_s,
    )
    assert (mutter, plasma) == (4.5, 7.0)


@pytest.mark.usefixtures("session_bus")
def test_networkmanager_says_whether_the_connection_is_metered() -> None:
    name = "org.freedesktop.NetworkManager"
    for value, expected in ((1, True), (2, False), (3, True), (4, False)):
        answers = {"Metered": ("u", value)}
        assert answer_on_the_bus(name, answers, lambda: desktop.metered("SESSION")) is expected


@pytest.mark.usefixtures("session_bus")
def test_a_service_that_is_not_there_is_not_here() -> None:
    with pytest.raises(desktop.NotHere):
        desktop.mutter_idle_s()


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    sensors = MachineSensors(tmp_path, "cpu", lambda: True)
    first = sensors.look()
    reading = asyncio.run(sensors.read())
    assert first.other_cpu is None, "there is nothing to compare the first look with"
    assert reading.other_cpu is None or 0.0 <= reading.other_cpu <= 1.0
    assert (reading.gpu, 0 <= reading.minute_of_week < 10080) == (None, True)
    assert reading.disk_free_bytes
    assert reading.programs
    assert "free memory" in in_words(reading)


def test_a_sense_that_breaks_is_only_missing_and_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def broken() -> None:
        asked.append(1)
        raise ZeroDivisionError("a driver's fault")

    monkeypatch.setattr(machine.psutil, "sensors_battery", broken)
    sensors = MachineSensors(tmp_path, "cpu", lambda: False)
    readings = [sensors.look(), sensors.look()]
    assert [reading.on_battery for reading in readings] == [None, None]
    assert all("battery" in reading.blind for reading in readings)
    assert len(asked) == 1


def test_a_sense_that_hangs_leaves_the_last_look_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = MachineSensors(tmp_path, "cpu", lambda: False)
    before = asyncio.run(sensors.read())
    monkeypatch.setattr(machine, "READ_TIMEOUT_S", 0.0)
    assert asyncio.run(sensors.read()) is before
    assert isinstance(before, Reading)


def test_a_battery_that_does_not_say_whether_it_is_plugged_in_pauses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As psutil has it for laptops that hold their charge at 80 %: the status is "Not charging"."""
    holding = SimpleNamespace(percent=80.0, power_plugged=None)
    monkeypatch.setattr(machine.psutil, "sensors_battery", lambda: holding)
    reading = MachineSensors(tmp_path, "cpu", lambda: False).look()
    assert (reading.on_battery, reading.battery_percent) == (None, 80.0)


def test_a_disk_that_is_unplugged_is_a_sense_that_is_missing(tmp_path: Path) -> None:
    reading = MachineSensors(tmp_path / "unplugged", "cpu", lambda: False).look()
    assert reading.disk_free_bytes is None
    assert "free disk" in reading.blind
    assert reading.ram_free_bytes


def test_a_sense_that_hangs_is_not_asked_again_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each look would take one more of the few threads that also find blobs on the disk."""
    asked, answers = [], threading.Event()

    def hanging() -> None:
        asked.append(1)
        answers.wait()

    monkeypatch.setattr(machine.psutil, "sensors_battery", hanging)
    monkeypatch.setattr(machine, "READ_TIMEOUT_S", 0.01)
    sensors = MachineSensors(tmp_path, "cpu", lambda: False)

    async def look_often() -> None:
        for _ in range(5):
            await sensors.read()
        answers.set()

    asyncio.run(look_often())
    assert len(asked) == 1


def test_a_card_that_can_not_say_everything_is_still_watched() -> None:
    nvml = ScriptedNvml({PARENT: 2**29}, {})

    def unsupported(*what: object) -> int:
        raise NvmlError("Not Supported")

    for name in ("Temperature", "MemoryInfo", "GraphicsRunningProcesses", "ProcessUtilization"):
        setattr(nvml, f"nvmlDeviceGet{name}", unsupported)
    card = GpuSense(nvml, 0).read({OWN})
    assert (card.temperature_c, card.memory_free_bytes) == (None, None)
    assert [user.pid for user in card.others] == [PARENT]


@pytest.mark.parametrize(
    ("device", "visible", "card"),
    [
        ("cuda:1", None, 1),
        ("cuda", None, 0),
        ("auto", None, 2),
        ("cuda:0", "1", 1),
        ("cuda:1", "2,0", 0),
        ("auto", "0,1", 1),
        ("cuda:0", "GPU-b", 1),
        ("cuda:3", "0,1", None),
        ("cuda", "", None),
    ],
)
def test_of_several_cards_the_one_that_trains_is_watched(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, card: int | None
) -> None:
    nvml = ScriptedNvml({}, {})
    nvml.gib = [8, 12, 24]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sense = open_gpu_sense(device)
    assert (None if sense is None else sense._card) == card


def test_a_card_that_no_sense_sees_is_a_card_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "open_gpu_sense", lambda device: None)
    for device, found, expected in (
        ("cuda:0", (), True),  # ROCm calls its cards that
        ("xpu", (), True),
        ("auto", ("mps", "cpu"), True),
        ("auto", ("cpu",), False),
        ("auto", (), False),
        ("cpu", ("cuda:0", "cpu"), False),
    ):
        sensors = MachineSensors(tmp_path, device, lambda: False, lambda found=found: found)
        assert sensors.look().on_card is expected, (device, found)
