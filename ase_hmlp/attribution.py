"""Which fingerprints an energy comes from.

The pair and orientation levels are sums over fingerprints. The environment level's energy is not,
but it has one exact split that is fair in the
sense of Aumann and Shapley (Values of Non-Atomic Games, 1974; "integrated gradients" in machine
learning): let all fingerprints of a centre grow together from zero, where the molecule is alone and
the energy of the level is zero, and charge each with the energy that is gained along it,
``v_k * integral of de/dv_k(t v) dt from 0 to 1``. The shares add up to the energy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import ase_hmlp._core.evaluate as evaluate
from ase_hmlp.geometry import Geometry
from ase_hmlp.levels import OrientationLevel, PairLevel
from ase_hmlp.potential import Potential

#: Shares must add up to each centre's energy to this, eV.
TOLERANCE = 1e-5

#: Points of the Gauss-Legendre rules along the path, tried in turn.
POINTS = (8, 16, 32, 64, 128, 256)


def shares(regressor, v, bond_length, threads: int = 1) -> np.ndarray:
    """Shares of each fingerprint in the energies of centres.

    Parameters
    ----------
    regressor : ase_hmlp.levels.KernelRegressor
    v : (c, k) array of fingerprints
    bond_length : (c,) Å
    threads : int

    Returns
    -------
    (c, k) array, eV
        They add up to the energies to `TOLERANCE`.
    """
    energy = evaluate.regress(regressor.machine, v, bond_length, threads)[0]
    for points in POINTS:
        nodes, weights = np.polynomial.legendre.leggauss(points)
        mean_gradient = np.zeros_like(v)
        for node, weight in zip(0.5 * (nodes + 1.0), 0.5 * weights, strict=True):
            along = np.ascontiguousarray(node * v)
            mean_gradient += (
                weight * evaluate.regress(regressor.machine, along, bond_length, threads)[1]
            )
        found = v * mean_gradient
        if abs(found.sum(axis=1) - energy).max() < TOLERANCE:
            return found
    raise ArithmeticError(
        f"Shares of fingerprints are off by {abs(found.sum(axis=1) - energy).max():.1e} eV."
    )


def fingerprint_shares(potential: Potential, geometry: Geometry) -> dict[str, dict[str, float]]:
    """Energy of a structure by level and fingerprint.

    Parameters
    ----------
    potential : Potential
    geometry : Geometry

    Returns
    -------
    dict of dict, eV
        Of each fingerprint level (``"pair"``, ``"orientation"``, ``"environment"``), the share of
        every fingerprint by its name; ``"fp_EQQ"`` is one of the orientation level's.
    """
    out = {}
    if potential.pair is not None:
        out["pair"] = _linear_shares(potential, potential.pair, geometry)
    if potential.orientation is not None:
        out["orientation"] = _linear_shares(potential, potential.orientation, geometry)
    environment = potential.environment
    if environment is not None:
        v = potential.fingerprints(geometry)
        length = potential.held_length(geometry)
        found = shares(environment.regressor, v, length, geometry.threads).sum(axis=0)
        out["environment"] = dict(zip(environment.names, found.tolist(), strict=True))
    return out


def _linear_shares(potential, level: PairLevel | OrientationLevel, geometry) -> dict[str, float]:
    """Energy of each fingerprint of a level that is their sum: evaluated one by one."""
    coefficients = level.coefficients.ravel()
    found = np.zeros(len(coefficients))
    for k in np.flatnonzero(coefficients):
        alone = np.zeros_like(coefficients)
        alone[k] = coefficients[k]
        part = replace(level, coefficients=alone.reshape(level.coefficients.shape))
        if isinstance(part, PairLevel):
            only = Potential(0.0, potential.bond, potential.stretch, pair=part)
            found[k] = only.evaluate(geometry).levels["pair"]
        else:
            only = Potential(0.0, potential.bond, potential.stretch, orientation=part)
            found[k] = only.evaluate(geometry).levels["orientation"]
    return dict(zip(level.names, found.tolist(), strict=True))
