"""A training run: configuration in; model file, card and plots out. Resumes where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, strftime

import numpy as np
from ase.units import GPa
from sklearn.base import clone
from sklearn.model_selection import LeaveOneGroupOut

from ase_hmlp import __version__
from ase_hmlp.errors import ConfigError, DataError
from ase_hmlp.model_io import Domain, Model, save_model
from ase_hmlp.training.cache import cached
from ase_hmlp.training.card import write_card
from ase_hmlp.training.config import TrainingConfig, read_config
from ase_hmlp.training.evaluate import Predictions, error_table, predict
from ase_hmlp.training.fit import Progress, silent
from ase_hmlp.training.frames import Frame, file_digest, read_frames
from ase_hmlp.training.limits import Limits

#: A bond may leave the range seen in training by this much (Å) before energies mean nothing.
BOND_MARGIN = 0.1

#: A contact may be shorter than the shortest labelled by this factor.
CONTACT_MARGIN = 0.8


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves.

    Attributes
    ----------
    model : Model
    model_path, card_path : Path
    held_out : dict of Predictions
        Of the held-out frames, by level: "bond", "pair", "orientation", "all".
    """

    model: Model
    model_path: Path
    card_path: Path
    held_out: dict[str, Predictions]


def train_from_config(
    path, output=None, progress: Progress = silent, overwrite: bool = False
) -> TrainingResult:
    """Run the training a configuration file describes.

    Parameters
    ----------
    path : str or Path
        TOML file, see `TrainingConfig`.
    output : str or Path, optional
        Folder for the model, its card and its plots; ``NAME-training`` beside the configuration
        unless given. Held-out predictions that are already there, from the same data and
        configuration, are not computed again.
    progress : callable
        Called with a stage, the steps done and the steps in all.
    overwrite : bool
        Replace a model that is already there.

    Raises
    ------
    ConfigError, DataError
    """
    path = Path(path)
    config = read_config(path)
    output = Path(output) if output else path.parent / f"{config.name}-training"
    model_path = output / f"{config.name}.joblib"
    if model_path.exists() and not overwrite:
        raise ConfigError(f"Model {model_path} exists already; ask for it to be overwritten.")
    sources = config.data.sources
    files = [path.parent / name for source in sources for name in source.files]
    frames, rejected = load_frames(path.parent, config)
    folds = _folds(frames, config)
    stamp = _stamp(path, files)
    output.mkdir(parents=True, exist_ok=True)
    held_out, parts = {}, []
    for n, (name, train, test) in enumerate(folds):
        progress("held-out families", n, len(folds))
        parts.append(
            cached(
                output / "folds" / f"{stamp}-{name}.joblib",
                lambda train=train, test=test: _predict_fold(
                    config,
                    [frames[i] for i in train],
                    [frames[i] for i in test],
                    progress,
                ),
            )
        )
    progress("held-out families", len(folds), len(folds))
    for stage in parts[0]:
        held_out[stage] = Predictions.concatenate([part[stage] for part in parts])
    curve = _learning_curve(config, frames, folds[0], output / "folds" / stamp, progress)
    used = fitted_frames(frames, config)
    start = perf_counter()
    estimator = config.estimator().fit(used, progress=progress)
    seconds = perf_counter() - start
    errors = {
        "scheme": config.split.scheme,
        "levels": {
            stage: [row.to_dict() for row in error_table(p)] for stage, p in held_out.items()
        },
        "learning_curve": curve,
    }
    training = {
        "date": strftime("%Y-%m-%d"),
        "description": config.description,
        "config": path.read_text(),
        "files": [{"name": f.name, "sha256": file_digest(f)} for f in files],
        "frames": len(used),
        "rejected": rejected,
        "zeros": estimator.zeros_["all"],
        "weights": {
            name: sorted({f.weight for f in used if f.source_set == name})
            for name in estimator.zeros_["all"]
        },
        "groups": {g: sum(f.group == g for f in used) for g in sorted({f.group for f in used})},
        "frame_digests": np.array(sorted(f.digest for f in used), dtype=np.int64),
        "fit": _plain(estimator.report_),
        "seconds": round(seconds, 1),
        "versions": {p: version(p) for p in ("ase", "numpy", "scipy", "scikit-learn", "joblib")}
        | {"ase_hmlp": __version__},
    }
    domain = training_domain(used, config.data.always)
    model = Model(estimator.potential_, domain, config.name, training, errors)
    save_model(model, model_path)
    fitted, _ = predict(estimator.potential_, used).on_one_zero(training["zeros"])
    card_path = write_card(model, held_out, fitted, output)
    shutil.rmtree(output / "folds", ignore_errors=True)
    return TrainingResult(model, model_path, card_path, held_out)


def training_domain(frames: list[Frame], limits: Sequence[str] = ()) -> Domain:
    """What frames cover; families in `limits` count for bonds and contacts only."""
    bulk = [f for f in frames if f.group not in limits and f.pbc.all()] or frames
    volumes = [f.volume / f.n_atoms for f in bulk]
    pressures = [-f.stress[:3].mean() / GPa for f in bulk if f.stress is not None] or [0.0, 500.0]
    bonds = np.concatenate([np.linalg.norm(f.bond_vectors(), axis=1) for f in frames])
    contact = min(f.shortest_contact for f in frames)
    low, high = float(bonds.min()), float(bonds.max())
    return Domain(
        volume=(float(min(volumes)), float(max(volumes))),
        pressure=(float(min(pressures)), float(max(pressures))),
        bond_length=(low, high),
        bond_limits=(low - BOND_MARGIN, high + BOND_MARGIN),
        contact=contact,
        contact_limit=CONTACT_MARGIN * contact,
    )


def load_frames(folder: Path, config: TrainingConfig) -> tuple[list[Frame], int]:
    """Frames of all sources that lie within the configured limits, and how many do not."""
    frames: list[Frame] = []
    rejected = 0
    everywhere = Limits(min_bond=config.data.min_bond, max_bond=config.data.max_bond)
    for source in config.data.sources:
        for file in source.files:
            for frame in read_frames(folder / file):
                if everywhere.violations(frame) or source.limits.violations(frame):
                    rejected += 1
                    continue
                if source.zero == "shared" and frames:
                    frame.source_set = frames[0].source_set
                elif source.name:
                    frame.source_set = source.name
                frame.weight = source.weight
                frames.append(frame)
    if len(frames) < 10:
        raise DataError(f"{len(frames)} frames within the limits are too few to train on.")
    return frames, rejected


def fitted_frames(frames: list[Frame], config: TrainingConfig) -> list[Frame]:
    """The frames that the final fit uses: all of them, or all that are not held out of it.

    Raises
    ------
    ConfigError
        If the frames cannot be split as the configuration says.
    """
    folds = _folds(frames, config)
    if config.split.scheme == "families":
        return [frames[i] for i in folds[0][1]]
    return frames


def _folds(frames, config: TrainingConfig) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, training and test indices of each held-out split."""
    groups = np.array([f.group for f in frames])
    known = set(groups.tolist())
    for key, wanted in (("data.always", config.data.always), ("split.test", config.split.test)):
        missing = set(wanted) - known
        if missing:
            raise ConfigError(f"{key} names families that no frame belongs to: {sorted(missing)}.")
    everything = np.arange(len(frames))
    always = np.isin(groups, config.data.always)
    sources = np.array([f.source for f in frames])
    parents = np.array([f.parent for f in frames])
    if config.split.scheme == "families":
        test = np.isin(groups, config.split.test) & ~always
        if not test.any() or test.all():
            raise ConfigError("split.test must name some of the families, not none and not all.")
        related = np.isin(parents, sources[test])
        return [("test", everything[~test & ~related], everything[test])]
    candidates = everything[~always]
    if len(set(groups[candidates].tolist())) < 2:
        raise ConfigError("leave-one-family-out needs at least two families.")
    folds = []
    for train, test in LeaveOneGroupOut().split(candidates, groups=groups[candidates]):
        name = str(groups[candidates[test[0]]])
        # A frame made from a held-out one would give it away.
        related = np.isin(parents, sources[candidates[test]])
        kept = np.concatenate([candidates[train], everything[always]])
        folds.append((name, kept[~related[kept]], candidates[test]))
    return folds


def _predict_fold(config, train, test, progress) -> dict[str, Predictions]:
    estimator = config.estimator().set_params(variance=False).fit(train, progress=progress)
    return {
        stage: predict(p, test).on_one_zero(estimator.zeros_[stage])[0]
        for stage, p in estimator.stages_.items()
    }


def _learning_curve(config, frames, fold, cache: Path, progress) -> list[dict]:
    """Errors on one held-out split with halved and halved-again training sets.

    The families that are never held out stay whole.
    """
    _, train, test = fold
    always = np.array([frames[i].group in config.data.always for i in train])
    shuffled = np.random.default_rng(config.fit.random_state).permutation(train[~always])
    curve = []
    for k in range(config.fit.learning_curve - 1, -1, -1):
        n = len(shuffled) // 2**k
        if n < 20:
            continue

        def run(n=n):
            chosen = [frames[i] for i in (*shuffled[:n], *train[always])]
            estimator = clone(config.estimator()).set_params(variance=False)
            estimator.fit(chosen, progress=progress)
            unseen = predict(estimator.potential_, [frames[i] for i in test])
            row = error_table(unseen.on_one_zero(estimator.zeros_["all"])[0])[-1]
            return {
                "frames": n,
                "energy_mae": row.energy_mae,
                "force_mae": row.force_mae,
                "pressure_mae": row.pressure_mae,
            }

        curve.append(cached(cache.with_name(f"{cache.name}-curve-{n}.joblib"), run))
    return curve


def _stamp(config_path: Path, files) -> str:
    """Identifies data, configuration and version: what a stored fold must agree with."""
    parts = [config_path.read_text(), __version__, *(file_digest(f) for f in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _plain(value):
    """NumPy scalars to Python's."""
    return json.loads(json.dumps(value, default=float))
