"""Where the time of a force call goes: each pass of the kernel by itself, and how near the limits.

Processor time of one core, the least of many calls. Arithmetic is counted by hand from the kernel
header, additions and multiplications, for the pairs inside the cutoffs and the representatives of
the model. Example::

    OMP_NUM_THREADS=1 python benchmarks/passes.py --atoms 1152
"""

from __future__ import annotations

import time

import click
import numpy as np
from speed import crystal

from ase_hmlp import HMLP
from ase_hmlp._core import evaluate
from ase_hmlp.simulate.build import hcp

#: Additions and multiplications of one pair of molecules: moments, pair and orientation levels,
#: forces of the environment.
MOMENTS, PAIR, FORCES = 680, 560, 1575

#: Of one representative, besides four for each component; and of what a molecule's fingerprints
#: and their gradient take without the compression's four for each entry of the transform.
EXPONENTIAL, SHAPE = 32, 5600


def least(call, repeats: int = 20) -> float:
    """Least processor time of a call, s."""
    found = np.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        found = min(found, time.process_time() - start)
    return found


@click.command(help=__doc__)
@click.option("--atoms", "n_atoms", default=1152, show_default=True, type=click.IntRange(24))
@click.option("--model", default="h2-pbe", show_default=True)
def main(n_atoms: int, model: str) -> None:
    """Print the table."""
    atoms = crystal(n_atoms)
    atoms.rattle(0.03, seed=0)
    calculator = HMLP(model, threads=1)
    calculator.calculate(atoms)
    potential = calculator.model.potential
    geometry = potential.tracker().update(
        atoms.positions, atoms.cell.array, atoms.pbc, calculator.molecules, 1
    )
    regressor = potential.environment.regressor
    interaction = potential.interaction
    placed = potential._placed(geometry)
    pairs = geometry.pairs.args
    v = potential.fingerprints(geometry)
    times = {
        "moments, fingerprints": least(
            lambda: evaluate.fingerprints(interaction, placed, *pairs, 1)
        ),
        "kernel regression": least(
            lambda: evaluate.regress(regressor.machine, v, geometry.bond_length, 1)
        ),
        "pairs without environment": least(
            lambda: evaluate.evaluate(
                interaction,
                None,
                potential.bond.curve,
                placed,
                geometry.molecules,
                *pairs,
                1,
                0.0,
            )
        ),
        "the whole evaluation": least(lambda: potential.evaluate(geometry)),
    }
    centres = placed[:, :3]
    first, index, shift_id, shifts = pairs
    owner = np.repeat(np.arange(len(centres)), np.diff(first))
    d = np.linalg.norm(centres[index] + shifts[shift_id] - centres[owner], axis=1)
    m = len(centres)
    near, inside = (
        (d < cutoff).sum() / m for cutoff in (potential.environment.basis.cutoff, potential.cutoff)
    )
    q, k = len(regressor.transform), regressor.machine.record["n_seen"]
    s = len(regressor.alpha)
    flops = near * (MOMENTS + FORCES) + inside * PAIR
    flops += s * (4 * (q + 1) + EXPONENTIAL) + 4 * q * k + SHAPE
    for name, seconds in times.items():
        click.echo(f"{name:28s} {1e6 * seconds / n_atoms:6.2f} us per atom")
    click.echo(
        f"{inside:.1f} pairs a molecule ({near:.1f} of them within the environment's cutoff, "
        f"{len(d) / m:.1f} in the list), {s} representatives on {q} components and the bond"
    )
    whole = times["the whole evaluation"] / m
    click.echo(
        f"{flops / 1000:.0f} thousand additions and multiplications a molecule, "
        f"{1e-9 * flops / whole:.1f} thousand million a second"
    )
    small = hcp(16)
    small.calc = HMLP(model, threads=1)
    start, rng = small.positions.copy(), np.random.default_rng(0)

    def call() -> None:
        small.positions = start + 0.002 * rng.normal(size=start.shape)
        small.get_forces()

    call()
    click.echo(f"{1e6 * least(call, 500):.0f} us a call of {len(small)} atoms")
    row = 8 * (132 + 132 + 16 + 10)
    click.echo(f"{row + 8 * len(d) / m:.0f} bytes a molecule in rows, terms and list")


if __name__ == "__main__":
    main()
