"""Sparse kernel ridge regression: representatives, one streaming pass, a stable solution.

The subset-of-regressors form of kernel ridge regression: the function is expanded in the kernels
of a few representatives, every label (an energy, a force or virial component, a plain target) is
one linear functional of the coefficients, and only the normal equations are kept in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ase_hmlp._core.levels import MOST_COMPONENTS
from ase_hmlp.errors import DataError
from ase_hmlp.levels import KernelRegressor


def compression(
    v, whitening: float, tolerance: float, length_scale: float, weight=None, importance=None
) -> np.ndarray:
    """The linear map T (q, k) from fingerprints to what the Gaussian kernel sees.

    Principal components of the fingerprints scaled to unit spread, each then divided by its own
    spread to the power `whitening`; components whose spread is below `tolerance` of the largest
    are dropped, and all after the first `MOST_COMPONENTS`, the room the kernel has.  The typical
    distance between two centres becomes ``1 / length_scale``.

    What a function of many fingerprints can learn from few points depends on how far it has to
    look in each of them: `importance` shrinks those that matter less than their spread suggests.

    Parameters
    ----------
    v : (c, k) array
    whitening : float, 0 (principal components as they are) to 1 (all of unit spread)
    tolerance, length_scale : float
    weight : (c,) array, optional
        Of each centre.
    importance : (k,) array, optional
        What each scaled fingerprint is multiplied by; 0 leaves it out.
    """
    centred = v - np.average(v, axis=0, weights=weight)
    spread = np.sqrt(np.average(centred**2, axis=0, weights=weight))
    importance = np.ones_like(spread) if importance is None else np.asarray(importance)
    used = (spread > 1e-12 * max(spread.max(initial=0.0), 1e-300)) & (importance > 0)
    if not used.any():
        return np.zeros((0, v.shape[1]))
    scale = importance[used] / spread[used]
    scaled = centred[:, used] * scale
    share = np.full(len(v), 1.0 / len(v)) if weight is None else weight / np.sum(weight)
    values, vectors = np.linalg.eigh((scaled.T * share) @ scaled)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = values > values[0] * tolerance**2
    values, vectors = values[keep][:MOST_COMPONENTS], vectors[:, keep][:, :MOST_COMPONENTS]
    stretch = values ** (-0.5 * whitening)
    transform = np.zeros((len(values), v.shape[1]))
    transform[:, used] = (vectors * stretch).T * scale
    # Root mean square distance between two random centres.
    typical = np.sqrt(2.0 * (values * stretch**2).sum())
    return transform / (typical * length_scale)


def most_informative(y, stretch, n: int, tiny: float = 1e-10) -> np.ndarray:
    """Indices of n points, each the one whose value those before it tell least about.

    Pivots of the Cholesky factorisation of the kernel matrix of all points: what is chosen depends
    on the kernel, so that a wide one spends no representatives on points it can tell anyway.

    Parameters
    ----------
    y : (p, q) array, compressed fingerprints
    stretch : (p,) array, bond lengths in units of the kernel's width in them
    n : int
        Fewer are returned once nothing is left to be told.
    tiny : float
        Variance, relative to that of the kernel, that counts as nothing.
    """
    y, stretch = np.ascontiguousarray(y, dtype=float), np.asarray(stretch, dtype=float)
    half = 0.5 * (y**2).sum(axis=1)
    left = 1.0 - np.exp(-2.0 * half)
    known = np.zeros((min(n, len(y)), len(y)))
    chosen: list[int] = []
    while len(chosen) < len(known):
        best = int(left.argmax())
        if left[best] <= tiny:
            break
        k = len(chosen)
        both = half + half[best]
        column = np.exp(y @ y[best] - both) - np.exp(-both)
        column *= np.exp(-0.5 * (stretch - stretch[best]) ** 2)
        column -= known[:k, best] @ known[:k]
        known[k] = column / np.sqrt(left[best])
        left -= known[k] ** 2
        left[best] = 0.0
        chosen.append(best)
    return np.array(chosen, dtype=int)


def choose_representatives(
    v, bond_length, transform, stretch_width: float, r0: float, n: int
) -> KernelRegressor:
    """A regressor with the most informative points as representatives and zero coefficients.

    Parameters
    ----------
    v : (c, k) fingerprints; bond_length : (c,) Å
    transform : (q, k), see `compression`
    stretch_width : float, Å; 0 if the bond length is no input
    r0 : float, Å
    n : int, number of representatives; 0 for a linear model
    """
    y = v @ transform.T
    stretch = bond_length / stretch_width if stretch_width > 0 else np.zeros(len(y))
    chosen = most_informative(y, stretch, n)
    k = v.shape[1]
    return KernelRegressor(
        transform=transform,
        linear=np.zeros(k),
        linear_stretch=np.zeros(k),
        representatives=y[chosen],
        rep_bond=np.asarray(bond_length, dtype=float)[chosen],
        alpha=np.zeros(len(chosen)),
        r0=r0,
        stretch_width=stretch_width,
    )


def gram(regressor: KernelRegressor) -> np.ndarray:
    """Kernel matrix (s, s) of the representatives."""
    y = regressor.representatives
    half_norm = 0.5 * (y**2).sum(axis=1)
    isolated = np.exp(-half_norm[:, None] - half_norm)
    matrix = np.exp(-0.5 * cdist(y, y, "sqeuclidean")) - isolated
    if regressor.stretch_width > 0:
        r = regressor.rep_bond[:, None] / regressor.stretch_width
        matrix *= np.exp(-0.5 * cdist(r, r, "sqeuclidean"))
    return matrix


@dataclass
class NormalEquations:
    """Weighted least squares with a quadratic penalty, accumulated block by block.

    Attributes
    ----------
    matrix : (p, p), sum of weighted outer products
    vector : (p,)
    """

    matrix: np.ndarray
    vector: np.ndarray
    n_observations: int = field(default=0)

    @classmethod
    def zeros(cls, p: int) -> NormalEquations:
        """Empty, for p coefficients."""
        return cls(np.zeros((p, p)), np.zeros(p))

    @classmethod
    def total(cls, parts) -> NormalEquations:
        """The sum of several."""
        first, *others = parts
        out = cls(first.matrix.copy(), first.vector.copy(), first.n_observations)
        for part in others:
            out.matrix += part.matrix
            out.vector += part.vector
            out.n_observations += part.n_observations
        return out

    def add(self, rows, targets, sigma) -> None:
        """Add observations.

        Parameters
        ----------
        rows : (p, o) array, one column per observation
        targets, sigma : (o,) arrays, value and standard error of each
        """
        weighted = rows / sigma
        self.matrix += weighted @ weighted.T
        self.vector += weighted @ (targets / sigma)
        self.n_observations += len(targets)

    def without(self, indices) -> NormalEquations:
        """The equations with some coefficients held at zero and left out."""
        matrix = np.delete(np.delete(self.matrix, indices, axis=0), indices, axis=1)
        return NormalEquations(matrix, np.delete(self.vector, indices), self.n_observations)

    def block(self, first: int, last: int, known=None) -> NormalEquations:
        """The equations of coefficients first to last - 1, those before held at `known` (first,).

        Without `known`, all others are held at zero.
        """
        vector = self.vector[first:last]
        if known is not None:
            vector = vector - self.matrix[first:last, : len(known)] @ known
        return NormalEquations(self.matrix[first:last, first:last], vector, self.n_observations)

    def solve(self, penalty) -> Solution:
        """Minimise the misfit plus ``c . penalty . c``.

        The system is scaled to a unit diagonal and solved by Cholesky factorisation; jitter is
        added, ten times more at each try, until it is positive definite.

        Raises
        ------
        DataError
            If it is not finite, or no jitter helps.
        """
        system = self.matrix + penalty
        if not (np.isfinite(system).all() and np.isfinite(self.vector).all()):
            raise DataError(
                "The equations of the fit are not finite: a prior, a weight or a label is out of "
                "all proportion."
            )
        diagonal = np.sqrt(np.diag(system))
        diagonal[diagonal == 0.0] = 1.0  # a coefficient no label depends on
        scaled = system / diagonal[:, None] / diagonal
        jitter = 1e-14
        while True:
            try:
                factor = cho_factor(scaled + jitter * np.eye(len(scaled)), lower=True)
                break
            except LinAlgError as error:
                jitter *= 10.0
                if jitter > 1e-2:
                    raise DataError(
                        "The equations of the fit have no solution: priors or weights are out of "
                        "all proportion."
                    ) from error
        coefficients = cho_solve(factor, self.vector / diagonal) / diagonal
        return Solution(coefficients, jitter, factor, diagonal)


@dataclass
class Solution:
    """Coefficients (p,), the jitter that was needed, and the factorised system."""

    coefficients: np.ndarray
    jitter: float
    factor: tuple
    diagonal: np.ndarray

    def covariance(self, first: int, last: int) -> np.ndarray:
        """Posterior covariance of the coefficients first to last - 1."""
        unit = np.zeros((len(self.diagonal), last - first))
        unit[first:last] = np.diag(1.0 / self.diagonal[first:last])
        return (cho_solve(self.factor, unit) / self.diagonal[:, None])[first:last]


def predictive_variance(regressor: KernelRegressor, covariance, prior: float) -> np.ndarray:
    """V (s, s) such that ``prior^2 (k(x, x) - k_s V k_s)`` is the variance of one centre.

    The deterministic-training-conditional form: what the representatives cannot express keeps its
    prior variance, the rest has the posterior variance of the coefficients.
    """
    k = gram(regressor)
    k[np.diag_indices_from(k)] += 1e-8
    inverse = cho_solve(cho_factor(k, lower=True), np.eye(len(k)))
    return inverse - covariance / prior**2


class SparseKernelRidge(RegressorMixin, BaseEstimator):
    """Kernel ridge regression on representatives, with a linear plus a Gaussian kernel.

    What the environment level is fitted with, on plain features and targets: no part of a training,
    but what scikit-learn's contract of estimators and its searches are held against.

    Parameters
    ----------
    n_representatives : int
        Number of training points the kernel is expanded in; 0 fits a linear model.
    length_scale : float
        Width of the Gaussian, in units of the typical distance between two samples.
    whitening : float
        0 to 1, see `compression`.
    tolerance : float
        Components with less than this share of the largest spread are dropped.
    noise, prior : float
        Standard error of the targets and prior standard deviation of the function, in units of
        the targets' spread.

    Attributes
    ----------
    regressor_ : KernelRegressor
    intercept_ : float
    jitter_ : float
        Relative jitter the solution needed.
    """

    def __init__(
        self,
        n_representatives=500,
        length_scale=1.0,
        whitening=0.5,
        tolerance=1e-4,
        noise=0.01,
        prior=3.0,
    ):
        self.n_representatives = n_representatives
        self.length_scale = length_scale
        self.whitening = whitening
        self.tolerance = tolerance
        self.noise = noise
        self.prior = prior

    def fit(self, X, y, sample_weight=None):
        """Fit to X (n, k) and y (n)."""
        X, y = validate_data(self, X, y, y_numeric=True, dtype=float)
        weight = _check_sample_weight(sample_weight, X)
        # A weight of zero leaves a sample out, two count as the sample given twice.
        X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.mean_ = np.average(X, axis=0, weights=weight)
        v, bond = X - self.mean_, np.zeros(len(X))
        variance = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)
        scale = np.sqrt(variance) or 1.0
        transform = compression(v, self.whitening, self.tolerance, self.length_scale, weight)
        regressor = choose_representatives(v, bond, transform, 0.0, 0.0, self.n_representatives)
        _, near, isolated = regressor.columns(v, bond)
        rows = np.vstack([np.ones(len(v)), v.T, (near - isolated).T])
        equations = NormalEquations.zeros(len(rows))
        equations.add(rows, y, self.noise * scale / np.sqrt(weight))
        spread = np.sqrt(np.average(v**2, axis=0, weights=weight))
        k = X.shape[1]
        penalty = np.zeros((len(rows), len(rows)))
        penalty[range(1, k + 1), range(1, k + 1)] = (spread / (self.prior * scale)) ** 2
        penalty[k + 1 :, k + 1 :] = gram(regressor) / (self.prior * scale) ** 2
        solution = equations.solve(penalty)
        self.intercept_ = float(solution.coefficients[0])
        self.jitter_ = solution.jitter
        regressor.linear[:] = solution.coefficients[1 : k + 1]
        regressor.alpha[:] = solution.coefficients[k + 1 :]
        self.regressor_ = regressor
        return self

    def predict(self, X):
        """Predicted targets (n) for X (n, k)."""
        check_is_fitted(self)
        v = validate_data(self, X, reset=False, dtype=float) - self.mean_
        _, near, isolated = self.regressor_.columns(v, np.zeros(len(v)))
        return (
            self.intercept_ + v @ self.regressor_.linear + (near - isolated) @ self.regressor_.alpha
        )
