"""What operators may do: by signed requests, once each, with every consequence an event in the log."""

import asyncio
from pathlib import Path

import pytest
from coordinator.small_service import service_over
from coordinator.small_swarm import SmallSwarm, rules, trained, trusted_outcome
from protocol.samples import COORDINATOR, FOUNDER, NODE, SWARM

from kinoswarm_coordinator.admin_door import AdminDoor, ask_coordinator
from kinoswarm_coordinator.administration import administer
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.queries import actions
from kinoswarm_protocol.admin import (
    MAX_AGE_MS,
    AdminAction,
    AdminAnswer,
    AdminRequest,
    BanNode,
    MakeRelease,
    PauseSwarm,
    ResumeSwarm,
    RollBack,
    UnbanNode,
)
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import Lease, NoWork, Refusal

ADMINS = frozenset({COORDINATOR.peer_id})


class Administrated(SmallSwarm):
    """A small swarm with an operator who acts."""

    acted = 0

    def act(self, action: AdminAction, **changed: object) -> AdminAnswer:
        self.acted += 1
        asked = AdminRequest(
            **(
                {"request_id": f"{self.acted:032x}", "at_ms": self.now_ms, "action": action}
                | changed
            )
        )
        result = administer(self.state, self.rules, ADMINS, COORDINATOR.peer_id, asked, self.now_ms)
        self.record(result.events)
        return result.answer


def swarm_with_versions(count: int) -> Administrated:
    swarm = Administrated(rules(1, target_version=50))
    swarm.hello(NODE)
    for _ in range(count):
        swarm.train(NODE)
        swarm.operate()
    assert swarm.state.newest((0, 0)).version == count
    return swarm


def test_only_admins_are_heard_and_each_request_once() -> None:
    swarm = swarm_with_versions(1)
    asked = AdminRequest(request_id="1" * 32, at_ms=swarm.now_ms, action=MakeRelease())
    stranger = administer(swarm.state, swarm.rules, ADMINS, NODE.peer_id, asked, swarm.now_ms)
    assert not stranger.answer.done
    assert stranger.events == []
    assert swarm.act(PauseSwarm(sentence="data is broken"), request_id="2" * 32).done
    again = swarm.act(PauseSwarm(sentence="data is broken"), request_id="2" * 32)
    assert again.sentence == "this request was carried out before"


@pytest.mark.parametrize("off_ms", [-MAX_AGE_MS - 1, MAX_AGE_MS + 1])
def test_an_old_or_future_request_is_worth_nothing(off_ms: int) -> None:
    swarm = swarm_with_versions(0)
    answer = swarm.act(PauseSwarm(sentence="why"), at_ms=swarm.now_ms + off_ms)
    assert not answer.done
    assert "clocks" in answer.sentence


def test_a_paused_swarm_gives_no_training_and_takes_what_is_under_way() -> None:
    swarm = swarm_with_versions(0)
    lease = swarm.leased(NODE)
    assert swarm.act(PauseSwarm(sentence="the data is being mended")).done
    swarm.finish(NODE, lease, trained(lease))
    swarm.operate()
    assert swarm.state.newest((0, 0)).version == 1
    nothing = swarm.pull(NODE)
    assert isinstance(nothing, NoWork)
    assert "the data is being mended" in nothing.sentence
    assert swarm.act(ResumeSwarm()).done
    assert isinstance(swarm.pull(NODE), Lease)
    assert not swarm.act(ResumeSwarm()).done


def test_a_banned_node_gets_nothing_until_the_ban_ends() -> None:
    swarm = swarm_with_versions(0)
    lease = swarm.leased(NODE)
    ban = BanNode(peer=NODE.peer_id, until_ms=swarm.now_ms + 60_000, sentence="copied others")
    assert swarm.act(ban).done
    refused = swarm.submit(NODE, lease, trained(lease)).say
    assert isinstance(refused, Refusal)
    assert "copied others" in refused.sentence
    swarm.now_ms += 59_999
    swarm.expire()
    assert isinstance(swarm.pull(NODE), NoWork)
    swarm.now_ms += 1
    assert isinstance(swarm.pull(NODE), Lease)
    assert swarm.act(UnbanNode(peer=NODE.peer_id)).done


def test_a_rollback_cuts_a_new_version_with_the_old_content() -> None:
    swarm = swarm_with_versions(3)
    old = swarm.state.versions[0, 0][1]
    answer = swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="clips flicker"))
    assert answer.done
    newest = swarm.state.newest((0, 0))
    assert (newest.version, newest.checkpoint) == (4, old.checkpoint)
    assert newest.heldout_loss == old.heldout_loss
    assert newest.momentum is None
    swarm.train(NODE)
    swarm.operate()
    assert swarm.state.newest((0, 0)).version == 5


def test_work_that_rests_on_a_withdrawn_version_is_set_aside_kindly() -> None:
    swarm = swarm_with_versions(2)
    swarm.hello(FOUNDER)
    waiting = swarm.leased(NODE)
    swarm.finish(NODE, waiting, trained(waiting))
    assert swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="poisoned")).done
    verdict = swarm.state.work[LeaseId(waiting.lease_id)].verdict
    assert verdict is not None
    assert (verdict.state, verdict.code) == ("quarantined", "stale_base")
    assert "nothing is wrong with your machine" in verdict.sentence
    assert swarm.state.undecided == set()


def test_a_late_result_on_a_withdrawn_version_is_refused_with_the_reason() -> None:
    swarm = swarm_with_versions(2)
    lease = swarm.leased(NODE)
    assert swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="poisoned")).done
    refused = swarm.submit(NODE, lease, trained(lease)).say
    assert isinstance(refused, Refusal)
    assert refused.code == "stale_base"


def test_a_merge_under_way_cannot_bring_a_withdrawn_version_back() -> None:
    swarm = swarm_with_versions(2)
    swarm.train(NODE)
    evaluation = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluation, trusted_outcome(evaluation))
    merge = swarm.leased(COORDINATOR)
    assert swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="poisoned")).done
    swarm.finish(COORDINATOR, merge, trusted_outcome(merge))
    newest = swarm.state.newest((0, 0))
    assert newest.version == 3
    assert newest.checkpoint == swarm.state.versions[0, 0][1].checkpoint


@pytest.mark.parametrize(("to", "why"), [(3, "choose an older one"), (9, "choose an older one")])
def test_a_rollback_to_what_is_not_older_is_refused(to: int, why: str) -> None:
    swarm = swarm_with_versions(3)
    answer = swarm.act(RollBack(cluster=0, lineage=0, to_version=to, sentence="x"))
    assert not answer.done
    assert why in answer.sentence


def test_a_rollback_to_a_withdrawn_version_or_an_unknown_expert_is_refused() -> None:
    swarm = swarm_with_versions(3)
    assert swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="x")).done
    assert not swarm.act(RollBack(cluster=0, lineage=0, to_version=2, sentence="x")).done
    assert not swarm.act(RollBack(cluster=7, lineage=0, to_version=0, sentence="x")).done


def test_every_action_is_told_to_everybody() -> None:
    swarm = swarm_with_versions(2)
    swarm.act(PauseSwarm(sentence="night"))
    swarm.act(RollBack(cluster=0, lineage=0, to_version=1, sentence="flicker"))
    told = [action.sentence for action in actions(swarm.state)]
    assert told == ["rolled expert 0 back to version 1: flicker", "paused the swarm: night"]


def test_the_door_takes_signed_requests_only(tmp_path: Path) -> None:
    log = MemoryLog()
    log.append(swarm_with_versions(1).history)
    service = service_over(Journal(log), rules(1))
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    path = deep / "admin.sock"

    async def run() -> list[AdminAnswer]:
        door = AdminDoor(service=service, admins=ADMINS, path=path, port=0)
        pause = PauseSwarm(sentence="night")
        async with door.open():
            answers = [
                await ask_coordinator(path, key, SWARM, pause, 1_000_000)
                for key in (COORDINATOR, NODE)
            ]
            answers.append(await door.answer(b"\xc1 no envelope"))
        return answers

    mine, strangers, garbage = asyncio.run(run())
    assert mine.done
    assert not strangers.done
    assert not garbage.done
    assert path.stat().st_mode & 0o077 == 0
    assert service.journal.state.paused == "night"
    assert [type(event).__name__ for event in log.read()][-1] == "AdminActed"


def test_without_a_coordinator_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    asking = ask_coordinator(tmp_path / "admin.sock", NODE, SWARM, MakeRelease(), 0)
    with pytest.raises(LocalError, match="kinoswarm swarm serve"):
        asyncio.run(asking)
