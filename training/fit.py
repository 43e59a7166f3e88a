"""Fitting the hierarchy: bond, pair, orientation, environment, each to what is left over."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from threadpoolctl import ThreadpoolController

from ase_hmlp._core.levels import evaluate_angular
from ase_hmlp.errors import DataError
from ase_hmlp.fingerprints import (
    ANGULAR_NAMES,
    ORIENTATION_NAMES,
    STRETCH_NAMES,
    OverlapBasis,
    RadialBasis,
    RadialFunction,
    born_mayer,
    environment_names,
)
from ase_hmlp.geometry import default_threads
from ase_hmlp.levels import OrientationLevel, PairLevel, Stretch
from ase_hmlp.potential import Potential
from ase_hmlp.training.bond import fit_bond
from ase_hmlp.training.frames import Frame
from ase_hmlp.training.kernel_ridge import (
    NormalEquations,
    choose_representatives,
    compression,
    predictive_variance,
)
from ase_hmlp.training.rows import Design, EnvironmentDesign, LinearDesign
from ase_hmlp.training.weights import Weights, targets

LevelName = Literal["pair", "orientation", "environment"]

#: The fingerprint levels in the order they are fitted.
LEVELS: tuple[LevelName, ...] = ("pair", "orientation", "environment")

#: Frames whose rows are in memory at a time.
BATCH = 32

#: Told the stage, the steps done and the steps in all.
Progress = Callable[[str, int, int], None]

#: Typical stretch of a bond in a hot crystal, Å: what the priors of its coefficients scale with.
TYPICAL_STRETCH = 0.05

#: Shares of the bonds in bulk frames that the held stretch cuts off at either end.
HELD = 0.003


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class LevelSpec:
    """What defines a linear level before it is fitted.

    Attributes
    ----------
    functions : tuple of RadialFunction
    cutoff : float, Å, between centres
    inner, outer : float, Å, see `RadialBasis`
    linear_prior : float, eV
        Prior standard deviation of the energy that one fingerprint of a molecule carries.
    baseline_contact : float, Å
        The repulsive baseline of the pair level is fitted to frames with a contact shorter than
        this.
    terms : tuple of str or None
        What the radial functions are multiplied by, of `STRETCH_NAMES` or `ORIENTATION_NAMES`; the
        coefficients of all others are zero. None for all.
    """

    functions: tuple[RadialFunction, ...]
    cutoff: float
    inner: float
    outer: float
    linear_prior: float = 1.0
    baseline_contact: float = 0.0
    terms: tuple[str, ...] | None = None

    @property
    def basis(self) -> RadialBasis:
        """The radial basis."""
        return RadialBasis(self.functions, self.cutoff, self.inner, self.outer)


@dataclass(frozen=True)
class KernelSpec(LevelSpec):
    """What defines the environment level before it is fitted.

    Attributes
    ----------
    n_representatives : int
    length_scale, whitening, tolerance : float, see `training.kernel_ridge.compression`
    stretch_width : float, Å; 0 if the bond length is no input
    prior : float, eV
        Prior standard deviation of one molecule's energy in the Gaussian kernel.
    inputs : dict of str to float
        Families of fingerprints that the Gaussian sees (how their names begin), and how important
        each is; see `training.kernel_ridge.compression`.
    linear : tuple of str or None
        Families of fingerprints that the linear kernel sees; None for all.
    overlap : OverlapBasis or None
        How the orbitals of molecules overlap; without it those fingerprints are zero.
    """

    n_representatives: int = 500
    length_scale: float = 1.0
    whitening: float = 0.5
    tolerance: float = 1e-3
    stretch_width: float = 0.1
    prior: float = 1.0
    inputs: dict[str, float] = field(
        default_factory=lambda: {"shell": 1.0, "axial": 0.3, "S": 0.15, "stretched": 0.15}
    )
    linear: tuple[str, ...] | None = None
    overlap: OverlapBasis | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything of a fit but the solution: what the labels say, kept apart by part.

    Attributes
    ----------
    potential : Potential
        Bond and repulsive baseline.
    designs : dict of Design
    sources : list of str
    parts : dict
        Normal equations by part: what a leave-one-family-out fit leaves out.
    rest : dict
        By part, (source, energy left over by the bond) of every frame, eV/atom.
    """

    potential: Potential
    designs: dict[str, Design]
    sources: list[str]
    parts: dict[Hashable, NormalEquations]
    rest: dict[Hashable, list[tuple[str, float]]]
    report: dict = field(default_factory=dict)

    def sources_of(self, parts: Sequence[Hashable]) -> list[str]:
        """Those of `sources` that some frame of the parts is of, in the same order."""
        there = {source for part in parts for source, _ in self.rest[part]}
        return [source for source in self.sources if source in there]


class HierarchicalPotential(BaseEstimator):
    """The levels of the potential as one estimator over lists of `Frame`.

    Parameters
    ----------
    pair, orientation : LevelSpec or None
    environment : KernelSpec or None
        None leaves the level out; without the pair level, which the repulsive baseline is part of,
        there is none but the bond.
    bond : str
        Form of the bond, see `ase_hmlp.training.bond.fit_bond`.
    bond_groups : tuple of str
        Families the bond is fitted to; empty for all.
    baseline_groups : tuple of str
        Families the repulsive baseline is fitted to; empty for all.
    weights : Weights
    joint : bool
        After the hierarchy, fit the coefficients of all fingerprint levels once more together.
    variance : bool
        Keep what predictive variances need.

    Attributes
    ----------
    potential_ : Potential
    stages_ : dict of Potential
        The potential after each level there is: "bond", "pair", "orientation", "environment", and
        "all" as in `potential_`.
    zeros_ : dict of dict of float
        By stage as in `stages_`, then by source (`Frame.source_set`): how far the zero of its
        energies lies above the potential's, eV/atom.  Only differences mean anything: the first
        frame's source has zero by definition.  Sources of which no frame was in the parts used
        have none.
    report_ : dict
        What was chosen and how long it took.
    """

    def __init__(
        self,
        pair=None,
        orientation=None,
        environment=None,
        bond="auto",
        bond_groups=(),
        baseline_groups=(),
        weights=None,
        joint=True,
        variance=True,
    ):
        self.pair = pair
        self.orientation = orientation
        self.environment = environment
        self.bond = bond
        self.bond_groups = bond_groups
        self.baseline_groups = baseline_groups
        self.weights = weights
        self.joint = joint
        self.variance = variance

    def fit(self, X: list[Frame], y=None, progress: Progress = silent):
        """Fit to labelled frames; y is ignored, the labels are in the frames."""
        return self.solve(self.prepare(X, progress=progress))

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
        return [self.potential_.evaluate(frame.geometry(self.potential_.cutoff)) for frame in X]

    # ------------------------------------------------------------------ one pass over the labels

    def prepare(
        self,
        X: list[Frame],
        parts: Sequence[Hashable] | None = None,
        progress: Progress = silent,
    ) -> Prepared:
        """Choose what is chosen without labels and gather what the labels say.

        Parameters
        ----------
        X : list of Frame
        parts : sequence, optional
            The part each frame belongs to; `solve` can leave parts out.  The bond and the repulsive
            baseline are fitted to the frames of `bond_groups` and `baseline_groups` whichever parts
            they are in; representatives are chosen among all frames, not by their labels.
        progress : callable
        """
        report: dict = {"seconds": {}, "frames": len(X)}
        parts = [""] * len(X) if parts is None else list(parts)
        sources = list(dict.fromkeys(frame.source_set for frame in X))
        weights = self.weights or Weights()
        chosen = [f for f in X if not self.bond_groups or f.group in self.bond_groups]
        if not chosen:
            raise DataError(
                f"No frame is of the families the bond is fitted to: {self.bond_groups}."
            )
        with lap(report, "bond"):
            bond, scores = fit_bond(chosen, self.bond, weights)
            report["bond"] = {"form": bond.form, "r0": bond.r0, "scores": scores}
        potential = Potential(0.0, bond, self._stretch(X, bond.r0, report))
        rest: dict[Hashable, list[tuple[str, float]]] = {part: [] for part in parts}
        for frame, part in zip(X, parts, strict=True):
            left = self._residual(frame, potential)[0] / frame.n_atoms
            rest[part].append((frame.source_set, float(left)))
        designs: dict[str, Design] = {}
        if self.pair is not None:
            with lap(report, "baseline"):
                potential = replace(potential, pair=self._baseline(X, potential, report))
            with lap(report, "representatives"):
                designs = self._designs(X, potential, report, progress)
        equations = {}
        with lap(report, "rows"):
            n = len(sources) + sum(d.n_coefficients for d in designs.values())
            found = side_by_side(
                lambda frame: self._observations(frame, potential, designs, sources, weights), X
            )
            for k, (part, observations) in enumerate(zip(parts, found, strict=True)):
                if part not in equations:
                    equations[part] = NormalEquations.zeros(n)
                equations[part].add(*observations)
                progress("design matrix", k + 1, len(X))
        report["coefficients"] = n
        return Prepared(potential, designs, sources, equations, rest, report)

    def _cutoff(self) -> float:
        specs = (self.pair, self.orientation, self.environment)
        return max((spec.cutoff for spec in specs if spec is not None), default=1.0)

    def _residual(self, frame: Frame, potential: Potential) -> np.ndarray:
        """What a potential leaves of a frame's labels, in the order of a design row."""
        done = potential.evaluate(frame.geometry(self._cutoff()))
        return targets(frame) - np.concatenate(
            [[done.energies.sum()], -done.forces.ravel(), done.virials.sum(axis=0)]
        )

    def _stretch(self, frames, r0: float, report) -> Stretch:
        """Hold bonds at what all but a few of those in solids and liquids have."""
        bulk = [f for f in frames if f.pbc.all() and f.n_atoms > 4] or frames
        lengths = np.concatenate([np.linalg.norm(f.bond_vectors(), axis=1) for f in bulk])
        low, high = (float(x) for x in np.quantile(lengths, (HELD, 1.0 - HELD)))
        margin = max(0.25 * (high - low), 1e-3)
        room = 0.5 * margin if high - low > 2.0 * margin else margin
        low, high = low - room, high + room
        report["stretch"] = {"low": low, "high": high}
        return Stretch(r0, low, high, margin)

    def _baseline(self, frames, potential, report) -> PairLevel:
        """Born-Mayer repulsion between atoms, fitted to what the bond leaves of the forces.

        Only frames with close contacts count, if there are any: below the shortest of them
        nothing else acts.  The decay is scanned; the strength follows by least squares.

        Raises
        ------
        DataError
            If there are no contacts, or what they say is not that molecules repel each other.
        """
        spec = self.pair
        usable = [f for f in frames if not self.baseline_groups or f.group in self.baseline_groups]
        if not usable:
            raise DataError(
                f"No frame is of the families the baseline is fitted to: {self.baseline_groups}."
            )
        # A longer decay would reach far into the range where the regressor is at home.
        decays = np.arange(0.14, 0.51, 0.02)
        functions = tuple(f for d in decays for f in born_mayer(d))
        level = PairLevel(
            RadialBasis(functions, spec.cutoff), np.zeros((len(STRETCH_NAMES), len(decays)))
        )
        free = np.zeros_like(level.coefficients, dtype=bool)
        free[0] = True
        design = LinearDesign(potential.stretch, level, free, np.ones_like(level.coefficients))
        contacts = np.array([frame.shortest_contact for frame in usable])
        if np.isinf(contacts).all():
            raise DataError(
                "No frame that the baseline is fitted to has atoms of two molecules within 2.5 Å: "
                "see pair.baseline_groups."
            )
        limit = max(spec.baseline_contact, _low_quantile(contacts))
        square, vector, matrix = 0.0, np.zeros(len(decays)), np.zeros(len(decays))
        for frame, contact in zip(usable, contacts, strict=True):
            if contact > limit:
                continue
            # Forces alone, all alike: the largest ones, nearest the wall, decide.
            forces = slice(1, 1 + 3 * frame.n_atoms)
            rest = self._residual(frame, potential)[forces]
            rows = design.rows(frame.geometry(self._cutoff()))[:, forces]
            square += rest @ rest
            vector += rows @ rest
            matrix += (rows**2).sum(axis=1)
        misfit = np.where(vector > 0, square - vector**2 / np.where(matrix > 0, matrix, 1), np.inf)
        best = int(misfit.argmin())
        if not np.isfinite(misfit[best]):
            raise DataError(
                "In the frames with the closest contacts molecules attract each other, by what the "
                "bond leaves of the forces: no repulsive baseline can be fitted to them."
            )
        strength = float(vector[best] / matrix[best])
        report["baseline"] = {"decay": float(decays[best]), "strength": strength}
        basis = RadialBasis(
            (*spec.functions, *born_mayer(decays[best])), spec.cutoff, spec.inner, spec.outer
        )
        coefficients = np.zeros((len(STRETCH_NAMES), len(basis.functions)))
        coefficients[0, -1] = strength
        return PairLevel(basis, coefficients)

    def _designs(self, frames, potential, report, progress) -> dict[str, Design]:
        """Sizes of all fingerprints; compression and representatives of the kernel."""
        pair, held = potential.pair, potential.stretch
        plain = np.zeros_like(pair.coefficients, dtype=bool)
        plain[0] = True
        sized = LinearDesign(held, pair, plain, np.ones_like(pair.coefficients))
        sizes = [np.zeros((0, len(pair.basis.functions)))]
        radial = None
        if self.orientation is not None:
            basis = self.orientation.basis
            level = OrientationLevel(
                basis, np.zeros((len(ORIENTATION_NAMES), len(basis.functions)))
            )
            isotropic = np.zeros_like(level.coefficients, dtype=bool)
            isotropic[0] = True
            radial = LinearDesign(held, level, isotropic, np.ones_like(level.coefficients))
        radial_sizes, kernel_parts, lengths = [], [], []
        kernel = None
        if self.environment is not None:
            overlap = self.environment.overlap
            kernel = EnvironmentDesign(  # of which nothing but fingerprints are asked
                held,
                self.environment.basis,
                None,  # type: ignore[arg-type]
                np.zeros(0),
                overlap=overlap,
            )

        def seen(frame):
            geometry = frame.geometry(self._cutoff())
            m = len(geometry.bonds)
            return (
                sized.energies(geometry)[None] / m,
                None if radial is None else radial.energies(geometry)[None] / m,
                None if kernel is None else kernel.fingerprints(geometry),
                None if kernel is None else kernel.held_length(geometry),
            )

        for n, (of_pair, of_radial, inputs, length) in enumerate(side_by_side(seen, frames)):
            sizes.append(of_pair)
            radial_sizes.append(of_radial)
            kernel_parts.append(inputs)
            lengths.append(length)
            progress("fingerprints", n + 1, len(frames))
        of_pair = _root_mean_square(np.concatenate(sizes))
        stretch = TYPICAL_STRETCH ** np.array([0.0, 1.0, 2.0, 2.0])[:, None]
        free = _free(self.pair.terms, STRETCH_NAMES, pair.coefficients)
        free[:, -1] = False  # the baseline is held
        designs: dict[str, Design] = {"pair": LinearDesign(held, pair, free, stretch * of_pair)}
        if radial is not None:
            of_radial = _root_mean_square(np.concatenate(radial_sizes))
            spread = _isotropic_sizes()[:, None] * of_radial
            free = _free(self.orientation.terms, ORIENTATION_NAMES, spread)
            designs["orientation"] = LinearDesign(held, radial.level, free, spread)
        if kernel is not None:
            spec = self.environment
            v, r = np.concatenate(kernel_parts), np.concatenate(lengths)
            names = environment_names(spec.basis)
            importance = [
                sum(w for family, w in spec.inputs.items() if _of_family(name, family))
                for name in names
            ]
            transform = compression(
                v, spec.whitening, spec.tolerance, spec.length_scale, importance=importance
            )
            if not spec.n_representatives:
                transform = transform[:0]  # nothing would come of its components but their cost
            regressor = choose_representatives(
                v, r, transform, spec.stretch_width, potential.bond.r0, spec.n_representatives
            )
            linear = None
            if spec.linear is not None:
                linear = np.array([any(_of_family(n, f) for f in spec.linear) for n in names])
            designs["environment"] = EnvironmentDesign(
                held, spec.basis, regressor, np.sqrt((v**2).mean(axis=0)), linear, spec.overlap
            )
            report["components"] = len(transform)
        return designs

    def _observations(self, frame, potential, designs, sources, weights):
        """What a frame's labels say: rows, targets, standard errors.

        Its energy holds the first source's zero and, unless it is of the first, the difference to
        that of its own.
        """
        geometry = frame.geometry(self._cutoff())
        rest = self._residual(frame, potential)
        zeros = np.zeros((len(sources), len(rest)))
        zeros[[0, sources.index(frame.source_set)], 0] = frame.n_atoms
        rows = [zeros, *(design.rows(geometry) for design in designs.values())]
        rows, rest = (weights.in_molecules(frame, x) for x in (np.vstack(rows), rest))
        return rows, rest, weights.sigma(frame)

    # ------------------------------------------------------------------ the solution

    def solve(self, prepared: Prepared, parts=None) -> HierarchicalPotential:
        """Solve level by level, each for what the one before leaves over; then all together.

        Parameters
        ----------
        prepared : Prepared
        parts : iterable, optional
            The parts to use; all unless given. The potential's energies are on the zero of the
            first source that is among them.
        """
        parts = list(prepared.parts) if parts is None else list(parts)
        self.report_ = dict(prepared.report, seconds=dict(prepared.report["seconds"]))
        self.zeros_: dict[str, dict[str, float]] = {}
        self.stages_: dict[str, Potential] = {}
        self.report_["observations"] = sum(prepared.parts[p].n_observations for p in parts)
        with lap(self.report_, "solve"):
            self._solve_bond(prepared, parts)
            if prepared.designs:
                self._solve_levels(prepared, parts)
        self.stages_["all"] = self.potential_
        return self

    def _solve_bond(self, prepared, parts) -> None:
        rest = [item for part in parts for item in prepared.rest[part]]
        source = np.array([name for name, _ in rest])
        left = np.array([energy for _, energy in rest])
        sources = prepared.sources_of(parts)
        zeros = np.array([np.median(left[source == s]) for s in sources])
        self._keep_zeros("bond", sources, zeros[1:] - zeros[0])
        self.potential_ = Potential(
            float(zeros[0]), prepared.potential.bond, prepared.potential.stretch
        )
        self.stages_["bond"] = self.potential_
        self.zeros_["all"] = self.zeros_["bond"]

    def _solve_levels(self, prepared, parts) -> None:
        sources = prepared.sources_of(parts)
        equations = NormalEquations.total(prepared.parts[part] for part in parts)
        designs, n_zeros = prepared.designs, len(sources)
        # Nothing tells the zero of a source that is not there; without the model's own, that of
        # the first one that is there takes its place.
        surplus = [k for k, s in enumerate(prepared.sources) if k and s not in sources[1:]]
        if surplus:
            equations = equations.without(surplus)
        edges = np.cumsum([n_zeros, *(d.n_coefficients for d in designs.values())])
        penalty = np.zeros_like(equations.matrix)
        for (name, design), first, last in zip(designs.items(), edges, edges[1:], strict=False):
            spec = getattr(self, name)
            penalty[first:last, first:last] = (
                design.penalty(spec.prior, spec.linear_prior)
                if isinstance(design, EnvironmentDesign)
                else design.penalty(spec.linear_prior)
            )
        # The energy zeros are fitted with the pair level and kept by those after it.
        known = np.zeros(0)
        for name, first, last in zip(designs, [0, *edges[1:]], edges[1:], strict=False):
            solution = equations.block(first, last, known if first else None).solve(
                penalty[first:last, first:last]
            )
            known = np.concatenate([known, solution.coefficients])
            self.report_[f"{name} jitter"] = solution.jitter
            self.stages_[name] = _fill(prepared, edges, known)
            self._keep_zeros(name, sources, known[1:n_zeros])
        self.potential_ = self.stages_[name]
        self.zeros_["all"] = self.zeros_[name]
        if len(designs) > 1 and (self.joint or self.variance):
            solution = equations.solve(penalty)
            self.report_["joint jitter"] = solution.jitter
            if self.joint:
                self.potential_ = _fill(prepared, edges, solution.coefficients)
                self._keep_zeros("all", sources, solution.coefficients[1:n_zeros])
        environment = self.potential_.environment
        if self.variance and environment is not None and len(environment.regressor.alpha):
            prior, last = self.environment.prior, edges[-1]
            n = len(environment.regressor.alpha)
            # Both sides of the covariance, from the kernel's coefficients to the representatives'.
            to_own = prepared.designs["environment"].of_representatives
            covariance = to_own(to_own(solution.covariance(last - n, last)).T)
            variance = predictive_variance(environment.regressor, covariance, prior)
            regressor = replace(environment.regressor, variance=variance, prior=prior)
            self.potential_ = replace(
                self.potential_, environment=replace(environment, regressor=regressor)
            )

    def _keep_zeros(self, stage: str, sources, differences) -> None:
        """Note how far the sources after the first lie above it."""
        zeros = (0.0, *map(float, differences))
        self.zeros_[stage] = dict(zip(sources, zeros, strict=True))


def _fill(prepared: Prepared, edges, coefficients) -> Potential:
    """The potential with the coefficients known so far."""
    changes: dict[str, Any] = {
        name: design.with_coefficients(coefficients[first:last])
        for (name, design), first, last in zip(
            prepared.designs.items(), edges, edges[1:], strict=False
        )
        if last <= len(coefficients)
    }
    return replace(prepared.potential, e0=float(coefficients[0]), **changes)


def _free(terms: Sequence[str] | None, names: Sequence[str], coefficients) -> np.ndarray:
    """Which coefficients (names, functions) are fitted: those of the terms, or all."""
    chosen = np.array([terms is None or name in terms for name in names])
    return np.repeat(chosen[:, None], coefficients.shape[1], axis=1)


def _of_family(name: str, family: str) -> bool:
    """Whether a fingerprint of the environment is of a family; a vector-axis one is no vector."""
    return name.startswith(family) and not name.startswith(f"{family}-")


def _low_quantile(contacts: np.ndarray) -> float:
    """Contact that one in fifty is shorter than; of the finite ones if they are not as many."""
    with np.errstate(invalid="ignore"):
        found = float(np.quantile(contacts, 0.02))
    return (
        found if np.isfinite(found) else float(np.quantile(contacts[np.isfinite(contacts)], 0.02))
    )


def _root_mean_square(sizes) -> np.ndarray:
    out = np.sqrt((sizes**2).mean(axis=0))
    return np.where(out > 0, out, 1.0)


def _isotropic_sizes() -> np.ndarray:
    """Root mean squares (6,) of the orientation level's invariants for random directions."""
    rng = np.random.default_rng(0)
    a, b, r = (x / np.linalg.norm(x, axis=1)[:, None] for x in rng.normal(size=(3, 4000, 3)))
    s = evaluate_angular(np.column_stack([(a * r).sum(1), (b * r).sum(1), (a * b).sum(1)]))
    terms = (name.split("+") for name in ORIENTATION_NAMES)
    columns = [s[:, [ANGULAR_NAMES.index(n) for n in names]].sum(axis=1) for names in terms]
    return np.sqrt((np.array(columns) ** 2).mean(axis=1))


def side_by_side(function: Callable[[Frame], Any], frames: Sequence[Frame]) -> Iterator[Any]:
    """Results of a function for frames, in their order, by threads.

    A batch at a time: rows of a frame take megabytes, and are not to pile up. What is done with
    the results of a batch has all threads of BLAS, the function one for each of its own.
    """
    blas = ThreadpoolController()
    with Parallel(default_threads(), backend="threading") as parallel:
        for first in range(0, len(frames), BATCH):
            with blas.limit(limits=1, user_api="blas"):
                found = parallel(delayed(function)(f) for f in frames[first : first + BATCH])
            yield from found


@contextmanager
def lap(report: dict, name: str):
    """Record the seconds a stage took."""
    start = perf_counter()
    yield
    report["seconds"][name] = round(perf_counter() - start, 1)
