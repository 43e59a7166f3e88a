"""A training run: configuration in; model file, card and plots out.

Predictions of held-out families are kept: a run that was killed does not make them again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from time import perf_counter, strftime
from typing import Any

import numpy as np

from ase_hmlp import __version__
from ase_hmlp.errors import ConfigError, DataError
from ase_hmlp.files import sync_folder
from ase_hmlp.model_io import Domain, Model, save_model
from ase_hmlp.potential import Potential
from ase_hmlp.training.cache import cached
from ase_hmlp.training.card import card_files, write_card
from ase_hmlp.training.config import SourceSection, TrainingConfig, read_config
from ase_hmlp.training.evaluate import Predictions, error_table, predict
from ase_hmlp.training.fit import Prepared, Progress, silent
from ase_hmlp.training.frames import Frame, file_digest, read_frames
from ase_hmlp.training.limits import Limits
from ase_hmlp.training.reliability import Reliability

#: A bond may leave the range seen in training by this much (Å) before energies mean nothing:
#: inwards, and outwards, where the bond level's wall has by then added more than 2 eV.
BOND_MARGIN = 0.1, 0.3

#: A contact may be shorter than the shortest labelled by this factor.
CONTACT_MARGIN = 0.8

#: Pressures (GPa) of the domain of a model that no frame told of any.
ANY_PRESSURE = 0.0, 500.0


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves.

    Attributes
    ----------
    model : Model
    model_path, card_path : Path
    held_out : dict of Predictions
        Of the held-out frames, by level: "bond", "pair", "orientation", "environment", "all".
    """

    model: Model
    model_path: Path
    card_path: Path
    held_out: dict[str, Predictions]


def train_from_config(
    path,
    output=None,
    progress: Progress = silent,
    overwrite: bool = False,
    changes: Sequence[str] = (),
) -> TrainingResult:
    """Run the training a configuration file describes.

    Parameters
    ----------
    path : str or Path
        TOML file, see `TrainingConfig`.
    output : str or Path, optional
        Folder for the model, its card and its plots; ``NAME-training`` beside the configuration
        unless given. Held-out predictions that are already there, from the same data and
        configuration, are not computed again; they are in ``.NAME.folds`` until all is done.
    progress : callable
        Called with a stage, the steps done and the steps in all.
    overwrite : bool
        Replace a model, card or picture that is already there.
    changes : sequence of str
        Lines of TOML that replace keys of the configuration, ``table.key = value``.

    Raises
    ------
    ConfigError, DataError
    """
    path = Path(path)
    config = read_config(path, changes)
    output = Path(output) if output else path.parent / f"{config.name}-training"
    model_path = output / f"{config.name}.joblib"
    unfinished = _Unfinished(output / f".{config.name}.folds")
    if not overwrite:
        unfinished.refuse(model_path, card_files(output, config.name))
    sources = config.data.sources
    # Once each: families of one file may be sources of their own.
    names = dict.fromkeys(name for source in sources for name in source.files)
    files = [path.parent / name for name in names]
    frames, rejected = load_frames(path.parent, config)
    frames, tests = split_off_tests(frames)
    folds = _folds(frames, config)
    stamp = _stamp(path, files, changes)
    used = fitted_frames(frames, config)
    try:
        domain = training_domain(used, config.data.always)
    except ValueError as error:  # of what all frames have in common there is no range
        raise DataError(f"The frames do not span what a model is good for: {error}.") from error
    output.mkdir(parents=True, exist_ok=True)
    estimator = config.estimator()
    start = perf_counter()
    parts = _parts(used, config)
    prepared = estimator.prepare(used, parts, progress)
    estimator.solve(prepared)
    seconds = perf_counter() - start
    held_out, found = {}, []
    for n, fold in enumerate(folds):
        progress("held-out families", n, len(folds))
        found.append(
            cached(
                unfinished.fold(stamp, n),
                partial(_predict_fold, config, prepared, fold, frames),
            )
        )
    progress("held-out families", len(folds), len(folds))
    for stage in found[0][0]:
        held_out[stage] = Predictions.concatenate([part[stage] for part, _ in found])
    potential, reliability = _calibrated(estimator.potential_, [seen for _, seen in found])
    curve = _learning_curve(config, prepared, folds[0], frames)
    on_tests = None
    if tests:
        on_tests, _ = predict(potential, tests).on_one_zero(estimator.zeros_["all"])
        if reliability:
            on_tests_seen = Reliability.of(potential, tests, on_tests)
            reliability["test_split"] = on_tests_seen.table()
    errors = {
        "scheme": config.split.scheme,
        "levels": {
            stage: [row.to_dict() for row in error_table(p)] for stage, p in held_out.items()
        },
        "learning_curve": curve,
        "test_split": [] if on_tests is None else [r.to_dict() for r in error_table(on_tests)],
        "reliability": reliability,
    }
    training = {
        "date": strftime("%Y-%m-%d"),
        "description": config.description,
        "config": path.read_text() + "".join(f"# changed: {change}\n" for change in changes),
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
    if all(f.stress is None for f in _bulk(used, config.data.always)):
        training["pressure"] = "not labelled"
    model = Model(potential, domain, config.name, training, errors)
    fitted, _ = predict(potential, used).on_one_zero(training["zeros"])
    # The model last: where it is, all is.
    saved = save_model(model, unfinished.begin_writing())
    card_path = write_card(model, saved, held_out, fitted, on_tests, output)
    os.replace(saved, model_path)
    sync_folder(output)
    unfinished.remove()
    return TrainingResult(model, model_path, card_path, held_out)


@dataclass(frozen=True)
class _Unfinished:
    """What a run keeps beside its output until it has ended.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    def fold(self, stamp: str, number: int) -> Path:
        """File of a fold's predictions."""
        return self.folder / f"{stamp}-{number:03d}.joblib"

    @property
    def _saved(self) -> Path:
        return self.folder / "model"

    def begin_writing(self) -> Path:
        """Note that what is in the output from now on is this run's.

        Returns
        -------
        Path of the model while card and picture are not there yet.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._saved.touch()
        return self._saved

    def refuse(self, model: Path, others: Sequence[Path]) -> None:
        """Refuse to replace files, but for those of a run that was killed before its model.

        Raises
        ------
        ConfigError
        """
        mine = self._saved.exists()
        for path in (model, *(() if mine else others)):
            if path.exists():
                raise ConfigError(f"{path} exists already; ask for it to be overwritten.")

    def remove(self) -> None:
        """Remove what such runs wrote; the folder, if there is nothing else in it."""
        for path in (self._saved, *self.folder.glob(f"{12 * '[0-9a-f]'}-*.joblib")):
            path.unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:  # somebody else's files
            pass


def training_domain(frames: list[Frame], limits: Sequence[str] = ()) -> Domain:
    """What frames cover; families in `limits` count for contacts and limits of bonds only.

    Where no frame has a stress the pressures are `ANY_PRESSURE`, for a model file has some: they
    mean nothing, as ``training["pressure"]`` of the model then says.
    """
    bulk = _bulk(frames, limits)
    volumes = [f.volume / f.n_atoms for f in bulk]
    pressures = [f.pressure for f in bulk if f.stress is not None] or list(ANY_PRESSURE)
    seen, labelled = _bond_range(bulk), _bond_range(frames)
    contact = min(f.shortest_contact for f in frames)
    return Domain(
        volume=(float(min(volumes)), float(max(volumes))),
        pressure=(float(min(pressures)), float(max(pressures))),
        bond_length=seen,
        bond_limits=(labelled[0] - BOND_MARGIN[0], labelled[1] + BOND_MARGIN[1]),
        contact=contact,
        contact_limit=CONTACT_MARGIN * contact,
    )


def _bulk(frames: list[Frame], limits: Sequence[str]) -> list[Frame]:
    return [f for f in frames if f.group not in limits and f.pbc.all()] or frames


def _bond_range(frames: list[Frame]) -> tuple[float, float]:
    lengths = [np.linalg.norm(frame.bond_vectors(), axis=1) for frame in frames]
    return float(min(x.min() for x in lengths)), float(max(x.max() for x in lengths))


def load_frames(folder: Path, config: TrainingConfig) -> tuple[list[Frame], int]:
    """Frames of all sources that lie within the configured limits, and how many do not."""
    read: list[tuple[SourceSection, list[Frame]]] = []
    rejected = 0
    everywhere = Limits(min_bond=config.data.min_bond, max_bond=config.data.max_bond)
    for source in config.data.sources:
        kept = []
        for file in source.files:
            for frame in read_frames(folder / file):
                if source.families and frame.group not in source.families:
                    continue
                if everywhere.violations(frame) or source.limits.violations(frame):
                    rejected += 1
                    continue
                frame.weight = source.weight
                kept.append(frame)
        read.append((source, kept))
    _settle_sources(read)
    frames = [frame for _, kept in read for frame in kept]
    if len(frames) < 10:
        raise DataError(f"{len(frames)} frames within the limits are too few to train on.")
    return frames, rejected


def _settle_sources(read: Sequence[tuple[SourceSection, list[Frame]]]) -> None:
    """Give every frame the name of the source that it shares an energy zero with."""
    taken = {source.name for source, _ in read}
    taken.update(frame.source_set for _, kept in read for frame in kept)
    first: Frame | None = None
    for source, kept in read:
        if source.zero == "shared" and first is not None:
            name, whose = first.source_set, kept
        elif source.name or first is None:
            name, whose = source.name, kept if source.name else []
        else:
            # Unnamed, they would have the zero of all others that are.
            name = _unused(Path(source.files[0]).name.split(".")[0], taken)
            whose = [frame for frame in kept if not frame.source_set]
        for frame in whose:
            frame.source_set = name
            taken.add(name)
        first = first or next(iter(kept), None)


def _unused(name: str, taken: set[str]) -> str:
    """A name, with a number if it is taken."""
    numbered = (f"{name}-{k}" for k in count(2))
    return next(x for x in chain([name], numbered) if x not in taken)


def split_off_tests(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Frames that may be trained on, and those that are labelled as tests (``info["split"]``).

    A frame made from a test would give it away: it is in neither.
    """
    tests = [frame for frame in frames if frame.split == "test"]
    told = {frame.source for frame in tests}
    return [f for f in frames if f.split != "test" and f.parent not in told], tests


def thinned(frames: list[Frame], config: TrainingConfig, every: int) -> list[Frame]:
    """Of each family every so manieth frame, but for those that the bond is fitted to."""
    seen: Counter[str] = Counter()
    kept = []
    for frame in frames:
        # The bond is a curve through the few frames it is fitted to.
        if frame.group in config.bond.groups or seen[frame.group] % every == 0:
            kept.append(frame)
        seen[frame.group] += 1
    return kept


def fitted_frames(frames: list[Frame], config: TrainingConfig) -> list[Frame]:
    """The frames that the final fit uses: all of them, or all that are not held out of it.

    Raises
    ------
    ConfigError
        If the frames cannot be split as the configuration says.
    """
    frames, _ = split_off_tests(frames)
    folds = _folds(frames, config)
    if config.split.scheme == "families":
        return [frames[i] for i in folds[0].train]
    return frames


def prepare_by_family(
    frames: list[Frame], config: TrainingConfig, progress: Progress = silent
) -> Prepared:
    """Gather what frames say, kept apart so that fits can leave families out.

    Parameters
    ----------
    frames : list of Frame
        None of them labelled as a test.
    config : TrainingConfig
    progress : callable
    """
    used = fitted_frames(frames, config)
    return config.estimator().prepare(used, _parts(used, config), progress)


def predict_unseen(
    frames: list[Frame], config: TrainingConfig, prepared: Prepared, progress: Progress = silent
) -> Predictions:
    """Predict each family by a fit that knows nothing of it.

    Parameters
    ----------
    frames : list of Frame
        As for `prepare_by_family`.
    config : TrainingConfig
        It may differ from that of `prepared` in priors.
    prepared : Prepared
    progress : callable
    """
    estimator = config.estimator().set_params(variance=False)
    found = []
    folds = _folds(frames, config)
    for n, fold in enumerate(folds):
        progress("held-out families", n, len(folds))
        estimator.solve(prepared, _usable(prepared, fold))
        made = predict(estimator.potential_, [frames[i] for i in fold.test])
        found.append(made.on_one_zero(estimator.zeros_["all"])[0])
    progress("held-out families", len(folds), len(folds))
    return Predictions.concatenate(found)


@dataclass(frozen=True)
class _Fold:
    """A held-out family, or families: indices of the frames that may be learned from and tested on.

    A frame made from a held-out one would give it away: it is in neither.
    """

    name: str
    held_out: frozenset[str]
    train: np.ndarray
    test: np.ndarray


def _folds(frames, config: TrainingConfig) -> list[_Fold]:
    groups = np.array([f.group for f in frames])
    known = set(groups.tolist())
    for key, wanted in (
        ("data.always", config.data.always),
        ("split.test", config.split.test),
        ("split.fitted", config.split.fitted),
    ):
        missing = set(wanted) - known
        if missing:
            raise ConfigError(f"{key} names families that no frame belongs to: {sorted(missing)}.")
    always = np.isin(groups, config.never_held_out)
    by_source = {f.source: f.group for f in frames}
    parents = np.array([by_source.get(f.parent, "") for f in frames])

    def fold(name, held_out) -> _Fold:
        test = np.isin(groups, held_out) & ~always
        train = ~test & ~np.isin(parents, held_out)
        return _Fold(name, frozenset(held_out), np.flatnonzero(train), np.flatnonzero(test))

    if config.split.scheme == "families":
        only = fold("test", config.split.test)
        if not len(only.test) or not len(only.train):
            raise ConfigError("split.test must name some of the families, not none and not all.")
        return [only]
    families = sorted(set(groups[~always].tolist()))
    if len(families) < 2:
        found = f"all frames are of {families[0]!r}" if families else "there is none"
        raise ConfigError(
            f"leave-one-family-out needs at least two families that may be held out, and {found}: "
            'families are what frames have in info["group"], or else in info["config_type"].'
        )
    return [fold(family, [family]) for family in families]


def _parts(frames, config: TrainingConfig) -> list[tuple[str, str, int]]:
    """What fits leave out together: family, family of the parent, and shell.

    Shell k holds what the k-th point of the learning curve has more than the next smaller one;
    families that are never held out are all in the innermost, as they are in every fit.
    """
    by_source = {f.source: f.group for f in frames}
    shells = np.full(len(frames), config.fit.learning_curve - 1)
    counted = [i for i, f in enumerate(frames) if f.group not in config.never_held_out]
    order = np.random.default_rng(config.fit.random_state).permutation(counted)
    for k in range(config.fit.learning_curve - 1):
        shells[order[len(order) // 2 ** (k + 1) : len(order) // 2**k]] = k
    return [
        (f.group, by_source.get(f.parent, ""), int(k)) for f, k in zip(frames, shells, strict=True)
    ]


def _usable(prepared: Prepared, fold: _Fold, innermost: int = 0) -> list:
    """Parts that a fit may use that knows nothing of a fold's families, from a shell inwards."""
    parts: Iterable[Any] = prepared.parts  # as `_parts` has them
    return [part for part in parts if not fold.held_out & set(part[:2]) and part[2] >= innermost]


def _predict_fold(
    config, prepared, fold: _Fold, frames
) -> tuple[dict[str, Predictions], Reliability | None]:
    """Predictions of a fold's frames by stage, and what the last stage expected of them."""
    estimator = config.estimator().solve(prepared, _usable(prepared, fold))
    test = [frames[i] for i in fold.test]
    made = {
        stage: predict(p, test).on_one_zero(estimator.zeros_[stage])[0]
        for stage, p in estimator.stages_.items()
    }
    environment = estimator.potential_.environment
    # There are none without the level, without representatives, or if they were not asked for.
    if environment is None or environment.regressor.variance is None:
        return made, None
    return made, Reliability.of(estimator.potential_, test, made["all"])


def _calibrated(potential: Potential, seen) -> tuple[Potential, dict]:
    """The potential with deviations that are as large as errors of unseen frames, and how they are.

    Returns
    -------
    potential : Potential
    record : dict
        ``factor`` and ``exponent``, see `Reliability.calibrated`, ``threshold`` (eV) and
        ``unseen``, see `Reliability.table`; empty without predictive variances.
    """
    environment = potential.environment
    if None in seen or environment is None or environment.regressor.variance is None:
        return potential, {}
    together = Reliability.concatenate(seen)
    factor, exponent = together.calibration
    # An atom's deviation is half of its molecule's.
    prior = 2.0 * factor * (0.5 * environment.regressor.prior) ** exponent
    regressor = replace(environment.regressor, prior=prior, exponent=exponent)
    together = together.calibrated(factor, exponent)
    record = {
        "factor": factor,
        "exponent": exponent,
        "threshold": together.threshold,
        "unseen": together.table(),
    }
    return replace(potential, environment=replace(environment, regressor=regressor)), record


def _learning_curve(config, prepared, fold: _Fold, frames) -> list[dict]:
    """Errors on one held-out split with halved and halved-again training sets.

    The families that are never held out stay whole.
    """
    test = [frames[i] for i in fold.test]
    curve = []
    for k in range(config.fit.learning_curve - 1, -1, -1):
        parts = _usable(prepared, fold, k)
        n = sum(len(prepared.rest[p]) for p in parts if p[0] not in config.never_held_out)
        if n < 20:
            continue
        estimator = config.estimator().set_params(variance=False).solve(prepared, parts)
        unseen = predict(estimator.potential_, test)
        row = error_table(unseen.on_one_zero(estimator.zeros_["all"])[0])[-1]
        curve.append(
            {
                "frames": n,
                "energy_mae": row.energy_mae,
                "force_mae": row.force_mae,
                "pressure_mae": row.pressure_mae,
            }
        )
    return curve


def _stamp(config_path: Path, files, changes: Sequence[str]) -> str:
    """Identifies data, configuration and version: what a stored fold must agree with."""
    parts = [config_path.read_text(), *changes, __version__, *(file_digest(f) for f in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _plain(value):
    """NumPy scalars to Python's."""
    return json.loads(json.dumps(value, default=float))
