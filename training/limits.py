"""Limits that say which labelled frames are fit for use, without any model."""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat

from ase_hmlp.training.frames import Frame
from ase_hmlp.training.sections import Section


class Limits(Section):
    """What a frame must stay within; None sets no limit.

    Attributes
    ----------
    min_bond, max_bond : of every molecule, Å
    min_contact : between atoms of different molecules, Å; only those below 2.5 Å are seen
    max_force : on any atom, eV/Å
    max_net_force : on the centre of mass, divided by the number of atoms, eV/Å
    min_volume, max_volume : Å³/atom
    """

    min_bond: PositiveFloat | None = None
    max_bond: PositiveFloat | None = None
    min_contact: NonNegativeFloat | None = None
    max_force: PositiveFloat | None = None
    max_net_force: PositiveFloat | None = None
    min_volume: PositiveFloat | None = None
    max_volume: PositiveFloat | None = None

    def violations(self, frame: Frame) -> list[str]:
        """What is wrong with a frame, a phrase each."""
        # First, as its neighbour list does for the bonds too.
        contact = frame.shortest_contact if self.min_contact else np.inf
        bonds = np.linalg.norm(frame.bond_vectors(), axis=1)
        volume = frame.volume / frame.n_atoms
        net = np.linalg.norm(frame.forces.sum(axis=0)) / frame.n_atoms
        checks = (
            ("bond", bonds.min(), "Å", self.min_bond, None),
            ("bond", bonds.max(), "Å", None, self.max_bond),
            ("force", np.linalg.norm(frame.forces, axis=1).max(), "eV/Å", None, self.max_force),
            ("contact", contact, "Å", self.min_contact, None),
            ("net force", net, "eV/Å per atom", None, self.max_net_force),
            ("volume", volume, "Å³/atom", self.min_volume, self.max_volume),
        )
        return [phrase for check in checks if (phrase := _outside(*check))]


def _outside(name: str, value: float, unit: str, low: float | None, high: float | None) -> str:
    if low is not None and value < low:
        return f"{name} of {value:.4g} {unit}, less than {low:g}"
    if high is not None and value > high:
        return f"{name} of {value:.4g} {unit}, more than {high:g}"
    return ""
