"""`hmlp sweep`: a run at every point of a grid of pressure, temperature and phase, side by side.

Every point is a run in a folder of its own, below ``points``, and can be looked at and continued as
one. A sweep that was killed, or whose grid has grown, runs what has not ended yet.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, cast

import joblib
from pydantic import Field, PositiveFloat, ValidationError, field_validator

from ase_hmlp.errors import ConfigError, HMLPError, OutputExistsError, RunError
from ase_hmlp.files import write_whole
from ase_hmlp.parallel import WorkersSection, unordered
from ase_hmlp.sections import Section, read_toml, sentence
from ase_hmlp.simulate import run_folder as names
from ase_hmlp.simulate import structures
from ase_hmlp.simulate.run import Run
from ase_hmlp.simulate.run_config import RunConfig
from ase_hmlp.simulate.start import MADE

POINTS = "points"
TABLE = "summary.csv"
FIGURE = "deviation.png"
TOKEN = ".sweep"

#: How long (s) a worker waits for one that a killed sweep left behind to let go of a folder.
PATIENCE = 120.0

#: Seconds between looks at how far the points are.
REFRESH = 2.0


class GridSection(Section):
    """The points: every combination.

    Attributes
    ----------
    pressure : GPa
    temperature : K
    phase : as ``structure.phase`` of a run
    """

    pressure: list[float] = Field(min_length=1)
    temperature: list[PositiveFloat] = Field(min_length=1)
    phase: list[str] = Field(min_length=1)


class SweepConfig(Section):
    """A whole sweep.

    Attributes
    ----------
    output : folder, relative to the configuration; named after it if not given
    grid : GridSection
    run : the configuration of a run (`RunConfig`) without phase, and with stages that leave out
        the temperature and pressure that the point gives them; one thread if it does not say. A
        stage that leaves out its cell has the one that suits the phase of the point. Where the
        first stage is NVE, momenta are drawn at the temperature (at twice that for a crystal at its
        minimum) unless the structure has its own
    workers : WorkersSection
    """

    output: str | None = None
    grid: GridSection
    run: dict[str, Any]
    workers: WorkersSection = WorkersSection()

    @field_validator("run")
    @classmethod
    def _tables(cls, run: dict[str, Any]) -> dict[str, Any]:
        # Points fill them in before a run's own checks see them.
        stages = run.get("stage", [])
        if not (isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages)):
            raise ValueError("stage must be tables, each of them [[run.stage]]")
        if not isinstance(run.get("structure", {}), dict):
            raise ValueError("structure must be a table, [run.structure]")
        return run


@dataclass(frozen=True)
class Point:
    """A point of the grid: GPa and K."""

    phase: str
    pressure: float
    temperature: float
    config: RunConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return point_name(self.phase, self.pressure, self.temperature)


def point_name(phase: str, pressure: float, temperature: float) -> str:
    """Name of the folder of a point, from its phase, GPa and K."""
    return f"{phase}-{pressure:g}GPa-{temperature:g}K"


@dataclass(frozen=True)
class Row:
    """What a point came to; names carry the units, errors are standard errors of means.

    Attributes
    ----------
    status : "finished", "failed" (the structure left the model's limits), or "stopped" (it never
        began, or could not be written)
    bond_trips, contact_trips, deviation_trips : rows of the log outside what the model was trained
        on, or above the threshold
    warnings : warnings the calculator gave, of every kind, between rows too
    reason : of a point that did not finish
    """

    phase: str
    pressure_GPa: float
    temperature_K: float
    status: str
    steps: int = 0
    time_ps: float = 0.0
    atoms: int = 0
    mean_volume_A3_per_atom: float | None = None
    error_volume_A3_per_atom: float | None = None
    mean_density_g_per_cm3: float | None = None
    error_density_g_per_cm3: float | None = None
    mean_pressure_GPa: float | None = None
    error_pressure_GPa: float | None = None
    mean_temperature_K: float | None = None
    error_temperature_K: float | None = None
    mean_enthalpy_eV_per_atom: float | None = None
    error_enthalpy_eV_per_atom: float | None = None
    shortest_bond_A: float | None = None
    longest_bond_A: float | None = None
    shortest_contact_A: float | None = None
    highest_deviation_meV_per_atom: float | None = None
    deviation_threshold_meV_per_atom: float | None = None
    rows: int = 0
    bond_trips: int = 0
    contact_trips: int = 0
    deviation_trips: int = 0
    warnings: int = 0
    first_warning: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Sweep:
    """What a sweep leaves.

    Attributes
    ----------
    folder : Path
    rows : list of Row
        In the order of the grid.
    already : int
        Points that had ended before.
    problem : str
        Why the table or the picture is not written, such as a full disk.
    """

    folder: Path
    rows: list[Row]
    already: int
    problem: str = ""


class _Abandoned(Exception):
    """The sweep this worker belongs to is gone, or was started again."""


def grid_points(config: SweepConfig, where: str = "") -> list[Point]:
    """The runs of a sweep.

    Parameters
    ----------
    config : SweepConfig
    where : str
        Name of the configuration, for errors.

    Raises
    ------
    ConfigError
    """
    grid = config.grid
    known = (*MADE, *structures.NAMES)
    for phase in grid.phase:
        if phase not in known:
            raise ConfigError(f"{where}grid.phase: there is no {phase!r}, but {', '.join(known)}.")
    for axis in ("temperature", "pressure"):
        if len(getattr(grid, axis)) > 1 and not _used(axis, config.run, grid.phase):
            raise ConfigError(
                f"{where}grid.{axis} has several values that no run would use: a stage, or else "
                f"the structure, must leave {axis} to the grid."
            )
    points = [
        Point(phase, pressure, temperature, _fill(config.run, phase, pressure, temperature, where))
        for phase, pressure, temperature in product(grid.phase, grid.pressure, grid.temperature)
    ]
    doubled = [p.name for p in points if sum(q.name == p.name for q in points) > 1]
    if doubled:
        raise ConfigError(f"{where}The grid has {doubled[0]} more than once.")
    return points


#: Ensembles that hold a quantity of the grid.
HOLDING = {"temperature": ("nvt", "npt"), "pressure": ("npt",)}


def _used(axis: str, template: dict[str, Any], phases: list[str]) -> bool:
    """Whether runs differ along an axis: by what stages hold, else by what they start from."""
    stages, structure = template.get("stage", []), template.get("structure", {})
    holding = [stage for stage in stages if stage.get("ensemble") in HOLDING[axis]]
    if holding:
        return any(axis not in stage for stage in holding)
    if axis == "temperature":
        return axis not in structure
    built = structure.get("relax") != "none" or "liquid" in phases
    return axis not in structure and built


def _fill(
    template: dict[str, Any], phase: str, pressure: float, temperature: float, where: str
) -> RunConfig:
    structure = dict(template.get("structure", {}))
    for key in ("phase", "file"):
        if key in structure:
            raise ConfigError(f"{where}run.structure.{key}: the grid says what the phase is.")
    if "output" in template:
        raise ConfigError(f"{where}run.output: not in a sweep.")
    structure |= {"phase": phase}
    structure.setdefault("pressure", pressure)
    stages = []
    for stage in template.get("stage", []):
        stage = dict(stage)
        for axis, value in (("temperature", temperature), ("pressure", pressure)):
            if stage.get("ensemble") in HOLDING[axis]:
                stage.setdefault(axis, value)
        stages.append(stage)
    if stages and stages[0].get("ensemble") == "nve":
        at_minimum = phase in structures.NAMES and structure.get("relax") in (None, "full")
        structure.setdefault("temperature", temperature * (2.0 if at_minimum else 1.0))
    filled = {"threads": 1, **template, "structure": structure, "stage": stages}
    try:
        return RunConfig.model_validate(filled)
    except ValidationError as error:
        raise ConfigError(f"{where}{sentence(error, 'run.')}.") from error


def sweep_from_config(
    path: str | Path,
    output: str | Path | None = None,
    retry_failed: bool = False,
    progress: Callable[[int, int, int, int], None] | None = None,
) -> Sweep:
    """Run a sweep that a TOML file describes; see `run_sweep`."""
    path = Path(path)
    config = read_toml(path, SweepConfig)
    if output is None:
        output = path.parent / (config.output or path.stem)
    where = f"Configuration {path}: "
    return run_sweep(config, output, path.parent, retry_failed, progress, where)


def run_sweep(
    config: SweepConfig,
    folder: str | Path,
    base: str | Path = ".",
    retry_failed: bool = False,
    progress: Callable[[int, int, int, int], None] | None = None,
    where: str = "",
) -> Sweep:
    """Run what has not ended yet of the points of a sweep, and sum all of them up.

    Parameters
    ----------
    config : SweepConfig
    folder : str or path
        On a disk that every worker sees.
    base : str or path
        That paths in ``config.run`` are relative to.
    retry_failed : bool
        Try again the points that failed, from their last checkpoints.
    progress : callable, optional
        Called as ``progress(steps, all_steps, ended, points)``, now and then from another thread.
    where : str
        Name of the configuration, for errors.

    Raises
    ------
    ConfigError
        If a point's configuration is impossible, or the backend is not there.
    OutputExistsError
        If the folder holds something else, or runs with other settings.
    """
    folder = Path(folder)
    points = grid_points(config, where)
    check_folder(folder)
    rows, already = run_points(
        points, folder, base, config.workers, retry_failed, progress, f"{where}workers"
    )
    problem = ""
    try:
        write_whole(folder / TABLE, table(rows))
        _draw(points, folder, rows)
    except OSError as error:  # the points themselves are safe
        problem = (
            f"{error.filename or folder} cannot be written ({error.strerror or error}): all points "
            "have ended, and the same command writes what is missing."
        )
    return Sweep(folder, rows, already, problem)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than points.

    Raises
    ------
    OutputExistsError
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file, not a folder to write to.")
    if folder.is_dir() and not (folder / POINTS).is_dir() and any(folder.iterdir()):
        raise OutputExistsError(f"The folder {folder} is not empty and of no sweep: name another.")


def run_points(
    points: list[Point],
    folder: Path,
    base: str | Path,
    workers: WorkersSection,
    retry_failed: bool = False,
    progress: Callable[[int, int, int, int], None] | None = None,
    where: str = "workers",
    prepare: Callable[[Run], None] | None = None,
) -> tuple[list[Row], int]:
    """Run what has not ended yet of some points, side by side.

    Parameters
    ----------
    points : list of Point
        With different names; each in a folder of that name below ``folder / POINTS``.
    folder : Path
        Made if it is not there; one process at a time runs points in it.
    base : str or path
        That paths in the configurations of the points are relative to.
    workers : WorkersSection
    retry_failed : bool
        Try again the points that failed, from their last checkpoints.
    progress : callable, optional
        See `run_sweep`.
    where : str
        Name of the workers, for errors.
    prepare : callable, optional
        Called with every `Run` before it runs, in the process it runs in, to attach observers.

    Returns
    -------
    rows : list of Row
        In the order of the points.
    already : int
        Points that had ended before.

    Raises
    ------
    ConfigError
        If a point's configuration is impossible, or the backend is not there.
    OutputExistsError
        If a point's folder holds a run with other settings.
    RunError
        If another process has begun to run points in `folder`.
    """
    base = Path(base)
    runs = [Run(p.config, folder / POINTS / p.name, base) for p in points]
    rows: dict[str, Row] = {}
    for point, run in zip(points, runs, strict=True):
        summary = run.summary
        if summary is not None and (summary["status"] == "finished" or not retry_failed):
            rows[point.name] = summary_row(point, summary)
    already = len(rows)
    left = {p.name: p for p in points if p.name not in rows}
    (folder / POINTS).mkdir(parents=True, exist_ok=True)
    token, maker = uuid.uuid4().hex, os.getpid()
    write_whole(folder / TOKEN, token)
    tasks = (
        joblib.delayed(_run_point)(
            p.config, (folder / POINTS / p.name).resolve(), base.resolve(), token, maker, prepare
        )
        for p in left.values()
    )
    with _reporting(points, folder, rows, progress):
        try:
            for name, summary, reason in unordered(tasks, workers, where):
                rows[name] = summary_row(left[name], summary, reason)
        except _Abandoned:
            raise RunError(
                f"Another process has begun to run points in {folder}: it goes on, this one ends."
            ) from None
    return [rows[p.name] for p in points], already


def _run_point(config: RunConfig, folder: Path, base: Path, token: str, maker: int, prepare=None):
    """Run a point, in whatever process this is.

    A worker ends with the process that made it, `maker`. That one itself goes on without its
    parent, as without the shell that began it in the background.

    Returns
    -------
    name, summary or None, reason it has none
    """
    sweep, parent = folder.parent.parent, os.getppid()

    def abandoned(*_):
        orphaned = os.getpid() != maker and os.getppid() != parent
        if orphaned or (sweep / TOKEN).read_text() != token:
            raise _Abandoned(str(sweep))

    try:
        abandoned()
        run = Run(config, folder, base)
        run.attach(abandoned, config.write.sample_interval)
        if prepare is not None:
            prepare(run)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return folder.name, run.run(preparing=abandoned), ""
            except OutputExistsError:  # a worker of a killed sweep is about to see that it was
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
    except RunError as error:
        return folder.name, run.summary, str(error)
    except (HMLPError, OSError) as error:
        return folder.name, None, " ".join(str(error).split())


def summary_row(point: Point, summary: dict[str, Any] | None, reason: str = "") -> Row:
    """The line of a point, from the summary of its run."""
    place = (point.phase, point.pressure, point.temperature)
    if summary is None:
        return Row(*place, "stopped", reason=reason)
    means = summary["stages"][-1]["averages"]
    numbers: dict[str, float | None] = {}
    for column in (
        "volume_A3_per_atom",
        "density_g_per_cm3",
        "pressure_GPa",
        "temperature_K",
        "enthalpy_eV_per_atom",
    ):
        numbers[f"mean_{column}"] = means[column]["mean"]
        numbers[f"error_{column}"] = means[column]["error"]
    extremes, samples, events = summary["extremes"], summary["samples"], summary["events"]
    given = {kind: event for kind, event in events.items() if kind != "failed"}
    first = min(given.values(), key=lambda event: event["first_step"], default=None)
    return Row(
        *place,
        summary["status"],
        summary["steps"],
        summary["time_ps"],
        summary["atoms"],
        **cast(dict[str, Any], numbers),
        shortest_bond_A=extremes["bond_min_A"],
        longest_bond_A=extremes["bond_max_A"],
        shortest_contact_A=extremes["contact_A"],
        highest_deviation_meV_per_atom=extremes["deviation_meV_per_atom"],
        deviation_threshold_meV_per_atom=summary["deviation_threshold"],
        rows=samples["all"],
        bond_trips=samples["bond_length"],
        contact_trips=samples["contact"],
        deviation_trips=samples["deviation"],
        warnings=sum(event["count"] for event in given.values()),
        first_warning=first["message"] if first else "",
        reason=summary.get("reason", ""),
    )


def table(rows: list[Row]) -> str:
    """CSV of the rows; nothing where there is no number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(f.name for f in fields(Row))
    for row in rows:
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in asdict(row).values())
    return stream.getvalue()


def _draw(points: list[Point], folder: Path, rows: list[Row]) -> None:
    from ase_hmlp.simulate.observables import read_log
    from ase_hmlp.simulate.sweep_figure import Trace, deviations

    traces = []
    for point, row in zip(points, rows, strict=True):
        log = folder / POINTS / point.name / names.LOG
        if log.exists() and row.rows:
            traces.append(
                Trace(
                    point.phase,
                    point.pressure,
                    point.temperature,
                    read_log(log),
                    row.status == "failed",
                )
            )
    if any((t.log["deviation_meV_per_atom"] > 0).any() for t in traces):
        limits = {row.deviation_threshold_meV_per_atom for row in rows} - {None}
        figure = deviations(traces, next(iter(limits), None))
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        write_whole(folder / FIGURE, drawn.getvalue())


@contextmanager
def _reporting(points, folder: Path, rows, progress) -> Iterator[None]:
    """Report how far the points are, while they run elsewhere."""
    if progress is None:
        yield
        return
    steps = {p.name: sum(stage.steps for stage in p.config.stages) for p in points}
    total, ended = sum(steps.values()), threading.Event()

    def report():
        done = sum(
            steps[p.name] if p.name in rows else steps_done(folder / POINTS / p.name)
            for p in points
        )
        progress(done, total, len(rows), len(points))

    def watch():
        while not ended.wait(REFRESH):
            report()

    report()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        ended.set()
        watcher.join()
        report()
    finally:
        ended.set()
        watcher.join()


def steps_done(folder: Path) -> int:
    """How far a run is, by the last line of its log."""
    try:
        with (folder / names.LOG).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().split(b"\n")[:-1]
        return int(float(lines[-1].split(b",")[0]))
    except (OSError, IndexError, ValueError):
        return 0
