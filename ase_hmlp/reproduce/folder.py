"""The folder of a reproduction: runs, measurements, reports, and what they are all made with.

===================  ==============================================================================
reproduction.json    recipe, model and its hash, every command that was given
points/NAME          a run; see `ase_hmlp.simulate.run_folder`
starts/NAME.extxyz   where the run at constant energy NAME-nve starts
measured/NAME        what was measured in a run: JSON, CSV, PNG each
TARGET.json ...      reports
===================  ==============================================================================
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from ase import Atoms
from ase.io import iread, write

from ase_hmlp.analysis.source import Source
from ase_hmlp.errors import ConfigError, ModelFileError, OutputExistsError
from ase_hmlp.files import write_whole
from ase_hmlp.model_io import available_models, model_hash
from ase_hmlp.molecules import partners
from ase_hmlp.parallel import WorkersSection, unordered
from ase_hmlp.reproduce.measurements import FINGERPRINTS, QUENCH, Measured, measure, read_measured
from ase_hmlp.reproduce.points import NVE, STARTS, first_frame
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.sections import validate
from ase_hmlp.simulate import run_folder
from ase_hmlp.simulate.point_folders import refuse_other_runs
from ase_hmlp.simulate.sweep import POINTS, Point, run_points, steps_done

MANIFEST = "reproduction.json"
MEASURED = "measured"


@dataclass(frozen=True)
class Wanted:
    """A point that a table or figure needs, and what is to be measured there.

    Attributes
    ----------
    point : Point
    measurements : tuple of str
        See `ase_hmlp.reproduce.measurements`.
    parent : Point or None
        Whose end a run at constant energy starts from.
    """

    point: Point
    measurements: tuple[str, ...]
    parent: Point | None = None


@dataclass(frozen=True)
class State:
    """How far a point is.

    Attributes
    ----------
    status : "finished", "failed", "stopped" or "to do"
    steps, all_steps : int
    reason : str
        Of a point that failed.
    """

    status: str
    steps: int
    all_steps: int
    reason: str = ""


@dataclass
class Reproduction:
    """A folder with a recipe and a model.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    model : str
        A shipped name, or the absolute path of a file.
    model_sha256 : str
    commands : list of str
        That were given for it.
    """

    folder: Path
    recipe: Recipe
    model: str
    model_sha256: str
    commands: list[str] = field(default_factory=list)

    @classmethod
    def begin(
        cls, folder: str | Path, recipe: Recipe, model: str, command: str = ""
    ) -> Reproduction:
        """Begin one, or go on with what is there, where `run` notes model and command.

        Parameters
        ----------
        folder : str or path
        recipe : Recipe
        model : str
            A shipped name or a file.
        command : str
            To be noted.

        Raises
        ------
        OutputExistsError
            If the folder holds something else, or another recipe or model.
        ase_hmlp.errors.ModelFileError
        """
        folder = Path(folder)
        sha256 = model_hash(model)
        if model not in available_models():
            model = str(Path(model).resolve())
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{folder} is a file, not a folder to write to.")
        # One that was killed before it wrote anything leaves hidden files only.
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            made = cls.open(folder)
            if made.recipe != recipe:
                raise OutputExistsError(
                    f"The folder {folder} holds a reproduction by "
                    f"{_difference(made.recipe, recipe)}: name another folder."
                )
            if made.model_sha256 != sha256:
                raise OutputExistsError(
                    f"The folder {folder} holds a reproduction with the model {made.model} of hash "
                    f"{made.model_sha256[:12]}, not {sha256[:12]}: name another folder."
                )
            made.model = model
            made._note(command)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            made = cls(folder, recipe, model, sha256)
            made._note(command)
            made._write()
        return made

    def _note(self, command: str) -> None:
        if command and command not in self.commands:
            self.commands.append(command)

    @classmethod
    def open(cls, folder: str | Path) -> Reproduction:
        """Open one that was begun.

        Raises
        ------
        OutputExistsError
            If the folder is none.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            recipe = validate(record["recipe"], Recipe, str(folder / MANIFEST))
            model = record["model"]
            return cls(folder, recipe, model["name"], model["sha256"], list(record["commands"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputExistsError(
                f"{folder} is no folder of hmlp reproduce: name another."
            ) from error

    @classmethod
    def peek(cls, folder: str | Path, recipe: Recipe, model: str) -> Reproduction:
        """The one that is there, or the one that `begin` would make; writes nothing."""
        folder = Path(folder)
        if (folder / MANIFEST).exists():
            return cls.open(folder)
        return cls(folder, recipe, model, model_hash(model))

    def _write(self) -> None:
        text = json.dumps(self.record, indent=1, ensure_ascii=False)
        write_whole(self.folder / MANIFEST, text + "\n")

    @property
    def record(self) -> dict[str, Any]:
        """What everything in it is made with."""
        return {
            "commands": self.commands,
            "recipe": self.recipe.model_dump(mode="json"),
            "model": {"name": self.model, "sha256": self.model_sha256},
        }

    # ------------------------------------------------------------ what is there

    def path(self, point: Point) -> Path:
        """Folder of a point."""
        return self.folder / POINTS / point.name

    def summary(self, point: Point) -> dict[str, Any] | None:
        """What a point that has ended came to."""
        path = self.path(point) / run_folder.SUMMARY
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def state(self, point: Point) -> State:
        """How far a point is."""
        steps = sum(stage.steps for stage in point.config.stages)
        summary = self.summary(point)
        if summary is not None:
            reason = summary.get("reason", "")
            return State(summary["status"], summary["steps"], steps, reason)
        done = steps_done(self.path(point))
        return State("stopped" if done else "to do", done, steps)

    @property
    def has_its_model(self) -> bool:
        """Whether the model's file is still what the runs were made with."""
        try:
            return model_hash(self.model) == self.model_sha256
        except ModelFileError:
            return False

    def versions(self, wanted: Sequence[Wanted]) -> list[str]:
        """What the finished ones of some points were computed with, each set of versions once."""
        points = [p for w in wanted for p in (w.point, w.parent) if p is not None]
        return run_folder.versions_of(self.path(p) for p in points if self.finished(p))

    def finished(self, point: Point) -> bool:
        """Whether a point ran to its end."""
        return self.state(point).status == "finished"

    def measured(self, point: Point, name: str) -> Measured | None:
        """A measurement in a point, if it is there."""
        path = self.folder / MEASURED / point.name / f"{name}.json"
        return read_measured(path) if path.exists() and self.finished(point) else None

    # ------------------------------------------------------------ computing

    def run(
        self,
        wanted: Sequence[Wanted],
        workers: int = 2,
        retry_failed: bool = False,
        progress: Callable[[int, int, int, int], None] | None = None,
        measuring: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Run and measure what is not there yet.

        Parameters
        ----------
        wanted : sequence of Wanted
        workers : int
            Runs side by side.
        retry_failed : bool
        progress : callable, optional
            See `ase_hmlp.simulate.sweep.run_sweep`.
        measuring : callable, optional
            Called as ``measuring(done, points)``.

        Returns
        -------
        list of str
            What went wrong, a sentence each.

        Raises
        ------
        OutputExistsError
            If a point's folder holds a run with other settings; then nothing is noted.
        """
        section = WorkersSection(workers=workers)
        parents = {w.parent.name: w.parent for w in wanted if w.parent is not None}
        first = {w.point.name: w.point for w in wanted if w.parent is None} | parents
        problems: list[str] = []
        started = [
            w.point for w in wanted if w.parent is not None and self._start_path(w.parent).exists()
        ]
        refuse_other_runs([*first.values(), *started], self.folder, self.folder)
        self._write()

        def go(points: list[Point]) -> None:
            rows, _ = run_points(points, self.folder, self.folder, section, retry_failed, progress)
            problems.extend(
                f"{point.name}: {row.reason}"
                for point, row in zip(points, rows, strict=True)
                if row.status != "finished"
            )

        go(list(first.values()))
        second = []
        for w in wanted:
            if w.parent is not None and self.finished(w.parent):
                self._start(w.parent)
                second.append(w.point)
        if second:
            go(second)
        return problems + self.measure(wanted, workers, measuring)

    def measure(
        self,
        wanted: Sequence[Wanted],
        workers: int = 2,
        measuring: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Measure what is not there yet in the points that are finished; see `run`."""
        ended = [w for w in wanted if self.finished(w.point)]
        without = () if self.has_its_model else (FINGERPRINTS, QUENCH)
        tasks = (
            joblib.delayed(_measure)(
                w.point.name,
                self.path(w.point).resolve(),
                w.point.config,
                [name for name in w.measurements if name not in without],
                (self.folder / MEASURED / w.point.name).resolve(),
                self.recipe,
                self.model,
            )
            for w in ended
        )
        problems = [
            f"{w.point.name}, {name}: the file of the model is not the one of the runs any more."
            for w in ended
            for name in set(w.measurements).intersection(without)
            if self.measured(w.point, name) is None
        ]
        results = unordered(tasks, WorkersSection(workers=workers), "workers")
        for done, (name, refused) in enumerate(results, 1):
            problems += [f"{name}, {what}: {why}" for what, why in refused.items()]
            if measuring is not None:
                measuring(done, len(ended))
        return problems

    def _start_path(self, parent: Point) -> Path:
        return self.folder / STARTS / f"{parent.name}.extxyz"

    def _start(self, parent: Point) -> None:
        """The end of a run, in the mean cell of its last stage."""
        path = self._start_path(parent)
        if path.exists():
            return
        start = first_frame(parent.config)
        cells, last = [], Atoms()
        for last in iread(str(self.path(parent) / run_folder.TRAJECTORY), index=f"{start}:"):
            cells.append(last.cell.array)
        atoms = Atoms(
            numbers=last.numbers,
            positions=last.positions,
            cell=last.cell,
            pbc=True,
            momenta=last.get_momenta(),
        )
        atoms.set_cell(np.mean(cells, axis=0), scale_atoms=True)
        stated = Source(self.path(parent) / run_folder.TRAJECTORY).molecules
        if stated is not None:
            atoms.set_array("partner", partners(stated[0]))
        stream = io.StringIO()
        write(stream, atoms, format="extxyz")
        path.parent.mkdir(exist_ok=True)
        write_whole(path, stream.getvalue())


def _measure(name: str, run, config, names, folder, recipe, model):
    return name, measure(run, config, names, folder, recipe, model)


def _difference(made: Recipe, recipe: Recipe) -> str:
    if made.name != recipe.name:
        return f"the recipe {made.name}, not {recipe.name}"
    before, now = made.model_dump(), recipe.model_dump()
    key = next(key for key in before if before[key] != now[key])
    return f"the recipe {made.name} with {key} = {before[key]}, not {now[key]}"


def select(
    wanted: Sequence[Wanted],
    patterns: Sequence[str] = (),
    phases: Sequence[str] = (),
    pressures: Sequence[float] = (),
    temperatures: Sequence[float] = (),
) -> list[Wanted]:
    """The points that fit all of what is given.

    Parameters
    ----------
    wanted : sequence of Wanted
    patterns : sequence of str
        Names, or shell patterns of names; one of them must fit.
    phases : sequence of str
        With or without what is behind the names of runs at constant energy.
    pressures : sequence of float, GPa
    temperatures : sequence of float, K

    Raises
    ------
    ConfigError
        If something given fits no point.
    """
    from fnmatch import fnmatchcase

    def fits(w: Wanted, key: str, given) -> bool:
        point = w.point
        if key == "points":
            return fnmatchcase(point.name, given)
        if key == "phase":
            return given in (point.phase, point.phase.removesuffix(NVE))
        return abs((point.pressure if key == "pressure" else point.temperature) - given) < 1e-6

    left = list(wanted)
    asked = {
        "points": patterns,
        "phase": phases,
        "pressure": pressures,
        "temperature": temperatures,
    }
    for key, values in asked.items():
        for value in values:
            if not any(fits(w, key, value) for w in wanted):
                text = f"{value:g}" if isinstance(value, float) else value
                raise ConfigError(f"--{key} {text} fits none of the points: --list shows them all.")
        if values:
            left = [w for w in left if any(fits(w, key, value) for value in values)]
    if not left:
        raise ConfigError("No point fits all that was asked for: --list shows them all.")
    return left
