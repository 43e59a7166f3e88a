"""Two time steps: short ones for the covalent bonds, a long one for everything else.

A hydrogen molecule vibrates in 7.6 fs, three times as fast as anything else moves, and the first
level of the hierarchy, which makes it, costs next to nothing. So the reversible reference system
propagator (Tuckerman, Berne and Martyna, J. Chem. Phys. 97, 1990, 1992) suits it: in a step of the
integrator the forces of the other levels act at its ends, and in between, where atoms move, the
bonds' forces act in so many short steps. `with_bond_steps` makes this of each of ASE's integrators
that `ase_hmlp.simulate.integrators` uses; with one short step those of constant energy
or volume, but for Langevin's, would be ASE's own but for rounding.

Neighbours press on a molecule all the time. Where a constant force F acts in kicks t apart, a
spring is found (F / k) (omega t / 2) cot(omega t / 2) away from rest, in steps of 1.25 fs 9 % less
than F / k, and bonds would be 0.001 Å too long at 100 GPa. So the mean of what presses, over the
molecules as an integrator finds them, acts in the short steps too; whatever it is, forces add up to
the same.

Thermostats, barostats and their conserved quantities are ASE's, at the long step. The long step
must stay well below half a vibration, 3.8 fs, where both steps resonate.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from ase_hmlp.molecules import bond_shifts


class BondForces:
    """What acts along bonds in the short steps: the first level, and a constant tension.

    Parameters
    ----------
    atoms : ase.Atoms with an `HMLP` calculator
        Integrators never put an atom back into the cell, so that each bond keeps the image of its
        partner that it has now.
    tension : float, eV/Å, optional
        The mean that `atoms` have now unless given.

    Attributes
    ----------
    tension : float, eV/Å
        Mean of what else pulls the two atoms of a molecule apart; negative under pressure.
    """

    def __init__(self, atoms: Atoms, tension: float | None = None):
        forces = atoms.get_forces(md=True)  # finds the molecules, too
        self._level = atoms.calc.model.potential.bond
        self._first, self._second = atoms.calc.molecules.T
        self._shifts = bond_shifts(
            atoms.positions, atoms.cell.array, atoms.pbc, atoms.calc.molecules
        )
        self.tension = 0.0 if tension is None else float(tension)
        if tension is not None:
            return
        left = forces - self(atoms.positions, atoms.cell.array)
        bonds, lengths = self._bonds(atoms.positions, atoms.cell.array)
        apart = 0.5 * (left[self._second] - left[self._first])
        self.tension = float((np.einsum("mk,mk->m", apart, bonds) / lengths).mean())

    def _bonds(self, positions, cell) -> tuple[np.ndarray, np.ndarray]:
        bonds = positions[self._second] - positions[self._first] + self._shifts @ cell
        return bonds, np.sqrt(np.einsum("mk,mk->m", bonds, bonds))

    def __call__(self, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Forces (n, 3), eV/Å, of atoms at `positions` (n, 3) in a cell (3, 3), Å."""
        bonds, lengths = self._bonds(positions, cell)
        slopes = self._level.energy(lengths)[1] - self.tension
        along = (slopes / lengths)[:, None] * bonds
        forces = np.empty_like(positions)
        forces[self._first], forces[self._second] = along, -along
        return forces


class _BondSteps(MolecularDynamics):
    """What all of them share: the bonds, and how many short steps a long one has."""

    def __init__(self, atoms, timestep, *, bond_steps: int, tension=None, **options):
        self._bonds = BondForces(atoms, tension)
        self._bond_steps = bond_steps
        super().__init__(atoms, timestep, **options)

    def _other_forces(self) -> np.ndarray:
        atoms = self.atoms
        return atoms.get_forces(md=True) - self._bonds(atoms.positions, atoms.cell.array)


class _BondStepsChain(_BondSteps):
    """Nosé and Hoover's chains: in the time of a step atoms `_drift`, and the cell, if it moves."""

    def _get_forces(self):
        self._update_atoms()
        return self._other_forces()

    def _integrate_q(self, delta):
        step = delta / self._bond_steps
        forces = self._bonds(self._q, self._cell_now())
        for _ in range(self._bond_steps):
            self._p = self._p + 0.5 * step * forces
            self._drift(step)
            forces = self._bonds(self._q, self._cell_now())
            self._p = self._p + 0.5 * step * forces

    def _integrate_q_cell(self, delta):
        """It has drifted with the atoms, with which it commutes."""


class BondStepsNVT(_BondStepsChain, NoseHooverChainNVT):
    """`ase.md.nose_hoover_chain.NoseHooverChainNVT` with short steps for bonds."""

    def _cell_now(self):
        return self.atoms.cell.array

    def _drift(self, delta):
        NoseHooverChainNVT._integrate_q(self, delta)


class BondStepsNPT(_BondStepsChain, MTKNPT):
    """`ase.md.nose_hoover_chain.MTKNPT` with short steps for bonds."""

    def _cell_now(self):
        return self._h

    def _drift(self, delta):
        MTKNPT._integrate_q(self, delta)
        MTKNPT._integrate_q_cell(self, delta)


class BondStepsIsotropicNPT(_BondStepsChain, IsotropicMTKNPT):
    """`ase.md.nose_hoover_chain.IsotropicMTKNPT` with short steps for bonds."""

    def _cell_now(self):
        return self._cell0 * np.exp(self._eps)

    def _drift(self, delta):
        IsotropicMTKNPT._integrate_q(self, delta)
        IsotropicMTKNPT._integrate_q_cell(self, delta)


def _move(bonds: BondForces, atoms: Atoms, time: float, count: int) -> None:
    """Velocity Verlet with the forces of the bonds alone, in place."""
    step, masses, cell = time / count, atoms.get_masses()[:, None], atoms.cell.array
    positions, momenta = atoms.positions, atoms.get_momenta()
    forces = bonds(positions, cell)
    for _ in range(count):
        momenta += 0.5 * step * forces
        positions += step * momenta / masses
        forces = bonds(positions, cell)
        momenta += 0.5 * step * forces
    atoms.set_momenta(momenta)


class BondStepsVerlet(_BondSteps, VelocityVerlet):
    """`ase.md.verlet.VelocityVerlet` with short steps for bonds."""

    def step(self, forces=None):
        """Do a time step."""
        atoms = self.atoms
        atoms.set_momenta(atoms.get_momenta() + 0.5 * self.dt * self._other_forces())
        _move(self._bonds, atoms, self.dt, self._bond_steps)
        atoms.set_momenta(atoms.get_momenta() + 0.5 * self.dt * self._other_forces())
        return atoms.get_forces(md=True)


class BondStepsBussi(BondStepsVerlet, Bussi):
    """`ase.md.bussi.Bussi` with short steps for bonds."""

    def step(self, forces=None):
        """Do a time step."""
        self.scale_velocities()
        return super().step(forces)


class BondStepsLangevin(_BondSteps, LangevinBAOAB):
    """`ase.md.langevinbaoab.LangevinBAOAB` with short steps for bonds: at least one for each A."""

    def _update_accel(self):
        self.accel = self._other_forces() / self.atoms.get_masses()[:, None]

    def _BAOAB_A(self):
        _move(self._bonds, self.atoms, 0.5 * self.dt, max(1, round(0.5 * self._bond_steps)))


_KINDS = (
    BondStepsVerlet,
    BondStepsNVT,
    BondStepsNPT,
    BondStepsIsotropicNPT,
    BondStepsBussi,
    BondStepsLangevin,
)

#: What they carry along beside what ASE's do: where it is, see `BondForces`.
TENSION = "_bonds.tension"


def with_bond_steps(kind: type[MolecularDynamics]) -> type[_BondSteps]:
    """The class that is `kind`, one of ASE's, with short steps for bonds.

    It takes two more arguments: ``bond_steps``, how many of them are in a time step, and
    ``tension``, see `BondForces`.
    """
    return next(k for k in _KINDS if ase_kind(k) is kind)


def ase_kind(kind: type[MolecularDynamics]) -> type[MolecularDynamics]:
    """The class of ASE's that `kind` is, or adds short steps to."""
    return next(k for k in kind.__mro__ if k.__module__.startswith("ase."))
