"""Design-matrix rows of one level: energy, gradient and virial as linear functions of coefficients.

Coefficients stand in the order linear, linear in the stretch (where the level sees the bond
length), representatives.  A row times the coefficients is what the calculator returns, to
round-off: both come from the same kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ase_hmlp.fingerprints import RadialBasis
from ase_hmlp.geometry import Geometry
from ase_hmlp.levels import KernelRegressor, OrientationLevel, PairLevel

LevelType = type[PairLevel] | type[OrientationLevel]


def fingerprints(level: LevelType, basis: RadialBasis, geometry: Geometry) -> np.ndarray:
    """Fingerprints (c, k) of the level's centres."""
    if level is PairLevel:
        return PairLevel.fingerprints(basis, geometry)[0]
    return OrientationLevel.fingerprints(basis, geometry)


@dataclass(frozen=True, eq=False)
class LevelDesign:
    """A level whose fingerprints and representatives are chosen and whose coefficients are not.

    Attributes
    ----------
    level : type
        `PairLevel` or `OrientationLevel`.
    basis : RadialBasis
    regressor : KernelRegressor
        With all coefficients zero, but for channels that are held fixed.
    free : (k,) bool
        Channels whose linear coefficients are fitted (neither padding nor baseline).
    """

    level: LevelType
    basis: RadialBasis
    regressor: KernelRegressor
    free: np.ndarray

    @property
    def sees_bond(self) -> bool:
        """Whether the bond length is one of the level's inputs."""
        return self.regressor.stretch_width > 0

    @property
    def n_linear(self) -> int:
        """Number of linear coefficients, those of the stretch included."""
        return int(self.free.sum()) * (2 if self.sees_bond else 1)

    @property
    def n_coefficients(self) -> int:
        """Number of coefficients."""
        return self.n_linear + len(self.regressor.representatives)

    def rows(self, geometry: Geometry) -> np.ndarray:
        """Rows of one structure of n atoms.

        Returns
        -------
        (n_coefficients, 1 + 3 n + 6) array
            Energy, dE/d(position), dE/d(strain) for a unit value of each coefficient.
        """
        v = fingerprints(self.level, self.basis, geometry)
        jacobian = self.level.jacobian(self.basis, geometry)
        r = self.level.bond_length(geometry)
        dr = bond_jacobian(self.level, geometry)
        out = np.zeros((self.n_coefficients, 1 + jacobian.shape[2]))
        k = int(self.free.sum())
        out[:k, 0] = v[:, self.free].sum(axis=0)
        out[:k, 1:] = jacobian[:, self.free].sum(axis=0)
        if self.sees_bond:
            stretch = r - self.regressor.r0
            out[k : 2 * k, 0] = stretch @ v[:, self.free]
            out[k : 2 * k, 1:] = np.tensordot(stretch, jacobian[:, self.free], 1)
            out[k : 2 * k, 1:] += v[:, self.free].T @ dr
        self._kernel_rows(out[self.n_linear :], v, jacobian, r, dr)
        return out

    def _kernel_rows(self, out, v, jacobian, r, dr) -> None:
        g = self.regressor
        if not len(g.representatives):
            return
        y, near, isolated = g.columns(v, r)
        out[:, 0] = (near - isolated).sum(axis=0)
        # dk/dy = near y_s - (near - isolated) y, then one product with dy/dx over all centres.
        slopes = near[:, :, None] * g.representatives - (near - isolated)[:, :, None] * y[:, None]
        centres, _, q = slopes.shape
        dy = np.matmul(g.transform, jacobian).reshape(centres * q, -1)
        out[:, 1:] = slopes.transpose(1, 0, 2).reshape(-1, centres * q) @ dy
        if self.sees_bond:
            h = -(near - isolated) * (r[:, None] - g.rep_bond) / g.stretch_width**2
            out[:, 1:] += h.T @ dr

    def with_coefficients(self, coefficients) -> PairLevel | OrientationLevel:
        """The level with its coefficients filled in."""
        k = int(self.free.sum())
        linear = self.regressor.linear.copy()
        linear[self.free] = coefficients[:k]
        stretch = np.zeros_like(linear)
        if self.sees_bond:
            stretch[self.free] = coefficients[k : 2 * k]
        return self.level(
            self.basis,
            replace(
                self.regressor,
                linear=linear,
                linear_stretch=stretch,
                alpha=np.array(coefficients[self.n_linear :]),
            ),
        )


def bond_jacobian(level: LevelType, geometry: Geometry) -> np.ndarray:
    """d(bond length)/d(position, strain) of each centre: (c, 3 n + 6)."""
    m, n = len(geometry.axes), geometry.n_atoms
    u, length = geometry.axes[:, :3], geometry.axes[:, 3]
    out = np.zeros((m, 3 * n + 6))
    which = np.arange(m)
    for x in range(3):
        out[which, 3 * geometry.molecules[:, 0] + x] = -u[:, x]
        out[which, 3 * geometry.molecules[:, 1] + x] = u[:, x]
    for voigt, (x, y) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        out[:, 3 * n + voigt] = length * u[:, x] * u[:, y]
    if level is OrientationLevel:
        return out
    per_atom = np.empty((n, out.shape[1]))
    per_atom[geometry.molecules] = out[:, None]
    return per_atom
