"""Whether LAMMPS does what the ASE engine does, at sizes and lengths that tests have no time for.

Each command runs ``hmlp run`` with one input and both engines, prints numbers beside what they must
not exceed, and exits with 1 if one does. Folders stay; a command that was stopped goes on where it
was when it is given again. Needs ``pip install "ase_hmlp[lammps]"``.

    python benchmarks/lammps_checks.py parity               # 145,152 hot atoms on 1, 2, 3 ranks
    python benchmarks/lammps_checks.py nve                  # 20,000 steps: drift of the energy
    python benchmarks/lammps_checks.py npt --engine lammps --ranks 2   # 9,216 atoms, in parts:
    python benchmarks/lammps_checks.py npt --engine ase                # first one engine,
    python benchmarks/lammps_checks.py npt                             # then the other, and both

In short, to see that it works::

    python benchmarks/lammps_checks.py --folder short parity --atoms 96
    python benchmarks/lammps_checks.py --folder short nve --atoms 96 --steps 400
    python benchmarks/lammps_checks.py --folder short npt --atoms 96 --time 0.5
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import tomli_w
from ase import Atoms, units
from ase.io import Trajectory as FrameFile
from ase.io import read
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from speed import crystal

from ase_hmlp import HMLP
from ase_hmlp.analysis.quadrupoles import QuadrupoleEnergy
from ase_hmlp.analysis.statistics import estimate
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.simulate import run_folder as names
from ase_hmlp.simulate.averages import drift
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.summary import SETTLING

#: Largest differences allowed: eV per atom, eV/Å, eV/Å³.
BARS = {"energy": 1e-10, "energies": 1e-10, "forces": 1e-9, "stress": 1e-10}

#: Combined standard errors by which two averages may differ.
ALLOWED = 3.0

#: meV/atom: drifts smaller than this over a whole run are no drifts.
NO_DRIFT = 0.01

ENGINES = ("ase", "lammps")


class Verdict:
    """Prints numbers beside their bars and remembers whether all were met."""

    def __init__(self):
        self.met = True

    def say(self, what: str, value: float, bar: float, unit: str) -> None:
        """One line."""
        met = bool(value <= bar)
        self.met &= met
        click.echo(
            f"  {what:44} {value:10.3g}  at most {bar:.3g} {unit}{'' if met else '  MISSED'}"
        )

    def end(self) -> None:
        """Exit status."""
        sys.exit(0 if self.met else 1)


def hmlp_run(folder: Path, name: str, engine: str, settings: dict, options=()) -> Path:
    """``hmlp run`` of settings, with its own progress; returns the folder of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    config, output = folder / f"{name}.toml", folder / name
    config.write_text(tomli_w.dumps({"engine": engine, **settings}))
    command = [sys.executable, "-m", "ase_hmlp.cli", "run", str(config), "-o", str(output)]
    done = subprocess.run([*command, *options], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with status {done.returncode}.")
    return output


def ranked(engine: str, ranks: int) -> tuple[str, ...]:
    """Options of `hmlp run` for a number of processes."""
    return ("--ranks", str(ranks)) if engine == "lammps" and ranks > 1 else ()


@click.group()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="lammps-checks",
    show_default=True,
    help="Where runs are, and go on.",
)
@click.option("--model", default="h2-pbe", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of the ASE engine; every core by default.")
@click.pass_context
def main(context, folder, model, threads):
    """Checks of LAMMPS against ASE."""
    shared = {"model": model} | ({"threads": threads} if threads else {})
    context.obj = folder, shared


# ---------------------------------------------------------------- parity


def hot(n_atoms: int, model: str) -> Atoms:
    """Hot, strained and triclinic, no two cells alike; bonds and contacts as in dynamics."""
    small = crystal(n_atoms if n_atoms < 1152 else 1152)
    repeat = n_atoms // len(small)
    if repeat * len(small) != n_atoms:
        raise click.UsageError(f"--atoms has to be a multiple of {len(small)}, not {n_atoms}.")
    rng = np.random.default_rng(1)
    thermalize_momenta(small, 1500.0, rng=rng)  # half of it goes to the springs
    small.calc = HMLP(model)
    VelocityVerlet(small, 0.25 * units.fs).run(400)
    small.calc = None
    shape = [1, 1, 1]
    for factor in prime_factors(repeat):
        shape[int(np.argmin(small.cell.lengths() * shape))] *= factor
    atoms = small.repeat(shape)
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True
    )
    atoms.rattle(0.01, rng=rng)
    return atoms


def prime_factors(number: int) -> list[int]:
    """The largest first."""
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors[::-1]


@main.command()
@click.option("--atoms", "n_atoms", default=145152, show_default=True, type=click.IntRange(24))
@click.option("--ranks", multiple=True, default=(1, 2, 3), show_default=True)
@click.pass_obj
def parity(shared, n_atoms, ranks):
    """Energies, forces and stress of one hot configuration against the calculator's."""
    folder, settings = shared
    verdict = Verdict()
    start = folder / f"hot-{n_atoms}.traj"
    if not start.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FrameFile(folder / "unfinished.traj", "w") as frames:
            frames.write(hot(n_atoms, settings["model"]))
        (folder / "unfinished.traj").rename(start)
    settings = settings | {
        "structure": {"file": start.name},
        "stage": [{"ensemble": "nve", "steps": 1}],
        # The frame after a step comes from LAMMPS, the one before it from the calculator.
        "write": {
            "frame_interval": 1,
            "deviation_interval": 0,
            "properties": [*BARS, "stresses"],
        },
    }
    for count in ranks:
        name = f"parity-{n_atoms}-on-{count}"
        run = hmlp_run(folder, name, "lammps", settings, ranked("lammps", count))
        frame = read(run / names.TRAJECTORY, -1)
        found, again = frame.calc.results, frame.copy()
        again.calc = HMLP(settings["model"], threads=settings.get("threads"))
        expected = {name: again.calc.get_property(name, again) for name in BARS}
        click.echo(
            f"\n{len(frame):,} atoms at {frame.get_temperature():.0f} K, forces up to "
            f"{abs(found['forces']).max():.1f} eV/Å, LAMMPS on {count} ranks"
        )
        for label, key, unit, divisor in (
            ("energy per atom, mean", "energy", "eV", len(frame)),
            ("energy of an atom, greatest difference", "energies", "eV", 1),
            ("force component, greatest difference", "forces", "eV/Å", 1),
            ("stress component, greatest difference", "stress", "eV/Å³", 1),
        ):
            difference = np.max(np.abs(found[key] - expected[key])) / divisor
            verdict.say(label, float(difference), BARS[key], unit)
    verdict.end()


# ---------------------------------------------------------------- nve


@main.command()
@click.option("--atoms", "n_atoms", default=1152, show_default=True, type=click.IntRange(24))
@click.option("--steps", default=20000, show_default=True, type=click.IntRange(100))
@click.option("--temperature", default=300.0, show_default=True, help="K, about.")
@click.option("--pressure", default=100.0, show_default=True, help="GPa, at rest.")
@click.option("--timestep", default=0.5, show_default=True, help="fs.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES)
@click.option("--ranks", default=1, show_default=True, type=click.IntRange(1))
@click.pass_obj
def nve(shared, n_atoms, steps, temperature, pressure, timestep, engines, ranks):
    """Drift of the total energy without a thermostat."""
    folder, settings = shared
    settings = settings | {
        "structure": {
            "phase": "P21c-24-a",
            "atoms": n_atoms,
            "pressure": pressure,
            "temperature": 2.0 * temperature,  # from a minimum: half of it goes to the springs
        },
        "dynamics": {"timestep": timestep},
        "stage": [{"ensemble": "nve", "steps": steps}],
        "write": {"frame_interval": max(1, steps // 20), "deviation_interval": 0},
    }
    verdict, drifts = Verdict(), {}
    for engine in engines:
        name = f"nve-{n_atoms}-{steps}-{engine}"
        log = read_log(hmlp_run(folder, name, engine, settings, ranked(engine, ranks)) / names.LOG)
        time, length = log["time_ps"], log["time_ps"][-1]
        total = 1000.0 * (log["potential_eV_per_atom"] + log["kinetic_eV_per_atom"])
        rows = time > 0.05 * length  # the first bonds still share out what they were given
        slope, error = drift(time[rows], total[rows])
        drifts[engine] = slope, error
        click.echo(
            f"\n{engine}: {steps} steps of {timestep} fs, {log['temperature_K'][rows].mean():.0f} K"
            f"\n  drift {slope:+.5f} ± {error:.5f} meV/atom/ps, over the run {slope * length:+.5f} "
            f"meV/atom; scatter {total[rows].std():.5f} meV/atom"
        )
        verdict.say(
            f"{engine}: drift over the run beyond its error",
            max(0.0, abs(slope) - ALLOWED * error) * length,
            NO_DRIFT,
            "meV/atom",
        )
    if len(drifts) == len(ENGINES):
        (one, e1), (two, e2) = drifts.values()
        verdict.say(
            "difference of the drifts, in combined errors",
            abs(one - two) / float(np.hypot(e1, e2)),
            ALLOWED,
            "",
        )
    verdict.end()


# ---------------------------------------------------------------- npt


@main.command()
@click.option("--atoms", "n_atoms", default=9216, show_default=True, type=click.IntRange(24))
@click.option("--time", default=5.0, show_default=True, help="ps; the first quarter is left out.")
@click.option("--temperature", default=300.0, show_default=True, help="K.")
@click.option("--pressure", default=100.0, show_default=True, help="GPa.")
@click.option("--cell", type=click.Choice(["full", "iso"]), default="full", show_default=True)
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES)
@click.option("--ranks", default=1, show_default=True, type=click.IntRange(1))
@click.pass_obj
def npt(shared, n_atoms, time, temperature, pressure, cell, engines, ranks):
    """Density and <EQQ> of Phase I at constant pressure: fix npt against MTKNPT."""
    folder, settings = shared
    verdict, found = Verdict(), {}
    for engine in engines:
        here = settings | {
            "seed": ENGINES.index(engine),  # momenta and orientations of its own
            "structure": {"phase": "hcp", "atoms": n_atoms},
            "stage": [
                {
                    "ensemble": "npt",
                    "time": time,
                    "temperature": temperature,
                    "pressure": pressure,
                    "cell": cell,
                }
            ],
            "write": {"frame_interval": 50, "deviation_interval": 0},
        }
        name = f"npt-{n_atoms}-{time:g}ps-{cell}-{engine}"
        run = hmlp_run(folder, name, engine, here, ranked(engine, ranks))
        log = read_log(run / names.LOG)
        rows = log[int(SETTLING * len(log)) :]
        frames = FrameFile(run / names.TRAJECTORY)
        first = int(SETTLING * len(frames))
        eqq = analyse(Trajectory(run / names.TRAJECTORY, start=first), [QuadrupoleEnergy()])[0]
        quantity = eqq.quantities[0]
        density, degrees = estimate(rows["density_g_per_cm3"]), estimate(rows["temperature_K"])
        squeezed = estimate(rows["pressure_GPa"])
        found[engine] = {
            "density": (density.value, density.error, "g/cm³"),
            "<EQQ>": (quantity.value, quantity.error, quantity.unit),
        }
        summary = json.loads((run / names.SUMMARY).read_text())
        click.echo(
            f"\n{engine}: {summary['atoms']:,} atoms, {summary['time_ps']:g} ps, "
            f"{summary['seconds']:.0f} s\n"
            f"  temperature {degrees.value:.2f} ± {degrees.error:.2f} K, "
            f"pressure {squeezed.value:.3f} ± {squeezed.error:.3f} GPa\n"
            f"  density {density.value:.6f} ± {density.error:.6f} g/cm³ "
            f"(a sample in {density.inefficiency:.0f} of {density.samples} is independent)\n"
            f"  <EQQ> {quantity.value:.3f} ± {quantity.error:.3f} {quantity.unit}"
        )
    if len(found) == len(ENGINES):
        click.echo("")
        for what, (one, e1, unit) in found["ase"].items():
            two, e2, _ = found["lammps"][what]
            combined = float(np.hypot(e1, e2))
            click.echo(f"  {what}: lammps - ase = {two - one:+.6f} ± {combined:.6f} {unit}")
            # Without an error bar nothing is shown: NaN misses.
            verdict.say(f"{what}, in combined errors", abs(two - one) / combined, ALLOWED, "")
    verdict.end()


if __name__ == "__main__":
    main()
