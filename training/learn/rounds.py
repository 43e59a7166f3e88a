"""What is written down about a round."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ase_hmlp.training.evaluate import Predictions
from ase_hmlp.training.learn.refit import Errors


@dataclass(frozen=True)
class Round:
    """A round in numbers.

    Attributes
    ----------
    number : int
    last : bool
        Whether it found too little to go on.
    training_frames : int
        Of the fit it explored with.
    runs, candidates : int
        Relaxations and legs of dynamics, and structures looked at.
    uncertain : int
        Candidates above the threshold, or at which a run left the domain.
    threshold, largest_deviation, median_deviation : float, eV
        Of the most uncertain atom in a structure.
    selected, labelled, failed : int
        Frames.
    trips : dict
        How many runs tripped, by `Trip.kind`; "uncertainty" counts structures above the
        threshold.
    before, fitted : Errors or None
        On the newly labelled frames, of the potential that found them and of the next one.
    held_out_before, held_out : Errors
        On the frames held out of the fit, of the same two.
    """

    number: int
    last: bool
    training_frames: int
    runs: int
    candidates: int
    uncertain: int
    threshold: float
    largest_deviation: float
    median_deviation: float
    selected: int
    labelled: int
    failed: int
    trips: dict[str, int]
    before: Errors | None
    fitted: Errors | None
    held_out_before: Errors
    held_out: Errors | None

    @property
    def tripped_runs(self) -> int:
        """Runs that left what the potential was trained for."""
        return sum(n for kind, n in self.trips.items() if kind != "uncertainty")

    def to_dict(self) -> dict:
        """Plain numbers; None for what is not a number."""
        data = asdict(self)
        for name in _ERRORS:
            if data[name]:
                data[name] = {k: None if v != v else v for k, v in data[name].items()}
        return data

    @classmethod
    def from_dict(cls, data: dict) -> Round:
        """Inverse of `to_dict`."""
        errors = {
            name: Errors(**{k: np.nan if v is None else v for k, v in data[name].items()})
            for name in _ERRORS
            if data[name]
        }
        return cls(**data | errors)


_ERRORS = ("before", "fitted", "held_out_before", "held_out")


@dataclass(frozen=True, eq=False)
class NewFrames:
    """Newly labelled frames, and what the potential that found them says of them; f frames.

    Attributes
    ----------
    predictions : Predictions
    deviation : (f,) eV, of the most uncertain atom
    """

    predictions: Predictions
    deviation: np.ndarray
