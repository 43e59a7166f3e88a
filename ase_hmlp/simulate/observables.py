"""What the log of a run says: one row of numbers, whose names carry the units.

=============================  =====================================================================
step, time_ps, stage           stages count from 1
target_K, target_GPa           of thermostat and barostat; empty where there is none
temperature_K                  from all 3 n momenta
pressure_GPa                   minus a third of the trace of the stress, kinetic part included
volume_A3_per_atom, density_g_per_cm3
a_A ... gamma_deg              the cell
sxx_GPa ... sxy_GPa            stress, positive in tension, kinetic part included
potential_eV_per_atom, kinetic_eV_per_atom
enthalpy_eV_per_atom           (E_potential + E_kinetic + P V) / n, at the target pressure where
                               there is one, else at the instantaneous one
conserved_meV_per_atom         change since the start of what the integrator conserves, changes of
                               its targets taken out: a continuous curve that an exact integrator
                               would keep at zero; empty for Langevin dynamics
bond_length_A, bond_spread_A   mean over molecules, and standard deviation
bond_min_A, bond_max_A
contact_A                      shortest distance between atoms of different molecules
alignment                      <(3 cos^2 a - 1) / 2>, a the angle between the axis of a molecule and
                               the same axis at the start: 1 for molecules that point where they
                               did, 0 for ones that forgot
deviation_meV_per_atom         mean over atoms of the predicted standard deviation of its energy, in
deviation_max_meV              the rows where it was asked for, and its largest
*_eV_per_atom                  potential energy by level of the hierarchy
=============================  =====================================================================
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from ase import Atoms, units

from ase_hmlp.molecules import bond_shifts
from ase_hmlp.neighbors import complete_cell, neighbour_list

#: u/Å³ in g/cm³.
DENSITY = 1e24 * units._amu * 1e3

#: How far (Å) the search for the shortest contact reaches at first.
CONTACT_REACH = 1.4

CELL = ("a_A", "b_A", "c_A", "alpha_deg", "beta_deg", "gamma_deg")
STRESS = ("sxx_GPa", "syy_GPa", "szz_GPa", "syz_GPa", "sxz_GPa", "sxy_GPa")


def bonds(atoms: Atoms, molecules: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (m), Å, and unit vectors (m, 3) of the bonds.

    Parameters
    ----------
    atoms : ase.Atoms
    molecules : (m, 2) array
        Indices of the two atoms of each molecule.
    """
    positions, cell = atoms.positions, complete_cell(atoms.cell.array, atoms.pbc)
    shifts = bond_shifts(positions, cell, atoms.pbc, molecules)
    first, second = molecules.T
    vectors = positions[second] + shifts @ cell - positions[first]
    lengths = np.linalg.norm(vectors, axis=1)
    return lengths, vectors / lengths[:, None]


def shortest_contact(atoms: Atoms, molecules: np.ndarray) -> float:
    """Shortest distance between atoms of different molecules, Å.

    Images of a molecule count as others. Infinite for a molecule alone.

    Parameters
    ----------
    atoms : ase.Atoms
    molecules : (m, 2) array
    """
    positions, cell = atoms.positions, complete_cell(atoms.cell.array, atoms.pbc)
    shifts = bond_shifts(positions, cell, atoms.pbc, molecules)
    a, b = molecules.T
    partner = np.empty(len(positions), dtype=int)
    own_shift = np.empty((len(positions), 3), dtype=int)
    partner[a], partner[b], own_shift[a], own_shift[b] = b, a, shifts, -shifts
    reach = CONTACT_REACH
    while True:
        first, index, shift = neighbour_list(positions, cell, atoms.pbc, reach)
        owner = np.repeat(np.arange(len(positions)), np.diff(first))
        bonded = (index == partner[owner]) & (shift == own_shift[owner]).all(axis=1)
        owner, index, shift = owner[~bonded], index[~bonded], shift[~bonded]
        if len(index):
            vectors = positions[index] + shift @ cell - positions[owner]
            return float(np.sqrt((vectors**2).sum(axis=1).min()))
        if reach > 20.0:
            return float("inf")
        reach *= 2.0


class Observables:
    """Measures rows of the log.

    Parameters
    ----------
    molecules : (m, 2) array
        Indices of the two atoms of each molecule.
    axes : (m, 3) array
        Their unit vectors at the start.
    """

    def __init__(self, molecules: np.ndarray, axes: np.ndarray):
        self.molecules = molecules
        self.axes = axes

    def measure(self, dynamics, deviations: bool = False) -> dict[str, float]:
        """Measure a row.

        Parameters
        ----------
        dynamics : ase_hmlp.simulate.dynamics.Dynamics
        deviations : bool
            Whether to ask the calculator for them.
        """
        atoms, target = dynamics.atoms, dynamics.target
        n, nan = len(atoms), float("nan")
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        volume, stress, cell = nan, np.full(6, nan), np.full(6, nan)
        if atoms.pbc.all():
            volume, cell = atoms.get_volume(), atoms.cell.cellpar()
            stress = atoms.get_stress(include_ideal_gas=True) / units.GPa
        pressure = -stress[:3].mean()
        held = pressure if np.isnan(target.pressure) else target.pressure
        lengths, axes = bonds(atoms, self.molecules)
        cosines = np.einsum("mc,mc->m", axes, self.axes)
        row = {
            "step": dynamics.step,
            "time_ps": dynamics.step * dynamics.times.timestep / 1000.0,
            "stage": dynamics.stage_number,
            "target_K": target.temperature,
            "target_GPa": target.pressure,
            "temperature_K": atoms.get_temperature(),
            "pressure_GPa": pressure,
            "volume_A3_per_atom": volume / n,
            "density_g_per_cm3": atoms.get_masses().sum() * DENSITY / volume,
            **dict(zip(CELL, cell, strict=True)),
            **dict(zip(STRESS, stress, strict=True)),
            "potential_eV_per_atom": potential / n,
            "kinetic_eV_per_atom": kinetic / n,
            "enthalpy_eV_per_atom": (potential + kinetic + held * units.GPa * volume) / n,
            "conserved_meV_per_atom": 1000.0 * dynamics.conserved() / n,
            "bond_length_A": lengths.mean(),
            "bond_spread_A": lengths.std(),
            "bond_min_A": lengths.min(),
            "bond_max_A": lengths.max(),
            "contact_A": shortest_contact(atoms, self.molecules),
            "alignment": 1.5 * np.mean(cosines**2) - 0.5,
            "deviation_meV_per_atom": nan,
            "deviation_max_meV": nan,
        }
        if deviations:
            values = 1000.0 * atoms.calc.uncertainties(atoms)
            row["deviation_meV_per_atom"] = values.mean()
            row["deviation_max_meV"] = values.max()
        for level, energy in atoms.calc.levels.items():
            row[f"{level}_eV_per_atom"] = energy / n
        return {name: float(value) for name, value in row.items()}


def log_line(values) -> str:
    """One line of CSV: names as they are, numbers to ten digits, nothing for NaN."""
    words = (v if isinstance(v, str) else "" if v != v else f"{v:.10g}" for v in values)
    return ",".join(words) + "\n"


def read_log(path: str | Path) -> np.ndarray:
    """Read the log of a run.

    Parameters
    ----------
    path : path of the CSV file of a run

    Returns
    -------
    structured array
        One field for each column; NaN where there is no number. A half-written last line, of a
        run that was killed, is left out.
    """
    with open(path, newline="") as stream:
        rows = list(csv.reader(line for line in stream if line.endswith("\n")))
    names = rows[0]
    numbers = [tuple(float(x) if x else np.nan for x in row) for row in rows[1:]]
    return np.array(numbers, dtype=[(name, float) for name in names])
