"""The socket between service and network process, and the frames of streams: typed, bounded, never crashing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.peers import FOUNDER
from node.scripted import give_way

from kinoswarm_network import ipc, ipc_frames
from kinoswarm_network.link import Handler, Link, OnProgress
from kinoswarm_network.stream_frames import (
    AskChunk,
    AskHave,
    AskManifest,
    Goodbye,
    No,
    Sending,
    read_ask,
    read_reply_head,
    refusal,
    refused,
)
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.codec import decode, encode, frame
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    HashMismatch,
    KinoswarmError,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Refused,
    RemoteError,
    Unreachable,
    VersionMismatch,
)
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME, MAX_IPC_FRAME

BLOB = BlobId("cd" * 32)


async def answer_nothing(body: ipc.Body, _: OnProgress) -> ipc.Body:
    return ipc.Done()


@asynccontextmanager
async def linked(
    handler: Handler,
) -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter, asyncio.Task[None]]]:
    """A Link that calls one with `handler`; also the raw ends of a second, unserved socket pair."""
    ours, theirs = socket.socketpair()
    near = Link(*await asyncio.open_unix_connection(sock=ours), answer_nothing, "the far side")
    far_reader, far_writer = await asyncio.open_unix_connection(sock=theirs)
    far = Link(far_reader, far_writer, handler, "the near side")
    serving = [asyncio.create_task(near.serve()), asyncio.create_task(far.serve())]
    try:
        yield near, far_reader, far_writer, serving[0]
    finally:
        far_writer.close()
        await asyncio.gather(*serving, return_exceptions=True)


def test_a_cancellation_that_meets_the_answer_still_ends_the_caller() -> None:
    """A service that is told to end is often in the middle of a call: lost there, it would run on for ever."""

    async def never(body: ipc.Body, _: OnProgress) -> ipc.Body:
        await asyncio.Event().wait()
        return ipc.Done()

    async def both_at_once() -> None:
        async with linked(never) as (near, *_):
            asking = asyncio.create_task(near.call(ipc.AskTraffic(), ipc.Done, 10.0))
            while not near._waiting:  # the call is on its way; then only the answer is waited for
                await give_way()
            await give_way()
            ((future, _),) = near._waiting.values()
            future.set_result(ipc.Done())
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(both_at_once())


def test_many_calls_at_once_get_their_own_answers() -> None:
    async def echo(body: ipc.Body, _: OnProgress) -> ipc.Body:
        assert isinstance(body, ipc.AddBlob)
        return ipc.Blob(blob=BLOB, path=body.path)

    async def call_all() -> list[ipc.Blob]:
        async with linked(echo) as (near, *_):
            calls = [near.call(ipc.AddBlob(path=str(n)), ipc.Blob, 5.0) for n in range(100)]
            return await asyncio.gather(*calls)

    assert [answer.path for answer in asyncio.run(call_all())] == [str(n) for n in range(100)]


@pytest.mark.parametrize(
    "error",
    [
        LocalError("disk full"),
        MalformedBytes("m"),
        LimitExceeded("l"),
        BadSignature("s"),
        HashMismatch("h"),
        VersionMismatch("v"),
        Unreachable("u"),
        Refused(Code.STALE_BASE, "r"),
    ],
)
def test_an_error_arrives_as_the_type_that_was_raised(error: KinoswarmError) -> None:
    async def fail(body: ipc.Body, _: OnProgress) -> ipc.Body:
        raise error

    async def call() -> None:
        async with linked(fail) as (near, *_):
            await near.call(ipc.AskTraffic(), ipc.Traffic, 5.0)

    with pytest.raises(type(error)) as caught:
        asyncio.run(call())
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if isinstance(error, Refused):
        assert isinstance(caught.value, Refused)
        assert caught.value.code == error.code


def test_our_own_bug_in_a_call_is_reported_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_once(body: ipc.Body, _: OnProgress) -> ipc.Body:
        if isinstance(body, ipc.AskTraffic):
            raise ZeroDivisionError("a bug")
        return ipc.Done()

    async def call() -> None:
        async with linked(fail_once) as (near, *_):
            with pytest.raises(LocalError, match="internal error, see the log: ZeroDivisionError"):
                await near.call(ipc.AskTraffic(), ipc.Traffic, 5.0)
            await near.call(ipc.Stop(), ipc.Done, 5.0)

    asyncio.run(call())
    assert "a bug" in caplog.text


def test_progress_arrives_before_the_answer() -> None:
    async def work(body: ipc.Body, on_progress: OnProgress) -> ipc.Body:
        for done in range(5):
            on_progress(done, 5)
        return ipc.Done()

    async def call() -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []
        async with linked(work) as (near, *_):
            await near.call(ipc.Stop(), ipc.Done, 5.0, lambda *sizes: told.append(sizes))
        return told

    assert asyncio.run(call()) == [(done, 5) for done in range(5)]


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_giving_up_a_call_ends_it_on_the_other_side(how: str) -> None:
    async def call() -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        async def wait_forever(body: ipc.Body, _: OnProgress) -> ipc.Body:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return ipc.Done()

        async with linked(wait_forever) as (near, *_):
            timeout_s = 0.01 if how == "timeout" else None
            calling = asyncio.create_task(near.call(ipc.AskTraffic(), ipc.Traffic, timeout_s))
            await started.wait()
            if how == "cancel":
                calling.cancel()
            await asyncio.wait({calling})
            assert calling.cancelled() or isinstance(calling.exception(), LocalError)
            await asyncio.wait_for(ended.wait(), 5.0)

    asyncio.run(call())


def test_a_call_that_is_given_up_before_it_began_leaves_nothing_behind() -> None:
    """Both frames may come in one read: the call's task is cancelled then before its first step."""

    async def go() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        link = Link(*await asyncio.open_unix_connection(sock=theirs), answer_nothing, "the test")
        serving = asyncio.create_task(link.serve())
        call = ipc_frames.Call(call=1, body=ipc_frames.pack(ipc.AskTraffic()))
        again = ipc_frames.Call(call=2, body=ipc_frames.pack(ipc.AskTraffic()))
        sent = (call, ipc_frames.Cancel(call=1), again)
        writer.write(b"".join(frame(encode(one)) for one in sent))
        size = int.from_bytes(await reader.readexactly(4), "big")
        answer = decode(await reader.readexactly(size), ipc_frames.Answer, MAX_IPC_FRAME)
        assert answer.call == 2
        assert not link._serving
        writer.close()
        await serving

    asyncio.run(go())


def test_a_call_that_is_cancelled_on_the_other_side_does_not_wait_forever() -> None:
    async def cancel_itself(body: ipc.Body, _: OnProgress) -> ipc.Body:
        raise asyncio.CancelledError

    async def call() -> None:
        async with linked(cancel_itself) as (near, *_):
            await near.call(ipc.AskTraffic(), ipc.Traffic, None)

    with pytest.raises(LocalError, match="cancelled"):
        asyncio.run(call())


def test_the_end_of_the_other_side_fails_whoever_waits_and_whoever_comes_later() -> None:
    async def call() -> None:
        started = asyncio.Event()

        async def wait_forever(body: ipc.Body, _: OnProgress) -> ipc.Body:
            started.set()
            await asyncio.Event().wait()
            return ipc.Done()

        async with linked(wait_forever) as (near, _, far_writer, serving):
            waiting = asyncio.create_task(near.call(ipc.AskTraffic(), ipc.Traffic, None))
            await started.wait()
            far_writer.close()
            for attempt in (waiting, near.call(ipc.AskTraffic(), ipc.Traffic, None)):
                with pytest.raises(LocalError, match="the far side has ended"):
                    await attempt
            await serving

    asyncio.run(call())


def test_a_body_that_breaks_a_bound_fails_alone() -> None:
    async def too_long(body: ipc.Body, _: OnProgress) -> ipc.Body:
        if isinstance(body, ipc.AskTraffic):
            return ipc.Reply(data=bytes(MAX_CONTROL_FRAME + 1))
        return ipc.Done()

    async def call() -> None:
        async with linked(too_long) as (near, *_):
            with pytest.raises(MalformedBytes):
                await near.call(ipc.AskTraffic(), ipc.Reply, 5.0)
            with pytest.raises(MalformedBytes):
                await near.call(ipc.FindBlob(blob=BlobId("not a blob")), ipc.Done, 5.0)
            with pytest.raises(MalformedBytes, match="was answered by Done"):
                await near.call(ipc.Stop(), ipc.Traffic, 5.0)
            await near.call(ipc.Stop(), ipc.Done, 5.0)

    asyncio.run(call())


def test_a_frame_that_is_too_long_or_nonsense_ends_the_link() -> None:
    async def send(raw: bytes) -> BaseException | None:
        ours, theirs = socket.socketpair()
        near = Link(*await asyncio.open_unix_connection(sock=ours), answer_nothing, "it")
        _, writer = await asyncio.open_unix_connection(sock=theirs)
        writer.write(raw)
        serving = asyncio.create_task(near.serve())
        await asyncio.wait({serving})
        writer.close()
        return serving.exception()

    too_long = (MAX_IPC_FRAME + 1).to_bytes(4, "big")
    assert isinstance(asyncio.run(send(too_long)), LimitExceeded)
    assert isinstance(asyncio.run(send(frame(b"\xc1"))), MalformedBytes)


# --- streams ------------------------------------------------------------------------------------


async def _streamed(
    write: bytes, use: Callable[[Stream], Awaitable[Any]], close: bool = True
) -> Any:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    _, far = await asyncio.open_unix_connection(sock=theirs)
    far.write(write)
    if close:
        far.write_eof()
    try:
        async with Stream(FOUNDER.peer_id, reader, writer) as stream:
            return await use(stream)
    finally:
        far.close()


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_a_stream_frame_arrives_whole_or_raises_a_remote_error(raw: bytes) -> None:
    assert asyncio.run(_streamed(frame(raw), lambda stream: stream.receive(200, 5.0))) == raw
    with pytest.raises(Unreachable, match="ended the stream after"):
        asyncio.run(_streamed(frame(raw)[:-1], lambda stream: stream.receive(200, 5.0)))


def test_a_longer_frame_than_allowed_is_not_read() -> None:
    with pytest.raises(LimitExceeded, match="frame of 201 bytes announced, at most 200"):
        asyncio.run(_streamed(frame(bytes(201)), lambda stream: stream.receive(200, 5.0)))


def test_a_silent_stream_is_given_up() -> None:
    with pytest.raises(Unreachable, match=r"sent nothing complete for 0\.01 s"):
        asyncio.run(_streamed(b"\x00", lambda stream: stream.receive(200, 0.01), close=False))


@pytest.mark.parametrize(
    "ask", [AskManifest(blob=BLOB), AskChunk(blob=BLOB, index=7), AskHave(blob=BLOB), Goodbye()]
)
def test_asks_round_trip(ask: AskManifest | AskChunk | AskHave | Goodbye) -> None:
    assert read_ask(encode(ask)) == ask


@given(st.binary(max_size=1200))
def test_no_bytes_crash_the_readers_of_frames(raw: bytes) -> None:
    for read in (
        read_ask,
        read_reply_head,
        lambda raw: decode(raw, ipc_frames.Call, MAX_IPC_FRAME),
    ):
        try:
            read(raw)
        except RemoteError:
            continue


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader_of_a_calls_body(raw: bytes) -> None:
    try:
        ipc_frames.unpack(ipc_frames.Raw(raw))
    except RemoteError:
        return


def test_a_refusal_keeps_its_code_and_a_newer_peers_code_is_tolerated() -> None:
    head = read_reply_head(refusal(Refused(Code.COPIED, "no")))
    assert isinstance(head, No)
    assert refused(head).code == Code.COPIED
    assert refused(No(code="from_the_future", sentence="no")).code == Code.NOT_PERMITTED
    assert read_reply_head(encode(Sending(size_bytes=3))) == Sending(size_bytes=3)
