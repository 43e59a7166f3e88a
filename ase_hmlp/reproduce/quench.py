"""What came out of cooling: the crystal at rest, beside the candidates for Phase II."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.units import GPa
from scipy.stats import wasserstein_distance

from ase_hmlp.analysis.pairs import pairs_within
from ase_hmlp.analysis.quadrupoles import orientational_factor, quadrupole_energy
from ase_hmlp.analysis.result import Column, Result, Table
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import DomainWarning, HMLPError
from ase_hmlp.reproduce.recipe import CANDIDATES
from ase_hmlp.simulate.build import at_pressure, phase
from ase_hmlp.simulate.relax import residuals

NAME = "quench"

#: Name of what was cooled, in tables.
COOLED_ROW = "cooled"

#: Force (eV/Å) on atoms, and in the same unit on the cell, at which it counts as at rest.
FMAX, MOST_STEPS = 0.02, 1000

#: Cutoff of the quadrupole energy, and of the nearest twelve in close packings of that density.
CUTOFF, NEAREST = 8.0, 1.2


@dataclass(frozen=True, eq=False)
class AtRest:
    """A crystal at a minimum of the enthalpy.

    Attributes
    ----------
    volume : float, Å³/atom
    enthalpy : float, eV/atom
    eqq : float, meV/molecule
    factors : (k,) array
        Orientational factors (equation 7) of all pairs of nearest neighbours.
    fmax : float, eV/Å
        Largest force left.
    """

    volume: float
    enthalpy: float
    eqq: float
    factors: np.ndarray
    fmax: float

    def distance(self, other: AtRest) -> float:
        """How differently neighbours are oriented: the earth mover's distance of the factors.

        0 for one structure in any cell; a T-shaped pair has a factor of -4, a collinear one 8.
        """
        return float(wasserstein_distance(self.factors, other.factors))


def at_rest(atoms: Atoms, pressure: float) -> AtRest:
    """Look at a crystal that is at rest.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
    pressure : float, GPa
    """
    (snapshot,) = Trajectory(atoms)
    centres, axes, cell, pbc = snapshot.centres, snapshot.axes, snapshot.cell, snapshot.pbc
    energy, _ = quadrupole_energy(centres, axes, cell, pbc, CUTOFF)
    reach = NEAREST * (np.sqrt(2.0) * snapshot.volume / len(centres)) ** (1 / 3)
    factors = [
        orientational_factor(axes[pairs.i], axes[pairs.j], pairs.vectors / pairs.distances[:, None])
        for pairs in pairs_within(centres, cell, pbc, reach)
    ]
    n = len(atoms)
    return AtRest(
        atoms.get_volume() / n,
        (atoms.get_potential_energy() + pressure * GPa * atoms.get_volume()) / n,
        float(energy.sum()),
        np.concatenate(factors),
        residuals(atoms, pressure)[0],
    )


def quench(atoms: Atoms, pressure: float, model: str) -> Result:
    """Bring a crystal to rest, and the candidates at the same pressure.

    Limited-memory quasi-Newton: the matrices of `ase_hmlp.simulate.relax.relax`, which the
    candidates' small cells are relaxed with, are too large for a thousand atoms.

    Parameters
    ----------
    atoms : ase.Atoms
    pressure : float, GPa
    model : see `ase_hmlp.HMLP`

    Returns
    -------
    Result
        Table ``quench``: what was cooled first, then the candidates that have a minimum.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        # ASE's filter takes logarithms of nearly whole matrices; they are good to 1e-12.
        warnings.filterwarnings("ignore", "logm result", RuntimeWarning)
        cooled = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        cooled.calc = HMLP(model, threads=1)
        whole = FrechetCellFilter(cooled, scalar_pressure=pressure * GPa)
        LBFGS(cast(Any, whole), logfile=cast(Any, None)).run(fmax=FMAX, steps=MOST_STEPS)
        found = {COOLED_ROW: at_rest(cooled, pressure)}
        for name in CANDIDATES:
            crystal = phase(name)
            crystal.calc = HMLP(model, threads=1)
            try:
                found[name] = at_rest(at_pressure(crystal, pressure, "full"), pressure)
            except HMLPError:
                continue
    return make_result(found, pressure)


def make_result(found: dict[str, AtRest], pressure: float) -> Result:
    """Put crystals at rest side by side; see `quench`."""
    cooled, rest = found[COOLED_ROW], list(found.values())
    table = Table(
        NAME,
        (
            Column("structure", np.array(list(found), dtype=object), "structure"),
            Column("volume_A3_per_atom", np.array([x.volume for x in rest]), "Å³/atom"),
            Column(
                "enthalpy_above_meV_per_atom",
                np.array([1000.0 * (x.enthalpy - cooled.enthalpy) for x in rest]),
                "meV/atom",
            ),
            Column("eqq_meV", np.array([x.eqq for x in rest]), "<EQQ>"),
            Column("distance", np.array([cooled.distance(x) for x in rest]), "distance"),
            Column("fmax_eV_per_A", np.array([x.fmax for x in rest]), "eV/Å"),
        ),
    )
    return Result(NAME, f"Cooled, at rest at {pressure:g} GPa, beside the candidates", (), (table,))
