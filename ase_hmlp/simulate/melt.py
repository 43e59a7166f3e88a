"""Liquids, and slabs of solid and liquid: melted by molecular dynamics, and checked to be molten.

A crystal counts as molten when the Bragg peaks of the centres of its molecules are gone. With
F(G) the mean over molecules of exp(i G.R), and G the reciprocal lattice vectors where the crystal
has a peak, up to `REACH` times as long as the shortest one,

    order = sum_G (|F(G)|^2 - 1/m) / sum_G (|F_crystal(G)|^2 - 1/m)

is 1 for the crystal, falls with its vibrations, and is 0 on average for m molecules anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.md.velocitydistribution import Stationary

from ase_hmlp.errors import NotConvergedError, StructureError
from ase_hmlp.molecules import bond_shifts, find_molecules, partners
from ase_hmlp.simulate.build import at_pressure, hcp
from ase_hmlp.simulate.dynamics import Dynamics, Stage, draw_momenta
from ase_hmlp.simulate.integrators import Method, Target, Times

#: Reciprocal lattice vectors counted, in lengths of the shortest.
REACH = 1.8

#: |F|^2 of the crystal above which a reciprocal lattice vector is one of its peaks.
PEAK = 0.5

#: Shortest reciprocal lattice vector (without 2 pi) that counts, in units of the inverse cube root
#: of the volume of a molecule: close packing begins at 1.03, the shape of a slab ends well below.
SHORTEST = 0.75

#: Share of a molten slab, in the middle, that is looked at: the solid orders its neighbours.
MIDDLE = 0.5

Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Melting:
    """How a crystal is melted.

    Attributes
    ----------
    start : float, K
        Where heating begins: molecules of random orientations have heat enough at first.
    temperature : float, K
        Tried first; raised by `increment` up to `highest` until the crystal melts.
    increment, highest : float, K
    pressure : float, GPa
        A liquid that shall be denser is melted and cooled at this pressure, and then compressed:
        what melts a perfect crystal at higher ones breaks its molecules up, too.
    steps : int
        Of every ramp and at each temperature.
    timestep, thermostat_time, barostat_time : float, fs
    threshold : float
        Order below which it is molten, if it stays there for `checks` intervals.
    interval : int, steps
        Between looks at the order.
    checks : int
    """

    start: float = 300.0
    temperature: float = 1500.0
    increment: float = 250.0
    highest: float = 2500.0
    pressure: float = 60.0
    steps: int = 1000
    timestep: float = 0.5
    thermostat_time: float = 50.0
    barostat_time: float = 500.0
    threshold: float = 0.06
    interval: int = 50
    checks: int = 4

    @property
    def times(self) -> Times:
        """For the integrator."""
        return Times(self.timestep, self.thermostat_time, self.barostat_time)


class CrystalOrder:
    """Measures how much of a crystal's order is left.

    Parameters
    ----------
    crystal : ase.Atoms, periodic in all directions
    molecules : (m, 2) array
    which : (k,) integers, optional
        Molecules to look at; all if not given.
    """

    def __init__(self, crystal: Atoms, molecules: np.ndarray, which=None):
        self.molecules = molecules if which is None else molecules[which]
        grid = np.indices((33,) * 3).reshape(3, -1).T - 16
        grid = grid[(grid @ [10**4, 10**2, 1]) > 0]  # one of G and -G
        lengths = np.linalg.norm(grid @ crystal.cell.reciprocal().array, axis=1)
        shortest_first = np.argsort(lengths, kind="stable")[:4000]
        grid, lengths = grid[shortest_first], lengths[shortest_first]
        strengths = self._strengths(crystal, grid)
        inverse_size = (len(molecules) / crystal.get_volume()) ** (1.0 / 3.0)
        peaks = (strengths > PEAK) & (lengths > SHORTEST * inverse_size)
        if not peaks.any():
            raise StructureError("The structure to be melted is no crystal: it has no Bragg peaks.")
        peaks &= lengths < REACH * lengths[peaks].min()
        self._peaks = grid[peaks]
        self._random = len(self._peaks) / len(self.molecules)
        self._total = strengths[peaks].sum() - self._random

    def _strengths(self, atoms: Atoms, grid: np.ndarray) -> np.ndarray:
        first, second = self.molecules.T
        cell = atoms.cell.array
        shifts = bond_shifts(atoms.positions, cell, atoms.pbc, self.molecules)
        centres = atoms.positions[first] + 0.5 * (
            atoms.positions[second] + shifts @ cell - atoms.positions[first]
        )
        phases = 2.0 * np.pi * centres @ np.linalg.inv(cell) @ grid.T
        return np.cos(phases).mean(axis=0) ** 2 + np.sin(phases).mean(axis=0) ** 2

    def __call__(self, atoms: Atoms) -> float:
        """Order of a structure of the same molecules."""
        return float((self._strengths(atoms, self._peaks).sum() - self._random) / self._total)


def liquid(
    calculator,
    pressure: float,
    temperature: float,
    min_atoms: int = 256,
    rng: np.random.Generator | int = 0,
    melting: Melting | None = None,
    progress: Progress | None = None,
) -> Atoms:
    """Melt Phase I and bring the melt to a temperature and a pressure.

    Langevin dynamics with an isotropic piston, first hot until the crystal is molten, then
    cooling linearly to `temperature`, at `pressure` or at `Melting.pressure` if that is lower; in
    that case it is compressed in the end.

    Parameters
    ----------
    calculator : HMLP
    pressure : float, GPa
    temperature : float, K
    min_atoms : int
    rng : numpy.random.Generator or int
    melting : Melting, optional
    progress : callable, optional
        Called as ``progress(what, step, order)``.

    Returns
    -------
    ase.Atoms
        With momenta, the centre of mass at rest, and the calculator; the array ``partner`` has the
        bonded partner of each atom, which in a hot liquid need not be its nearest neighbour at the
        moment.

    Raises
    ------
    NotConvergedError
        If the crystal did not melt.
    """
    rng, melting = np.random.default_rng(rng), melting or Melting()
    crystal = hcp(min_atoms, rng=rng)
    crystal.calc = calculator
    low = min(pressure, melting.pressure)
    atoms = at_pressure(crystal, low, "volume")
    molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    order = CrystalOrder(atoms, molecules)
    method = Method("npt", "langevin", "iso")
    hot = _melt(atoms, method, low, order, melting, rng, progress)
    # Cooled before it is dense: in two ramps, if in any.
    between, end = Target(float(temperature), low), Target(float(temperature), pressure)
    stages = [Stage(method, melting.steps, Target(hot, low), between)]
    if pressure > low:
        stages.append(Stage(method, melting.steps, between, end))
    cooled = Dynamics(atoms, stages, melting.times, rng)
    _run(cooled, cooled.steps, "cooling", order, melting, progress)
    Stationary(atoms)  # Langevin dynamics leaves the centre of mass a momentum
    atoms.info["phase"] = "liquid"
    atoms.set_array("partner", partners(molecules))
    return atoms


def solid_liquid(
    solid: Atoms,
    temperature: float,
    rng: np.random.Generator | int = 0,
    axis: int = 2,
    melting: Melting | None = None,
    progress: Progress | None = None,
) -> Atoms:
    """Melt half of a crystal while the other half is held: a slab of each in one cell.

    Parameters
    ----------
    solid : ase.Atoms with an HMLP calculator
        At the density it shall have; long along `axis`, where the slabs lie side by side.
    temperature : float, K
        Of both halves in the end.
    rng : numpy.random.Generator or int
    axis : int
    melting, progress : see `liquid`

    Returns
    -------
    ase.Atoms
        With momenta and the calculator; the array ``solid`` says which atoms were held, ``partner``
        as of `liquid`.

    Raises
    ------
    NotConvergedError
        If the half did not melt.
    """
    rng, melting = np.random.default_rng(rng), melting or Melting()
    atoms = solid.copy()
    atoms.calc = solid.calc
    molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    # By one of its atoms, so that a molecule is on one side.
    place = atoms.get_scaled_positions(wrap=True)[molecules[:, 0], axis]
    held = place < 0.5
    if held.all() or not held.any():
        raise StructureError("The crystal is too short to be cut in two.")
    middle = abs(place - 0.75) < 0.25 * MIDDLE
    order = CrystalOrder(atoms, molecules, np.flatnonzero(middle))
    mask = np.zeros(len(atoms), dtype=bool)
    mask[molecules[held]] = True
    atoms.set_constraint(FixAtoms(mask=mask))
    method = Method("nvt", "bussi")
    hot = _melt(atoms, method, float("nan"), order, melting, rng, progress)
    ends = Target(hot), Target(float(temperature))
    cooled = Dynamics(atoms, [Stage(method, melting.steps, *ends)], melting.times, rng)
    _run(cooled, melting.steps, "cooling", order, melting, progress)
    atoms.set_constraint()
    momenta = atoms.get_momenta()
    draw_momenta(atoms, 2.0 * temperature, rng)  # the solid is at its minimum
    momenta[mask] = atoms.get_momenta()[mask]
    momenta -= momenta.sum(axis=0) / len(atoms)
    atoms.set_momenta(momenta)
    atoms.set_array("solid", mask)
    atoms.set_array("partner", partners(molecules))
    atoms.info["phase"] = f"slab of {solid.info.get('phase', 'solid')} and liquid"
    return atoms


def _melt(atoms, method, pressure, order, melting, rng, progress) -> float:
    """Heat until molten; returns the temperature (K) that took."""
    steps, before, temperature = melting.steps, melting.start, melting.temperature
    draw_momenta(atoms, before, rng)
    left = 1.0
    while temperature <= melting.highest:
        start, hot = Target(before, pressure), Target(temperature, pressure)
        stages = [Stage(method, steps, start, hot), Stage(method, steps, hot, hot)]
        dynamics = Dynamics(atoms, stages, melting.times, rng)
        _run(dynamics, steps, f"heating to {temperature:g} K", order, melting, progress)
        what = f"melting at {temperature:g} K"
        left = _run(dynamics, 2 * steps, what, order, melting, progress, until_molten=True)
        if left < melting.threshold:
            return temperature
        before, temperature = temperature, temperature + melting.increment
    raise NotConvergedError(
        f"The crystal did not melt in {melting.steps} steps at each temperature up to "
        f"{melting.highest:g} K: {left:.2f} of its order is left."
    )


def _run(dynamics, steps, what, order, melting, progress, until_molten=False) -> float:
    """Run, looking at the order; returns the highest of the last `checks` looks."""
    recent: list[float] = []
    while dynamics.step < steps:
        dynamics.advance(min(steps, dynamics.step + melting.interval))
        recent = [*recent, order(dynamics.atoms)][-melting.checks :]
        if progress is not None:
            progress(what, dynamics.step, recent[-1])
        if until_molten and len(recent) == melting.checks and max(recent) < melting.threshold:
            break
    return max(recent)
