"""The potential: its levels summed. Arrays in, energies, forces and virials out; no ASE."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

import ase_hmlp._core.evaluate as evaluate
from ase_hmlp._core.levels import Interaction
from ase_hmlp.geometry import Geometry, GeometryTracker
from ase_hmlp.levels import (
    BondLevel,
    EnvironmentLevel,
    OrientationLevel,
    PairLevel,
    Stretch,
    interaction,
)

#: The levels, in the order they are fitted.
LEVELS = ("bond", "pair", "orientation", "environment")


@dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation; n atoms.

    Attributes
    ----------
    energies : (n,) eV, the energy zero included; a molecule's is shared equally by its atoms
    forces : (n, 3) eV/Å
    virials : (n, 6) eV, dE/dstrain in Voigt order xx yy zz yz xz xy, positive in tension
    levels : dict of float, eV: the energy of each level
    shortest_contact : float, Å, between atoms of different molecules within the cutoff
    contact_atoms : (int, int), the two atoms that have it, the lower first
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    levels: dict[str, float]
    shortest_contact: float
    contact_atoms: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Potential:
    """``E = sum U_bond(r) + sum e_pair + sum e_orient + sum e_env(V) + n E0``.

    Attributes
    ----------
    e0 : float, eV per atom
    bond : BondLevel
    stretch : Stretch
        How the levels after the bond see its length.
    pair : PairLevel or None
    orientation : OrientationLevel or None
    environment : EnvironmentLevel or None
        A missing level contributes nothing, as while it is being fitted.
    """

    e0: float
    bond: BondLevel
    stretch: Stretch = field(default_factory=Stretch)
    pair: PairLevel | None = None
    orientation: OrientationLevel | None = None
    environment: EnvironmentLevel | None = None

    def __getstate__(self):
        # The kernel's tables have pointers: copies and pickles make their own.
        return {k: v for k, v in self.__dict__.items() if k != "interaction"}

    @cached_property
    def interaction(self) -> Interaction:
        """The kernel's tables of this potential."""
        environment = self.environment.basis if self.environment else None
        overlap = self.environment.overlap if self.environment else None
        return interaction(self.stretch, self.pair, self.orientation, environment, overlap)

    @property
    def cutoff(self) -> float:
        """Longest separation of centres (Å) at which two molecules act on each other."""
        return self.interaction.cutoff

    def tracker(self, **kwargs) -> GeometryTracker:
        """A geometry tracker with this potential's cutoff."""
        return GeometryTracker(self.cutoff, **kwargs)

    def evaluate(self, geometry: Geometry) -> Evaluation:
        """Energies, forces and virials of a structure."""
        pairs = geometry.pairs
        energies, forces, virials, levels, contact = evaluate.evaluate(
            self.interaction,
            self.environment.regressor.machine if self.environment else None,
            self.bond.curve,
            self._placed(geometry),
            geometry.molecules,
            *pairs.args,
            geometry.threads,
            self.e0,
        )
        present = [name for name in LEVELS if getattr(self, name) is not None]
        by_level = dict(zip(LEVELS, levels.tolist(), strict=True))
        distance, entry, molecule, which = contact
        first = int(geometry.molecules[molecule, which // 2])
        # Without any contact there may be no entry at all.
        near = pairs.index[entry] if np.isfinite(distance) else molecule
        second = int(geometry.molecules[near, which % 2])
        return Evaluation(
            energies,
            forces,
            virials,
            {"zero": self.e0 * geometry.n_atoms} | {name: by_level[name] for name in present},
            float(distance),
            (min(first, second), max(first, second)),
        )

    def fingerprints(self, geometry: Geometry) -> np.ndarray:
        """Fingerprints (m, k) of the environment level."""
        return evaluate.fingerprints(
            self.interaction, self._placed(geometry), *geometry.pairs.args, geometry.threads
        )[0]

    def held_length(self, geometry: Geometry) -> np.ndarray:
        """Bond lengths (m) as the levels see them, Å."""
        return self.stretch.r0 + self.interaction.stretch(geometry.bond_length)[0]

    def deviations(self, geometry: Geometry) -> np.ndarray:
        """Predicted standard deviation of each atom's energy (n), eV: half of its molecule's."""
        out = np.zeros(geometry.n_atoms)
        if self.environment is not None:
            sigma = self.environment.regressor.deviation(
                self.fingerprints(geometry), self.held_length(geometry)
            )
            out[geometry.molecules] = 0.5 * sigma[:, None]
        return out

    def _placed(self, geometry: Geometry) -> np.ndarray:
        return evaluate.place(
            self.interaction, geometry.positions, geometry.molecules, geometry.bonds
        )

    def to_dict(self) -> dict:
        """Plain arrays, numbers and strings, for the model file."""
        levels = {name: getattr(self, name) for name in LEVELS}
        start = {"e0": self.e0, "stretch": self.stretch.to_dict()}
        return start | {k: v.to_dict() if v else None for k, v in levels.items()}

    @classmethod
    def from_dict(cls, data: dict) -> Potential:
        """Inverse of `to_dict`."""
        pair, orientation, environment = (data[name] for name in LEVELS[1:])
        return cls(
            data["e0"],
            BondLevel.from_dict(data["bond"]),
            Stretch(**data["stretch"]),
            PairLevel.from_dict(pair) if pair else None,
            OrientationLevel.from_dict(orientation) if orientation else None,
            EnvironmentLevel.from_dict(environment) if environment else None,
        )
