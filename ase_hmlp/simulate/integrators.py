"""ASE's integrators, taken apart and put together again without a trace.

An integrator of ASE fixes its target temperature and pressure when it is made, and keeps the state
of its thermostat and barostat in attributes. `make` makes one, `take` reads what it carries along
beside positions, momenta and cell, and `make` with that puts it back: for a ramp at the next
target, for a continued run in another process.

Where the target temperature T changes, the masses of thermostat and barostat, which are
proportional to T, change with it; their velocities are what carries on, as in LAMMPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from ase_hmlp.simulate import bond_steps

Ensemble = Literal["nve", "nvt", "npt"]
Thermostat = Literal["nose-hoover", "langevin", "bussi"]
Cell = Literal["full", "iso"]

_CHAIN = {"_thermostat._eta": 0, "_thermostat._p_eta": 1}
_BAROSTAT = {"_barostat._xi": 0, "_barostat._p_xi": 1}

#: What each integrator carries along, and the power of the target temperature it goes with.
CARRIED: dict[type[MolecularDynamics], dict[str, int]] = {
    VelocityVerlet: {},
    NoseHooverChainNVT: _CHAIN,
    IsotropicMTKNPT: {**_CHAIN, **_BAROSTAT, "_p_eps": 1},
    MTKNPT: {**_CHAIN, **_BAROSTAT, "_p_g": 1},
    Bussi: {"transferred_energy": 0},
    # The force on the piston is that of the momenta before the last half of a step.
    LangevinBAOAB: {"p_eps": 1, "force_eps": 0},
}


@dataclass(frozen=True)
class Method:
    """Which integrator.

    Attributes
    ----------
    ensemble : "nve", "nvt" or "npt"
    thermostat : "nose-hoover" (chains of three; with Martyna-Tobias-Klein's barostat in NPT),
        "langevin" (BAOAB; with a Langevin piston in NPT) or "bussi" (NVT only)
    cell : "full" or "iso", what moves in NPT
    """

    ensemble: Ensemble
    thermostat: Thermostat = "nose-hoover"
    cell: Cell = "full"

    @property
    def integrator(self) -> type[MolecularDynamics]:
        """The class of ASE's."""
        if self.ensemble == "nve":
            return VelocityVerlet
        if self.thermostat == "langevin":
            return LangevinBAOAB
        if self.ensemble == "nvt":
            return Bussi if self.thermostat == "bussi" else NoseHooverChainNVT
        if self.thermostat == "bussi":
            raise ValueError("Bussi's thermostat has no barostat: take another for NPT")
        return MTKNPT if self.cell == "full" else IsotropicMTKNPT


@dataclass(frozen=True)
class Times:
    """Time step and characteristic times of thermostat and barostat, fs.

    With `bond_steps` above one, a step has so many short ones for the bonds; see
    `ase_hmlp.simulate.bond_steps`.
    """

    timestep: float = 0.5
    thermostat_time: float = 50.0
    barostat_time: float = 1000.0
    bond_steps: int = 1


@dataclass(frozen=True)
class Target:
    """Temperature (K) and pressure (GPa); NaN where nothing keeps them."""

    temperature: float = float("nan")
    pressure: float = float("nan")


def make(
    atoms: Atoms,
    method: Method,
    times: Times,
    target: Target,
    rng: np.random.Generator,
    carried: dict[str, np.ndarray] | None = None,
) -> MolecularDynamics:
    """Make an integrator that goes on where another of the same method was left.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator and momenta
    method : Method
    times : Times
    target : Target
    rng : numpy.random.Generator
        Of the stochastic thermostats.
    carried : dict, optional
        What `take` gave; thermostat and barostat start at rest without.
    """
    kind = method.integrator
    step, heat = times.timestep * units.fs, times.thermostat_time * units.fs
    piston = times.barostat_time * units.fs
    options: dict[str, Any] = {}
    if kind is not VelocityVerlet:
        options["temperature_K"] = target.temperature
    if kind in (NoseHooverChainNVT, IsotropicMTKNPT, MTKNPT):
        options["tdamp"] = heat
    if kind in (IsotropicMTKNPT, MTKNPT):
        options |= {"pressure_au": target.pressure * units.GPa, "pdamp": piston}
    if kind is Bussi:
        options |= {"taut": heat, "rng": rng}
    if kind is LangevinBAOAB:
        options |= {"T_tau": heat, "rng": rng}
        if method.ensemble == "npt":
            iso = method.cell == "iso"
            # The mass that Martyna, Tobias and Klein give a barostat of this characteristic time.
            freedom = 3 * len(atoms) + 3 if iso else len(atoms) + 1
            options |= {
                "externalstress": -target.pressure * units.GPa,
                "hydrostatic": iso,
                "P_tau": piston,
                "P_mass": freedom * units.kB * target.temperature * piston**2,
            }
    if times.bond_steps > 1:
        kind = bond_steps.with_bond_steps(kind)
        tension = None if carried is None else carried.get(bond_steps.TENSION)
        options |= {"bond_steps": times.bond_steps, "tension": tension}
    dynamics = kind(atoms, step, **options)
    if carried is not None:
        ratio = target.temperature / float(carried["temperature"])
        for path, power in _carried(kind).items():
            if path in carried:
                value = carried[path]
                if power and ratio != 1.0:
                    value = value * ratio**power
                _assign(dynamics, path, value)
    return dynamics


def take(dynamics: MolecularDynamics, target: Target) -> dict[str, np.ndarray]:
    """Read what an integrator carries along beside positions, momenta, cell and random numbers.

    Parameters
    ----------
    dynamics : from `make`
    target : Target
        It was made with.

    Returns
    -------
    dict of arrays
    """
    carried = {"temperature": np.array(target.temperature)}
    for path in _carried(type(dynamics)):
        holder, name = _locate(dynamics, path)
        if hasattr(holder, name):  # a Langevin thermostat without a piston has none of its state
            carried[path] = np.array(getattr(holder, name), dtype=float)
    return carried


def conserved_energy(dynamics: MolecularDynamics) -> float:
    """What an exact integrator would keep constant (eV) between two of its targets.

    NaN for Langevin dynamics, which conserves nothing.
    """
    if isinstance(dynamics, LangevinBAOAB):
        return float("nan")
    if isinstance(dynamics, (NoseHooverChainNVT, IsotropicMTKNPT, MTKNPT)):
        return dynamics.get_conserved_energy()
    atoms = dynamics.atoms
    total = atoms.get_potential_energy() + atoms.get_kinetic_energy()
    if isinstance(dynamics, Bussi):
        total -= dynamics.transferred_energy
    return float(total)


def _carried(kind: type[MolecularDynamics]) -> dict[str, int]:
    """Of a class of ASE's, or with short steps for bonds."""
    bare = bond_steps.ase_kind(kind)
    return CARRIED[bare] | ({} if kind is bare else {bond_steps.TENSION: 0})


def _locate(dynamics, path: str):
    *parts, name = path.split(".")
    return reduce(getattr, parts, dynamics), name


def _assign(dynamics, path: str, value: np.ndarray) -> None:
    holder, name = _locate(dynamics, path)
    # Scalars stay scalars, arrays are copied: the integrators change them in place.
    setattr(holder, name, value.item() if np.ndim(value) == 0 else np.array(value))
