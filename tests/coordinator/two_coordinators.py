"""A coordinator's log writer as a process of its own: leads, then appends an event at every turn until it may not.

python -m coordinator.two_coordinators URL NAME     prints `leads EPOCH`, then `wrote N` lines; ends when it is replaced
"""

import asyncio
import sys

from kinoswarm_coordinator.events import NodeJoined
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.leading import keep_leading, wait_to_lead
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_protocol.ids import PeerId


def say(text: str) -> None:
    print(text, flush=True)


async def write_on(journal: Journal, name: str) -> None:
    for number in range(10**6):
        event = NodeJoined(
            at_ms=number,
            peer=PeerId("12D3KooWPeer"),
            pseudonym=name,
            device="cpu",
            program_version="0.1.0",
            addresses=[],
            seconds_per_step=0.0,
        )
        await journal.append([event])
        say(f"wrote {number}")


async def lead(url: str, name: str) -> None:
    log = SqlLog(url)
    try:
        await wait_to_lead(log, name, lambda reason: say(f"standby {reason}"))
        say(f"leads {log.epoch}")
        journal = Journal(log)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_leading(log))
            tasks.create_task(write_on(journal, name))
    finally:
        log.close()


if __name__ == "__main__":
    asyncio.run(lead(*sys.argv[1:]))
