"""The piece picker as a pure machine: a simulated swarm of good and bad peers on a clock that the test turns."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kinoswarm_network.piece_picker import Fault, PiecePicker, map_of
from kinoswarm_protocol.limits import CHUNKS_IN_FLIGHT

TICK_MS = 10


def all_of(num_chunks: int) -> int:
    return map_of(range(num_chunks), num_chunks)


def begun(num_chunks: int, *peers: str, seed: int = 1) -> PiecePicker:
    picker = PiecePicker(seed)
    for peer in peers:
        picker.add_peer(peer)
    picker.begin(num_chunks, range(num_chunks))
    return picker


def drained(picker: PiecePicker, peer: str, now_ms: int) -> list[int]:
    """Everything that `peer` would be asked for at once."""
    picks = []
    while pick := picker.pick(peer, now_ms):
        picker.sent(peer, pick.index, now_ms)
        picks.append(pick.index)
    return picks


@dataclass
class Actor:
    """A peer of the simulation: what it claims, how fast it is and what it does instead of serving."""

    kind: str
    have: int
    ms_per_chunk: int
    queue: list[int] = field(default_factory=list)
    busy_until_ms: int = 0
    talks: bool = False
    wasted: int = 0


def step(picker: PiecePicker, name: str, actor: Actor, now_ms: int) -> None:
    """One peer at one moment: connect, ask ahead, and let it answer as its kind does."""
    if not actor.talks:
        if name not in picker.ready(now_ms):
            return
        actor.talks, actor.queue = True, []
        picker.has(name, actor.have)
    asked = drained(picker, name, now_ms)
    if asked and not actor.queue:
        actor.busy_until_ms = now_ms + actor.ms_per_chunk
    actor.queue += asked
    if not actor.queue or now_ms < actor.busy_until_ms:
        return
    if actor.kind == "stalls":
        if now_ms >= actor.busy_until_ms + 1_000:
            end(picker, name, actor, Fault.PASSING, now_ms)
        return
    if actor.kind == "lies":
        end(picker, name, actor, Fault.HOSTILE, now_ms)
    elif actor.kind == "breaks" or actor.kind == "claims":
        end(picker, name, actor, Fault.PASSING, now_ms)
    else:
        picker.arrived(name, actor.queue.pop(0), now_ms)
        actor.busy_until_ms = now_ms + actor.ms_per_chunk


def end(picker: PiecePicker, name: str, actor: Actor, fault: Fault, now_ms: int) -> None:
    actor.talks = False
    actor.wasted += fault is Fault.HOSTILE
    assert picker.failed(name, fault, now_ms)


BAD = st.sampled_from(["stalls", "lies", "breaks", "claims"])


@settings(max_examples=60, deadline=None)
@given(
    num_chunks=st.integers(1, 60),
    bad=st.lists(BAD, max_size=5),
    good_from_ms=st.integers(0, 3_000),
    seed=st.integers(0, 2**16),
)
def test_every_chunk_arrives_once_a_good_peer_exists_and_a_liar_costs_one_chunk(
    num_chunks: int, bad: list[str], good_from_ms: int, seed: int
) -> None:
    actors = {f"bad {i}": Actor(kind, all_of(num_chunks), 20) for i, kind in enumerate(bad)}
    picker = begun(num_chunks, *actors, seed=seed)
    now_ms = 0
    while picker.num_missing:
        if now_ms >= good_from_ms and "good" not in actors:
            picker.add_peer("good")
            actors["good"] = Actor("good", all_of(num_chunks), 20)
        for name, actor in actors.items():
            step(picker, name, actor, now_ms)
        now_ms += TICK_MS
        assert now_ms < good_from_ms + 20 * num_chunks + 15_000
    assert all(actor.wasted <= 1 for actor in actors.values())


@settings(max_examples=40, deadline=None)
@given(
    num_chunks=st.integers(1, 80),
    shares=st.lists(st.integers(0, 2**80 - 1), min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
)
def test_partial_peers_that_hold_everything_together_suffice(
    num_chunks: int, shares: list[int], seed: int
) -> None:
    everything = all_of(num_chunks)
    maps = [share & everything for share in shares]
    rest = everything
    for share in maps:
        rest &= ~share
    actors = {f"peer {i}": Actor("good", have, 30) for i, have in enumerate([*maps, rest])}
    picker = begun(num_chunks, *actors, seed=seed)
    now_ms = 0
    while picker.num_missing:
        for name, actor in actors.items():
            step(picker, name, actor, now_ms)
            assert all(actor.have >> index & 1 for index in actor.queue)
            assert len(actor.queue) <= CHUNKS_IN_FLIGHT
        now_ms += TICK_MS
        assert now_ms < 100 * num_chunks + 5_000


def test_what_only_one_peer_holds_is_asked_of_it_first() -> None:
    for seed in range(20):
        picker = begun(40, "source", "a", "b", seed=seed)
        picker.has("source", all_of(40))
        picker.has("a", map_of(range(38), 40))
        picker.has("b", map_of(range(0, 38, 2), 40))
        first = drained(picker, "source", 0)
        assert set(first[:2]) == {38, 39}


def test_nodes_that_fetch_one_blob_begin_with_different_chunks() -> None:
    firsts = set()
    for seed in range(20):
        picker = begun(1_000, "source", seed=seed)
        picker.has("source", all_of(1_000))
        firsts.update(drained(picker, "source", 0))
    assert len(firsts) > 30


def test_an_overdue_chunk_is_asked_of_a_second_peer_and_not_of_a_third() -> None:
    picker = begun(100, "slow", "fast", "third")
    for peer in ("slow", "fast", "third"):
        picker.has(peer, all_of(100))
    stuck = drained(picker, "slow", 0)
    assert not set(stuck) & set(drained(picker, "fast", 0))
    for index in list(range(100)):
        if picker.is_missing(index) and index not in stuck:
            picker.arrived("fast", index, 50)
    late = drained(picker, "fast", 5_000)
    assert set(late) == set(stuck)
    assert drained(picker, "third", 5_000) == []


def test_a_chunk_that_waits_for_our_own_rate_cap_is_never_overdue() -> None:
    picker = begun(1, "one", "other")
    picker.has("one", 1)
    picker.has("other", 1)
    assert picker.pick("one", 0) is not None
    assert picker.pick("other", 60_000) is None
    picker.sent("one", 0, 60_000)
    assert picker.pick("other", 70_000) is not None


def test_a_second_copy_of_a_chunk_is_told_apart() -> None:
    picker = begun(1, "one", "other")
    picker.has("one", 1)
    picker.has("other", 1)
    drained(picker, "one", 0)
    assert drained(picker, "other", 10_000) == [0]
    assert picker.arrived("other", 0, 10_100)
    assert not picker.arrived("one", 0, 10_200)
    assert picker.num_missing == 0


def test_a_peer_that_fails_rests_twice_as_long_each_time_and_comes_back() -> None:
    picker = begun(10, "peer")
    now_ms, rests = 0, []
    for _ in range(4):
        picker.failed("peer", Fault.PASSING, now_ms)
        ready_ms = picker.next_ready_ms()
        assert ready_ms is not None
        rests.append(ready_ms - now_ms)
        assert picker.ready(ready_ms - 1) == []
        assert picker.ready(ready_ms) == ["peer"]
        now_ms = ready_ms
    assert rests == [250, 500, 1_000, 2_000]


def test_a_peer_that_broke_the_rules_is_never_ready_again() -> None:
    picker = begun(10, "peer")
    assert "not asked" in picker.failed("peer", Fault.HOSTILE, 0)
    assert picker.ready(10**9) == []
    assert picker.next_ready_ms() is None
    assert picker.others_are_tried_out(())


def test_good_chunks_earn_patience() -> None:
    picker = begun(200, "peer")
    for index in range(100):
        picker.arrived("peer", index, index)
    for _ in range(8):
        assert not picker.others_are_tried_out(())
        picker.failed("peer", Fault.PASSING, 0)
    picker.failed("peer", Fault.PASSING, 0)
    assert picker.others_are_tried_out(())


def test_the_largest_blobs_can_be_picked_from() -> None:
    num_chunks = 200_000
    picker = begun(num_chunks, "source", "other")
    everything = all_of(num_chunks)
    picker.has("source", everything)
    picker.has("other", map_of(random.Random(1).sample(range(num_chunks), 1_000), num_chunks))
    for _ in range(100):
        for index in drained(picker, "source", 0):
            assert picker.arrived("source", index, 1)
        picker.left("source")
        picker.has("source", everything)
    assert picker.num_missing == num_chunks - 2 - 99 * CHUNKS_IN_FLIGHT
