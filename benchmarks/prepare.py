"""Peak memory and clips a second of `data prepare`, side by side for few and many clips.

    python benchmarks/prepare.py [--clips 1000 10000]

Every run is a process of its own on made-up pictures with captions that never repeat (the hardest case for memory).
What counts is the ratio of the peaks: it is flat when ten times the clips need about the same.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = "--child"


def main() -> None:
    if CHILD in sys.argv:
        prepare_and_tell(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000])
    arguments = parser.parse_args()
    print(f"command: python {' '.join(sys.argv)}")
    python = platform.python_version()
    print(f"machine: Linux {platform.machine()}, {os.cpu_count()} cores, Python {python}")
    peaks = []
    for count in arguments.clips:
        with tempfile.TemporaryDirectory() as folder:
            found = run(count, Path(folder))
        peaks.append(found["peak_mb"])
        print(
            f"{count:7} clips: peak {found['peak_mb']:.0f} MB, {count / found['seconds']:.1f} clips/s",
            flush=True,
        )
    print(f"peak memory, most clips by fewest: {peaks[-1] / peaks[0]:.3f}")


def run(count: int, folder: Path) -> dict[str, float]:
    """One preparation in its own process."""
    write_pictures(folder / "src", count)
    ended = subprocess.run(
        [sys.executable, __file__, str(folder / "src"), str(folder / "out"), CHILD],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def write_pictures(folder: Path, count: int) -> None:
    """Short GIFs of a textured wall that slides, with a caption each in one table."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    lines = []
    for index in range(count):
        rng = np.random.default_rng(index)
        wall = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        frames = [Image.fromarray(np.roll(wall, 2 * t, axis=1)) for t in range(8)]
        name = f"{index:06d}.gif"
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=125)
        lines.append(
            json.dumps(
                {"file": name, "caption": f"wall {index} slides by, colour {rng.integers(99)}"}
            )
        )
    (folder / "captions.jsonl").write_text("\n".join(lines))


def prepare_and_tell(source: Path, out: Path) -> None:
    """Prepare, and print peak memory and time as JSON."""
    from kinoswarm_model.data.prepare import PrepareConfig, prepare

    started = time.perf_counter()
    manifest = prepare(source, out, PrepareConfig(num_clusters=4))
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_mb": peak_kib / 1024, "seconds": seconds, "clips": manifest.num_clips}))


if __name__ == "__main__":
    main()
