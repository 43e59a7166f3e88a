"""Trajectories with known answers, for tests of the analyses."""

import numpy as np
from ase import units
from toy_models import BOND_LENGTH, from_molecules, random_axes


def rotors(centres, cell, frames, seed=0, lengths=BOND_LENGTH):
    """Uncorrelated isotropic rotors on fixed centres: ASE atoms, frame by frame."""
    rng = np.random.default_rng(seed)
    for _ in range(frames):
        yield from_molecules(centres, random_axes(len(centres), rng), lengths, cell)


def drifting(atoms, velocity, frames, timestep, wrap=False):
    """A rigid drift at `velocity` (Å/fs), `timestep` fs between frames."""
    for k in range(frames):
        moved = atoms.copy()
        moved.positions += k * timestep * np.asarray(velocity)
        moved.set_velocities(np.tile(np.asarray(velocity) / units.fs, (len(atoms), 1)))
        moved.info["time_fs"] = k * timestep
        if wrap:
            moved.wrap()
        yield moved
