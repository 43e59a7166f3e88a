"""Runs and trajectories of molecules whose motion is known in closed form."""

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from toy_models import from_molecules

#: Speed of light, cm/fs.
LIGHT = 2.99792458e-5


def lattice(n, spacing=4.0):
    """Centres (n^3, 3) and cell of a simple cubic lattice, Å."""
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return spacing * grid.astype(float), n * spacing * np.eye(3)


def frames(positions, velocities, cell, timestep):
    """ASE atoms from positions (t, n, 3), Å, and velocities (t, n, 3), Å/fs."""
    template = Atoms(np.ones(positions.shape[1]), cell=cell, pbc=True)
    for k, (r, v) in enumerate(zip(positions, velocities, strict=True)):
        atoms = template.copy()
        atoms.positions = r
        atoms.set_velocities(v / units.fs)
        atoms.info["time_fs"] = k * timestep
        yield atoms


def molecule_frames(bonds, bond_velocities, timestep, spacing=4.0):
    """Molecules at rest on a lattice whose bonds (t, m, 3) move; m a cube."""
    centres, cell = lattice(round(bonds.shape[1] ** (1 / 3)), spacing)

    def atoms(centre, bond):
        both = np.stack([centre - 0.5 * bond, centre + 0.5 * bond], axis=2)
        return both.reshape(len(bond), -1, 3)

    return frames(atoms(centres, bonds), atoms(0.0 * centres, bond_velocities), cell, timestep)


def centre_frames(centres, cells, timestep, axes=None):
    """Molecules that do not turn, with centres (t, m, 3), Å, in cells (t, 3, 3)."""
    axes = np.tile([0.0, 0.6, 0.8], (centres.shape[1], 1)) if axes is None else axes
    template = from_molecules(0.0 * centres[0], axes, cell=cells[0])
    bonded = template.positions.copy()
    for k, (r, cell) in enumerate(zip(centres, cells, strict=True)):
        atoms = template.copy()
        atoms.positions = bonded + np.repeat(r, 2, axis=0)
        atoms.cell[:] = cell
        atoms.info["time_fs"] = k * timestep
        yield atoms


def run(atoms, step, every, n):
    """n frames of a run by ASE's velocity Verlet, `every` steps of `step` fs apart."""
    dynamics = VelocityVerlet(atoms, step * units.fs)
    for k in range(n):
        if k:
            dynamics.run(every)
        frame = atoms.copy()
        frame.info["time_fs"] = k * every * step
        yield frame


class CoupledBonds(Calculator):
    """Harmonic bonds that feel their sum: ``k / 2 sum x^2 + kappa / 2m (sum x)^2``.

    The normal modes are known: all molecules in phase have the force constant k + kappa, the other
    m - 1 have k. Atoms of a molecule are adjacent, and not across the cell.

    Parameters
    ----------
    k, kappa : float, eV/Å²
    length : float, Å
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, k, kappa, length=0.74):
        super().__init__()
        self.k, self.kappa, self.length = k, kappa, length

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bonds = self.atoms.positions[1::2] - self.atoms.positions[::2]
        lengths = np.linalg.norm(bonds, axis=1)
        x = lengths - self.length
        pull = ((self.k * x + self.kappa * x.mean()) / lengths)[:, None] * bonds
        forces = np.stack([pull, -pull], axis=1).reshape(-1, 3)
        energy = 0.5 * self.k * (x @ x) + 0.5 * self.kappa * x.sum() ** 2 / len(x)
        self.results = {"energy": energy, "forces": forces}


class Springs(Calculator):
    """Rigid molecules on springs between centres: ``1/4 sum_ij k_ij |u_i - u_j|^2``, masses equal.

    Parameters
    ----------
    sites : (m, 3) array, Å
    constants : (m, m) symmetric array, eV/Å²
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, sites, constants):
        super().__init__()
        self.sites = sites
        self.matrix = np.diag(constants.sum(axis=1)) - constants

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = 0.5 * (self.atoms.positions[1::2] + self.atoms.positions[::2]) - self.sites
        force = -self.matrix @ moved
        energy = -0.5 * np.sum(force * moved)
        self.results = {"energy": energy, "forces": np.repeat(0.5 * force, 2, axis=0)}


def wavenumber(constant, mass):
    """Of a harmonic oscillator, 1/cm: force constant in eV/Å², mass in u."""
    return np.sqrt(constant / mass) * units.fs / (2.0 * np.pi * LIGHT)
