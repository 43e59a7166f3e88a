"""Design-matrix rows of a level: energy, gradient and virial as linear functions of coefficients.

A row times the coefficients is what the calculator returns, to round-off: rows of the linear levels
are what the kernel returns for one coefficient that is one and all others zero, those of the
environment level are made of its own kernel columns and derivatives of fingerprints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

import ase_hmlp._core.evaluate as evaluate
from ase_hmlp._core.levels import N_FORMS, OVERLAP
from ase_hmlp._core.rows import fingerprint_jacobian
from ase_hmlp.fingerprints import OverlapBasis, RadialBasis
from ase_hmlp.geometry import Geometry
from ase_hmlp.levels import (
    EnvironmentLevel,
    KernelRegressor,
    OrientationLevel,
    PairLevel,
    Stretch,
    interaction,
)
from ase_hmlp.training.kernel_ridge import gram

#: Variance of the representatives' own values, relative to the Gaussian kernel's.
NUGGET = 1e-6


@dataclass(frozen=True, eq=False)
class LinearDesign:
    """The pair or the orientation level before its coefficients are known.

    Attributes
    ----------
    stretch : Stretch
    level : PairLevel or OrientationLevel
        With zero coefficients, but for those that are held fixed.
    free : (c, k) bool
        The coefficients that are fitted.
    spread : (c, k) array
        Typical size of each fingerprint at one molecule: what its prior scales with.
    """

    stretch: Stretch
    level: PairLevel | OrientationLevel
    free: np.ndarray
    spread: np.ndarray

    def __getstate__(self):
        # The kernel's tables have pointers: copies and pickles make their own.
        return {k: v for k, v in self.__dict__.items() if k not in ("_units", "_interaction")}

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients to be fitted."""
        return int(self.free.sum())

    def penalty(self, prior: float) -> np.ndarray:
        """Inverse covariance (p, p) of the coefficients before anything is labelled.

        Parameters
        ----------
        prior : float, eV
            Standard deviation of the energy that one fingerprint carries.
        """
        return np.diag((self.spread[self.free] / prior) ** 2)

    @cached_property
    def _units(self) -> list:
        """Tables of the level with one coefficient at a time."""
        out = []
        for place in zip(*np.nonzero(self.free), strict=True):
            unit = np.zeros_like(self.level.coefficients)
            unit[place] = 1.0
            alone = replace(self.level, coefficients=unit)
            if isinstance(alone, PairLevel):
                out.append(interaction(self.stretch, pair=alone))
            else:
                out.append(interaction(self.stretch, orientation=alone))
        return out

    def rows(self, geometry: Geometry) -> np.ndarray:
        """Rows of one structure of n atoms.

        Returns
        -------
        (n_coefficients, 1 + 3 n + 6) array
            Energy, dE/d(position), dE/d(strain) for a unit value of each coefficient.
        """
        out = np.empty((self.n_coefficients, 7 + 3 * geometry.n_atoms))
        placed = None
        for row, unit in zip(out, self._units, strict=True):
            if placed is None:
                placed = evaluate.place(
                    unit, geometry.positions, geometry.molecules, geometry.bonds
                )
            energies, forces, virials, _, _ = evaluate.evaluate(
                unit, None, None, placed, geometry.molecules, *geometry.pairs.args, 1, 0.0
            )
            row[0], row[1:-6], row[-6:] = energies.sum(), -forces.ravel(), virials.sum(axis=0)
        return out

    def energies(self, geometry: Geometry) -> np.ndarray:
        """The first column of `rows`: (n_coefficients,)."""
        return self.rows(geometry)[:, 0]

    def with_coefficients(self, coefficients) -> PairLevel | OrientationLevel:
        """The level with its coefficients filled in."""
        filled = self.level.coefficients.copy()
        filled[self.free] = coefficients
        return replace(self.level, coefficients=filled)


@dataclass(frozen=True, eq=False)
class EnvironmentDesign:
    """The environment level with its representatives chosen and its coefficients unknown.

    Coefficients stand in the order linear, linear in the stretch (where the level sees the bond
    length), kernel. Those of the kernel are not the representatives' own, whose functions are all
    but the same for neighbours: with L the Cholesky factor of their kernel matrix they are ``L^T``
    times those, of functions that have one prior and are independent (Foster and others, J. Mach.
    Learn. Res. 10, 857 (2009), the "V method"). Else most digits of the normal equations are lost.

    Attributes
    ----------
    stretch : Stretch
    basis : RadialBasis
    regressor : KernelRegressor
        With all coefficients zero.
    spread : (k,) array
        Root mean square of each fingerprint.
    linear : (k,) bool array or None
        The fingerprints with linear coefficients that are fitted, the others' being zero; None for
        all of them.
    overlap : OverlapBasis or None
    """

    stretch: Stretch
    basis: RadialBasis
    regressor: KernelRegressor
    spread: np.ndarray
    linear: np.ndarray | None = None
    overlap: OverlapBasis | None = None

    def __getstate__(self):
        # The kernel's tables have pointers: copies and pickles make their own.
        made = ("_units", "_interaction", "_factor")
        return {k: v for k, v in self.__dict__.items() if k not in made}

    @property
    def sees_bond(self) -> bool:
        """Whether the bond length is one of the level's inputs."""
        return self.regressor.stretch_width > 0

    @property
    def _free(self) -> np.ndarray:
        """Indices of the fingerprints that have linear coefficients."""
        return np.arange(len(self.spread)) if self.linear is None else np.flatnonzero(self.linear)

    @property
    def _free_stretch(self) -> np.ndarray:
        """Those whose coefficients depend on the stretch of the bond, too.

        Overlaps see the lengths of bonds themselves; with the stretch they would pull molecules of
        hot dense liquids into each other.
        """
        if not self.sees_bond:
            return np.zeros(0, dtype=int)
        free = self._free
        return free[(free < OVERLAP) | (free >= OVERLAP + N_FORMS)]

    @property
    def n_linear(self) -> int:
        """Number of linear coefficients, those of the stretch included."""
        return len(self._free) + len(self._free_stretch)

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients."""
        return self.n_linear + len(self.regressor.representatives)

    def penalty(self, prior: float, linear_prior: float) -> np.ndarray:
        """Inverse covariance (p, p) of the coefficients before anything is labelled.

        Parameters
        ----------
        prior, linear_prior : float, eV
            Standard deviation of one molecule's energy in the Gaussian kernel, and of the energy
            that one fingerprint carries.
        """
        out = np.zeros((self.n_coefficients, self.n_coefficients))
        linear = (self.spread[self._free] / linear_prior) ** 2
        stretch = self.spread[self._free_stretch] * self.regressor.stretch_width / linear_prior
        linear = np.concatenate([linear, stretch**2])
        n = self.n_linear
        out[range(n), range(n)] = linear
        out[range(n, len(out)), range(n, len(out))] = prior**-2
        return out

    @cached_property
    def _factor(self) -> np.ndarray:
        """Lower Cholesky factor of the representatives' kernel matrix."""
        k = gram(self.regressor)
        # The little on the diagonal keeps coefficients from growing against each other.
        return np.linalg.cholesky(k + NUGGET * np.eye(len(k)))

    def of_representatives(self, kernel) -> np.ndarray:
        """Coefficients (s, ...) of the representatives from those of the kernel."""
        if not len(kernel):
            return kernel
        return solve_triangular(self._factor, kernel, lower=True, trans=1, check_finite=False)

    @cached_property
    def _interaction(self):
        return interaction(self.stretch, environment=self.basis, overlap=self.overlap)

    def fingerprints(self, geometry: Geometry) -> np.ndarray:
        """Fingerprints (m, k)."""
        return self._seen(geometry)[1]

    def held_length(self, geometry: Geometry) -> np.ndarray:
        """Bond lengths (m) as the level sees them, Å."""
        return self.stretch.r0 + self._interaction.stretch(geometry.bond_length)[0]

    def _seen(self, geometry: Geometry):
        placed = evaluate.place(
            self._interaction, geometry.positions, geometry.molecules, geometry.bonds
        )
        return placed, *evaluate.fingerprints(self._interaction, placed, *geometry.pairs.args, 1)

    def rows(self, geometry: Geometry) -> np.ndarray:
        """Rows of one structure, as `LinearDesign.rows`."""
        placed, v, moments = self._seen(geometry)
        jacobian = fingerprint_jacobian(
            self._interaction, placed, geometry.molecules, moments, *geometry.pairs.args
        )
        s, ds = self._interaction.stretch(geometry.bond_length)
        r, dr = self.stretch.r0 + s, ds[:, None] * bond_jacobian(geometry)
        out = np.zeros((self.n_coefficients, 1 + jacobian.shape[2]))
        free = self._free
        k = len(free)
        out[:k, 0] = v.sum(axis=0)[free]
        out[:k, 1:] = jacobian.sum(axis=0)[free]
        if self.sees_bond:
            stretch, free = r - self.regressor.r0, self._free_stretch
            part = out[k : self.n_linear]
            part[:, 0] = (stretch @ v)[free]
            part[:, 1:] = np.tensordot(stretch, jacobian, 1)[free]
            part[:, 1:] += v.T[free] @ dr
        if len(self.regressor.representatives):
            kernel = np.zeros((len(out) - self.n_linear, out.shape[1]), order="F")
            self._kernel_rows(kernel, v, jacobian, r, dr)
            out[self.n_linear :] = solve_triangular(
                self._factor, kernel, lower=True, overwrite_b=True, check_finite=False
            )
        return out

    def _kernel_rows(self, out, v, jacobian, r, dr) -> None:
        g = self.regressor
        y, near, isolated = g.columns(v, r)
        out[:, 0] = (near - isolated).sum(axis=0)
        # dk/dy = near y_s - (near - isolated) y, then one product with dy/dx over all molecules.
        slopes = near[:, :, None] * g.representatives - (near - isolated)[:, :, None] * y[:, None]
        molecules, _, q = slopes.shape
        dy = np.matmul(g.transform, jacobian).reshape(molecules * q, -1)
        out[:, 1:] = slopes.transpose(1, 0, 2).reshape(-1, molecules * q) @ dy
        if self.sees_bond:
            h = -(near - isolated) * (r[:, None] - g.rep_bond) / g.stretch_width**2
            out[:, 1:] += h.T @ dr

    def with_coefficients(self, coefficients) -> EnvironmentLevel:
        """The level with its coefficients filled in."""
        k = len(self._free)
        linear, stretch = np.zeros((2, len(self.spread)))
        linear[self._free] = coefficients[:k]
        if self.sees_bond:
            stretch[self._free_stretch] = coefficients[k : self.n_linear]
        regressor = replace(
            self.regressor,
            linear=linear,
            linear_stretch=stretch,
            alpha=self.of_representatives(np.asarray(coefficients[self.n_linear :], dtype=float)),
        )
        return EnvironmentLevel(self.basis, regressor, self.overlap)


Design = LinearDesign | EnvironmentDesign


def bond_jacobian(geometry: Geometry) -> np.ndarray:
    """d(bond length)/d(position, strain) of each molecule: (m, 3 n + 6)."""
    m, n = len(geometry.bonds), geometry.n_atoms
    u, length = geometry.axes, geometry.bond_length
    out = np.zeros((m, 3 * n + 6))
    which = np.arange(m)
    for x in range(3):
        out[which, 3 * geometry.molecules[:, 0] + x] = -u[:, x]
        out[which, 3 * geometry.molecules[:, 1] + x] = u[:, x]
    for voigt, (x, y) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        out[:, 3 * n + voigt] = length * u[:, x] * u[:, y]
    return out
