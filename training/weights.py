"""How much each label counts: standard errors the fit assumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa

from ase_hmlp.training.frames import Frame


@dataclass(frozen=True)
class Weights:
    """Standard errors of the labels, for weighted least squares.

    A label's error has a constant part and a part that grows with the force: frames far up the
    repulsive wall must be right in proportion, not absolutely.  All of a frame's errors are divided
    by the square root of its weight.

    Attributes
    ----------
    energy : float, eV/atom
    force : float, eV/Å
    stress : float, GPa
    relative : float
        Share of a frame's forces (root mean square and the atom's own) added to each error.
    """

    energy: float = 0.002
    force: float = 0.04
    stress: float = 0.4
    relative: float = 0.1

    def force_sigma(self, frame: Frame) -> np.ndarray:
        """Standard error of each force component (n, 3), eV/Å."""
        own = np.linalg.norm(frame.forces, axis=1)
        sigma = np.hypot(self.force, self.relative * own) / np.sqrt(frame.weight)
        return np.repeat(sigma[:, None], 3, axis=1)

    def strength(self, frame: Frame) -> float:
        """How many times larger than usual the errors of energy and stress are taken."""
        rms = np.sqrt((frame.forces**2).mean())
        return float(np.hypot(1.0, self.relative * rms / self.force * 0.5))

    def sigma(self, frame: Frame) -> np.ndarray:
        """Standard errors in the order of a design row: energy, 3 n forces, 6 virials; eV, Å.

        The virial's are infinite for a frame without stress label.
        """
        more = self.strength(frame) / np.sqrt(frame.weight)
        virial = self.stress * GPa * frame.volume * more if frame.stress is not None else np.inf
        return np.concatenate(
            [
                [self.energy * frame.n_atoms * more],
                self.force_sigma(frame).ravel(),
                np.full(6, virial),
            ]
        )


def targets(frame: Frame) -> np.ndarray:
    """Labels in the order of a design row: energy, dE/d(position), dE/d(strain)."""
    virial = np.zeros(6) if frame.stress is None else frame.virial
    return np.concatenate([[frame.energy], -frame.forces.ravel(), virial])
