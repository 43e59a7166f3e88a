"""The potential: three levels summed. Arrays in, energies, forces and virials out; no ASE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ase_hmlp.geometry import Geometry, GeometryTracker
from ase_hmlp.levels import Accumulator, BondLevel, OrientationLevel, PairLevel


@dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation; n atoms.

    Attributes
    ----------
    energies : (n,) eV, the energy zero included
    forces : (n, 3) eV/Å
    virials : (n, 6) eV, dE/dstrain in Voigt order xx yy zz yz xz xy, positive in tension
    levels : dict of float, eV: the energy of each level
    shortest_contact : float, Å, between atoms of different molecules inside the cutoff
    contact_atom : int, an atom that has it
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    levels: dict[str, float]
    shortest_contact: float
    contact_atom: int


@dataclass(frozen=True, eq=False)
class Potential:
    """``E = sum U_bond(r) + sum e_pair(V) + sum e_orient(W) + n E0``.

    Attributes
    ----------
    e0 : float, eV per atom
    bond : BondLevel
    pair : PairLevel or None
    orientation : OrientationLevel or None
        A missing level contributes nothing, as while it is being fitted.
    """

    e0: float
    bond: BondLevel
    pair: PairLevel | None = None
    orientation: OrientationLevel | None = None

    def tracker(self, **kwargs) -> GeometryTracker:
        """A geometry tracker with this potential's cutoffs."""
        pair = self.pair.basis.cutoff if self.pair else 1.0
        centre = self.orientation.basis.cutoff if self.orientation else 1.0
        return GeometryTracker(pair, centre, **kwargs)

    @property
    def cutoff(self) -> float:
        """Longest distance (Å) over which any two atoms act on each other."""
        tracker = self.tracker()
        return max(tracker.pair_cutoff, tracker.centre_cutoff)

    def evaluate(self, geometry: Geometry) -> Evaluation:
        """Energies, forces and virials of a structure."""
        out = Accumulator.zeros(geometry.n_atoms)
        out.energies += self.e0
        levels = {"zero": self.e0 * geometry.n_atoms}
        contact = np.array([np.inf])
        total = out.energies.sum()
        for name in ("bond", "pair", "orientation"):
            level = getattr(self, name)
            if level is None:
                continue
            result = level.add_to(out, geometry)
            if name == "pair":
                contact = result
            total, before = out.energies.sum(), total
            levels[name] = float(total - before)
        return Evaluation(
            out.energies,
            out.forces,
            out.virials,
            levels,
            float(contact.min()),
            int(contact.argmin()),
        )

    def deviations(self, geometry: Geometry) -> np.ndarray:
        """Predicted standard deviation of each atom's energy (n), eV.

        The pair level's own and half of the molecule's from the orientation level, in quadrature.
        """
        variance = np.zeros(geometry.n_atoms)
        for level in (self.pair, self.orientation):
            if level is None:
                continue
            v = level.fingerprints(level.basis, geometry)
            v = v[0] if level.centre == "atom" else v
            sigma = level.regressor.deviation(v, level.bond_length(geometry))
            if level.centre == "atom":
                variance += sigma**2
            else:
                variance[geometry.molecules] += 0.25 * sigma[:, None] ** 2
        return np.sqrt(variance)

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        return {
            "e0": self.e0,
            "bond": self.bond.to_dict(),
            "pair": self.pair.to_dict() if self.pair else None,
            "orientation": self.orientation.to_dict() if self.orientation else None,
        }

    @classmethod
    def from_dict(cls, data: dict) -> Potential:
        """Inverse of `to_dict`."""
        pair, orientation = data["pair"], data["orientation"]
        return cls(
            data["e0"],
            BondLevel.from_dict(data["bond"]),
            PairLevel.from_dict(pair) if pair else None,
            OrientationLevel.from_dict(orientation) if orientation else None,
        )
