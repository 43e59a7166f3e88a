"""The three levels of the hierarchy: a fingerprint spec and a regressor each, one contract.

A level adds its energies, forces and virials to an `Accumulator`; the training rows of the same
level come from `ase_hmlp.training.rows`, through the same kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

import ase_hmlp._core.evaluate as evaluate
from ase_hmlp._core.levels import BondCurve, Machine
from ase_hmlp._core.rows import kernel_columns, orientation_jacobian, radial_jacobian
from ase_hmlp.fingerprints import RadialBasis, orientation_names
from ase_hmlp.geometry import Geometry

BOND_FORMS = {"polynomial": 0, "morse": 1}


@dataclass
class Accumulator:
    """Running sums over levels: per-atom energies (n), forces (n, 3), virials (n, 6 Voigt)."""

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray

    @classmethod
    def zeros(cls, n: int) -> Accumulator:
        """All zero, for n atoms."""
        return cls(np.zeros(n), np.zeros((n, 3)), np.zeros((n, 6)))


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
        Prior standard deviation of one centre's energy, eV.
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
        """Compressed fingerprints (c, q) and the kernel columns of c centres: two (c, s) arrays.

        The columns are k(y, y_s) and k(y, 0) k(0, y_s); their difference times `alpha` is the
        energy.
        """
        return kernel_columns(
            self.machine, np.ascontiguousarray(v), np.ascontiguousarray(bond_length)
        )

    def deviation(self, v, bond_length) -> np.ndarray:
        """Predicted standard deviation of each centre's energy, eV."""
        if self.variance is None:
            raise ValueError("this model was saved without predictive variances")
        y, near, isolated = self.columns(v, bond_length)
        k = near - isolated
        # k(x, x) of a Gaussian kernel that is known to vanish at y = 0.
        own = 1.0 - np.exp(-(y**2).sum(axis=1))
        explained = np.einsum("cs,st,ct->c", k, self.variance, k, optimize=True)
        return self.prior * np.sqrt(np.clip(own - explained, 0.0, None))

    def to_dict(self) -> dict:
        """Plain arrays and numbers, for the model file."""
        names = (*_REGRESSOR_ARRAYS, "r0", "stretch_width", "variance", "prior")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, data: dict) -> KernelRegressor:
        """Inverse of `to_dict`."""
        return cls(**data)


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
        ``sum_k p[k] (r - r0)^k`` (a harmonic bond has three coefficients), continued by parabolas
        outside [lower, upper]; or ``p[0] (1 - exp(-p[1] (r - r0)))^2``.
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

    def add_to(self, out: Accumulator, geometry: Geometry) -> None:
        """Add energies, forces and virials."""
        energy, slope = evaluate.bond_terms(self.curve, geometry.axes)
        out.energies[geometry.molecules] += 0.5 * energy[:, None]
        de_dbond = slope[:, None] * geometry.axes[:, :3]
        nothing = np.zeros((len(energy), 6))
        _share(out, geometry, np.zeros_like(de_dbond), de_dbond, nothing)

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


@dataclass(frozen=True, eq=False)
class _FingerprintLevel:
    """A radial basis and a regressor."""

    basis: RadialBasis
    regressor: KernelRegressor = field(repr=False)

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        return {"basis": self.basis.to_dict(), "regressor": self.regressor.to_dict()}

    @classmethod
    def from_dict(cls, data: dict):
        """Inverse of `to_dict`."""
        return cls(
            RadialBasis.from_dict(data["basis"]), KernelRegressor.from_dict(data["regressor"])
        )


class PairLevel(_FingerprintLevel):
    """Level 2: radial fingerprints of each atom over all atoms but its partner."""

    #: What carries a fingerprint: the regressor's centres.
    centre = "atom"

    @staticmethod
    def fingerprints(basis: RadialBasis, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """Fingerprints (n, k) and the shortest contact of each atom (n), Å."""
        return evaluate.pair_fingerprints(
            basis.table, geometry.positions, *geometry.pairs.args, geometry.threads
        )

    @staticmethod
    def jacobian(basis: RadialBasis, geometry: Geometry) -> np.ndarray:
        """d(fingerprint)/d(position, strain): (n, k, 3 n + 6)."""
        return radial_jacobian(basis.table, geometry.positions, *geometry.pairs.args)

    @staticmethod
    def bond_length(geometry: Geometry) -> np.ndarray:
        """Length of each centre's bond, Å."""
        return geometry.bond_length

    @staticmethod
    def names(basis: RadialBasis) -> list[str]:
        """Names of the fingerprints; empty for padding."""
        return basis.names

    def add_to(self, out: Accumulator, geometry: Geometry) -> np.ndarray:
        """Add energies, forces and virials; return each atom's shortest contact, Å."""
        v, contact = self.fingerprints(self.basis, geometry)
        energy, gradient, slope = evaluate.regress(
            self.regressor.machine, v, geometry.bond_length, geometry.threads
        )
        out.energies += energy
        evaluate.pair_forces(
            self.basis.table,
            geometry.positions,
            *geometry.pairs.args,
            gradient,
            geometry.threads,
            out.forces,
            out.virials,
        )
        de_dbond = slope[geometry.molecules].sum(axis=1)[:, None] * geometry.axes[:, :3]
        _share(out, geometry, np.zeros_like(de_dbond), de_dbond, np.zeros((len(de_dbond), 6)))
        return contact


class OrientationLevel(_FingerprintLevel):
    """Level 3: orientation fingerprints of each molecule over neighbouring molecules."""

    #: What carries a fingerprint: the regressor's centres.
    centre = "molecule"

    @staticmethod
    def fingerprints(basis: RadialBasis, geometry: Geometry) -> np.ndarray:
        """Fingerprints (m, 8 k): angular invariant slowest, radial function fastest."""
        return evaluate.molecule_fingerprints(
            basis.table,
            geometry.centres,
            geometry.axes,
            *geometry.centre_pairs.args,
            geometry.threads,
        )

    @staticmethod
    def jacobian(basis: RadialBasis, geometry: Geometry) -> np.ndarray:
        """d(fingerprint)/d(position, strain): (m, 8 k, 3 n + 6)."""
        return orientation_jacobian(
            basis.table,
            geometry.centres,
            geometry.axes,
            geometry.molecules,
            *geometry.centre_pairs.args,
        )

    @staticmethod
    def bond_length(geometry: Geometry) -> np.ndarray:
        """Length of each centre's bond, Å."""
        return np.ascontiguousarray(geometry.axes[:, 3])

    @staticmethod
    def names(basis: RadialBasis) -> list[str]:
        """Names of the fingerprints; empty for padding."""
        return orientation_names(basis)

    def add_to(self, out: Accumulator, geometry: Geometry) -> None:
        """Add energies, forces and virials."""
        w = self.fingerprints(self.basis, geometry)
        energy, gradient, slope = evaluate.regress(
            self.regressor.machine, w, self.bond_length(geometry), geometry.threads
        )
        out.energies[geometry.molecules] += 0.5 * energy[:, None]
        force, de_dbond, virial = evaluate.molecule_forces(
            self.basis.table,
            geometry.centres,
            geometry.axes,
            *geometry.centre_pairs.args,
            gradient,
            geometry.threads,
        )
        de_dbond += slope[:, None] * geometry.axes[:, :3]
        _share(out, geometry, force, de_dbond, virial)


def _share(out: Accumulator, geometry: Geometry, force, de_dbond, virial) -> None:
    """Share what acts on centres and bonds out to atoms."""
    evaluate.molecules_to_atoms(
        geometry.molecules, geometry.bonds, force, de_dbond, virial, out.forces, out.virials
    )
