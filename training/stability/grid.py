"""`hmlp stability`: dynamics at every point of a grid, judged by the limits of the model.

==================  ===============================================================================
points/             a run for each point, see `ase_hmlp.simulate.run_folder`, watched in every step,
                    see `ase_hmlp.training.stability.watch`
stability.json      the model with its hash, and every command that was given
report.txt          the table with a verdict for each point, what was not met, where it comes from
stability.csv       the table with every number
uncertainty.png     predicted deviations along every run
to-label.extxyz     structures that tripped, for `hmlp label`; not there if there are none
==================  ===============================================================================

Runs that have ended are not run again; everything else is made anew from their folders. A test that
was killed at any moment goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ase_hmlp.errors import ConfigError, OutputExistsError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import available_models, load_model, model_hash
from ase_hmlp.sections import read_toml
from ase_hmlp.simulate.point_folders import refuse_other_runs
from ase_hmlp.simulate.run_folder import versions_of
from ase_hmlp.simulate.sweep import POINTS, check_folder, run_points
from ase_hmlp.training.label import extxyz_text
from ase_hmlp.training.stability.config import StabilityConfig, stability_points
from ase_hmlp.training.stability.frames import worth_labelling
from ase_hmlp.training.stability.report import Provenance, write_report
from ase_hmlp.training.stability.verdict import Outcome, judge
from ase_hmlp.training.stability.watch import Watching

RECORD, FRAMES = "stability.json", "to-label.extxyz"


@dataclass(frozen=True)
class Stability:
    """What a test leaves.

    Attributes
    ----------
    folder : Path
    outcomes : list of Outcome
        In the order of the grid.
    provenance : Provenance
    already : int
        Points that had ended before.
    paths : list of Path
        What was written.
    frames : int
        Structures for labelling.
    """

    folder: Path
    outcomes: list[Outcome]
    provenance: Provenance
    already: int
    paths: list[Path]
    frames: int


def stability_from_config(
    path: str | Path,
    output: str | Path | None = None,
    model: str | None = None,
    time: float | None = None,
    retry_failed: bool = False,
    report_only: bool = False,
    progress: Callable[[int, int, int, int], None] | None = None,
    command: str = "Python",
) -> Stability:
    """Run what has not ended yet of the test a TOML file describes, and report on all of it.

    Parameters
    ----------
    path : str or path
    output : str or path, optional
        Folder, instead of the one the file names.
    model : str, optional
        A shipped name or a model file, instead of the file's.
    time : float, optional
        ps, instead of the length of the runs in the file.
    retry_failed : bool
        Go on with the runs that failed, from their last checkpoints.
    report_only : bool
        Run nothing: report on what there is.
    progress : callable, optional
        See `ase_hmlp.simulate.sweep.run_sweep`.
    command : str
        How this was called, for the report.

    Raises
    ------
    ConfigError
        If the configuration is impossible, or there is nothing to report on.
    ModelFileError
        If the model cannot be used.
    OutputExistsError
        If the folder holds something else, or runs with other settings.
    """
    path = Path(path)
    config = read_toml(path, StabilityConfig)
    if model is not None and model not in available_models():
        model = str(Path(model).resolve())
    config = config.changed(model, time)
    folder = Path(output) if output is not None else path.parent / (config.output or path.stem)
    where = f"Configuration {path}: "
    points = stability_points(config, where)
    name = points[0].config.model
    file = name if name in available_models() else str(path.parent / name)
    loaded, sha256 = load_model(file), model_hash(file)
    check_folder(folder)
    if report_only and not (folder / POINTS).is_dir():
        raise ConfigError(f"There is no test of stability in {folder} to report on.")
    (folder / POINTS).mkdir(parents=True, exist_ok=True)
    reasons: dict[str, str] = {}
    already = 0
    commands = _commands(folder, sha256)
    if not report_only:
        refuse_other_runs(points, folder, path.parent)
        # Noted before the runs: one that is killed shall be in the report, too.
        before = (folder / RECORD).read_text(encoding="utf-8") if commands else None
        noted = commands if command in commands else [*commands, command]
        _note(folder, name, sha256, noted)
        try:
            rows, already = run_points(
                points,
                folder,
                path.parent,
                config.workers,
                retry_failed,
                progress,
                f"{where}workers",
                Watching(config.frames.apart),
            )
        except (ConfigError, OutputExistsError):  # it ran nothing
            _restore(folder, before)
            raise
        commands = noted
        reasons = {p.name: row.reason for p, row in zip(points, rows, strict=True)}
    chosen = {
        point.name: worth_labelling(point, folder / POINTS / point.name, config.frames)
        for point in points
    }
    frames = [atoms for point in points for atoms in chosen[point.name]]
    outcomes = [
        judge(
            point,
            folder / POINTS / point.name,
            loaded,
            reasons.get(point.name, ""),
            len(chosen[point.name]),
        )
        for point in points
    ]
    provenance = Provenance(
        loaded, sha256, versions_of(folder / POINTS / p.name for p in points), commands
    )
    paths = write_report(points, outcomes, folder, provenance)
    if frames:
        paths.append(write_whole(folder / FRAMES, "".join(map(extxyz_text, frames))))
    else:
        (folder / FRAMES).unlink(missing_ok=True)
    return Stability(folder, outcomes, provenance, already, paths, len(frames))


def _commands(folder: Path, sha256: str) -> list[str]:
    """Commands given in a folder before."""
    path = folder / RECORD
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["commands"] and record["model"]["sha256"] != sha256:
        raise OutputExistsError(
            f"The folder {folder} holds a test of another model, {record['model']['name']} with "
            f"SHA-256 {record['model']['sha256'][:16]}…: name another folder."
        )
    return record["commands"]


def _note(folder: Path, model: str, sha256: str, commands: list[str]) -> None:
    record = {"model": {"name": model, "sha256": sha256}, "commands": commands}
    write_whole(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _restore(folder: Path, before: str | None) -> None:
    """Undo a `_note`."""
    if before is None:
        (folder / RECORD).unlink(missing_ok=True)
    else:
        write_whole(folder / RECORD, before)
