"""The node's daemon: a thin asyncio shell around life_cycle.step. Owns the loop, the tasks and the way out.

One activity runs at a time. It ends in an event; the event is decided on; the decision names the next activity.
"""

import asyncio
import contextlib
import errno
import secrets
import signal
from collections.abc import Awaitable, Callable

import structlog

from kinoswarm_network import signals
from kinoswarm_node import following, joining, keeping, pulling, segment_work, sending, witnessing
from kinoswarm_node import life_events as ev
from kinoswarm_node.context import NodeContext, program_version
from kinoswarm_node.governor.decide import Decision
from kinoswarm_node.life_cycle import step
from kinoswarm_node.life_state import NodeState, Phase
from kinoswarm_node.page.server import serving_page
from kinoswarm_node.pulling import segment_of
from kinoswarm_node.wishes import watch_wishes
from kinoswarm_protocol.errors import (
    KinoswarmError,
    LocalError,
    Refused,
    RemoteError,
    VersionMismatch,
)
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.records import NodeRecord

STOP_TIMEOUT_S = 15.0
"""For ending the worker and the network process; what still lives then is killed by its supervisor."""

IDLE_WORKER_MS = 15_000
"""A worker that has nothing to do for this long is ended: it holds memory, and starts again in less time."""

_log = structlog.get_logger("daemon")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""A disk that was taken away, remounted after an error, or is failing: waiting may help, and a restart would not."""


class Daemon:
    """Runs one node until it is asked to stop, is done, or can't go on."""

    def __init__(self, node: NodeContext, *, once: bool = False) -> None:
        self.node = node
        self.state = NodeState(once=once, since_ms=node.now_ms())
        self.error: KinoswarmError | None = None
        """What barred the node from joining, for the exit code."""
        self.interrupted = False
        """Whether a person pressed Ctrl-C."""
        self._events: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._activity: asyncio.Task[None] | None = None
        self._seed = secrets.randbits(32)
        self._power = ""
        """What became of the power limit."""

    def post(self, event: ev.Event) -> None:
        """Tell the daemon that something happened."""
        self._events.put_nowait(event)

    async def run(self) -> NodeState:
        """Live until stopped; returns the last state, whose `fault` says why when it was not by wish."""
        self.node.wishes.forget_leaving()
        self._power = self.node.governor.sensors.limit_power(self.node.settings.power_limit_w)
        self.post(await _started(self.node))
        self._governed(*await self.node.governor.look())
        try:
            with signals.listening(self._stop):
                async with serving_page(self.node):
                    await self._live()
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            self.node.governor.sensors.limit_power(0)
            await self._leave()
        return self.state

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(sending.watch_verdicts(self.node, self.post)),
                tasks.create_task(self._announce()),
                tasks.create_task(self._keep_alive()),
                tasks.create_task(watch_wishes(self.node.wishes, self.post, self.node.now_ms)),
                tasks.create_task(self.node.governor.watch(self._governed)),
            ]
            while self.state.phase is not Phase.STOPPED:
                await self._decide(await self._events.get(), tasks)
            for watcher in watchers:
                watcher.cancel()

    async def _decide(self, event: ev.Event, tasks: asyncio.TaskGroup) -> None:
        decided = step(self.state, event, self.node.now_ms(), self._seed)
        if decided.state == self.state and not decided.effects:
            return
        begun = [effect for effect in decided.effects if not isinstance(effect, ev.EndWorker)]
        lasting = bool(begun) or decided.state.phase is not self.state.phase
        self.state = decided.state
        for effect in decided.effects:
            if isinstance(effect, ev.DropWork):
                await self._drop(effect)
            elif isinstance(effect, ev.EndWorker):
                await _bounded(self.node.trainer.stop)
            else:
                await self._end_activity()
                self._activity = tasks.create_task(self._carry_out(effect))
        self.node.board.state_changed(self.state, decided.reason, self.node.folder, lasting)

    async def _drop(self, effect: ev.DropWork) -> None:
        try:
            await sending.drop(self.node, effect.lease_id, effect.sentence)
        except LocalError as error:
            self.post(ev.LocalTrouble(sentence=str(error)))
        except OSError as error:
            self.post(_disk_trouble(error))

    async def _end_activity(self) -> None:
        activity, self._activity = self._activity, None
        if activity is not None and not activity.done():
            activity.cancel()
            await asyncio.wait({activity}, timeout=STOP_TIMEOUT_S)

    async def _carry_out(self, activity: ev.Activity) -> None:
        """Do it; whatever comes of it is an event. Only a bug of ours gets past this."""
        try:
            await self._wait(activity.delay_ms)
            event = await self._do(activity)
        except Refused as error:
            event = ev.RefusalCame(code=error.code, sentence=str(error))
        except KinoswarmError as error:
            event = self._trouble(activity, error)
        except OSError as error:
            event = _disk_trouble(error)
        self.post(event)

    async def _wait(self, delay_ms: int) -> None:
        """A worker that will have nothing to do for long is ended at once; a verdict may come at any moment."""
        if delay_ms >= IDLE_WORKER_MS:
            if self.state.phase is Phase.WAITING_VERDICT:
                await asyncio.sleep(IDLE_WORKER_MS / 1000)
                delay_ms -= IDLE_WORKER_MS
            await self.node.trainer.stop()
        await asyncio.sleep(delay_ms / 1000)

    def _trouble(self, activity: ev.Activity, error: KinoswarmError) -> ev.Event:
        if joining.bars_joining(error) and isinstance(activity, ev.Join | ev.TestSelf):
            self.error = error
            return ev.Barred(sentence=str(error))
        if isinstance(error, LocalError):
            return ev.LocalTrouble(sentence=str(error))
        return ev.LostTouch(sentence=str(error))

    async def _do(self, activity: ev.Activity) -> ev.Event:
        node = self.node
        match activity:
            case ev.Join():
                return await joining.join(node)
            case ev.TestSelf():
                return await joining.test_self(node)
            case ev.AskGoOn(segment=segment):
                return await pulling.ask_go_on(node, segment)
            case ev.Pull():
                return await pulling.pull(node)
            case ev.Fetch(segment=segment):
                return await segment_work.fetch(node, segment)
            case ev.Train(segment=segment, fit=fit):
                return await segment_work.train(node, segment, fit)
            case ev.GiveUp(segment=segment, code=code, sentence=sentence):
                return await segment_work.give_up(node, segment, code, sentence)
            case ev.Submit(lease_id=lease_id):
                return await sending.submit(node, lease_id, self.post)
            case ev.Hold():
                return ev.WaitOver()
            case ev.Leave():
                return await self._leave()

    async def _leave(self) -> ev.Event:
        """End the children; each has its own bound, neither may keep the other from it, and twice does no harm."""
        await _bounded(self.node.trainer.stop)
        await _bounded(self.node.network.stop)
        return ev.Left()

    def _governed(self, decision: Decision, news: bool) -> None:
        """The governor looked. A share is the worker's at once; a pause or its end is decided on as an event."""
        node = self.node
        confined = [*node.trainer.confined, *([self._power] if self._power else [])]
        node.board.governed(decision, node.governor.reading, confined)
        if not news:
            return
        paused = decision.allowance == "pause"
        if not paused:
            self.node.trainer.limit(decision.share)
        self.post(ev.Governed(sentence=decision.reason if paused else ""))

    async def _announce(self) -> None:
        """Tell the DHT what this node does; a DHT that is away only means a longer pause."""
        node = self.node
        while True:
            await asyncio.sleep(node.settings.announce_every_s)
            if not self.state.joined:
                continue
            blobs = [
                *keeping.held_tables(node),
                *following.served_chains(node),
            ]
            with contextlib.suppress(KinoswarmError):
                await node.network.announce(self._node_record(), blobs)
                node.board.reachable_at(node.network.addresses(), node.network.reach())
            await self._stay_in_touch()

    async def _stay_in_touch(self) -> None:
        """Hear of amendments; one that asks for a newer program ends this node, and says so."""
        try:
            await joining.greet_again(self.node)
        except VersionMismatch as error:
            self.error = error
            self.post(ev.StopAsked(sentence=str(error)))
        except (KinoswarmError, OSError) as error:
            # A coordinator that is away, or a disk that fails, is told by whatever else needs it.
            _log.info("not greeted", why=str(error))

    async def _keep_alive(self) -> None:
        """Hold what the swarm needs when its coordinator is gone; a failure only means the next time."""
        node = self.node
        while True:
            await asyncio.sleep(node.settings.keep_every_s)
            if not self.state.joined:
                continue
            try:
                await keeping.keep_alive(node)
                await witnessing.witness(node)
            except (KinoswarmError, OSError) as error:
                # A disk that fails is told by whatever trains.
                _log.info("not everything is kept", why=str(error))

    def _node_record(self) -> NodeRecord:
        """What anybody may see of this node; never an address."""
        node = self.node
        return NodeRecord(
            pseudonym=node.settings.pseudonym,
            device=joining.shown_device(node),
            state=self.state.phase.value,
            cluster=self.state.segment.cluster if self.state.segment else None,
            program_version=program_version(),
        )

    def _stop(self, number: signal.Signals) -> None:
        """Ctrl-C and SIGTERM become events, so that everything is saved and ended on the way out."""
        by_person = number is signal.SIGINT
        self.interrupted = self.interrupted or by_person
        who = "you asked with Ctrl-C" if by_person else "the system asked"
        self.post(ev.StopAsked(sentence=f"stopping, as {who}"))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the task group; the others were only cancelled with it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _disk_trouble(error: OSError) -> ev.LocalTrouble:
    """What a person is told about a disk. Any other error of the system is ours: it is raised."""
    if error.errno in _FULL:
        return ev.LocalTrouble(sentence=f"no space left on the disk ({error.filename})")
    if error.errno in _UNWRITABLE:
        return ev.LocalTrouble(
            sentence=f"{error.filename} can't be written ({error.strerror}); check the disk and its permissions"
        )
    raise error


async def _bounded(stop: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(TimeoutError, RemoteError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await stop()


async def _started(node: NodeContext) -> ev.Started:
    """What an earlier life left on disk."""
    leases = sorted(node.folder.open_leases(), key=lambda opened: opened.body.issued_at_ms)
    for old in leases[:-1]:
        await sending.drop(node, LeaseId(old.body.lease_id), "a newer lease was found beside it")
    unsent = node.folder.unsent_ids()
    return ev.Started(
        open_segment=segment_of(node, leases[-1].body) if leases else None,
        unsent=unsent[0] if unsent else None,
        pending=frozenset(node.folder.pending_ids()),
    )
