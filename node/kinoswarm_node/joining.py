"""Joining: reach a coordinator, say hello, verify the charter, test this machine. Activities, no decisions."""

import os
from collections.abc import Sequence

from msgspec import structs

from kinoswarm_model.jobs import SelfTestDone, SelfTestJob
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_node import following
from kinoswarm_node import life_events as ev
from kinoswarm_node.account_files import own_delegation
from kinoswarm_node.context import NodeContext, program_version
from kinoswarm_node.home import Home
from kinoswarm_node.swarm_folder import SelfTest
from kinoswarm_protocol.charter import Charter, Licences
from kinoswarm_protocol.errors import (
    BadSignature,
    HashMismatch,
    KinoswarmError,
    LocalError,
    VersionMismatch,
)
from kinoswarm_protocol.messages import Hello, Machine, Welcome
from kinoswarm_protocol.specs import ModeSpec

GREET_EVERY_MS = 10 * 60_000
"""How often a node that is in the swarm asks what is new; a hello is small and changes nothing."""

_SELF_TEST_SEED = 0


async def join(node: NodeContext) -> ev.Event:
    """Reach the swarm. Raises Unreachable or Refused to be retried, any other KinoswarmError when it can't work."""
    await node.network.start()
    await following.recall(node)
    node.client.learn = lambda: _learn(node)
    node.client.set_transports(node.network.transports())
    welcome = await _greet(node)
    await following.hear(node, welcome)
    node.client.set_transports(node.network.transports())
    charter = node.the_charter()
    following.check_version(charter.min_version)
    _check_consent(node, charter)
    threads = node.threads(os.cpu_count() or 1)
    node.self_test = node.folder.self_test(node.settings.device, threads)
    tested = node.self_test is not None
    _tell_fit(node)
    return ev.Joined(
        swarm_name=charter.name, tested=tested, fit=remembered_fit(node), notice=welcome.notice
    )


async def greet_again(node: NodeContext) -> None:
    """Say hello once more now and then, to hear of amendments, and when the account's paper changed.

    The network is met anew before: a laptop that slept or moved has other addresses, which the swarm is told this way.
    Raises what asking raises, and VersionMismatch when an amendment asks for a newer program.
    """
    found = own_delegation(Home(node.settings.home), node.key.peer_id)
    changed = found is not None and found[0] != node.told_delegation
    since_ms = node.now_ms() - node.greeted_at_ms
    if not changed and 0 <= since_ms < GREET_EVERY_MS:  # below 0: the clock was set back
        return
    await node.network.start()
    if await following.hear(node, await _greet(node)):
        node.client.set_transports(node.network.transports())
    following.check_version(node.the_charter().min_version)


async def _learn(node: NodeContext) -> bool:
    found = await following.learn(node)
    if found:
        node.client.set_transports(node.network.transports())
    return found


async def _greet(node: NodeContext) -> Welcome:
    """Say hello, and note for whom this machine counts."""
    found = own_delegation(Home(node.settings.home), node.key.peer_id)
    raw = found[0] if found else None
    welcome = await node.client.ask(_hello(node, raw), Welcome)
    node.told_delegation, node.greeted_at_ms = raw, node.now_ms()
    mine = found is not None and found[1].account == welcome.account
    name = found[1].name if found is not None and mine else ""
    node.board.counts_for(welcome.account or "", name)
    node.board.reachable_at(node.network.addresses(), node.network.reach())
    return welcome


def _hello(node: NodeContext, delegation: bytes | None) -> Hello:
    test = node.self_test
    machine = Machine(
        device=shown_device(node),
        memory_gib=test.memory_bytes / 1024**3 if test else 0.0,
        seconds_per_step=test.seconds_per_step if test else 0.0,
    )
    return Hello(
        pseudonym=node.settings.pseudonym,
        program_version=program_version(),
        machine=machine,
        addresses=node.network.addresses(),
        delegation=delegation,
    )


def shown_device(node: NodeContext) -> str:
    """The machine's device as others see it."""
    return (node.self_test.device_name[:64] if node.self_test else "") or node.settings.device


# --- charter ----------------------------------------------------------------------------------------


def licences_of(licences: Licences) -> dict[str, str]:
    """The licences by what they cover, for showing and for the record of consent."""
    return {
        "data": licences.data,
        "base weights": licences.base_weights,
        "contributions": licences.contributions,
        "release": licences.release,
    }


def _check_consent(node: NodeContext, charter: Charter) -> None:
    """What was agreed to must be what the charter says."""
    consent = node.folder.consent()
    if consent is None:
        raise LocalError("nobody agreed to this swarm's licences yet; run `kinoswarm join` again")
    if consent.licences != licences_of(charter.licences):
        raise LocalError(
            "the charter's licences are not those of the invite that you agreed to; ask for a fresh invite"
        )


# --- self-test ----------------------------------------------------------------------------------


async def test_self(node: NodeContext) -> ev.Event:
    """One known-answer step on this device; the result is remembered, and told to the coordinator."""
    try:
        done = await _run_self_test(node)
    except WorkerDied as error:
        return ev.WorkerDied(sentence=f"The worker ended during the self-test: {error}")
    if node.is_helper and not done.fits:
        return ev.SelfTested(
            seconds_per_step=0.0
        )  # it audits nothing then, and serves all the same
    if not done.ok:
        return ev.Barred(sentence=f"This machine failed its self-test: {done.sentence}")
    node.self_test = SelfTest(
        device=node.settings.device,
        threads=node.threads(os.cpu_count() or 1),
        device_name=done.device_name,
        memory_bytes=done.memory_bytes,
        seconds_per_step=done.seconds_per_step,
        micro_batch=done.micro_batch,
        checkpoint_activations=done.checkpoint_activations,
        modes=done.modes,
    )
    node.folder.keep_self_test(node.self_test)
    _tell_fit(node)
    await _greet(node)
    return ev.SelfTested(seconds_per_step=done.seconds_per_step, fit=remembered_fit(node))


def _tell_fit(node: NodeContext) -> None:
    if node.self_test is not None:
        node.board.fits(fit_in_words(node.self_test, node.the_charter().model.modes))


def fit_in_words(test: SelfTest, modes: Sequence[ModeSpec]) -> str:
    """Which of the charter's modes this machine takes, and which the self-test found too large; empty before one."""
    fitting = [mode for mode in test.modes if mode in modes]
    if not fitting:
        return ""
    rest = [mode.label for mode in modes if mode not in fitting]
    at_once = f", {test.micro_batch} clip(s) at a time" if test.micro_batch else ""
    too_large = f"; {', '.join(rest)} would not fit" if rest else ""
    return f"Trains in mode {fitting[0].label}{at_once}, as the self-test found{too_large}."


def remembered_fit(node: NodeContext) -> ev.Fit:
    """What fits this machine: the volunteer's own choice, else what was found out."""
    test = node.self_test
    if node.settings.micro_batch or test is None:
        return ev.Fit()
    return ev.Fit(micro_batch=test.micro_batch, checkpoint_activations=test.checkpoint_activations)


def remember_fit(node: NodeContext, fit: ev.Fit, batch_size: int) -> None:
    """When a segment of this batch size had to use less memory than the self-test: the next start begins there."""
    before = remembered_fit(node)
    asked = min(before.micro_batch or batch_size, batch_size)
    smaller = 0 < fit.micro_batch < asked
    if node.self_test is None or not (
        smaller or (fit.checkpoint_activations and not before.checkpoint_activations)
    ):
        return
    node.self_test = structs.replace(
        node.self_test,
        micro_batch=fit.micro_batch,
        checkpoint_activations=fit.checkpoint_activations,
    )
    node.folder.keep_self_test(node.self_test)


def leave_mode(node: NodeContext, mode: ModeSpec) -> None:
    """A mode that does not fit after all: the next pull proposes those that come after it, if there are any."""
    test = node.self_test
    known = (test.modes if test else []) or list(node.the_charter().model.modes)
    if test is None or mode not in known[:-1]:
        return
    left = known[known.index(mode) + 1 :]
    node.self_test = structs.replace(test, modes=left)
    node.folder.keep_self_test(node.self_test)
    _tell_fit(node)


async def _run_self_test(node: NodeContext) -> SelfTestDone:
    charter = node.the_charter()
    work_dir = node.folder.worker_dir / "self-test"
    work_dir.mkdir(exist_ok=True)
    job = SelfTestJob(
        job_id="self-test",
        model=charter.model,
        work_dir=str(work_dir),
        device=await node.device(),
        threads=node.threads(os.cpu_count() or 1),
        batch_size=charter.model.recipe.batch_size,
        seed=_SELF_TEST_SEED,
    )
    try:
        done = await node.trainer.run(job, lambda progress: None)
    except WorkerError as error:
        raise LocalError(f"this machine failed its self-test: {error}") from error
    if not isinstance(done, SelfTestDone):
        raise LocalError(f"the worker answered a self-test with {type(done).__name__}")
    return done


def bars_joining(error: KinoswarmError) -> bool:
    """Whether trying again can't help: our own settings, another version, or bytes that are not what they claim."""
    return isinstance(error, LocalError | VersionMismatch | HashMismatch | BadSignature)
