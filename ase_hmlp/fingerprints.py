"""Specifications of the radial and orientation fingerprints: what the kernel needs to know.

The functions themselves are in ``_core/hmlp_kernel.h``.  Equation numbers are those of Zong,
Wiebe and Ackland (2020).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from ase_hmlp._core.levels import N_ANGULAR, Table

#: Codes of the radial families in the kernel header.
RADIAL_KINDS = {"gaussian": 0, "damped_sine": 1, "quadrupole": 2, "born_mayer": 3}

#: Orientational invariants of two linear molecules, in the kernel's order.
ANGULAR_NAMES = ("S000", "S202", "S022", "S220", "S222", "S224", "S404", "S044")

#: The angular form of the quadrupole-quadrupole interaction (equation 7).
QUADRUPOLE_ANGULAR = "S224"


@dataclass(frozen=True)
class RadialFunction:
    """One radial function of the distance r, before the cutoff function.

    Parameters
    ----------
    kind : {"gaussian", "damped_sine", "quadrupole", "born_mayer"}
        ``exp(-(r/a)^2)`` (equation 3), ``sin(a r) exp(-r/b)`` (equation 4), ``r^-5`` (equation 6),
        ``exp(-r/a)``.
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
        if self.kind == "damped_sine":
            return f"damped_sine({self.a:g},{self.b:g})"
        return f"{self.kind}({self.a:g})"


@dataclass(frozen=True)
class RadialBasis:
    """Radial functions that share a cutoff, tabulated together for the kernel.

    Parameters
    ----------
    functions : tuple of RadialFunction
    cutoff : float
        Å; every function is multiplied by ``(1 - (r/cutoff)^2)^3``.
    inner, outer : float
        The distance every function but ``born_mayer`` sees stops changing between `outer` and
        `inner` (Å), so that a regressor is never asked about contacts it has not seen.
    spacing : float
        Grid spacing of the table, Å.
    """

    functions: tuple[RadialFunction, ...]
    cutoff: float
    inner: float = 0.0
    outer: float = 0.0
    spacing: float = 0.005

    def __getstate__(self):
        # The kernel's table has pointers: copies and pickles make their own.
        return {k: v for k, v in self.__dict__.items() if k != "table"}

    @cached_property
    def table(self) -> Table:
        """The kernel's table of these functions."""
        return Table(
            [(RADIAL_KINDS[f.kind], f.a, f.b) for f in self.functions],
            self.cutoff,
            self.inner,
            self.outer,
            self.spacing,
        )

    @property
    def names(self) -> list[str]:
        """Names of the table's channels; padding channels are empty strings."""
        names = [f.name for f in self.functions]
        return names + [""] * (self.table.channels - len(names))

    def to_dict(self) -> dict:
        """Plain numbers and strings, for the model file."""
        return asdict(self) | {"functions": [asdict(f) for f in self.functions]}

    @classmethod
    def from_dict(cls, data: dict) -> RadialBasis:
        """Inverse of `to_dict`."""
        return cls(**{**data, "functions": tuple(RadialFunction(**f) for f in data["functions"])})


def orientation_names(basis: RadialBasis) -> list[str]:
    """Names of the orientation fingerprints, in the kernel's order (angular slowest).

    The quadrupole-quadrupole fingerprint is called ``fp_EQQ``.
    """
    names = []
    for angular in ANGULAR_NAMES:
        for radial in basis.names:
            if not radial:
                names.append("")
            elif angular == QUADRUPOLE_ANGULAR and radial == "quadrupole":
                names.append("fp_EQQ")
            else:
                names.append(f"{angular}*{radial}")
    return names


def gaussians(widths) -> tuple[RadialFunction, ...]:
    """``exp(-(r/eta)^2)`` for each width eta in Å (equation 3)."""
    return tuple(RadialFunction("gaussian", float(w)) for w in widths)


def damped_sines(wavenumbers, ranges) -> tuple[RadialFunction, ...]:
    """``sin(k r) exp(-r/eta)`` for matching k (1/Å) and eta (Å) (equation 4)."""
    return tuple(
        RadialFunction("damped_sine", float(k), float(eta))
        for k, eta in zip(wavenumbers, ranges, strict=True)
    )


def quadrupole() -> tuple[RadialFunction, ...]:
    """``r^-5``, the radial part of ``fp_EQQ`` (equation 6)."""
    return (RadialFunction("quadrupole"),)


def born_mayer(decay: float) -> tuple[RadialFunction, ...]:
    """``exp(-r/decay)``, the repulsive baseline; never frozen at short distance."""
    return (RadialFunction("born_mayer", float(decay)),)


def is_real_channel(names: list[str]) -> np.ndarray:
    """Mask of the channels that are not padding."""
    return np.array([bool(n) for n in names])


assert len(ANGULAR_NAMES) == N_ANGULAR
