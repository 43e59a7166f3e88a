"""Fitting the hierarchy: bond, then pair, then orientation, each to what is left over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from sklearn.base import BaseEstimator

from ase_hmlp.errors import DataError
from ase_hmlp.fingerprints import RadialBasis, RadialFunction, born_mayer, is_real_channel
from ase_hmlp.levels import KernelRegressor, OrientationLevel, PairLevel
from ase_hmlp.potential import Potential
from ase_hmlp.training.bond import fit_bond
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.kernel_ridge import (
    NormalEquations,
    choose_representatives,
    compression,
    gram,
    predictive_variance,
)
from ase_hmlp.training.rows import LevelDesign, fingerprints
from ase_hmlp.training.weights import Weights, targets

#: The fingerprint levels in the order they are fitted.
LEVELS = ("pair", "orientation")

#: Told the stage, the steps done and the steps in all.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class LevelSpec:
    """Everything that defines a fingerprint level before it is fitted.

    Attributes
    ----------
    functions : tuple of RadialFunction
    cutoff : float, Å
    inner, outer : float, Å, see `RadialBasis`
    n_representatives : int
    length_scale, whitening, tolerance : float, see `training.kernel_ridge.compression`
    stretch_width : float, Å; 0 if the bond length is no input
    baseline_contact : float, Å
        The repulsive baseline is fitted to frames with a contact shorter than this.
    prior : float, eV
        Prior standard deviation of one centre's energy in the Gaussian kernel.
    linear_prior : float, eV
        Prior standard deviation of the energy carried by the linear term of one fingerprint.
    """

    functions: tuple[RadialFunction, ...]
    cutoff: float
    inner: float
    outer: float
    n_representatives: int = 500
    length_scale: float = 1.0
    whitening: float = 0.5
    tolerance: float = 1e-3
    stretch_width: float = 0.0
    baseline_contact: float = 0.0
    prior: float = 1.0
    linear_prior: float = 10.0

    @property
    def basis(self) -> RadialBasis:
        """The radial basis."""
        return RadialBasis(self.functions, self.cutoff, self.inner, self.outer)


class HierarchicalPotential(BaseEstimator):
    """The three levels of the potential as one estimator over lists of `Frame`.

    Parameters
    ----------
    pair, orientation : LevelSpec or None
        None leaves the level out.
    bond : str
        Form of the bond, see `ase_hmlp.training.bond.fit_bond`.
    bond_groups : tuple of str
        Families the bond is fitted to; empty for all.
    weights : Weights
    joint : bool
        After the hierarchy, fit the coefficients of both fingerprint levels once more together.
    variance : bool
        Keep what predictive variances need.

    Attributes
    ----------
    potential_ : Potential
    stages_ : dict of Potential
        The potential after each level: "bond", "pair", "orientation", and "all" as in
        `potential_`.
    zeros_ : dict of dict of float
        By stage as in `stages_`, then by source (`Frame.source_set`): how far the zero of its
        energies lies above the potential's, eV/atom.  Only differences mean anything: the first
        frame's source has zero by definition.
    report_ : dict
        What was chosen and how long it took.
    """

    def __init__(
        self,
        pair=None,
        orientation=None,
        bond="auto",
        bond_groups=(),
        weights=None,
        joint=True,
        variance=True,
    ):
        self.pair = pair
        self.orientation = orientation
        self.bond = bond
        self.bond_groups = bond_groups
        self.weights = weights
        self.joint = joint
        self.variance = variance

    def fit(self, X: list[Frame], y=None, progress: Progress = silent):
        """Fit to labelled frames; y is ignored, the labels are in the frames."""
        self.report_ = {"seconds": {}, "frames": len(X)}
        # Root mean square of each fingerprint, by level: what the linear coefficients scale with.
        self._spread: dict[type, np.ndarray] = {}
        self._sources = list(dict.fromkeys(frame.source_set for frame in X))
        self.zeros_: dict[str, dict[str, float]] = {}
        weights = self.weights or Weights()
        chosen = [f for f in X if not self.bond_groups or f.group in self.bond_groups]
        if not chosen:
            raise DataError(
                f"No frame is of the families the bond is fitted to: {self.bond_groups}."
            )
        with lap(self.report_, "bond"):
            bond, scores = fit_bond(chosen, self.bond, weights)
            self.report_["bond"] = {"form": bond.form, "r0": bond.r0, "scores": scores}
            self.stages_ = {"bond": self._with_zero(X, Potential(0.0, bond), "bond")}
        potential = Potential(0.0, bond)
        if self.pair is None:
            self.potential_ = self.stages_["bond"]
            return self
        with lap(self.report_, "baseline"):
            potential = replace(potential, pair=self._baseline(X, potential))
        with lap(self.report_, "representatives"):
            designs = [self._design(X, PairLevel, self.pair, potential, progress)]
            if self.orientation is not None:
                designs.append(
                    self._design(X, OrientationLevel, self.orientation, potential, progress)
                )
        with lap(self.report_, "rows"):
            equations = self._equations(X, potential, designs, weights, progress)
        with lap(self.report_, "solve"):
            self._solve(potential, designs, equations)
        return self

    def predict(self, X: list[Frame]) -> np.ndarray:
        """Energies (frames,), eV."""
        return np.array([p.energies.sum() for p in self.evaluate(X)])

    def score(self, X: list[Frame], y=None) -> float:
        """Minus the mean absolute force error, eV/Å: larger is better."""
        errors = [
            np.abs(p.forces - f.forces).ravel() for p, f in zip(self.evaluate(X), X, strict=True)
        ]
        return -float(np.concatenate(errors).mean())

    def evaluate(self, X: list[Frame]) -> list:
        """Evaluations (energies, forces, virials) of frames."""
        tracker = self.potential_.tracker()
        cutoffs = tracker.pair_cutoff, tracker.centre_cutoff
        return [self.potential_.evaluate(frame.geometry(*cutoffs)) for frame in X]

    # ------------------------------------------------------------------ steps

    def _cutoffs(self) -> tuple[float, float]:
        return (
            self.pair.cutoff if self.pair else 1.0,
            self.orientation.cutoff if self.orientation else 1.0,
        )

    def _geometry(self, frame: Frame):
        return frame.geometry(*self._cutoffs())

    def _baseline(self, frames, potential) -> PairLevel:
        """Born-Mayer repulsion between atoms, fitted to what the bond leaves of the forces.

        Only frames with close contacts count, if there are any: below the shortest of them
        nothing else acts.  The decay is scanned; the strength follows by least squares.
        """
        spec = self.pair
        # A longer decay would reach far into the range where the regressor is at home.
        decays = np.arange(0.14, 0.51, 0.02)
        basis = RadialBasis(
            tuple(f for d in decays for f in born_mayer(d)), spec.cutoff, spec.inner, spec.outer
        )
        regressor = _empty_regressor(basis.table.channels)
        design = LevelDesign(PairLevel, basis, regressor, is_real_channel(basis.names))
        contacts = np.array([frame.shortest_contact for frame in frames])
        limit = max(spec.baseline_contact, np.quantile(contacts, 0.02))
        square, vector, matrix = 0.0, np.zeros(len(decays)), np.zeros(len(decays))
        for frame, contact in zip(frames, contacts, strict=True):
            if contact > limit:
                continue
            # Forces alone, all alike: the largest ones, nearest the wall, decide.
            forces = slice(1, 1 + 3 * frame.n_atoms)
            rest = self._residual(frame, potential)[forces]
            rows = design.rows(self._geometry(frame))[:, forces]
            square += rest @ rest
            vector += rows @ rest
            matrix += (rows**2).sum(axis=1)
        misfit = np.where(vector > 0, square - vector**2 / matrix, np.inf)
        best = int(misfit.argmin())
        strength = float(vector[best] / matrix[best])
        self.report_["baseline"] = {"decay": float(decays[best]), "strength": 2 * strength}
        basis = RadialBasis(
            (*spec.functions, *born_mayer(decays[best])), spec.cutoff, spec.inner, spec.outer
        )
        regressor = _empty_regressor(basis.table.channels)
        regressor.linear[len(spec.functions)] = strength
        return PairLevel(basis, regressor)

    def _design(self, frames, level, spec: LevelSpec, potential, progress) -> LevelDesign:
        """Choose compression and representatives from all centres of the training frames."""
        basis = potential.pair.basis if level is PairLevel else spec.basis
        parts, lengths = [], []
        for n, frame in enumerate(frames):
            geometry = self._geometry(frame)
            parts.append(fingerprints(level, basis, geometry))
            lengths.append(level.bond_length(geometry))
            progress(f"{level.centre} fingerprints", n + 1, len(frames))
        v, r = np.concatenate(parts), np.concatenate(lengths)
        names = level.names(basis)
        free = is_real_channel(names) & ~np.array([n.startswith("born_mayer") for n in names])
        transform = compression(v * free, spec.whitening, spec.tolerance, spec.length_scale)
        regressor = choose_representatives(
            v,
            r,
            transform,
            spec.stretch_width,
            potential.bond.r0,
            spec.n_representatives,
        )
        if level is PairLevel:
            regressor.linear[:] = potential.pair.regressor.linear
        self._spread[level] = np.sqrt((v**2).mean(axis=0))
        self.report_[f"{level.centre} components"] = len(transform)
        return LevelDesign(level, basis, regressor, free)

    def _residual(self, frame: Frame, potential: Potential) -> np.ndarray:
        """What a potential leaves of a frame's labels, in the order of a design row."""
        done = potential.evaluate(self._geometry(frame))
        return targets(frame) - np.concatenate(
            [[done.energies.sum()], -done.forces.ravel(), done.virials.sum(axis=0)]
        )

    def _with_zero(self, frames, potential: Potential, stage: str) -> Potential:
        """The potential with the energy zeros that suit the frames best."""
        rest = np.array([self._residual(f, potential)[0] / f.n_atoms for f in frames])
        source = np.array([f.source_set for f in frames])
        zeros = np.array([np.median(rest[source == name]) for name in self._sources])
        self._keep_zeros(stage, zeros[1:] - zeros[0])
        return replace(potential, e0=potential.e0 + float(zeros[0]))

    def _zero_rows(self, frame: Frame, n_labels: int) -> np.ndarray:
        """What a frame's labels depend on the zeros by: (sources, labels).

        Its energy holds the first source's zero and, unless it is of the first, the difference
        to that of its own.
        """
        rows = np.zeros((len(self._sources), n_labels))
        rows[[0, self._sources.index(frame.source_set)], 0] = frame.n_atoms
        return rows

    def _keep_zeros(self, stage: str, differences) -> None:
        """Note how far the sources after the first lie above it."""
        zeros = (0.0, *map(float, differences))
        self.zeros_[stage] = dict(zip(self._sources, zeros, strict=True))

    def _equations(self, frames, potential, designs, weights, progress) -> NormalEquations:
        """One streaming pass over the frames: energy zeros, pair, orientation coefficients."""
        n_zeros = len(self._sources)
        equations = NormalEquations.zeros(n_zeros + sum(d.n_coefficients for d in designs))
        for n, frame in enumerate(frames):
            geometry = self._geometry(frame)
            blocks = [design.rows(geometry) for design in designs]
            zeros = self._zero_rows(frame, blocks[0].shape[1])
            equations.add(
                np.vstack([zeros, *blocks]), self._residual(frame, potential), weights.sigma(frame)
            )
            progress("design matrix", n + 1, len(frames))
        self.report_["observations"] = equations.n_observations
        self.report_["coefficients"] = len(equations.vector)
        return equations

    def _solve(self, potential, designs, equations) -> None:
        """Solve level by level, each for what the one before leaves over; then both together."""
        specs = (self.pair, self.orientation)[: len(designs)]
        n_zeros = len(self._sources)
        edges = np.cumsum([n_zeros, *(d.n_coefficients for d in designs)])
        penalty = np.zeros_like(equations.matrix)
        for spec, design, first in zip(specs, designs, edges[:-1], strict=True):
            middle, last = first + design.n_linear, first + design.n_coefficients
            spread = self._spread[design.level][design.free]
            linear = (spread / spec.linear_prior) ** 2
            if design.sees_bond:
                linear = np.concatenate([linear, linear * spec.stretch_width**2])
            penalty[range(first, middle), range(first, middle)] = linear
            penalty[middle:last, middle:last] = gram(design.regressor) / spec.prior**2
        # The energy zeros are fitted with the pair level and kept by the orientation level.
        known = np.zeros(0)
        bounds = [0, *edges[1:]]
        for name, first, last in zip(LEVELS, bounds[:-1], bounds[1:], strict=False):
            solution = equations.block(first, last, known if first else None).solve(
                penalty[first:last, first:last]
            )
            known = np.concatenate([known, solution.coefficients])
            self.report_[f"{name} jitter"] = solution.jitter
            self.stages_[name] = self._fill(potential, designs, edges, known)
            self._keep_zeros(name, known[1:n_zeros])
        self.potential_ = self.stages_[name]
        self.zeros_["all"] = self.zeros_[name]
        if len(designs) == 2 and (self.joint or self.variance):
            solution = equations.solve(penalty)
            self.report_["joint jitter"] = solution.jitter
            if self.joint:
                self.potential_ = self._fill(potential, designs, edges, solution.coefficients)
                self._keep_zeros("all", solution.coefficients[1:n_zeros])
        if self.variance:
            self.potential_ = self._with_variance(specs, edges, solution)
        self.stages_["all"] = self.potential_

    def _fill(self, potential, designs, edges, coefficients) -> Potential:
        """The potential with the coefficients known so far."""
        changes = {"e0": float(coefficients[0])}
        for name, design, first, last in zip(LEVELS, designs, edges[:-1], edges[1:], strict=False):
            if last <= len(coefficients):
                changes[name] = design.with_coefficients(coefficients[first:last])
        return replace(potential, **changes)

    def _with_variance(self, specs, edges, solution) -> Potential:
        """The potential with what predictive variances need."""
        changes = {}
        for name, spec, last in zip(LEVELS, specs, edges[1:], strict=False):
            level = getattr(self.potential_, name)
            n = len(level.regressor.representatives)
            if n:
                variance = predictive_variance(
                    level.regressor, solution.covariance(last - n, last), spec.prior
                )
                regressor = replace(level.regressor, variance=variance, prior=spec.prior)
                changes[name] = replace(level, regressor=regressor)
        return replace(self.potential_, **changes)


def _empty_regressor(n_fingerprints: int) -> KernelRegressor:
    """A regressor of n fingerprints that is zero everywhere."""
    nothing = np.zeros(n_fingerprints)
    return KernelRegressor(
        transform=np.zeros((0, n_fingerprints)),
        linear=nothing,
        linear_stretch=nothing.copy(),
        representatives=np.zeros((0, 0)),
        rep_bond=np.zeros(0),
        alpha=np.zeros(0),
        r0=0.0,
        stretch_width=0.0,
    )


@contextmanager
def lap(report: dict, name: str):
    """Record the seconds a stage took."""
    start = perf_counter()
    yield
    report["seconds"][name] = round(perf_counter() - start, 1)
