"""Lists in pieces, one node, leaders, history, health: of a small swarm whose every number is known."""

import json
import re
from pathlib import Path

from coordinator.small_swarm import SmallSwarm, rules
from protocol.samples import ACCOUNT, COORDINATOR, FOUNDER, NODE

from kinoswarm_coordinator.credit import ledger_of
from kinoswarm_coordinator.leaders import account_story, leaders
from kinoswarm_coordinator.online_history import EVERY_MS, OnlineAt, OnlineHistory
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.queries import (
    history,
    ledger_piece,
    node_story,
    nodes_piece,
    verdicts_piece,
)
from kinoswarm_coordinator.views import view_of
from kinoswarm_coordinator.web.health import Facts, health_of
from kinoswarm_coordinator.web.metrics import metrics_of
from kinoswarm_coordinator.work_table import HOUR_MS
from kinoswarm_protocol.accounts import delegate, revoke
from kinoswarm_protocol.messages import RevokeMachine

DAY_MS = 86_400_000


def lived() -> SmallSwarm:
    swarm = SmallSwarm(rules(2, target_version=50))
    for key in (NODE, FOUNDER):
        swarm.hello(key)
    for step in range(5):
        swarm.train(NODE if step else FOUNDER)
        swarm.operate(worse=step == 3)
        swarm.now_ms += 60_000
    return swarm


def test_pieces_of_nodes_join_to_the_whole() -> None:
    swarm, found, after = lived(), [], ""
    while after is not None:
        piece = nodes_piece(swarm.state, swarm.rules, Presence(), after, 1, swarm.now_ms)
        found += [node.peer for node in piece.nodes]
        after = piece.next
    assert found == sorted([NODE.peer_id, FOUNDER.peer_id])
    assert COORDINATOR.peer_id not in found


def test_pieces_of_verdicts_join_to_the_whole_even_while_new_ones_come() -> None:
    swarm = lived()
    first = verdicts_piece(swarm.state, None, 2)
    swarm.train(NODE)
    swarm.operate()
    rest = verdicts_piece(swarm.state, first.next, 100)
    seen = [verdict.lease_id for verdict in (*first.verdicts, *rest.verdicts)]
    assert len(seen) == len(set(seen)) == 5
    assert rest.next is None
    times = [verdict.decided_at_ms for verdict in (*first.verdicts, *rest.verdicts)]
    assert times == sorted(times, reverse=True)


def test_a_node_is_told_with_its_sums_and_an_unknown_one_is_not() -> None:
    swarm = lived()
    ledger = ledger_of(swarm.history, 1e9)
    story = node_story(swarm.state, Presence(), ledger, NODE.peer_id, swarm.now_ms)
    assert story is not None
    assert [verdict.state for verdict in story.verdicts].count("rejected") == 1
    assert len(story.verdicts) == 4
    assert story.samples > 0
    assert node_story(swarm.state, Presence(), ledger, "12D3KooWnobody", swarm.now_ms) is None


def test_leaders_are_in_the_order_of_their_accepted_work() -> None:
    swarm = lived()
    best = leaders(swarm.state, swarm.rules, ledger_of(swarm.history, 1e9))
    assert [leader.peer for leader in best] == [NODE.peer_id, FOUNDER.peer_id]
    assert best[0].accepted == 3
    assert best[0].rejected == 1
    assert best[0].flops > best[1].flops


def test_machines_of_one_account_count_together_and_credit_stays_where_it_was_earned() -> None:
    swarm = lived()
    for key in (NODE, FOUNDER):
        swarm.hello(key, delegate(ACCOUNT, key.peer_id, "otters", swarm.now_ms, DAY_MS))
    swarm.train(NODE)
    swarm.operate()
    ledger = ledger_of(swarm.history, 1e9)
    (leader,) = leaders(swarm.state, swarm.rules, ledger)
    assert (leader.peer, leader.pseudonym, leader.machines) == (ACCOUNT.peer_id, "otters", 2)
    assert leader.flops == sum(ledger.by_peer.values())
    assert ledger.entries[-1].account == ACCOUNT.peer_id
    story = account_story(swarm.state, ledger, ACCOUNT.peer_id)
    assert story is not None
    assert [machine.peer for machine in story.machines] == [NODE.peer_id, FOUNDER.peer_id]
    told = node_story(swarm.state, Presence(), ledger, NODE.peer_id, swarm.now_ms)
    assert told is not None
    assert told.account_name == "otters"

    swarm.now_ms += 1
    gone = revoke(ACCOUNT, ACCOUNT.peer_id, NODE.peer_id, swarm.now_ms)
    swarm.ask(NODE, RevokeMachine(revocation=gone))
    swarm.train(NODE)
    swarm.operate()
    ledger = ledger_of(swarm.history, 1e9)
    earned = ledger.by_account[ACCOUNT.peer_id][NODE.peer_id]
    assert earned == swarm.state.leases[ledger.entries[-2].lease_id].order.steps * 1e9
    assert ledger.entries[-1].account == NODE.peer_id
    story = account_story(swarm.state, ledger, ACCOUNT.peer_id)
    assert story is not None
    assert {m.peer: m.counts_now for m in story.machines} == {
        NODE.peer_id: False,
        FOUNDER.peer_id: True,
    }
    assert sum(leader.flops for leader in leaders(swarm.state, swarm.rules, ledger)) == sum(
        ledger.by_peer.values()
    )
    assert account_story(swarm.state, ledger, NODE.peer_id) is None


def test_pieces_of_the_ledger_join_to_the_whole() -> None:
    swarm = lived()
    ledger = ledger_of(swarm.history, 1e9)
    first = ledger_piece(swarm.state, ledger, None, 3)
    rest = ledger_piece(swarm.state, ledger, first.next, 100)
    told = [line.entry for line in (*first.entries, *rest.entries)]
    assert told == ledger.entries[::-1]
    assert first.total_flops == sum(entry.flops for entry in ledger.entries) > 0


def test_history_has_a_span_for_every_minute_then_hour_then_day() -> None:
    swarm = lived()
    young = history(swarm.state, swarm.rules, [], swarm.now_ms)
    assert young.span == "minute"
    assert sum(span.accepted for span in young.throughput) == 4
    assert sum(span.rejected for span in young.throughput) == 1
    steps = {
        b.at_ms - a.at_ms for a, b in zip(young.throughput, young.throughput[1:], strict=False)
    }
    assert steps == {60_000}
    older = history(swarm.state, swarm.rules, [], swarm.now_ms + 30 * HOUR_MS)
    assert older.span == "hour"
    assert 30 <= len(older.throughput) <= 32
    old = history(swarm.state, swarm.rules, [], swarm.now_ms + 2_000 * HOUR_MS)
    assert old.span == "day"
    assert sum(span.accepted for span in old.throughput) == 4


def test_looks_at_presence_stay_bounded_and_spread_over_all_time() -> None:
    kept = OnlineHistory()
    for look in range(10_000):
        kept.note(OnlineAt(at_ms=look * EVERY_MS, online=1, training=0))
    points = kept.points()
    assert len(points) <= 2_000
    assert points[0].at_ms == 0
    assert points[-1].at_ms >= 9_900 * EVERY_MS


def facts(**changed: object) -> Facts:
    return Facts(
        **({"now_ms": 0, "online": 1, "free_disk_bytes": 10**12, "network_up": True} | changed)
    )


def test_health_names_what_is_wrong() -> None:
    swarm = lived()
    assert health_of(swarm.state, facts(now_ms=swarm.now_ms)).state == "good"
    worse = health_of(swarm.state, facts(online=0, free_disk_bytes=10**8, network_up=False))
    assert worse.state == "bad"
    assert {c.name for c in worse.checks if c.state == "bad"} == {
        "coordinator's disk",
        "peer-to-peer network",
    }
    swarm.train(NODE)
    late = health_of(swarm.state, facts(now_ms=swarm.now_ms + 2 * HOUR_MS))
    assert next(c for c in late.checks if c.name == "verdicts due").state == "bad"


def test_metrics_name_the_figures_of_the_page() -> None:
    swarm = lived()
    view = view_of(swarm.state, swarm.rules, Presence(), swarm.now_ms, "", "ab" * 32)
    text = metrics_of(view, health_of(swarm.state, facts())).decode()
    assert f"kinoswarm_samples_trained_total {float(view.samples_trained)}" in text
    assert 'kinoswarm_contributions{state="rejected"} 1.0' in text
    assert f'kinoswarm_expert_version{{cluster="0"}} {float(view.clusters[0].version)}' in text


def test_the_grafana_dashboard_asks_for_metrics_that_there_are() -> None:
    swarm = lived()
    view = view_of(swarm.state, swarm.rules, Presence(), swarm.now_ms, "", "ab" * 32)
    text = metrics_of(view, health_of(swarm.state, facts())).decode()
    board = json.loads(
        (Path(__file__).parents[2] / "docker" / "grafana-dashboard.json").read_text()
    )
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"kinoswarm_\w+", target["expr"])
    }
    assert len(asked) >= 8
    assert all(f"\n{name}" in text for name in asked)
