"""Are predicted deviations right? Errors of unseen frames against what was expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from ase_hmlp.potential import Potential
from ase_hmlp.training.evaluate import Predictions
from ase_hmlp.training.frames import Frame

#: Groups, of equally many, that frames and atoms are put into by their deviations.
GROUPS = 8

#: Powers of deviations among which is looked for the one that errors go with. A steeper one would
#: promise more of the most certain frames than any label is good for.
EXPONENTS = 0.25, 3.0

#: Logarithm of the likelihood that another power has to add: twice what Akaike asks of a parameter.
WORTH_A_PARAMETER = 2.0

#: The model warns of atoms less certain than all but this share of those in unseen frames.
TAIL = 0.001


@dataclass(frozen=True, eq=False)
class Reliability:
    """Errors and deviations of frames a fit has not seen.

    Attributes
    ----------
    energy_error : (frames,) absolute, eV/atom
    force_error : (atoms,) length of the error of each force, eV/Å
    atom_deviation : (atoms,) eV
    frame : (atoms,) index of each atom's frame
    """

    energy_error: np.ndarray
    force_error: np.ndarray
    atom_deviation: np.ndarray
    frame: np.ndarray

    @classmethod
    def of(cls, potential: Potential, frames: Sequence[Frame], made: Predictions) -> Reliability:
        """Look at predictions of a potential that keeps predictive variances."""
        deviations = [potential.deviations(frame.geometry(potential.cutoff)) for frame in frames]
        forces = (made.forces[1] - made.forces[0]).reshape(-1, 3)
        return cls(
            np.abs(made.energy[1] - made.energy[0]),
            np.linalg.norm(forces, axis=1),
            np.concatenate(deviations),
            made.frame_of_force[::3],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Reliability]) -> Reliability:
        """Several sets of frames as one."""
        before = np.cumsum([0, *(len(p.energy_error) for p in parts[:-1])])
        return cls(
            np.concatenate([p.energy_error for p in parts]),
            np.concatenate([p.force_error for p in parts]),
            np.concatenate([p.atom_deviation for p in parts]),
            np.concatenate([p.frame + n for p, n in zip(parts, before, strict=True)]),
        )

    @property
    def frame_deviation(self) -> np.ndarray:
        """Mean over the atoms of each frame (frames,), eV."""
        n = len(self.energy_error)
        atoms = np.bincount(self.frame, minlength=n)
        return np.bincount(self.frame, self.atom_deviation, minlength=n) / atoms

    def calibrated(self, factor: float, exponent: float = 1.0) -> Reliability:
        """With deviations to a power, times a factor (eV to the power of one less it)."""
        return replace(self, atom_deviation=factor * self.atom_deviation**exponent)

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
    def exponent(self) -> float:
        """The power of deviations that errors of energies go with.

        The one of greatest likelihood if errors are normal and the factor is free, or 1 if that is
        less likely by no more than `WORTH_A_PARAMETER`.
        """
        found = minimize_scalar(self._surprise, bounds=EXPONENTS, method="bounded").x
        frames = len(self.energy_error)
        gain = frames * (self._surprise(1.0) - self._surprise(found))
        return float(found) if gain > WORTH_A_PARAMETER else 1.0

    @property
    def calibration(self) -> tuple[float, float]:
        """Factor and exponent that make deviations those of errors; see `calibrated`."""
        exponent = self.exponent
        size = self._size**-exponent  # so that powers are numbers of the order of one
        return size * self.calibrated(size, exponent).factor, exponent

    @property
    def _size(self) -> float:
        return float(np.maximum(self.atom_deviation, 1e-15).mean())

    def _surprise(self, exponent: float) -> float:
        """Negative logarithm of the likelihood, a frame, at the best factor; less a constant."""
        relative = self.calibrated(self._size**-exponent, exponent).frame_deviation
        relative = np.maximum(relative, 1e-15)
        scale = np.sqrt(((self.energy_error / relative) ** 2).mean())
        return float(np.log(np.maximum(scale * relative, 1e-300)).mean())

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
