"""How long time steps may be: energy, bonds and time of dynamics with short steps for the bonds.

From the same start each, close-packed molecules move at constant pressure, first with a Langevin
thermostat, then by `ase.md.nose_hoover_chain.MTKNPT`. Printed of the latter: how far what the
integrator conserves strays about its trend, and how it drifts; mean bond length, volume and
potential energy with standard errors; the time of the run divided by that of 0.5 fs for everything.

::

    python benchmarks/bond_steps.py --pressure 100 --temperature 300
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from ase_hmlp.analysis.statistics import estimate
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.run import Run
from ase_hmlp.simulate.run_config import RunConfig

#: fs, and how many short steps.
STEPS = ((0.5, 1), (0.75, 1), (1.0, 4), (1.25, 5), (1.5, 6), (2.0, 8))


def run(folder, step, count, arguments):
    """The log of a run, and its processor time in seconds."""
    here = {"temperature": arguments.temperature, "pressure": arguments.pressure}
    every = max(1, round(2.5 / step))
    config = RunConfig.model_validate(
        {
            "model": arguments.model,
            "threads": 1,
            "seed": arguments.seed,
            "structure": {"phase": "hcp", "atoms": arguments.atoms},
            "dynamics": {"timestep": step, "bond_steps": count},
            "stage": [
                {"ensemble": "npt", "time": 0.5, "thermostat": "langevin", **here},
                {"ensemble": "npt", "time": arguments.time, **here},
            ],
            "write": {
                "deviation_interval": 0,
                "sample_interval": every,
                "frame_interval": 1000 * every,
                "checkpoint_interval": 1000 * every,
            },
        }
    )
    one = Run(config, folder, Path())
    summary = one.run()
    log = read_log(folder / "log.csv")
    return log[log["time_ps"] > 0.5], summary["seconds"]


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="h2-pbe")
    parser.add_argument("--pressure", type=float, default=100.0, help="GPa")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--atoms", type=int, default=128)
    parser.add_argument("--time", type=float, default=3.0, help="ps of the hold")
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{arguments.pressure:g} GPa, {arguments.temperature:g} K, {arguments.time:g} ps")
    print(
        "step  short   strays    drift  bond                  volume              potential"
        "            time\n"
        "  fs  steps  meV/atom   /ps    Å                     Å³/atom             meV/atom"
    )
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for step, count in STEPS:
            log, seconds = run(Path(folder) / f"{step}-{count}", step, count, arguments)
            first = first or seconds
            time, conserved = log["time_ps"], log["conserved_meV_per_atom"]
            trend = np.polyfit(time, conserved, 1)
            strays = (conserved - np.polyval(trend, time)).std()
            settled = log[len(log) // 4 :]
            means = []
            for column, factor, digits in (
                ("bond_length_A", 1.0, 5),
                ("volume_A3_per_atom", 1.0, 4),
                ("potential_eV_per_atom", 1000.0, 2),
            ):
                mean = estimate(settled[column])
                means.append(f"{factor * mean.value:.{digits}f} ± {factor * mean.error:.{digits}f}")
            print(
                f"{step:4g}  {count:5d}  {strays:8.3f}  {trend[0]:6.3f}  "
                f"{means[0]:20s}  {means[1]:18s}  {means[2]:18s}  {seconds / first:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
