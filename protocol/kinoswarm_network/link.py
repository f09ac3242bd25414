"""One socket on which either side may call the other. Owns matching answers to calls; knows no call's meaning."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from kinoswarm_network.ipc import Body
from kinoswarm_network.ipc_frames import (
    Answer,
    Call,
    Cancel,
    Failed,
    Frame,
    Progress,
    error_of,
    failure,
    pack,
    unpack,
)
from kinoswarm_protocol.codec import decode, encode, frame, frame_length
from kinoswarm_protocol.errors import KinoswarmError, LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.limits import MAX_IPC_FRAME

OnProgress = Callable[[int, int], None]
"""(bytes done, bytes in all)."""

Handler = Callable[[Body, OnProgress], Awaitable[Body]]
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Link:
    """A duplex of calls. `serve` must run for answers to arrive; it returns when the other side is gone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        other_side: str,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._other_side = other_side
        self._next_call = 0
        self._waiting: dict[int, tuple[asyncio.Future[Body], OnProgress | None]] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._closed = False

    async def call(
        self,
        body: Body,
        expected: type[T],
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
    ) -> T:
        """The other side's answer to `body`.

        Raises what the other side raised; LocalError when it is gone or takes longer than `timeout_s` (None: as long
        as it wants, for calls whose other side has its own timeouts).
        """
        if self._closed:
            raise self._gone()
        call, self._next_call = self._next_call, self._next_call + 1
        future: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self._waiting[call] = (future, on_progress)
        try:
            await self._send(Call(call=call, body=pack(body)))
            # not wait_for, which loses a cancellation that meets the answer (github.com/python/cpython/issues/86296)
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError:
            await self._send(Cancel(call=call))
            raise LocalError(
                f"{self._other_side} did not answer {type(body).__name__} within {timeout_s:g} s"
            ) from None
        except asyncio.CancelledError:
            self._write(Cancel(call=call))
            raise
        finally:
            del self._waiting[call]
        if not isinstance(answer, expected):
            raise MalformedBytes(f"{type(body).__name__} was answered by {type(answer).__name__}")
        return answer

    async def serve(self) -> None:
        """Take frames until the other side closes. Raises RemoteError when it sends what is no frame."""
        try:
            while (received := await self._receive()) is not None:
                self._dispatch(received)
        finally:
            await self._wind_up()

    async def _receive(self) -> Frame | None:
        try:
            prefix = await self._reader.readexactly(4)
            raw = await self._reader.readexactly(frame_length(prefix, MAX_IPC_FRAME))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return decode(raw, cast("type[Frame]", Frame), MAX_IPC_FRAME)

    def _dispatch(self, received: Frame) -> None:
        match received:
            case Call():
                task = asyncio.create_task(self._serve_call(received))
                self._serving[received.call] = task
                task.add_done_callback(lambda _: self._serving.pop(received.call, None))
            case Cancel():
                if task_to_end := self._serving.get(received.call):
                    task_to_end.cancel()
            case Progress():
                _, on_progress = self._waiting.get(received.call, (None, None))
                if on_progress is not None:
                    on_progress(received.done, received.total)
            case Answer() | Failed():
                self._resolve(received)

    def _resolve(self, received: Answer | Failed) -> None:
        future, _ = self._waiting.get(received.call, (None, None))
        if future is None or future.done():
            return
        if isinstance(received, Answer):
            self._resolve_answer(future, received)
        else:
            future.set_exception(error_of(received))

    def _resolve_answer(self, future: asyncio.Future[Body], received: Answer) -> None:
        try:
            future.set_result(unpack(received.body))
        except RemoteError as error:
            future.set_exception(error)

    async def _serve_call(self, call: Call) -> None:
        def tell(done: int, total: int) -> None:
            self._write(Progress(call=call.call, done=done, total=total))

        try:
            answer = await self._handler(unpack(call.body), tell)
            reply: Frame = Answer(call=call.call, body=pack(answer))
        except KinoswarmError as error:
            reply = failure(call.call, error)
        except asyncio.CancelledError:
            self._write(failure(call.call, LocalError("the call was cancelled")))
            raise
        except Exception as error:  # noqa: BLE001 - one broken call must not end what serves all others
            _log.exception("a call failed")
            reply = failure(call.call, LocalError(f"internal error, see the log: {error!r}"))
        await self._send(reply)

    def _write(self, outgoing: Frame) -> None:
        if not self._closed and not self._writer.is_closing():
            self._writer.write(frame(encode(outgoing)))

    async def _send(self, outgoing: Frame) -> None:
        self._write(outgoing)
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # `serve` sees the end of the stream and fails whoever waits

    async def _wind_up(self) -> None:
        self._closed = True
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())
        for task in list(self._serving.values()):
            task.cancel()
        self._writer.close()

    def _gone(self) -> LocalError:
        return LocalError(f"{self._other_side} has ended; see its log")
