"""The queue of visitors' wishes: in order, bounded, and honest about places."""

from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_coordinator.try_queue import TryQueue, TryRules, Turned, Wish


def queue(waiting: int = 3, per_client: int = 1, kept: int = 2) -> TryQueue:
    return TryQueue(rules=TryRules(max_waiting=waiting, max_per_client=per_client, kept=kept))


def wish(name: str) -> Wish:
    return Wish(wish_id=name, prompt="a hall", seed=1, release=1, asked_at_ms=0)


def test_wishes_are_served_in_the_order_in_which_they_came() -> None:
    line = queue()
    for name in "abc":
        assert line.ask(wish(name), client=name) is None
    assert [line.get(name).position for name in "abc"] == [0, 1, 2]
    assert line.begin().wish_id == "a"
    assert [line.get(name).position for name in "bc"] == [1, 2]
    line.finish("a")
    assert line.begin().wish_id == "b"
    assert line.get("c").position == 1


def test_a_full_queue_turns_people_away_until_somebody_is_served() -> None:
    line = queue(waiting=2)
    line.ask(wish("a"), "1")
    line.ask(wish("b"), "2")
    turned = line.ask(wish("c"), "3")
    assert isinstance(turned, Turned)
    assert turned.retry_after_s > 0
    line.begin()
    assert line.ask(wish("c"), "3") is None


def test_one_visitor_has_one_wish_at_a_time() -> None:
    line = queue()
    line.ask(wish("a"), "same")
    assert isinstance(line.ask(wish("b"), "same"), Turned)
    line.begin()
    assert isinstance(line.ask(wish("b"), "same"), Turned)
    line.finish("a", "the worker died")
    assert line.get("a").sentence == "the worker died"
    assert line.ask(wish("b"), "same") is None


def test_steps_begin_anew_after_a_worker_that_died() -> None:
    line = queue()
    line.ask(wish("a"), "1")
    line.begin()
    for step, expert in enumerate([2, 0, 1], start=1):
        line.step("a", step, 5, expert)
    assert line.get("a").expert_by_step == [2, 0, 1]
    line.step("a", 1, 5, 3)
    assert line.get("a").expert_by_step == [3]
    assert (line.get("a").step, line.get("a").total) == (1, 5)


@given(st.lists(st.sampled_from(["ask", "begin", "finish", "fail"]), max_size=60))
def test_nothing_grows_without_bound_whatever_visitors_do(moves: list[str]) -> None:
    line = queue(waiting=3, per_client=2, kept=2)
    running: list[str] = []
    for number, move in enumerate(moves):
        if move == "ask":
            line.ask(wish(str(number)), client=str(number % 3))
        elif move == "begin":
            begun = line.begin()
            running += [begun.wish_id] if begun else []
        elif running:
            line.finish(running.pop(0), "no" if move == "fail" else "")
    left = [line.get(str(number)) for number in range(len(moves))]
    phases = [found.phase for found in left if found]
    assert phases.count("waiting") <= 3
    assert phases.count("done") + phases.count("failed") <= 2
    assert all(line.get(name) is None for name in line.forgotten)
