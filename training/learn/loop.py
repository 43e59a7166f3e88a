"""The loop: explore, select, label, fit again, until nothing new turns up.

The work folder::

    setup.json            what the rounds hang on; a run with anything else is refused
    journal.jsonl         which stage ended when, in how many seconds
    round-00/             the first potential, unless one was given
    round-01/exploration/ trajectories
             trips.extxyz where runs left the domain
             selection.joblib, selected.extxyz
             labelled.extxyz, labels.failed.jsonl
             train.toml, model/
             errors.joblib, result.json
             report.md, report.png
    report.md, report.png all rounds

Each is written in one piece when it is complete, and not computed again: a run that was killed
goes on where it was, to the same end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, strftime

import numpy as np
from ase import Atoms

from ase_hmlp.errors import ConfigError, LearningError, OutputExistsError
from ase_hmlp.files import refuse_foreign, write_whole
from ase_hmlp.model_io import Model, available_models, load_model, model_hash, model_path
from ase_hmlp.parallel import check_backend
from ase_hmlp.training.append_only import RecordFile, split_frames, split_lines
from ase_hmlp.training.cache import cached
from ase_hmlp.training.evaluate import Predictions, error_table, predict
from ase_hmlp.training.fit import Progress, silent
from ase_hmlp.training.frames import file_digest, iterate_structures, read_frames
from ase_hmlp.training.label import extxyz_text, label_frames, read_failures, structure_digest
from ase_hmlp.training.label_calculators import Labeller
from ase_hmlp.training.learn import report
from ase_hmlp.training.learn.config import LearnConfig
from ase_hmlp.training.learn.environments import deviations
from ase_hmlp.training.learn.explore import explore
from ase_hmlp.training.learn.refit import (
    Training,
    held_out_errors,
    mean_errors,
    read_training,
    refit,
)
from ase_hmlp.training.learn.rounds import NewFrames, Round
from ase_hmlp.training.learn.select import Selection, select, uncertainty_threshold
from ase_hmlp.training.learn.starts import Start, starting_structures
from ase_hmlp.training.learn.trajectories import Trajectory
from ase_hmlp.training.sections import read_toml

#: What tells a folder of a loop.
SETUP = "setup.json"


@dataclass(frozen=True)
class LearnResult:
    """What a loop left.

    Attributes
    ----------
    folder : Path
    rounds : list of Round
    model : Path
        The last potential.
    report : Path
    reason : str
        Why the loop ended.
    """

    folder: Path
    rounds: list[Round]
    model: Path
    report: Path
    reason: str


def learn_from_config(
    path, output=None, retry_failed: bool = False, progress: Progress = silent
) -> LearnResult:
    """Run the loop a configuration file describes, or go on with it.

    Parameters
    ----------
    path : str or Path
        TOML file, see `LearnConfig`.
    output : str or Path, optional
        Work folder; beside the configuration, and named like it, unless given.
    retry_failed : bool
        In a round that is being labelled, try again what failed.
    progress : callable
        Called with a stage, the steps done and the steps in all.

    Raises
    ------
    ConfigError, DataError, ModelFileError
        Before anything is done, if it cannot be.
    LabellingError, LearningError
        If the loop cannot go on; what it did is kept.
    OutputExistsError
        If another run is at work in the folder, or it holds something else under the names of what
        a loop leaves.
    """
    path = Path(path)
    config = read_toml(path, LearnConfig)
    folder = Path(output) if output else path.with_suffix("")
    labeller = config.label.calculator.labeller(path.parent)
    training = read_training(config.train, path.parent)
    starts = starting_structures(config.explore, path.parent)
    first = _given_model(config, path.parent)
    setup = _setup(config, labeller, training, starts, first)
    # The folder of a run that cannot be is not made.
    check_backend(config.explore.run, "explore.run")
    rounds = [f"round-{k:02d}" for k in range(1, config.stop.rounds + 1)]
    refuse_foreign(folder, [*report.FILES, *rounds], SETUP)
    folder.mkdir(parents=True, exist_ok=True)
    with RecordFile(folder / "journal.jsonl", split_lines) as journal:
        _check_setup(folder / SETUP, setup)
        loop = _Loop(
            config, folder, labeller, training, starts, first, retry_failed, progress, journal
        )
        return loop.run()


@dataclass(frozen=True, eq=False)
class _Loop:
    """The rounds, one after the other."""

    config: LearnConfig
    folder: Path
    labeller: Labeller
    training: Training
    starts: list[Start]
    first: Path | None
    retry_failed: bool
    progress: Progress
    journal: RecordFile

    def run(self) -> LearnResult:
        """All rounds; see `learn_from_config`."""
        model, path = self._first_model()
        labelled: list[Path] = []
        rounds: list[Round] = []
        reason = ""
        most = self.config.stop.rounds
        for number in range(1, most + 1):
            self.progress("rounds", number - 1, most)
            folder = self.folder / f"round-{number:02d}"
            result = folder / "result.json"
            if not result.exists():
                self._round(number, folder, model, labelled, rounds)
            rounds.append(Round.from_dict(json.loads(result.read_text())))
            reason = self._reason(rounds)
            if rounds[-1].last:
                break
            labelled.append(folder / "labelled.extxyz")
            model, path = refit(self.training, labelled, folder, self.progress)
        self.progress("rounds", len(rounds), len(rounds))
        summary = report.write_summary(self.folder, rounds, reason, path)
        return LearnResult(self.folder, rounds, path, summary, reason)

    def _first_model(self) -> tuple[Model, Path]:
        if self.first is not None:
            return load_model(self.first), self.first
        with self._stage(0, "fit"):
            model, path = refit(self.training, [], self.folder / "round-00", self.progress)
        _require_deviations(model, path)
        return model, path

    def _round(
        self,
        number: int,
        folder: Path,
        model: Model,
        labelled: list[Path],
        before: list[Round],
    ) -> None:
        """One round; its last act is to write ``result.json``."""
        config, progress = self.config, self.progress
        frames = self.training.fitted(labelled)
        with self._stage(number, "explore"):
            found = explore(
                folder / "exploration",
                model,
                self.starts,
                frames,
                config.explore,
                config.seed,
                number,
                progress,
            )
            _write_trips(folder / "trips.extxyz", number, found)
        with self._stage(number, "select"):
            progress("selection", 0, 1)
            selection = cached(
                folder / "selection.joblib",
                lambda: select(
                    model,
                    frames,
                    found,
                    self._threshold(model),
                    config.select,
                    self.training.config,
                ),
            )
            selected = self._selected(folder / "selected.extxyz", number, found, selection)
            progress("selection", 1, 1)
        new, errors, fitted = None, None, None
        held_out = held_out_errors(model, self.training.family)
        failures: list[str] = []
        last = len(selected) < config.stop.frames
        if not last:
            target = folder / "labelled.extxyz"
            with self._stage(number, "label"):
                failures = self._label(selected, folder / "labels.extxyz", target)
            with self._stage(number, "compare"):
                new = cached(folder / "errors.joblib", lambda: _compare(model, target))
                errors = mean_errors(error_table(new.predictions)[:-1])
            with self._stage(number, "fit"):
                model, _ = refit(self.training, [*labelled, target], folder, progress)
                after = predict(model.potential, read_frames(target))
                fitted = mean_errors(error_table(after)[:-1])
        trips = Counter(t.trip.kind for t in found if t.trip is not None)
        if uncertain := int((selection.deviation > selection.threshold).sum()):
            trips["uncertainty"] = uncertain
        result = Round(
            number=number,
            last=last,
            training_frames=len(frames),
            runs=len(found),
            candidates=len(selection.deviation),
            uncertain=int(selection.uncertain.sum()),
            threshold=selection.threshold,
            largest_deviation=float(selection.deviation.max(initial=0.0)),
            median_deviation=_median(selection.deviation),
            selected=len(selected),
            labelled=0 if new is None else len(new.predictions.group),
            failed=len(failures),
            trips=dict(sorted(trips.items())),
            before=errors,
            fitted=fitted,
            held_out_before=held_out,
            held_out=None if last else held_out_errors(model, self.training.family),
        )
        rounds = [*before, result]
        report.write_round(
            folder,
            rounds,
            self._reason(rounds),
            report.Findings(config.explore, found, selection, new, failures),
        )
        write_whole(folder / "result.json", json.dumps(result.to_dict(), indent=1) + "\n")

    def _threshold(self, model: Model) -> float:
        """The same in every round: that of the first potential."""
        settings = self.config.select
        if settings.uncertainty is not None:
            return 1e-3 * settings.uncertainty
        return cached(
            self.folder / "threshold.joblib",
            lambda: uncertainty_threshold(
                model,
                self.training.fitted([]),
                self.training.config.data.always,
                settings.quantile,
            ),
        )

    def _selected(
        self, path: Path, number: int, found: list[Trajectory], selection: Selection
    ) -> list[Atoms]:
        """The selected frames, as they are in the file: what is labelled is what was written."""
        if not path.exists():
            frames = []
            for c, reach in zip(selection.chosen, selection.chosen_distance, strict=True):
                trajectory, k = found[selection.trajectory[c]], int(selection.snapshot[c])
                atoms = trajectory.atoms(k)
                atoms.info = {
                    "group": self.training.family,
                    "source": f"round-{number:02d}/{trajectory.name}/{trajectory.steps[k]}",
                    "deviation_meV": round(1e3 * float(selection.deviation[c]), 3),
                    "distance": round(float(reach), 4),
                    "tripped": bool(selection.tripped[c]),
                }
                frames.append(atoms)
            write_whole(path, "".join(map(extxyz_text, frames)))
        return list(iterate_structures(path)) if path.stat().st_size else []

    def _label(self, selected: list[Atoms], labels: Path, target: Path) -> list[str]:
        """Label what is missing; the labelled frames in the order they were selected.

        Returns
        -------
        list of str
            Reasons of the failures.
        """
        if not target.exists():
            section = self.config.label
            result = label_frames(
                selected,
                labels,
                self.labeller,
                section.run,
                section.checks,
                self.retry_failed,
                self.progress,
            )
            if not (result.labelled or result.already):
                raise LearningError(
                    f"None of the {len(selected)} frames selected could be labelled, for reasons "
                    f"in {result.failures}; --retry-failed tries them again."
                )
            records = split_frames(labels.read_bytes())
            order = {structure_digest(atoms): k for k, atoms in enumerate(selected)}
            ids = [atoms.info["label_id"] for atoms in iterate_structures(labels)]
            ranked = sorted(zip(ids, records, strict=True), key=lambda pair: order[pair[0]])
            write_whole(target, b"".join(record for _, record in ranked).decode())
        labels.unlink(missing_ok=True)
        return [f["reason"] for f in read_failures(labels.with_suffix(".failed.jsonl"))]

    def _reason(self, rounds: list[Round]) -> str:
        """Why the loop ends with these rounds; empty if it goes on."""
        stop, now = self.config.stop, rounds[-1]
        if now.last:
            found = "nothing new" if not now.selected else f"{now.selected} new frames"
            fewer = f", fewer than the {stop.frames} that would be worth a round" * bool(
                now.selected
            )
            return f"Round {now.number} found {found}{fewer}."
        if now.number >= stop.rounds:
            return (
                f"All {stop.rounds} rounds are done; the last one still found {now.selected} new "
                "frames."
            )
        return ""

    @contextmanager
    def _stage(self, number: int, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        record = {
            "round": number,
            "stage": name,
            "seconds": round(perf_counter() - start, 1),
            "ended": strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self.journal.append(json.dumps(record) + "\n")


def _compare(model: Model, labelled: Path) -> NewFrames:
    """Labels of frames that a potential has not seen, and what it says."""
    frames = read_frames(labelled)
    predictions: Predictions = predict(model.potential, frames)
    largest = [deviations(model.potential, frame).max() for frame in frames]
    return NewFrames(predictions, np.array(largest))


def _given_model(config: LearnConfig, base: Path) -> Path | None:
    """Path of the first potential, unless it is to be fitted."""
    if config.model is None:
        return None
    shipped = config.model in available_models()
    path = model_path(config.model if shipped else base / config.model)
    _require_deviations(load_model(path), path)
    return path


def _require_deviations(model: Model, path: Path) -> None:
    if not model.has_deviations:
        raise ConfigError(
            f"{path} was saved without predictive variances, which the selection needs."
        )


def _setup(config: LearnConfig, labeller: Labeller, training: Training, starts, first) -> dict:
    """All that the result hangs on: not how many processes do it, nor when it ends."""
    settings = config.model_dump(
        mode="json",
        exclude={"stop": True, "explore": {"run"}, "label": True, "train": {"config", "settings"}},
    )
    return {
        **settings,
        "label": {
            "settings": labeller.settings,
            "checks": config.label.checks.model_dump(mode="json"),
        },
        "train": {
            **settings["train"],
            "config": training.config.model_dump(mode="json", exclude={"data": {"files"}}),
            "files": [file_digest(file) for file in training.files],
            "source_files": [file_digest(file) for file in training.source_files],
        },
        "starts": {start.name: start.atoms and structure_digest(start.atoms) for start in starts},
        "model_sha256": first and model_hash(first),
    }


def _check_setup(path: Path, setup: dict) -> None:
    """Write down the setup, or refuse to mix it with another.

    Raises
    ------
    ConfigError
        Naming what differs.
    OutputExistsError
        If the file is something else.
    """
    setup = json.loads(json.dumps(setup))
    if path.exists():
        try:
            old = json.loads(path.read_text())
            # Loops that began before sources counted go on; from now on theirs do.
            old["train"].setdefault("source_files", setup["train"]["source_files"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OutputExistsError(f"{path} is no setup of a loop: name another folder.") from None
        difference = _difference(old, setup)
        if difference:
            raise ConfigError(
                f"Folder {path.parent} holds rounds with another {difference}: go back to it, or "
                "give another folder with --output."
            )
    write_whole(path, json.dumps(setup, indent=1) + "\n")


def _difference(old, new) -> str:
    """Name of the first key in which two nested dicts differ."""
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if a != b:
            inner = isinstance(a, dict) and isinstance(b, dict)
            return f"{key}.{_difference(a, b)}" if inner else key
    return ""


def _write_trips(path: Path, number: int, found: list[Trajectory]) -> None:
    """The structures at which runs tripped, with the reason."""
    frames = []
    for trajectory in found:
        if trajectory.trip is not None and len(trajectory):
            atoms = trajectory.atoms(-1)
            atoms.info = {
                "source": f"round-{number:02d}/{trajectory.name}/{trajectory.steps[-1]}",
                "trip": trajectory.trip.kind,
                "sentence": trajectory.trip.sentence,
            }
            frames.append(atoms)
    if frames:
        write_whole(path, "".join(map(extxyz_text, frames)))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0
