"""The levels of the hierarchy: a fingerprint specification and coefficients each.

What they add up to is evaluated by the core in one go, see `ase_hmlp.potential`; the training rows
of each level come from `ase_hmlp.training.rows`, through the same kernel.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property

import numpy as np

from ase_hmlp._core.levels import BondCurve, Interaction, Machine, evaluate_cutoff
from ase_hmlp.fingerprints import (
    N_DENSITIES,
    N_SHELLS,
    ORIENTATION_NAMES,
    STRETCH_NAMES,
    OverlapBasis,
    RadialBasis,
    environment_names,
    orientation_names,
    pair_names,
)

BOND_FORMS = {"polynomial": 0, "morse": 1}

#: Node distances of the kernel's tables, Å; tests hold them to forces within 1e-6.
ATOM_SPACING, CENTRE_SPACING, ORBITAL_SPACING = 0.004, 0.008, 0.008

#: Atoms of molecules whose centres are within the cutoff are at most this much farther apart (Å):
#: half the sum of two bonds longer than any model accepts.
LONGEST = 2.0


@dataclass(frozen=True, eq=False)
class KernelRegressor:
    """Kernel ridge regression from fingerprints v (and a bond length r) to energy.

    The kernel is a linear one plus a Gaussian on ``y = transform @ v`` that vanishes with v; see
    ``hmlp::Regressor`` in the kernel header for the formula.

    Attributes
    ----------
    transform : (q, k) array, fingerprints to the components the Gaussian sees
    linear, linear_stretch : (k,) arrays, eV per fingerprint (and per Å)
    representatives : (s, q) array, compressed fingerprints of the representatives
    rep_bond : (s,) array, bond lengths of the representatives, Å
    alpha : (s,) array, eV
    r0 : float, Å
    stretch_width : float
        Width of the Gaussian in the bond length, Å; 0 where the level does not see it.
    variance : (s, s) array or None
        V of the predictive variance ``k(x, x) - k_s V k_s``, in units of `prior`.
    prior : float
        Prior standard deviation of one molecule's energy, eV, times what makes deviations as large
        as errors of unseen frames.
    exponent : float
        Power of what is left of the prior standard deviation, in units of it, that deviations go
        with, as errors of unseen frames do.
    """

    transform: np.ndarray
    linear: np.ndarray
    linear_stretch: np.ndarray
    representatives: np.ndarray
    rep_bond: np.ndarray
    alpha: np.ndarray
    r0: float
    stretch_width: float
    variance: np.ndarray | None = None
    prior: float = 0.0
    exponent: float = 1.0

    def __getstate__(self):
        # The kernel's form has pointers: copies and pickles make their own.
        return {k: v for k, v in self.__dict__.items() if k != "machine"}

    @cached_property
    def machine(self) -> Machine:
        """The kernel's form of this regressor."""
        return Machine(
            self.transform,
            self.linear,
            self.linear_stretch,
            self.representatives,
            self.rep_bond,
            self.alpha,
            self.r0,
            self.stretch_width,
        )

    def columns(self, v, bond_length):
        """Compressed fingerprints (c, q) and the kernel columns of c molecules: two (c, s) arrays.

        The columns are k(y, y_s) and k(y, 0) k(0, y_s); their difference times `alpha` is the
        energy.
        """
        y, r = np.asarray(v) @ self.transform.T, np.asarray(bond_length, dtype=float)
        norms = 0.5 * ((y**2).sum(axis=1)[:, None] + (self.representatives**2).sum(axis=1))
        stretch = 0.0
        if self.stretch_width > 0:
            stretch = 0.5 * ((r[:, None] - self.rep_bond) / self.stretch_width) ** 2
        near = np.exp(y @ self.representatives.T - norms - stretch)
        return y, near, np.exp(-norms - stretch)

    def deviation(self, v, bond_length) -> np.ndarray:
        """Predicted standard deviation of each centre's energy, eV."""
        if self.variance is None:
            raise ValueError("this model was saved without predictive variances")
        y, near, isolated = self.columns(v, bond_length)
        k = near - isolated
        # k(x, x) of a Gaussian kernel that is known to vanish at y = 0.
        own = 1.0 - np.exp(-(y**2).sum(axis=1))
        explained = np.einsum("cs,st,ct->c", k, self.variance, k, optimize=True)
        left = np.sqrt(np.clip(own - explained, 0.0, None))
        return self.prior * left**self.exponent

    def to_dict(self) -> dict:
        """Plain arrays and numbers, for the model file; of `variance` the lower half, by rows."""
        names = (*_REGRESSOR_ARRAYS, "r0", "stretch_width", "prior", "exponent")
        half = None if self.variance is None else self.variance[np.tril_indices(len(self.alpha))]
        return {name: getattr(self, name) for name in names} | {"variance": half}

    @classmethod
    def from_dict(cls, data: dict) -> KernelRegressor:
        """Inverse of `to_dict`."""
        variance = None
        if data["variance"] is not None:
            rows, columns = np.tril_indices(len(data["alpha"]))
            variance = np.empty((len(data["alpha"]),) * 2)
            variance[rows, columns] = variance[columns, rows] = data["variance"]
        return cls(**data | {"variance": variance})


_REGRESSOR_ARRAYS = (
    "transform",
    "linear",
    "linear_stretch",
    "representatives",
    "rep_bond",
    "alpha",
)


@dataclass(frozen=True, eq=False)
class BondLevel:
    """Level 1: the covalent bond, a function of its length alone.

    Attributes
    ----------
    form : {"polynomial", "morse"}
        ``sum_k p[k] (r - r0)^k`` (a harmonic bond has three coefficients), continued outside
        [lower, upper] by the parabola there and 100 eV/Å³ times the cube of the distance to the
        edge, so that no bond breaks; or ``p[0] (1 - exp(-p[1] (r - r0)))^2``.
    parameters : tuple of float, eV and Å
    r0, lower, upper : float, Å
    """

    form: str
    parameters: tuple[float, ...]
    r0: float
    lower: float
    upper: float

    def __post_init__(self):
        if self.form not in BOND_FORMS:
            raise ValueError(f"unknown bond form {self.form!r}")

    def __getstate__(self):
        # As `KernelRegressor`'s.
        return {k: v for k, v in self.__dict__.items() if k != "curve"}

    @cached_property
    def curve(self) -> BondCurve:
        """The kernel's form of this level."""
        return BondCurve(BOND_FORMS[self.form], self.parameters, self.r0, self.lower, self.upper)

    def energy(self, r) -> tuple[np.ndarray, np.ndarray]:
        """Energy (eV) and slope (eV/Å) at bond lengths r (Å)."""
        return tuple(self.curve.evaluate(np.ascontiguousarray(np.atleast_1d(r), dtype=float)))

    def to_dict(self) -> dict:
        """Plain numbers and strings, for the model file."""
        return {
            "form": self.form,
            "parameters": [float(p) for p in self.parameters],
            "r0": self.r0,
            "lower": self.lower,
            "upper": self.upper,
        }

    @classmethod
    def from_dict(cls, data: dict) -> BondLevel:
        """Inverse of `to_dict`."""
        return cls(**{**data, "parameters": tuple(data["parameters"])})


@dataclass(frozen=True)
class Stretch:
    """How the levels see the length of a bond: less `r0`, and held at the ends of [low, high].

    Attributes
    ----------
    r0, low, high, margin : float, Å
        The length is smoothly brought to its ends within `margin` of them.  Beyond, where no bond
        of a solid or liquid was labelled, the bond level alone acts along it.
    """

    r0: float = 0.75
    low: float = 0.0
    high: float = LONGEST
    margin: float = 0.1

    def to_dict(self) -> dict:
        """Plain numbers, for the model file."""
        return {k: float(v) for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class PairLevel:
    """Level 2: atoms of two molecules, linear in radial fingerprints and in the bonds' stretches.

    ``sum over i, j, k of cutoff(R) q_k(s, s') phi_k(r_ij)`` with ``q = (1, s + s', s s',
    s^2 + s'^2)`` and s as `Stretch` says.

    Attributes
    ----------
    basis : RadialBasis
    coefficients : (4, k) array, eV (per Å, per Å²)
    """

    basis: RadialBasis
    coefficients: np.ndarray = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the fingerprints, in the order of the coefficients."""
        return pair_names(self.basis)

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        return {"basis": self.basis.to_dict(), "coefficients": self.coefficients}

    @classmethod
    def from_dict(cls, data: dict) -> PairLevel:
        """Inverse of `to_dict`."""
        return cls(RadialBasis.from_dict(data["basis"]), data["coefficients"])


@dataclass(frozen=True, eq=False)
class OrientationLevel:
    """Level 3: two molecules' axes, linear in orientation fingerprints, `fp_EQQ` among them.

    ``sum over l, k of c_lk phi_k(R) S_l`` with the invariants of `ORIENTATION_NAMES`.

    Attributes
    ----------
    basis : RadialBasis
    coefficients : (6, k) array, eV
    """

    basis: RadialBasis
    coefficients: np.ndarray = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the fingerprints, in the order of the coefficients."""
        return orientation_names(self.basis)

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        return {"basis": self.basis.to_dict(), "coefficients": self.coefficients}

    @classmethod
    def from_dict(cls, data: dict) -> OrientationLevel:
        """Inverse of `to_dict`."""
        return cls(RadialBasis.from_dict(data["basis"]), data["coefficients"])


@dataclass(frozen=True, eq=False)
class EnvironmentLevel:
    """Level 4: what all neighbours of a molecule are together, by kernel ridge regression.

    Attributes
    ----------
    basis : RadialBasis
        Four functions weigh the moments of the neighbours' centres, a fifth the sums that see the
        neighbours' axes, and eight are summed over the neighbours; see ``Family`` in the kernel
        header.
    regressor : KernelRegressor
        On the fingerprints of `environment_names` and the bond length as `Stretch` says.
    overlap : OverlapBasis or None
        How the orbitals of molecules overlap; without it those fingerprints are zero.
    """

    basis: RadialBasis
    regressor: KernelRegressor = field(repr=False)
    overlap: OverlapBasis | None = None

    def __post_init__(self):
        wanted = N_DENSITIES + 1 + N_SHELLS
        if len(self.basis.functions) != wanted:
            raise ValueError(f"the environment has {wanted} radial functions")

    @property
    def names(self) -> list[str]:
        """Names of the fingerprints."""
        return environment_names(self.basis)

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        return {
            "basis": self.basis.to_dict(),
            "overlap": self.overlap.to_dict() if self.overlap else None,
            "regressor": self.regressor.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict) -> EnvironmentLevel:
        """Inverse of `to_dict`."""
        return cls(
            RadialBasis.from_dict(data["basis"]),
            KernelRegressor.from_dict(data["regressor"]),
            OverlapBasis.from_dict(data["overlap"]) if data["overlap"] else None,
        )


def interaction(
    stretch: Stretch,
    pair: PairLevel | None = None,
    orientation: OrientationLevel | None = None,
    environment: RadialBasis | None = None,
    overlap: OverlapBasis | None = None,
) -> Interaction:
    """The kernel's tables of what two molecules do to each other.

    Parameters
    ----------
    stretch : Stretch
    pair, orientation : level or None
    environment : RadialBasis or None
        Of the environment level.
    overlap : OverlapBasis or None
        Of the environment level, too.
    """
    bases = [x.basis for x in (pair, orientation) if x is not None]
    bases += [environment] if environment is not None else []
    cutoff = max((basis.cutoff for basis in bases), default=1.0)
    clusters = None
    if overlap is not None:
        cutoff = max(cutoff, overlap.reach)
        r = ORBITAL_SPACING * np.arange(
            int(np.ceil((overlap.reach + LONGEST) / ORBITAL_SPACING)) + 1
        )
        clusters = (
            np.array(overlap.evaluate(r, within=False)),
            np.array(overlap.evaluate(r, within=True)),
            ORBITAL_SPACING,
            overlap.support,
            *overlap.freeze,
            overlap.reach,
            overlap.inner,
            overlap.ridge,
        )
    r = ATOM_SPACING * np.arange(int(np.ceil((cutoff + LONGEST) / ATOM_SPACING)) + 1)
    atoms = np.zeros((2, len(r), len(STRETCH_NAMES)))
    separation = CENTRE_SPACING * np.arange(int(np.ceil(cutoff / CENTRE_SPACING - 1e-9)) + 1)
    # Densities; invariants; weight of the aligned sums; cutoff function of the pair level; shells.
    first_shell = N_DENSITIES + len(ORIENTATION_NAMES) + 2
    centres = np.zeros((2, len(separation), first_shell + N_SHELLS))
    if pair is not None:
        atoms[:] = [x @ pair.coefficients.T for x in pair.basis.evaluate(r, cut=False)]
        centres[:, :, first_shell - 1] = evaluate_cutoff(separation, pair.basis.cutoff)
    if orientation is not None:
        made = orientation.basis.evaluate(separation, cut=True)
        centres[:, :, N_DENSITIES : first_shell - 2] = [
            x @ orientation.coefficients.T for x in made
        ]
    if environment is not None:
        values = np.array(environment.evaluate(separation, cut=True))
        centres[:, :, :N_DENSITIES] = values[:, :, :N_DENSITIES]
        centres[:, :, first_shell - 2] = values[:, :, N_DENSITIES]
        centres[:, :, first_shell:] = values[:, :, N_DENSITIES + 1 :]
    reach = environment.cutoff if environment is not None else 0.0
    return Interaction(
        (*atoms, ATOM_SPACING),
        (*centres, CENTRE_SPACING),
        cutoff,
        reach,
        astuple(stretch),
        clusters,
    )
