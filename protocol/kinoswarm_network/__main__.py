"""`python -m kinoswarm_network FD PARENT`: the network process on the inherited socket FD of process PARENT.

Started by `kinoswarm_network.client.NetworkClient` only.
"""

import asyncio
import logging
import os
import socket
import sys

from kinoswarm_network.parent_death import die_with_parent, is_orphan
from kinoswarm_network.process import NetworkProcess


async def _run(fd: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
    await NetworkProcess(reader, writer).run()


def main(arguments: list[str]) -> int:
    """Run until the service is gone. Exit status 2: not started by a service."""
    if len(arguments) != 2 or not all(argument.isdigit() for argument in arguments):
        sys.stderr.write("the network process is started by a Kinoswarm service, not by hand\n")
        return 2
    die_with_parent()
    if is_orphan(int(arguments[1])):
        return 0
    os.umask(0o077)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_run(int(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
