"""One molecule and two: bond length, harmonic frequency, energy curves and where they cross."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from numpy.polynomial import Polynomial
from scipy.interpolate import CubicSpline

from ase_hmlp import HMLP
from ase_hmlp.errors import DataError, DomainError
from ase_hmlp.model_io import Model
from ase_hmlp.training.fidelity.reference import bonds

#: Separations between those of the reference, for the model's curve, Å.
FINE = 0.02

#: 1/cm of an angular frequency of one ASE unit, sqrt(eV/u)/Å.
_WAVENUMBER = 1.0 / (2.0 * np.pi * units._c * 100.0) * units.s


def equilibrium(lengths, forces, mass: float, degree: int = 4) -> tuple[float, float]:
    """Bond length and harmonic frequency of a molecule from its forces.

    A polynomial through the forces, whose root and slope these are: ``nu = sqrt(k / mu) / 2 pi c``
    with the reduced mass ``mu = mass / 2``.

    Parameters
    ----------
    lengths : (n,) Å
    forces : (n,) eV/Å
        On one atom, along the bond, positive where they lengthen it.
    mass : float, u
        Of one atom.
    degree : int
        Of the polynomial.

    Returns
    -------
    length : float, Å
    frequency : float, 1/cm

    Raises
    ------
    DataError
        If the force does not vanish, falling, once between the lengths given.
    """
    fit = Polynomial.fit(lengths, forces, degree)
    roots = fit.roots()
    roots = roots[np.abs(roots.imag) < 1e-9].real
    slope = fit.deriv()
    inside = (roots >= np.min(lengths)) & (roots <= np.max(lengths)) & (slope(roots) < 0.0)
    if inside.sum() != 1:
        raise DataError(
            f"The molecule has no one equilibrium between {np.min(lengths):g} and "
            f"{np.max(lengths):g} Å."
        )
    length = float(roots[inside][0])
    return length, float(np.sqrt(-slope(length) / (mass / 2.0)) * _WAVENUMBER)


def axial_force(atoms: Atoms) -> float:
    """Force (eV/Å) that lengthens the bond of a single molecule, as its calculator has it."""
    axis = atoms.get_distance(0, 1, mic=True, vector=True)
    forces = atoms.get_forces()
    return float((forces[1] - forces[0]) @ axis / np.linalg.norm(axis) / 2.0)


def molecule_equilibrium(frames: list[Atoms]) -> tuple[float, float]:
    """`equilibrium` of single molecules with calculators."""
    lengths = [atoms.get_distance(0, 1, mic=True) for atoms in frames]
    forces = [axial_force(atoms) for atoms in frames]
    return equilibrium(lengths, forces, float(frames[0].get_masses()[0]))


def alone(atoms: Atoms, calculator: HMLP) -> Atoms:
    """Copy one or two molecules out of DFT's box, and give them a calculator."""
    copy = atoms.copy()
    copy.pbc = False
    copy.calc = calculator
    return copy


@dataclass(frozen=True)
class Curve:
    """Energy of two molecules at n separations.

    Attributes
    ----------
    separation : (n,) Å
        Of the centres.
    energy : (n,) eV
        Both together.
    """

    separation: np.ndarray
    energy: np.ndarray


def dft_curve(frames: list[Atoms]) -> Curve:
    """Energies of two molecules in one arrangement, as labelled."""
    return Curve(
        np.array([atoms.info["separation"] for atoms in frames], dtype=float),
        np.array([atoms.get_potential_energy() for atoms in frames]),
    )


def model_curve(frames: list[Atoms], model: Model, step: float = FINE) -> Curve:
    """Energies of a model, at every separation of the reference and in steps between them.

    Parameters
    ----------
    frames : list of ase.Atoms
        Of the reference, by separation.
    model : Model
    step : float, Å

    Returns
    -------
    Curve
        Without the separations at which the model refuses to answer, where the contact is too
        short for it.

    Raises
    ------
    DomainError
        If that is all of them.
    """
    calculator = HMLP(model, bonds=bonds(frames[0]))
    given = np.array([atoms.info["separation"] for atoms in frames], dtype=float)
    grid = np.arange(given[0], given[-1] + step / 2, step)
    separations, energies = [], []
    refused: DomainError | None = None
    for r in np.unique(np.concatenate([given, grid]).round(6)):
        nearest = int(np.abs(given - r).argmin())
        atoms = alone(frames[nearest], calculator)
        pairs = bonds(atoms)
        direction = atoms.positions[pairs[1]].mean(axis=0) - atoms.positions[pairs[0]].mean(axis=0)
        direction /= np.linalg.norm(direction)
        atoms.positions[pairs[1]] += (r - given[nearest]) * direction
        try:
            energies.append(atoms.get_potential_energy())
        except DomainError as error:
            refused = error
            continue
        separations.append(r)
    if refused is not None and not separations:
        raise refused
    return Curve(np.array(separations), np.array(energies))


def difference(minuend: Curve, subtrahend: Curve) -> Curve:
    """Difference of two curves where both have a point."""
    _, i, j = np.intersect1d(
        minuend.separation.round(6), subtrahend.separation.round(6), return_indices=True
    )
    return Curve(minuend.separation[i], minuend.energy[i] - subtrahend.energy[j])


def crossing(t: Curve, x: Curve) -> float:
    """Separation at which T, the better arrangement of two quadrupoles, becomes worse than X.

    Parameters
    ----------
    t, x : Curve
        Their common separations are used; between them, a cubic spline of the difference.

    Returns
    -------
    float, Å
        Coming inwards from where T is most favoured, the first separation at which both are
        equal; NaN if T is nowhere favoured or nowhere overtaken.
    """
    d = difference(t, x)
    best = int(d.energy.argmin())
    if d.energy[best] >= 0.0:
        return float("nan")
    roots = CubicSpline(d.separation, d.energy).roots(extrapolate=False)
    inner = roots[roots < d.separation[best]]
    return float(inner.max()) if len(inner) else float("nan")
