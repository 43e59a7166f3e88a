"""Specifications of the radial and orientation fingerprints: what the kernel needs to know.

The functions themselves are in ``_core/hmlp_kernel.h``.  Equation numbers are those of Zong,
Wiebe and Ackland (2020).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ase_hmlp._core.levels import evaluate_radial

#: Codes of the radial families in the kernel header.
RADIAL_KINDS = {
    "gaussian": 0,
    "damped_sine": 1,
    "quadrupole": 2,
    "born_mayer": 3,
    "shell": 4,
    "wendland": 5,
}

#: Orientational invariants of two linear molecules, in the kernel's order.
ANGULAR_NAMES = ("S000", "S202", "S022", "S220", "S222", "S224", "S404", "S044")

#: What multiplies a radial function of two atoms of molecules stretched by s and s'.
STRETCH_NAMES = ("", "(s+s')", "ss'", "(s²+s'²)")

#: Invariants of the orientation level; those that change places with the molecules are added up.
ORIENTATION_NAMES = ("S000", "S202+S022", "S220", "S222", "S224", "S404+S044")

#: Sums over neighbours of invariants of their axes.
ALIGNED_NAMES = ("S022", "S220", "S222", "S224", "S044")

#: Vectors and tensors of a neighbour at the unit separation R with axis b, c = b.R.
VECTOR_KINDS, TENSOR_KINDS = ("R", "ccR", "cb"), ("RR", "bb", "cRb")

#: Radial functions of the environment's moments; one more weighs the aligned sums, and others,
#: finer, are summed over the neighbours alone.
N_DENSITIES, N_SHELLS = 4, 8

#: A cutoff that is none, Å.
NEVER = 1e150

#: The angular form of the quadrupole-quadrupole interaction (equation 7).
QUADRUPOLE_ANGULAR = "S224"


@dataclass(frozen=True)
class RadialFunction:
    """One radial function of the distance r, before the cutoff function.

    Parameters
    ----------
    kind : {"gaussian", "damped_sine", "quadrupole", "born_mayer", "shell", "wendland"}
        ``exp(-(r/a)^2)`` (equation 3), ``sin(a r) exp(-r/b)`` (equation 4), ``r^-5`` (equation 6),
        ``exp(-r/a)``, ``exp(-((r-a)/b)^2)``, ``(1 - r/a)^4 (1 + 4 r/a)`` up to a.
    a, b : float
        Parameters, Å or 1/Å.
    """

    kind: str
    a: float = 0.0
    b: float = 0.0

    def __post_init__(self):
        if self.kind not in RADIAL_KINDS:
            raise ValueError(f"unknown radial function {self.kind!r}")

    @property
    def name(self) -> str:
        """Name with parameters, as in ``gaussian(1.2)``."""
        if self.kind == "quadrupole":
            return "quadrupole"
        if self.kind in ("damped_sine", "shell"):
            return f"{self.kind}({self.a:g},{self.b:g})"
        return f"{self.kind}({self.a:g})"


@dataclass(frozen=True)
class RadialBasis:
    """Radial functions that share a cutoff.

    Parameters
    ----------
    functions : tuple of RadialFunction
    cutoff : float
        Separation of the centres of molecules (Å) at which ``(1 - (R/cutoff)^2)^3`` ends what the
        functions describe, whichever distance they are functions of.
    inner, outer : float
        The distance every function but ``born_mayer`` sees stops changing between `outer` and
        `inner` (Å), so that a regressor is never asked about contacts it has not seen.
    """

    functions: tuple[RadialFunction, ...]
    cutoff: float
    inner: float = 0.0
    outer: float = 0.0

    @property
    def names(self) -> list[str]:
        """Names of the functions."""
        return [f.name for f in self.functions]

    def evaluate(self, r, cut: bool) -> tuple[np.ndarray, np.ndarray]:
        """Values and slopes (n, k) at distances r (n) in Å.

        Parameters
        ----------
        r : (n,) array
        cut : bool
            Whether r are separations of centres: multiply by the cutoff function.
        """
        r = np.ascontiguousarray(r, dtype=float)
        out = np.empty((2, len(r), len(self.functions)))
        cutoff = self.cutoff if cut else NEVER
        for k, f in enumerate(self.functions):
            out[:, :, k] = evaluate_radial(
                RADIAL_KINDS[f.kind], f.a, f.b, r, cutoff, self.inner, self.outer
            )
        return out[0], out[1]

    def to_dict(self) -> dict:
        """Plain numbers and strings, for the model file."""
        return asdict(self) | {"functions": [asdict(f) for f in self.functions]}

    @classmethod
    def from_dict(cls, data: dict) -> RadialBasis:
        """Inverse of `to_dict`."""
        return cls(**{**data, "functions": tuple(RadialFunction(**f) for f in data["functions"])})


@dataclass(frozen=True)
class OverlapBasis:
    """How the orbitals of molecules overlap; see ``_core/hmlp_overlap.h``.

    The exact inverse of the overlap matrix of a molecule and its neighbours is what antisymmetry
    asks of the electrons of closed-shell molecules (Löwdin, J. Chem. Phys. 18, 365, 1950): energies
    of fixed orbitals are traces with it, to all orders of the overlap.

    Parameters
    ----------
    support : float, Å
        Distance at which the overlap of two atoms' orbitals ends.
    widths : three floats, Å
        Of the Gaussians that orbitals of a molecule overlap with the others' bonding ones by.
    reach, inner : float, Å
        Molecules count as neighbours up to a separation of `reach`, in full up to `inner`.
    ridge : float
        Added to the diagonal of the matrix, relative.
    freeze : (float, float), Å
        As `RadialBasis`'s inner and outer, between molecules.
    """

    support: float
    widths: tuple[float, float, float]
    reach: float
    inner: float
    ridge: float = 0.03
    freeze: tuple[float, float] = (0.0, 0.0)

    def evaluate(self, r, within: bool) -> tuple[np.ndarray, np.ndarray]:
        """Values and slopes (n, 4) of three Gaussians and the overlap at distances r (n) in Å.

        Parameters
        ----------
        r : (n,) array
        within : bool
            Between the atoms of one molecule: distances are never frozen.
        """
        functions = (*gaussians(self.widths), RadialFunction("wendland", self.support))
        return RadialBasis(functions, NEVER, *((0.0, 0.0) if within else self.freeze)).evaluate(
            r, cut=False
        )

    def to_dict(self) -> dict:
        """Plain numbers, for the model file."""
        return {k: list(v) if isinstance(v, tuple) else float(v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict) -> OverlapBasis:
        """Inverse of `to_dict`."""
        tuples: dict[str, Any] = {k: tuple(data[k]) for k in ("widths", "freeze")}
        return cls(**(data | tuples))


def overlap_names() -> list[str]:
    """Names of the forms of overlaps, in the kernel's order."""
    orbitals = {"even": ("1", "g1", "g2", "g3"), "odd": ("g1", "g2", "g3")}
    orbitals |= {"polar": orbitals["odd"], "along": orbitals["odd"]}
    return [
        f"overlap{power} {kind} {a},{b}"
        for power in ("", "2")
        for kind, names in orbitals.items()
        for n, a in enumerate(names)
        for b in names[n:]
    ]


def pair_names(basis: RadialBasis) -> list[str]:
    """Names of the pair fingerprints: the stretch term slowest."""
    return [f"{name}{'*' if term else ''}{term}" for term in STRETCH_NAMES for name in basis.names]


def orientation_names(basis: RadialBasis) -> list[str]:
    """Names of the orientation fingerprints: the angular invariant slowest.

    The quadrupole-quadrupole fingerprint is called ``fp_EQQ``.
    """
    return [
        "fp_EQQ" if angular == QUADRUPOLE_ANGULAR and name == "quadrupole" else f"{angular}*{name}"
        for angular in ORIENTATION_NAMES
        for name in basis.names
    ]


def environment_names(basis: RadialBasis) -> list[str]:
    """Names of the environment fingerprints, in the kernel's order."""
    densities, (aligned, *narrow) = basis.names[:N_DENSITIES], basis.names[N_DENSITIES:]
    products = [(a, b) for n, a in enumerate(densities) for b in densities[n:]]
    vectors = [f"{kind}*{a}" for kind in VECTOR_KINDS for a in densities]
    tensors = [f"{kind}*{a}" for kind in TENSOR_KINDS for a in densities]
    return [
        *(f"density {a}" for a in densities),
        *(f"axial {a}" for a in densities),
        *(f"axial-{kind} {a}" for kind in TENSOR_KINDS[1:] for a in densities),
        *(f"{s} {aligned}" for s in ALIGNED_NAMES),
        *narrow,
        *(f"stretched {a}" for a in densities),
        *overlap_names(),
        *(f"vector {a},{b}" for n, a in enumerate(vectors) for b in vectors[n:]),
        *(f"tensor {a},{b}" for n, a in enumerate(tensors) for b in tensors[n:]),
        *(f"{family} {a},{b}" for family in ("vector-axis", "tensor-axis") for a, b in products),
    ]


def gaussians(widths) -> tuple[RadialFunction, ...]:
    """``exp(-(r/eta)^2)`` for each width eta in Å (equation 3)."""
    return tuple(RadialFunction("gaussian", float(w)) for w in widths)


def damped_sines(wavenumbers, ranges) -> tuple[RadialFunction, ...]:
    """``sin(k r) exp(-r/eta)`` for matching k (1/Å) and eta (Å) (equation 4)."""
    return tuple(
        RadialFunction("damped_sine", float(k), float(eta))
        for k, eta in zip(wavenumbers, ranges, strict=True)
    )


def shells(centres, width: float) -> tuple[RadialFunction, ...]:
    """``exp(-((r-centre)/width)^2)`` for each centre, all in Å."""
    return tuple(RadialFunction("shell", float(c), float(width)) for c in centres)


def quadrupole() -> tuple[RadialFunction, ...]:
    """``r^-5``, the radial part of ``fp_EQQ`` (equation 6)."""
    return (RadialFunction("quadrupole"),)


def born_mayer(decay: float) -> tuple[RadialFunction, ...]:
    """``exp(-r/decay)``, the repulsive baseline; never frozen at short distance."""
    return (RadialFunction("born_mayer", float(decay)),)
