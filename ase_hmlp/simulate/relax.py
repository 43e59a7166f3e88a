"""Relaxing cell and positions under pressure, to stated tolerances."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa
from threadpoolctl import threadpool_limits

from ase_hmlp.errors import NotConvergedError


@dataclass(frozen=True)
class Relaxation:
    """Result of `relax`.

    Attributes
    ----------
    atoms : ase.Atoms
        The relaxed structure, with the calculator it was relaxed with.
    enthalpy : float, eV/atom
        ``(E + P V) / n`` at the target pressure P.
    volume : float, Å³/atom
    pressure : float, GPa
        Minus a third of the trace of the stress, at the end.
    fmax : float, eV/Å
        Largest force on an atom that is left.
    stress_error : float, GPa
        Largest deviation of a component of the stress from the target that is left.
    steps : int
    """

    atoms: Atoms
    enthalpy: float
    volume: float
    pressure: float
    fmax: float
    stress_error: float
    steps: int


def residuals(atoms: Atoms, pressure: float) -> tuple[float, float]:
    """Say what is left to relax.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
    pressure : float, GPa
        Target.

    Returns
    -------
    fmax : float, eV/Å
        Largest norm of a force on an atom.
    stress_error : float, GPa
        Largest component of ``stress + P``, where P is on the diagonal.
    """
    forces = atoms.get_forces()
    stress = atoms.get_stress(voigt=False) / GPa
    fmax = np.linalg.norm(forces, axis=1).max()
    return float(fmax), float(np.abs(stress + pressure * np.eye(3)).max())


def curvature_of(
    atoms: Atoms, pressure: float, step: float = 1e-3, softest: float = 0.02
) -> np.ndarray:
    """Second derivatives of the enthalpy, as a first guess for `relax`.

    With those of a cheap potential, an expensive one relaxes in a few steps where BFGS's own guess,
    the same for bonds, molecules and the cell, takes a hundred.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
        Left as it is.
    pressure : float, GPa
    step : float, Å
        Displacement of the central differences of forces and stress.
    softest : float, eV/Å²
        Eigenvalues are made positive, and at least this large: translations and rotations have
        none, and a step along them must not be long.

    Returns
    -------
    (3 n + 9, 3 n + 9) array, eV/Å²
        In the coordinates of `ase.filters.FrechetCellFilter`.
    """
    moving = atoms.copy()
    moving.set_constraint()
    moving.calc = atoms.calc
    strained = FrechetCellFilter(moving, scalar_pressure=pressure * GPa)
    origin = strained.get_positions()
    rows = []
    for k in range(origin.size):
        gradient = []
        for sign in (1.0, -1.0):
            displaced = origin.copy()
            displaced.flat[k] += sign * step
            strained.set_positions(displaced)
            gradient.append(-strained.get_forces().ravel())
        rows.append((gradient[0] - gradient[1]) / (2.0 * step))
    hessian = np.array(rows)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return (vectors * np.maximum(np.abs(values), softest)) @ vectors.T


def relax(
    atoms: Atoms,
    pressure: float,
    fmax: float = 0.01,
    stress_tolerance: float = 0.1,
    max_steps: int = 1000,
    progress: Callable[[int, float, float], None] | None = None,
    curvature: np.ndarray | None = None,
) -> Relaxation:
    """Relax cell and positions at a pressure.

    BFGS on positions and the logarithm of the deformation gradient
    (`ase.filters.FrechetCellFilter`), until the force on every atom and every component of the
    stress are within their tolerances. ASE's own criterion mixes the two; here each is checked.

    Parameters
    ----------
    atoms : ase.Atoms with a calculator
        Left as it is.
    pressure : float, GPa
    fmax : float, eV/Å
    stress_tolerance : float, GPa
    max_steps : int
    progress : callable, optional
        Called as ``progress(step, fmax, stress_error)`` after every step.
    curvature : (3 n + 9, 3 n + 9) array, eV/Å², optional
        First guess of the second derivatives, in the filter's own coordinates; see `curvature_of`.

    Returns
    -------
    Relaxation

    Raises
    ------
    NotConvergedError
        If the tolerances are not met after `max_steps`.
    """
    moving = atoms.copy()
    moving.calc = atoms.calc
    strained = FrechetCellFilter(moving, scalar_pressure=pressure * GPa)
    # ASE's annotation leaves out its own filters.
    optimizer = BFGS(strained, logfile=None, maxstep=0.1)  # type: ignore[arg-type]
    if curvature is not None:
        optimizer.H0 = curvature
    # Matrices this small are slower on several BLAS threads, many times so on a busy machine.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # SciPy's estimate of an error of 1e-13 in the filter's logarithm.
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        # A tolerance that is never met: the loop decides.
        for _ in optimizer.irun(fmax=0.0, steps=max_steps):
            force, stress_error = residuals(moving, pressure)
            if progress is not None:
                progress(optimizer.nsteps, force, stress_error)
            if force <= fmax and stress_error <= stress_tolerance:
                break
        else:
            raise NotConvergedError(
                f"The structure did not relax in {max_steps} steps at {pressure:g} GPa: a force "
                f"of {force:.3g} eV/Å and a stress {stress_error:.3g} GPa off the target are left "
                f"(asked for: {fmax:g} and {stress_tolerance:g})."
            )
    n, volume = len(moving), moving.get_volume()
    return Relaxation(
        atoms=moving,
        enthalpy=(moving.get_potential_energy() + pressure * GPa * volume) / n,
        volume=volume / n,
        pressure=-float(np.trace(moving.get_stress(voigt=False))) / 3.0 / GPa,
        fmax=force,
        stress_error=stress_error,
        steps=optimizer.nsteps,
    )
