"""Fuzzes the readers of foreign bytes with atheris (`pip install -e '.[fuzz]'`); run it in tests/.

    python -m fuzz.run NAME... [--seconds 600] [--keep] [--work DIR]     the named readers, or `all`, one after another

Every reader runs in a process of its own with 2 GiB of memory; what crashes it is kept in DIR/NAME/. With --keep the
smallest of the inputs that reached new code go to fuzz/corpus/NAME_seed_corpus.zip, which the tests replay.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.corpus import keep, kept
from fuzz.readers import TARGETS

_MEMORY_MB = 2_048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("/tmp/kinoswarm-fuzz"))
    arguments = parser.parse_args()
    names = list(TARGETS) if arguments.names == ["all"] else arguments.names
    crashed = [name for name in names if _fuzzed(name, arguments)]
    return 1 if crashed else 0


def _fuzzed(name: str, arguments: argparse.Namespace) -> bool:
    """Fuzz one reader for a while and print a line about it. True when it crashed."""
    target, folder = TARGETS[name], arguments.work / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate([*target.samples(), *kept(name)]):
        (corpus / f"seed-{number}").write_bytes(raw)
    started = time.monotonic()
    options = [
        f"-max_total_time={arguments.seconds}",
        f"-max_len={target.max_bytes}",
        f"-rss_limit_mb={_MEMORY_MB}",
        "-timeout=10",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    ]
    done = _process(name, [*options, str(corpus)])
    if done.returncode == 0 and arguments.keep:
        keep(name, [path.read_bytes() for path in sorted(corpus.iterdir())])
    print(_line(name, done, time.monotonic() - started), flush=True)
    if done.returncode:
        print(done.stderr[-4_000:], file=sys.stderr, flush=True)
    return done.returncode != 0


def _process(name: str, options: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-m", "fuzz.instrumented", name, *options]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def _line(name: str, done: "subprocess.CompletedProcess[str]", seconds: float) -> str:
    """Executions, edges covered and the peak of memory, as libFuzzer reports them."""
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    covered = re.findall(r"cov: (\d+)", done.stderr)
    result = "crashed" if done.returncode else "no crash"
    return (
        f"{name:20} {result}  {int(stats.get('number_of_executed_units', 0)):>10,} inputs in {seconds:5.0f} s  "
        f"{covered[-1] if covered else '?':>5} edges  {stats.get('peak_rss_mb', '?')} MB at most"
    )


if __name__ == "__main__":
    sys.exit(main())
