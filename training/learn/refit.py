"""Fitting again: the training configuration with the labelled frames of the loop added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from ase_hmlp.errors import ConfigError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import Model, load_model
from ase_hmlp.training.config import TrainingConfig, read_config
from ase_hmlp.training.evaluate import ErrorRow
from ase_hmlp.training.fit import Progress
from ase_hmlp.training.frames import ALL, Frame, read_frames
from ase_hmlp.training.learn.config import TrainSection
from ase_hmlp.training.sections import merged, validate
from ase_hmlp.training.train import fitted_frames, load_frames, train_from_config


@dataclass(frozen=True, eq=False)
class Training:
    """A training configuration without the frames of the loop.

    Attributes
    ----------
    settings : dict
        As it is written to a file, but for the data files.
    config : TrainingConfig
    files : list of Path
        Of no source in particular.
    source_files : list of Path
        Of the sources.
    frames : list of Frame
        Held-out ones among them.
    family : str
        Of the frames the loop adds.
    """

    settings: dict[str, Any]
    config: TrainingConfig
    files: list[Path]
    source_files: list[Path]
    frames: list[Frame]
    family: str

    def fitted(self, labelled: Sequence[Path]) -> list[Frame]:
        """The frames of the fit with labelled files added."""
        added = [frame for file in labelled for frame in read_frames(file)]
        return fitted_frames(self.frames + added, self.config)


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors: meV/atom, meV/Å, GPa (NaN without stress labels)."""

    energy: float
    force: float
    pressure: float


def read_training(section: TrainSection, base: Path) -> Training:
    """Put the training configuration together and read its data.

    Raises
    ------
    ConfigError
        Naming the key that will not do.
    DataError
        If the data cannot be read.
    """
    settings: dict[str, Any] = {}
    folder = base
    if section.config is not None:
        path = base / section.config
        given = read_config(path)
        settings = given.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        folder = path.parent
    files = [(folder / name).resolve() for name in settings.get("data", {}).get("files", [])]
    replaced = section.settings.get("data", {})
    if isinstance(replaced, dict) and isinstance(replaced.get("files"), list):
        files = [(base / str(name)).resolve() for name in replaced["files"]]
    whose = base if isinstance(replaced, dict) and "source" in replaced else folder
    settings = merged(settings, section.settings, TrainingConfig)
    config = validate(settings, TrainingConfig, "train.settings")
    if not config.fit.variance:
        raise ConfigError(
            "train: fit.variance must be true, for the selection needs predictive variances."
        )
    if not config.environment.representatives or "environment" not in config.fit.levels:
        raise ConfigError(
            "train: there must be an environment level with representatives, for the selection "
            "needs predictive variances."
        )
    sources = [
        source.model_copy(update={"files": [str((whose / f).resolve()) for f in source.files]})
        for source in config.data.source
    ]
    if sources:  # relative to where they were written, not to the rounds
        dumped = [s.model_dump(mode="json", exclude_defaults=True) for s in sources]
        settings = merged(settings, {"data": {"source": dumped}}, TrainingConfig)
    data = config.data.model_copy(
        update={"files": [str(file) for file in files], "source": sources}
    )
    frames, _ = load_frames(base, config.model_copy(update={"data": data}))
    if section.family in {frame.group for frame in frames}:
        raise ConfigError(
            f"train.family: the training data have a family {section.family!r} already; "
            "give the new frames another name."
        )
    others = [Path(file) for source in sources for file in source.files]
    training = Training(settings, config, files, others, frames, section.family)
    training.fitted([])  # so that families that are not there are named at once
    return training


def refit(
    training: Training, labelled: Sequence[Path], folder: Path, progress: Progress
) -> tuple[Model, Path]:
    """Fit, unless it is done; leaves ``train.toml`` for `hmlp train` and the model with its card.

    Parameters
    ----------
    training : Training
    labelled : files with the frames of the loop so far
    folder : Path
    progress : callable
    """
    name = training.config.name
    output = folder / "model"
    path, card = output / f"{name}.joblib", output / f"{name}.md"
    if not (path.exists() and card.exists()):
        data = _joined(training, [os.path.relpath(file, folder) for file in labelled])
        settings = merged(training.settings, {"data": data}, TrainingConfig)
        config = folder / "train.toml"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(config, tomli_w.dumps(settings))
        train_from_config(config, output, progress, overwrite=True)
    return load_model(path), path


def _joined(training: Training, labelled: list[str]) -> dict[str, Any]:
    """The data files of a training with those of the loop, which have the model's energy zero."""
    files = [str(file.resolve()) for file in training.files]
    sources = training.settings["data"].get("source", [])
    if files or not sources or not labelled:
        return {"files": files + labelled}
    # Before all sources they would be the first, whose zero is the model's.
    return {"source": [*sources, {"files": labelled, "zero": "shared"}]}


def held_out_errors(model: Model, without: str) -> Errors:
    """Errors of a model on the frames held out of its fit, but for those of one family.

    Parameters
    ----------
    model : Model
    without : str
        The family the loop adds to: with it, rounds would not be compared on the same frames.
    """
    rows = [ErrorRow(**row) for row in model.errors.get("levels", {}).get("all", [])]
    return mean_errors([row for row in rows if row.group not in (ALL, without)])


def mean_errors(rows: Sequence[ErrorRow]) -> Errors:
    """Errors over the frames of several families."""

    def mean(values, weights) -> float:
        good = np.isfinite(values)
        return float(np.average(values[good], weights=weights[good])) if good.any() else np.nan

    frames = np.array([row.frames for row in rows])
    atoms = np.array([row.atoms for row in rows])
    return Errors(
        mean(np.array([row.energy_mae for row in rows]), frames),
        mean(np.array([row.force_mae for row in rows]), atoms),
        mean(np.array([row.pressure_mae for row in rows]), frames),
    )
