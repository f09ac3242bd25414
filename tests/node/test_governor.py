"""The governor's decision as a table, its calm, and that it never flaps whatever the sensors say."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kinoswarm_node.governor.decide import (
    CPU_SURE_MS,
    HEAT_STEP_MS,
    Decision,
    GovernorState,
    decide,
)
from kinoswarm_node.governor.hours import parse_hours
from kinoswarm_node.governor.readings import GpuReading, GpuUser, Reading
from kinoswarm_node.governor.rules import Rules
from kinoswarm_node.settings import NodeSettings
from kinoswarm_protocol.errors import LocalError

GPU = GpuReading(name="Test GPU", temperature_c=60.0)
CALM = Reading(minute_of_week=0, gpu=GPU, idle_s=3600.0)
PROCESSOR = structs.replace(CALM, gpu=None)
RULES = Rules()
GAME = GpuUser(pid=7, name="game", memory_bytes=2**30, busy=0.9)


def with_gpu(**changes: object) -> Reading:
    return structs.replace(CALM, gpu=structs.replace(GPU, **changes))


def seen(reading: Reading, **changes: object) -> Reading:
    return structs.replace(reading, **changes)


def after(looks: Sequence[tuple[int, Reading]], rules: Rules = RULES) -> list[Decision]:
    """The decisions of looks at given milliseconds."""
    state, decisions = GovernorState(), []
    for now_ms, reading in looks:
        decisions.append(decide(state, reading, rules, now_ms))
        state = decisions[-1].state
    return decisions


def last(reading: Reading, rules: Rules = RULES) -> Decision:
    """What is decided when the machine has looked like this for a minute."""
    return after([(second * 1000, reading) for second in range(60)], rules)[-1]


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (seen(CALM, on_battery=True, battery_percent=71.0), "battery (71 %)"),
        (seen(CALM, idle_s=20.0), "goes on in 3 min if nobody touches it"),
        (seen(CALM, fullscreen=True), "fills the screen"),
        (with_gpu(others=[GAME]), "game uses the graphics card (1.0 GiB"),
        (with_gpu(others=[structs.replace(GAME, busy=0.0)]), "game uses the graphics card"),
        (with_gpu(others=[structs.replace(GAME, memory_bytes=1)]), "game uses the graphics card"),
        (with_gpu(others=[structs.replace(GAME, name="Xorg")]), "Xorg uses the graphics card"),
        (with_gpu(temperature_c=94.0), "94 °C, far above your ceiling of 83 °C"),
        (seen(CALM, metered=True), "metered"),
        (seen(CALM, other_cpu=0.8), "other programs use 80% of the processor"),
        (seen(PROCESSOR, other_cpu=0.8), "other programs use 80% of the processor"),
    ],
)
def test_every_cause_pauses_with_its_sentence(reading: Reading, words: str) -> None:
    decision = last(reading)
    assert (decision.allowance, decision.share) == ("pause", 0.0)
    assert words in decision.reason
    assert decision.rule in NodeSettings.model_fields, "the volunteer can look it up"


@pytest.mark.parametrize(
    ("reading", "rules"),
    [
        (CALM, RULES),
        (seen(CALM, idle_s=None), RULES),
        (seen(PROCESSOR, idle_s=1.0), RULES),
        (seen(PROCESSOR, fullscreen=True), RULES),
        (seen(CALM, on_battery=True), Rules(on_battery=True)),
        (seen(CALM, idle_s=1.0), Rules(when_active="yes")),
        (with_gpu(others=[GAME]), Rules(share_gpu=True)),
        (with_gpu(others=[GpuUser(pid=1, name="gnome-shell", memory_bytes=2**31)]), RULES),
        (seen(CALM, metered=True), Rules(on_metered=True)),
        (seen(CALM, other_cpu=1.0), Rules(max_other_cpu=0.0)),
        (with_gpu(temperature_c=99.0), Rules(max_temperature_c=0.0)),
        (Reading(minute_of_week=0), RULES),
    ],
)
def test_what_the_rules_allow_or_cannot_see_runs(reading: Reading, rules: Rules) -> None:
    assert last(reading, rules).allowance == "run"


def test_a_volunteer_may_forbid_a_processor_to_work_while_it_is_used() -> None:
    assert last(seen(PROCESSOR, idle_s=1.0), Rules(when_active="no")).allowance == "pause"


def test_a_listed_program_has_the_machine_for_itself() -> None:
    rules = Rules(quiet_programs=frozenset({"blender"}))
    assert "blender runs" in last(seen(CALM, programs=frozenset({"blender", "sh"})), rules).reason
    assert last(seen(CALM, programs=frozenset({"sh"})), rules).allowance == "run"


def test_disk_and_memory_that_run_out_pause() -> None:
    rules = Rules(min_free_disk_bytes=2**30, min_free_ram_bytes=2**30)
    assert "of disk are free" in last(seen(CALM, disk_free_bytes=2**29), rules).reason
    assert "of memory are free" in last(seen(CALM, ram_free_bytes=2**29), rules).reason


def test_a_cause_counts_in_the_very_look_that_sees_it() -> None:
    first, second = after([(0, CALM), (1000, with_gpu(others=[GAME]))])
    assert (first.allowance, second.allowance) == ("run", "pause")


def test_a_short_load_of_the_processor_is_no_reason_to_end_the_worker() -> None:
    busy = seen(CALM, other_cpu=0.9)
    assert after([(0, busy), (CPU_SURE_MS - 1, busy)])[-1].allowance == "run"
    assert after([(0, busy), (CPU_SURE_MS, busy)])[-1].allowance == "pause"


def test_work_goes_on_only_when_the_cause_has_been_gone_for_its_calm_time() -> None:
    game, calm_ms = with_gpu(others=[GAME]), RULES.calm_ms
    decisions = after([(0, game), (1000, CALM), (calm_ms - 1, CALM), (calm_ms, CALM)])
    assert [d.allowance for d in decisions] == ["pause", "pause", "pause", "run"]
    assert "going on in 59 s if it stays so" in decisions[1].reason


def test_the_reason_names_the_idle_time_that_is_left() -> None:
    assert "goes on in 160 s" not in last(CALM).reason
    assert "goes on in 3 min" in last(seen(CALM, idle_s=20.0)).reason
    assert "goes on in 80 s" in last(seen(CALM, idle_s=100.0)).reason


def test_idle_minutes_need_no_calm_after_them() -> None:
    looks = [(0, seen(CALM, idle_s=1.0)), (180_000, seen(CALM, idle_s=180.0))]
    assert [d.allowance for d in after(looks)] == ["pause", "run"]


def test_heat_slows_down_step_by_step_and_speeds_up_again() -> None:
    hot, cool = with_gpu(temperature_c=88.0), with_gpu(temperature_c=60.0)
    heating = after([(step * HEAT_STEP_MS, hot) for step in range(20)])
    shares = [d.share for d in heating]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], round(shares[1], 4), shares[-1]) == (0.75, 0.5625, 0.1)
    assert "88 °C, your ceiling is 83 °C" in heating[-1].reason
    both = after([(s * HEAT_STEP_MS, hot if s < 5 else cool) for s in range(20)])
    assert both[-1].share == 1.0


def test_within_the_margin_of_the_ceiling_the_share_stays() -> None:
    looks = [(0, with_gpu(temperature_c=88.0))]
    looks += [(s * HEAT_STEP_MS, with_gpu(temperature_c=80.0)) for s in range(1, 20)]
    assert {d.share for d in after(looks)} == {0.75}


def test_a_share_that_the_volunteer_set_is_kept_and_said() -> None:
    decision = last(CALM, Rules(share=0.3))
    assert (decision.allowance, decision.share) == ("throttle", 0.3)
    assert decision.reason == "Slowed to 30%, as you set."


READINGS = st.builds(
    Reading,
    minute_of_week=st.integers(0, 10079),
    gpu=st.none()
    | st.builds(
        GpuReading,
        name=st.just("GPU"),
        others=st.just(()) | st.just((GAME,)),
        temperature_c=st.none() | st.floats(20, 110),
    ),
    idle_s=st.none() | st.just(3600.0),
    fullscreen=st.none() | st.booleans(),
    on_battery=st.none() | st.booleans(),
    other_cpu=st.none() | st.floats(0, 1),
    metered=st.none() | st.booleans(),
)


@given(st.lists(READINGS, min_size=2, max_size=200))
def test_whatever_the_sensors_say_a_pause_lasts_at_least_its_calm_time(
    readings: list[Reading],
) -> None:
    decisions = after([(second * 1000, reading) for second, reading in enumerate(readings)])
    starts = [n for n in range(1, len(decisions)) if _began(decisions, n, "pause")]
    ends = [n for n in range(1, len(decisions)) if _ended(decisions, n, "pause")]
    for start in starts:
        end = next((end for end in ends if end > start), None)
        assert end is None or (end - start) * 1000 >= RULES.calm_ms


@given(st.lists(st.tuples(st.integers(-(10**12), 10**12), READINGS), max_size=40))
def test_a_clock_that_jumps_never_crashes_it_nor_pauses_for_ever(
    looks: list[tuple[int, Reading]],
) -> None:
    decisions = after(looks)
    assert all(0.0 <= d.share <= 1.0 and d.reason[-1] == "." for d in decisions)
    state = decisions[-1].state if decisions else GovernorState()
    for second in range(RULES.calm_ms // 1000 + 2):
        state = decide(state, CALM, RULES, second * 1000).state
    assert decide(state, CALM, RULES, RULES.calm_ms + 2000).allowance != "pause"


def _began(decisions: list[Decision], n: int, what: str) -> bool:
    return decisions[n].allowance == what and decisions[n - 1].allowance != what


def _ended(decisions: list[Decision], n: int, what: str) -> bool:
    return decisions[n].allowance != what and decisions[n - 1].allowance == what


# --- hours --------------------------------------------------------------------------------------

MONDAY, SATURDAY = 0, 5 * 1440


@pytest.mark.parametrize(
    ("text", "open_at", "closed_at"),
    [
        ("22:00-07:00", [MONDAY + 60, MONDAY + 23 * 60], [MONDAY + 12 * 60, MONDAY + 7 * 60]),
        ("sat,sun", [SATURDAY, SATURDAY + 1440 + 60], [MONDAY, SATURDAY - 1]),
        ("mon-fri 18:00-24:00 sat 09:00-10:00", [18 * 60, SATURDAY + 540], [SATURDAY, 17 * 60]),
        ("sun 23:00-01:00", [6 * 1440 + 1430, 30], [90, 6 * 1440 + 60]),
    ],
)
def test_hours_open_and_close(text: str, open_at: list[int], closed_at: list[int]) -> None:
    rules = Rules(hours=parse_hours(text))
    for minute in open_at:
        assert last(seen(CALM, minute_of_week=minute), rules).allowance == "run", minute
    for minute in closed_at:
        assert last(seen(CALM, minute_of_week=minute), rules).allowance == "pause", minute


def test_the_reason_names_the_time_at_which_hours_open() -> None:
    rules = Rules(hours=parse_hours("22:00-07:00"))
    assert "it goes on at 22:00" in last(seen(CALM, minute_of_week=720), rules).reason


@pytest.mark.parametrize("text", ["25:00-26:00", "12:70-13:00", "always", "mon 9-17", "x" * 501])
def test_hours_that_cannot_be_read_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(LocalError, match="hours"):
        parse_hours(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        spans = parse_hours(text)
    except LocalError:
        return
    assert all(0 <= start < stop <= 10080 for start, stop in spans)


def test_a_card_that_can_not_be_seen_has_the_rules_of_a_card() -> None:
    """NVML may fail for a minute, and there is none for AMD's and Apple's: the game is played all the same."""
    unseen = structs.replace(PROCESSOR, on_card=True, cpu_temperature_c=99.0)
    assert decide(GovernorState(), unseen, Rules(), 0).allowance == "run"
    for used in (structs.replace(unseen, idle_s=1.0), structs.replace(unseen, fullscreen=True)):
        assert decide(GovernorState(), used, Rules(), 0).allowance == "pause"
