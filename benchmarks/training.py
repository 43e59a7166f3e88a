"""What a training takes: seconds and memory of fits to more and more frames, and of `hmlp train`.

A fit is that of the final potential, without what `hmlp train` does beside it (each family
predicted by a fit to all others, deviations calibrated, the card). Each is a process of its own,
for the memory it reached at most. The last column grows if a fit takes more than in proportion.

::

    python benchmarks/training.py training/configs/h2-pbe.toml
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from ase_hmlp.training.config import read_config
from ase_hmlp.training.train import load_frames, split_off_tests, thinned

#: Every so manieth frame of each family.
THINNED = (8, 4, 2, 1)


def fit(path, every):
    """Frames, atoms, seconds of a fit in this process."""
    config = read_config(path)
    frames, _ = split_off_tests(load_frames(path.parent, config)[0])
    frames = thinned(frames, config, every)
    start = perf_counter()
    config.estimator().fit(frames)
    return len(frames), sum(frame.n_atoms for frame in frames), perf_counter() - start


def gigabytes(whose):
    """The most that a process had in memory at a time (getrusage: KiB on Linux)."""
    return resource.getrusage(whose).ru_maxrss * 1024 / 1e9


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--whole", action="store_true", help="and hmlp train, as it is run")
    parser.add_argument("--every", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.every:
        frames, atoms, seconds = fit(arguments.config, arguments.every)
        memory = gigabytes(resource.RUSAGE_SELF)
        each = 1e3 * seconds / atoms
        print(f"{frames:6d}  {atoms:6d}  {seconds:7.1f}  {memory:6.2f}  {each:7.2f}")
        return
    print("frames   atoms  seconds      GB  ms/atom", flush=True)
    for every in THINNED:
        subprocess.run(
            [sys.executable, __file__, str(arguments.config), "--every", str(every)], check=True
        )
    if arguments.whole:
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            command = ["hmlp", "train", str(arguments.config), "--output", folder]
            subprocess.run(command, check=True, capture_output=True)
            seconds = perf_counter() - start
        # The largest of all processes so far, which are smaller than this one.
        memory = gigabytes(resource.RUSAGE_CHILDREN)
        print(f"hmlp train: {seconds:.0f} seconds, {memory:.2f} GB")


if __name__ == "__main__":
    main()
