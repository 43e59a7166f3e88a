"""How long an evaluation takes, in a way that survives a busy machine."""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time

import numpy as np
from ase import Atoms

from ase_hmlp.molecules import find_molecules
from ase_hmlp.potential import Potential
from ase_hmlp.simulate.build import phase, scale_centres, supercell
from ase_hmlp.training.search.config import TimingSection

#: Amplitude (Å) of the displacements between calls, as in dynamics: too small for a new list.
DISPLACEMENT = 0.01


def crystal(section: TimingSection) -> Atoms:
    """The crystal that is evaluated."""
    atoms = supercell(phase(section.phase), section.atoms)
    factor = (section.volume * len(atoms) / atoms.get_volume()) ** (1 / 3)
    return scale_centres(atoms, factor)


def microseconds_per_atom(potentials: Sequence[Potential], atoms: Atoms, calls: int) -> list[float]:
    """Processor time of an evaluation of energy, forces and virial on one thread, µs/atom.

    The potentials take turns, so that a machine that slows down slows all of them down; the least
    of several times is the one that was disturbed least.

    Parameters
    ----------
    potentials : sequence of Potential
    atoms : ase.Atoms, periodic
    calls : int
        For each of them, after one that does not count.
    """
    cell, pbc = atoms.cell.array, atoms.pbc
    molecules = find_molecules(atoms.positions, cell, pbc)
    trackers = [potential.tracker() for potential in potentials]
    least = [np.inf] * len(potentials)
    rng = np.random.default_rng(0)
    for call in range(1 + calls):
        moved = rng.uniform(-DISPLACEMENT, DISPLACEMENT, atoms.positions.shape)
        positions = atoms.positions + moved
        for k, (potential, tracker) in enumerate(zip(potentials, trackers, strict=True)):
            start = process_time()
            potential.evaluate(tracker.update(positions, cell, pbc, molecules))
            took = process_time() - start
            if call:  # the first one makes lists and tables
                least[k] = min(least[k], took)
    return [1e6 * seconds / len(atoms) for seconds in least]
