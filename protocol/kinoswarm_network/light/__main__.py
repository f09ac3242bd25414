"""`python -m kinoswarm_network.light`: the light network process on its standard input and output.

Started by `kinoswarm_network.light_client.LightClient` only.
"""

import os
import sys
import warnings


def main() -> int:
    """Run until the service is gone. Exit status 2: started by hand; 3: py-libp2p is not installed."""
    if sys.stdin is None or sys.stdin.isatty():
        sys.stderr.write("the light process is started by a Kinoswarm program, not by hand\n")
        return 2
    os.umask(0o077)
    reader = os.fdopen(os.dup(0), "rb", buffering=0)
    writer = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get between our frames
    warnings.simplefilter("ignore")  # py-libp2p's own; they are for its authors
    try:
        import trio

        from kinoswarm_network.light.process import LightProcess
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    trio.run(LightProcess(reader, writer).run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
