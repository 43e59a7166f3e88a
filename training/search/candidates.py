"""Candidates: what was found of one set of settings, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ase_hmlp.training.evaluate import ErrorRow
from ase_hmlp.training.frames import ALL
from ase_hmlp.training.search.config import ScoreSection
from ase_hmlp.training.search.settings import Changes


@dataclass(frozen=True)
class Candidate:
    """What was found of one set of settings.

    Attributes
    ----------
    id : str
        Of settings and data.
    changes : dict
        In what it differs from the base.
    rows : tuple of ErrorRow
        On unseen families, and on all in the last row; none if the fit failed.
    ratio : float
        Time of an evaluation divided by that of the base, measured in turns with it; the same for
        all that differ in priors and weights only.
    microseconds : float
        Processor time per atom of an evaluation, µs, as it was measured.
    seconds : float
        What it took to find all this.
    failure : str
        Why there is no fit; empty if there is.
    """

    id: str
    changes: Changes
    rows: tuple[ErrorRow, ...] = ()
    ratio: float = np.nan
    microseconds: float = np.nan
    seconds: float = 0.0
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not a number."""
        data = asdict(self) | {"ratio": _plain(self.ratio)}
        data["microseconds"] = _plain(self.microseconds)
        data["rows"] = [{k: _plain(v) for k, v in row.to_dict().items()} for row in self.rows]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Candidate:
        """Inverse of `to_dict`."""
        rows = tuple(ErrorRow(**_numbers(row)) for row in data["rows"])
        return cls(**_numbers(data) | {"rows": rows})


def _plain(value):
    return None if isinstance(value, float) and value != value else value


def _numbers(data: dict[str, Any]) -> dict[str, Any]:
    return {k: np.nan if v is None else v for k, v in data.items()}


class Judge:
    """Errors and scores of candidates, see `ScoreSection`.

    Parameters
    ----------
    section : ScoreSection
    base : Candidate
        Its error is 1.
    """

    def __init__(self, section: ScoreSection, base: Candidate):
        self._section = section
        self._base = {row.group: row for row in base.rows}

    def error(self, candidate: Candidate) -> float:
        """Mean of errors divided by the base's; infinite for a failure.

        Families without a label of some kind, and errors of zero, say nothing and are left out.
        """
        rows = [row for row in candidate.rows if row.group != ALL]
        values, weights = [], []
        for kind, share in self._section.shares.items():
            old = np.array([getattr(self._base[row.group], kind) for row in rows])
            new = np.array([getattr(row, kind) for row in rows])
            frames = np.array([row.frames for row in rows], dtype=float)
            many = frames if self._section.families == "frames" else np.ones(len(rows))
            told = np.isfinite(old) & (old > 0)
            if share and told.any():
                values.append(np.average(new[told] / old[told], weights=many[told]))
                weights.append(share)
        return float(np.average(values, weights=weights)) if values else np.inf

    def score(self, candidate: Candidate) -> float:
        """The error and the price of the time; infinite for a failure."""
        error = self.error(candidate)
        if not np.isfinite(error):
            return np.inf
        return error + self._section.price * float(np.log2(candidate.ratio))

    def best(self, candidates: Sequence[Candidate]) -> Candidate:
        """The one of the lowest score; of equal ones the first."""
        return min(candidates, key=self.score)
