"""Fitting and timing candidates, each of them once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ase_hmlp import __version__
from ase_hmlp.errors import ConfigError, HMLPError
from ase_hmlp.potential import Potential
from ase_hmlp.training.append_only import RecordFile
from ase_hmlp.training.cache import cached
from ase_hmlp.training.config import TrainingConfig
from ase_hmlp.training.evaluate import error_table
from ase_hmlp.training.fit import Prepared, Progress
from ase_hmlp.training.frames import Frame, file_digest
from ase_hmlp.training.search.candidates import Candidate
from ase_hmlp.training.search.config import TimingSection
from ase_hmlp.training.search.settings import Base, Changes
from ase_hmlp.training.search.timing import crystal, microseconds_per_atom
from ase_hmlp.training.train import (
    load_frames,
    predict_unseen,
    prepare_by_family,
    split_off_tests,
    thinned,
)

#: Keys of the levels that only the solution of the normal equations depends on.
PRIORS = ("prior", "linear_prior")

#: What a configuration says about a run and not about the potential.
ASIDE = {"name", "description", "fit"}

#: But for these, so does how it is fitted.
FITTED = {"levels", "joint"}


class Evaluator:
    """Fits and times candidates; those that are in the file are not computed again.

    Parameters
    ----------
    base : Base
    timing : TimingSection
    folder : Path
        For the base's potential.
    records : RecordFile
        A line for each candidate.
    progress : callable
    every : int
        Of each family every so manieth frame, but for those that the bond is fitted to.
    """

    def __init__(
        self,
        base: Base,
        timing: TimingSection,
        folder: Path,
        records: RecordFile,
        progress: Progress,
        every: int = 1,
    ):
        self._base, self._timing, self._folder = base, timing, folder
        self._records, self._progress, self._every = records, progress, every
        self._frames: list[Frame] | None = None
        self._prepared: tuple[str, Prepared] | None = None
        data = [file_digest(file) for file in base.files]
        # Whatever else errors and ratios of times depend on.
        self._setup = _digest(
            [__version__, data, every, _essence(base.config), timing.model_dump(mode="json")]
        )
        self.computed = 0
        self.known: dict[str, Candidate] = {}
        self._times: dict[str, tuple[float, float]] = {}
        for line in records.records:
            record = json.loads(line)
            if record.pop("setup") == self._setup:
                candidate = Candidate.from_dict(record)
                self.known[candidate.id] = candidate
                if not candidate.failure:
                    shape = _shape(base.changed(candidate.changes))
                    self._times[shape] = candidate.ratio, candidate.microseconds

    def __call__(self, changes: Changes) -> Candidate:
        """Find out about the base with changes."""
        try:
            changes = self._base.normal(changes)
            config = self._base.changed(changes)
        except ConfigError as error:  # each change is good by itself, but not all together
            return Candidate(_digest(changes), changes, failure=str(error))
        key = _digest([self._setup, _essence(config)])
        if key not in self.known:
            candidate = self._evaluate(key, changes, config)
            record = {"setup": self._setup, **candidate.to_dict()}
            self._records.append(json.dumps(record, ensure_ascii=False) + "\n")
            self.known[key] = candidate
            self.computed += 1
        return self.known[key]

    def _evaluate(self, key: str, changes: Changes, config: TrainingConfig) -> Candidate:
        start = perf_counter()
        try:
            prepared = self._prepare(config)
            rows = error_table(predict_unseen(self.frames, config, prepared, self._progress))
            ratio, microseconds = self._time(config)
        except (HMLPError, ValueError) as error:
            if not changes:
                raise
            return Candidate(key, changes, failure=" ".join(str(error).split()))
        seconds = round(perf_counter() - start, 1)
        if not np.isfinite([rows[-1].energy_mae, rows[-1].force_mae]).all():
            return Candidate(key, changes, seconds=seconds, failure="The errors are not finite.")
        return Candidate(key, changes, tuple(rows), ratio, microseconds, seconds)

    @property
    def frames(self) -> list[Frame]:
        """The labelled frames, thinned, without the test split; read when first asked for."""
        if self._frames is None:
            frames, _ = load_frames(self._base.folder, self._base.config)
            frames, _ = split_off_tests(frames)
            self._frames = thinned(frames, self._base.config, self._every)
        return self._frames

    def _prepare(self, config: TrainingConfig) -> Prepared:
        """What is prepared is kept for candidates that differ in priors only."""
        key = _digest(_unsolved(config))
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = None  # before the next one takes as much memory
            self._prepared = key, prepare_by_family(self.frames, config, self._progress)
        return self._prepared[1]

    def _fit(self, config: TrainingConfig) -> Potential:
        estimator = config.estimator().set_params(variance=False)
        return estimator.solve(self._prepare(config)).potential_

    def _base_potential(self) -> Potential:
        """In a file, for it is timed with every other one."""
        path = self._folder / f"base-{self._setup}.joblib"
        return cached(path, lambda: self._fit(self._base.config))

    def _time(self, config: TrainingConfig) -> tuple[float, float]:
        """Time of an evaluation: divided by the base's, and in µs/atom.

        Where only numbers differ and not how many there are, so would only the noise.
        """
        shape = _shape(config)
        if shape not in self._times:
            base = self._base_potential()
            if shape == _shape(self._base.config):
                (mine,) = self._microseconds(base)
                self._times[shape] = 1.0, mine
            else:
                mine, other = self._microseconds(self._fit(config), base)
                self._times[shape] = mine / other, mine
        return self._times[shape]

    def _microseconds(self, *potentials: Potential) -> list[float]:
        return microseconds_per_atom(potentials, crystal(self._timing), self._timing.calls)


def _essence(config: TrainingConfig) -> dict[str, Any]:
    """What a potential depends on, but for the content of the data files and where they lie."""
    fit = config.fit.model_dump(mode="json", include=FITTED)
    essence = config.model_dump(mode="json", exclude=ASIDE) | {"fit": fit}
    for section in (essence["data"], *essence["data"]["source"]):
        section["files"] = [Path(file).name for file in section["files"]]
    return essence


def _unsolved(config: TrainingConfig) -> dict[str, Any]:
    """What is settled before the normal equations are solved."""
    tables = _essence(config) | {"fit": {"levels": config.fit.levels}}
    return {
        name: {key: value for key, value in table.items() if key not in PRIORS}
        for name, table in tables.items()
    }


def _shape(config: TrainingConfig) -> str:
    """Identifies what the time of an evaluation depends on."""
    return _digest(_unsolved(config) | {"weights": {}})


def _digest(value) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
