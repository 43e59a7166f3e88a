"""Are predicted deviations right? Errors of unseen frames against what was expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_hmlp.potential import Potential
from ase_hmlp.training.evaluate import Predictions
from ase_hmlp.training.frames import Frame

#: Groups, of equally many, that frames and atoms are put into by their deviations.
GROUPS = 8

#: The model warns of atoms less certain than all but this share of those in unseen frames.
TAIL = 0.001


@dataclass(frozen=True, eq=False)
class Reliability:
    """Errors and deviations of frames a fit has not seen.

    Attributes
    ----------
    energy_error : (frames,) absolute, eV/atom
    frame_deviation : (frames,) mean over the atoms, eV
    force_error : (atoms,) length of the error of each force, eV/Å
    atom_deviation : (atoms,) eV
    """

    energy_error: np.ndarray
    frame_deviation: np.ndarray
    force_error: np.ndarray
    atom_deviation: np.ndarray

    @classmethod
    def of(cls, potential: Potential, frames: Sequence[Frame], made: Predictions) -> Reliability:
        """Look at predictions of a potential that keeps predictive variances."""
        deviations = [potential.deviations(frame.geometry(potential.cutoff)) for frame in frames]
        forces = (made.forces[1] - made.forces[0]).reshape(-1, 3)
        return cls(
            np.abs(made.energy[1] - made.energy[0]),
            np.array([d.mean() for d in deviations]),
            np.linalg.norm(forces, axis=1),
            np.concatenate(deviations),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Reliability]) -> Reliability:
        """Several sets of frames as one."""
        names = ("energy_error", "frame_deviation", "force_error", "atom_deviation")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def scaled(self, factor: float) -> Reliability:
        """With all deviations times a factor."""
        return Reliability(
            self.energy_error,
            factor * self.frame_deviation,
            self.force_error,
            factor * self.atom_deviation,
        )

    @property
    def factor(self) -> float:
        """What deviations are to be multiplied by to be, on average, the errors of energies.

        The regression takes the errors of a frame's labels for independent of each other and its
        prior for the truth: its variances order the frames but have no scale.
        """
        return float(
            np.sqrt(
                (self.energy_error**2).mean() / np.maximum(self.frame_deviation**2, 1e-30).mean()
            )
        )

    @property
    def threshold(self) -> float:
        """Deviation (eV) that all but `TAIL` of the atoms stay below."""
        return float(np.quantile(self.atom_deviation, 1.0 - TAIL))

    def table(self) -> dict[str, list[float]]:
        """Root mean square errors of groups of frames and atoms in order of their deviations.

        Returns
        -------
        dict of lists
            ``frame_deviation`` and ``energy_error`` (eV/atom), ``atom_deviation`` (eV) and
            ``force_error`` (eV/Å).
        """
        out: dict[str, list[float]] = {}
        for deviation, error in (
            ("frame_deviation", "energy_error"),
            ("atom_deviation", "force_error"),
        ):
            x, y = getattr(self, deviation), getattr(self, error)
            groups = np.array_split(np.argsort(x, kind="stable"), min(GROUPS, len(x)))
            for name, values in ((deviation, x), (error, y)):
                out[name] = [float(np.sqrt((values[g] ** 2).mean())) for g in groups]
        return out
