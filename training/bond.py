"""Level 1: the covalent bond, fitted to forces projected on the molecular axes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, least_squares

from ase_hmlp.errors import DataError
from ase_hmlp.levels import BondLevel
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.weights import Weights

#: The polynomial forms; "morse" is the other one.
DEGREES = {
    "harmonic": 2,
    "cubic": 3,
    "quartic": 4,
    "quintic": 5,
    "sextic": 6,
    "octic": 8,
    "nonic": 9,
}


def projected_forces(frames: list[Frame], weights: Weights):
    """Bond length, dU/dr and its standard error for every molecule.

    Half the difference of the two atoms' forces along the axis: what stretches the bond
    (Zong, Wiebe and Ackland 2020, Methods).

    Returns
    -------
    r, slope, sigma : (p,) arrays; Å, eV/Å, eV/Å
    """
    lengths, slopes, errors = [], [], []
    for frame in frames:
        bonds = frame.bond_vectors()
        r = np.linalg.norm(bonds, axis=1)
        axis = bonds / r[:, None]
        a, b = frame.molecules.T
        slopes.append(0.5 * ((frame.forces[a] - frame.forces[b]) * axis).sum(axis=1))
        errors.append(weights.force_sigma(frame)[frame.molecules, 0].mean(axis=1))
        lengths.append(r)
    return np.concatenate(lengths), np.concatenate(slopes), np.concatenate(errors)


def fit_form(form: str, r, slope, sigma, lower: float, upper: float) -> BondLevel:
    """Fit one form to dU/dr; see `BondLevel` for what the parameters mean.

    Raises
    ------
    DataError
        If the fitted curve has no minimum within the data, or is not bounded below and rising
        beyond [lower, upper].
    """
    if form == "morse":
        start = (4.5, 1.94, 0.75)

        def misfit(p):
            e = np.exp(-p[1] * (r - p[2]))
            return (2 * p[0] * p[1] * (1 - e) * e - slope) / sigma

        depth, a, r0 = least_squares(misfit, start, loss="soft_l1").x
        return BondLevel("morse", (float(depth), float(a)), float(r0), lower, upper)
    degree = DEGREES[form]
    middle = 0.75
    x = r - middle
    powers = np.stack([k * x ** (k - 1) for k in range(1, degree + 1)], axis=1)
    start = np.linalg.lstsq(powers / sigma[:, None], slope / sigma, rcond=None)[0]
    raw = least_squares(
        lambda p: (powers @ p - slope) / sigma, start, loss="soft_l1", x_scale="jac"
    ).x
    curve = np.polynomial.Polynomial([0.0, *raw])
    try:
        x0 = brentq(curve.deriv(), lower - middle, upper - middle)
    except ValueError as error:
        raise DataError(f"The {form} bond has no minimum between {lower} and {upper} Å.") from error
    shifted = curve(np.polynomial.Polynomial([x0, 1.0]))
    coefficients = np.array(shifted.coef)
    coefficients[:2] = 0.0  # energy and slope vanish at the minimum
    bond = BondLevel("polynomial", tuple(map(float, coefficients)), middle + x0, lower, upper)
    beyond = np.concatenate([np.linspace(0.3, bond.r0, 200), np.linspace(bond.r0, 2.0, 200)])
    slopes = bond.energy(beyond)[1]
    if (slopes[:199] > 0).any() or (slopes[201:] < 0).any():
        raise DataError(f"The {form} bond does not rise on both sides of its minimum.")
    return bond


def fit_bond(
    frames: list[Frame], form: str, weights: Weights, margin: float = 0.02
) -> tuple[BondLevel, dict[str, float]]:
    """Fit the bond level.

    Parameters
    ----------
    frames : list of Frame
    form : str
        One of `DEGREES`, "morse", or "auto": the polynomial with the smallest error on the half of
        the molecules it was not fitted to, both ways round. Morse has to be asked for: it flattens,
        so that a bond could break.
    weights : Weights
    margin : float
        The polynomial is continued, see `BondLevel`, outside the middle 1 - 2 `margin` / 10 of the
        bond lengths seen.

    Returns
    -------
    bond : BondLevel
    scores : dict
        Cross-validated error of dU/dr in standard errors, by form: the root of the median square.
    """
    r, slope, sigma = projected_forces(frames, weights)
    lower, upper = (float(np.quantile(r, q)) for q in (margin / 10, 1 - margin / 10))
    scores = {}
    order = np.random.default_rng(0).permutation(len(r))
    halves = order[::2], order[1::2]
    for name in DEGREES if form == "auto" else (form,):
        try:
            parts = []
            for train, test in (halves, halves[::-1]):
                bond = fit_form(name, r[train], slope[train], sigma[train], lower, upper)
                parts.append((bond.energy(r[test])[1] - slope[test]) / sigma[test])
            # The median square: a few molecules deep in the wall must not decide.
            scores[name] = float(np.sqrt(np.median(np.concatenate(parts) ** 2)))
        except DataError:
            if form != "auto":
                raise
    if not scores:
        raise DataError("No bond form fits: are these molecules?")
    best = min(scores, key=scores.__getitem__)
    return fit_form(best, r, slope, sigma, lower, upper), scores
