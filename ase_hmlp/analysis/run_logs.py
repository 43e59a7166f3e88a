"""Runs as states: stretches at one temperature and pressure, their beginnings left out.

They are read from logs of `hmlp run`, tables of `hmlp analyse thermo`, and trajectories.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses

from ase_hmlp.analysis.thermodynamics import DENSITY, StateSamples, Thermodynamics
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import TooFewFramesError, TrajectoryError

#: Columns a log must have; their names carry the units.
COLUMNS = (
    "temperature_K",
    "pressure_GPa",
    "volume_A3_per_atom",
    "potential_eV_per_atom",
    "kinetic_eV_per_atom",
)

#: What thermostat and barostat aim at; empty where there is none.
TARGETS = ("target_K", "target_GPa")

#: Files in the folder of a run: its log, settings, what it came to, frames.
LOG, RUN, SUMMARY, TRAJECTORY = "log.csv", "run.json", "summary.json", "trajectory.traj"

#: Files that are called after the folder they are in.
NAMELESS = (LOG, TRAJECTORY, "thermo.csv")

#: Folder of the runs of a sweep, and how each is called.
POINTS = "points"
_NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"
POINT = re.compile(rf"(?P<phase>.+?)-{_NUMBER}GPa-{_NUMBER}K")

#: Share of every stretch that is left out while it settles.
SETTLING = 0.25

#: Fewest samples of a stretch, the settling ones included, that make a state.
FEWEST = 20


@dataclass(frozen=True)
class States:
    """What was read of runs.

    Attributes
    ----------
    states : list of StateSamples
    logs, trajectories : lists of Path
        That they are of.
    notes : list of str
        A sentence on each run that was left out.
    """

    states: list[StateSamples]
    logs: list[Path]
    trajectories: list[Path]
    notes: list[str]


def read_runs(
    paths: Iterable, atoms: int | None = None, mass: float | None = None, settling: float = SETTLING
) -> States:
    """Read runs, as many of them as say something.

    Runs of `hmlp run` that failed or have not ended are left out if they are given by their folders
    or that of a sweep, and so are runs that are too short.

    Parameters
    ----------
    paths : iterable of paths
        Logs, folders of runs, of sweeps or reproductions, trajectories.
    atoms, mass, settling
        See `read_states`; trajectories say themselves how many atoms they are of.

    Raises
    ------
    TrajectoryError, TooFewFramesError
        If there is nothing to read, or no run is left.
    """
    read = States([], [], [], [])
    for path in map(Path, paths):
        if _is_trajectory(path):
            _take(read, path, read.trajectories, _states_of_trajectory, mass, settling)
            continue
        logs, left_out = find_logs(path)
        read.notes.extend(left_out)
        for log in logs:
            _take(read, log, read.logs, read_states, atoms, mass, settling)
    if not read.states:
        raise TooFewFramesError(" ".join(read.notes[:1]) or "There is no run to read.")
    return read


def _take(read: States, path: Path, read_paths: list[Path], reader, *settings) -> None:
    try:
        read.states.extend(reader(path, *settings))
        read_paths.append(path)
    except TooFewFramesError as error:
        read.notes.append(str(error))


def read_states(
    path, atoms: int | None = None, mass: float | None = None, settling: float = SETTLING
) -> list[StateSamples]:
    """Read the log of a run, one state for each stretch at one target temperature and pressure.

    Parameters
    ----------
    path : path
        A CSV file with the columns `COLUMNS` and perhaps `TARGETS`, ``density_g_per_cm3`` and
        ``atoms``, or a folder with such a ``log.csv``. A ``summary.json`` beside it may hold the
        number of ``atoms``, and a ``run.json`` the phase.
    atoms : int, optional
        Number of atoms, where neither says.
    mass : float, optional
        Mean mass of an atom, u; what the log's density tells, or hydrogen's, if not given.
    settling : float
        Share of each stretch that is left out.

    Returns
    -------
    list of StateSamples
        Stretches of fewer than `FEWEST` samples, as while heating, are left out.

    Raises
    ------
    TrajectoryError, TooFewFramesError
    """
    path = log_path(path)
    _check_settling(settling)
    log = _read(path)
    n_atoms = atoms or _number_of_atoms(path, log)
    known_mass = _mass(log) if mass is None else mass
    states = []
    for stretch in _stretches(log):
        if len(stretch) < FEWEST:
            continue
        rows = stretch[int(settling * len(stretch)) :]
        t, p, volume, potential, kinetic = (log[name][rows] for name in COLUMNS)
        held = [float(log[name][rows[0]]) if name in log else np.nan for name in TARGETS]
        states.append(
            StateSamples(
                _name(path, log, rows),
                n_atoms,
                float(atomic_masses[1]) if known_mass is None else known_mass,
                t,
                p,
                volume,
                potential,
                kinetic,
                tuple(held),
                phase_of(path),
                mass_assumed=known_mass is None,
            )
        )
    if not states:
        raise TooFewFramesError(
            f"{path} has no {FEWEST} samples at one target temperature and pressure: nothing to "
            "average."
        )
    return states


def read_trajectory(path, mass: float | None = None, settling: float = SETTLING) -> StateSamples:
    """Read a trajectory with velocities, energies and stresses: all of it is one state.

    Parameters
    ----------
    path : path
        Of any file that ASE reads.
    mass : float, optional
        Mean mass of an atom, u, instead of what the trajectory says.
    settling : float
        Share of the frames that is left out.

    Raises
    ------
    TrajectoryError, TooFewFramesError
    """
    path = Path(path)
    _check_settling(settling)
    thermodynamics, trajectory = Thermodynamics(), Trajectory(path, molecular=False)
    thermodynamics.start(trajectory)
    for snapshot in trajectory:
        thermodynamics.add(snapshot)
    whole = thermodynamics.samples
    if len(whole) < FEWEST:
        raise TooFewFramesError(f"{path} has no {FEWEST} frames: nothing to average.")
    rows = slice(int(settling * len(whole)), None)
    return replace(
        whole,
        name=_stem(path),
        mass=whole.mass if mass is None else mass,
        temperature=whole.temperature[rows],
        pressure=whole.pressure[rows],
        volume=whole.volume[rows],
        potential=whole.potential[rows],
        kinetic=whole.kinetic[rows],
        phase=phase_of(path),
    )


def _states_of_trajectory(path, mass, settling) -> list[StateSamples]:
    return [read_trajectory(path, mass, settling)]


def _check_settling(settling: float) -> None:
    if not 0.0 <= settling < 1.0:
        raise TrajectoryError(f"The share left out must be from 0 to below 1, not {settling}.")


def find_logs(path) -> tuple[list[Path], list[str]]:
    """The log of a run, or those of all runs of a sweep, by name.

    Parameters
    ----------
    path : path
        A log, which is taken whatever became of the run; the folder of a run, or that of a sweep or
        reproduction.

    Returns
    -------
    logs : list of Path
    left_out : list of str
        A sentence on each run that failed, has not ended or never began.

    Raises
    ------
    TrajectoryError
        If there is none.
    """
    path = Path(path)
    points = sorted(p for p in (path / POINTS).glob("[!.]*") if p.is_dir())
    if not points and not path.is_dir():
        return [log_path(path)], []
    logs, left_out = [], []
    for folder in points or [log_path(path).parent]:
        why = _incomplete(folder)
        if why:
            left_out.append(f"{folder.name or folder} is left out: {why}.")
        else:
            logs.append(folder / LOG)
    return logs, left_out


def _incomplete(folder: Path) -> str:
    """Why the run in a folder is none to average; empty if it is one."""
    if not (folder / LOG).is_file():
        return f"it has no {LOG}"
    summary = _json(folder / SUMMARY)
    if summary.get("status") == "failed":
        return f"it failed ({str(summary.get('reason', '')).rstrip('.') or 'no reason is given'})"
    # Where `hmlp run` did not write it, nothing can be said.
    if (folder / RUN).is_file() and summary.get("status") != "finished":
        return f"it has not ended ({folder / LOG} can be given itself)"
    return ""


def phase_of(path: Path) -> str:
    """Phase a run was started as, by the folder a file of it is in; empty where that is unknown.

    Parameters
    ----------
    path : Path
    """
    folder = path.absolute().parent
    point = POINT.fullmatch(folder.name)
    # The name of a point is that of the grid's phase: a reproduction's is not always the one that
    # its run was built as.
    if folder.parent.name == POINTS and point:
        return point["phase"]
    found: Any = _json(folder / RUN)
    for key in ("record", "config", "structure", "phase"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _json(path: Path) -> dict[str, Any]:
    """Contents of a file; empty where it is not there, or no dictionary."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_trajectory(path: Path) -> bool:
    """Whether a path is that of a file that is no log."""
    if not path.is_file() or path.suffix == ".csv":
        return False
    with path.open("rb") as stream:
        return COLUMNS[0].encode() not in stream.readline(1 << 16)


def log_path(path) -> Path:
    """The log itself, of a log or the folder of a run.

    Raises
    ------
    TrajectoryError
        If it is not there.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise TrajectoryError(f"There is no log {path}.")
    return path


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrajectoryError(f"{path} is no log: {error}.") from error
    header = rows[0] if rows else []
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise TrajectoryError(f"{path} is no log of a run: it has no column {missing[0]}.")
    # A run that is going on, or was killed, may leave half a row.
    if rows and len(rows[-1]) != len(header):
        del rows[-1]
    try:
        # Empty where there is no such thing, as a target in a run at constant energy.
        numbers = [[float(x) if x else np.nan for x in row] for row in rows[1:]]
        values = np.array(numbers).reshape(-1, len(header))
    except ValueError as error:
        raise TrajectoryError(f"{path} is no log of a run: {error}.") from error
    return dict(zip(header, values.T, strict=True))


def _mass(log) -> float | None:
    """Mean mass of an atom by density and volume, u; None where they do not say."""
    if "density_g_per_cm3" in log:
        masses = log["density_g_per_cm3"] * log["volume_A3_per_atom"] / DENSITY
        if np.isfinite(masses).any():
            return float(np.nanmean(masses))
    return None


def _number_of_atoms(path: Path, log) -> int:
    if len(log.get("atoms", ())):
        return int(log["atoms"][0])
    try:
        return int(_json(path.with_name(SUMMARY))["atoms"])
    except (KeyError, ValueError, TypeError):
        raise TrajectoryError(
            f"{path} does not say of how many atoms, nor does a summary.json beside it: give them."
        ) from None


def _stretches(log) -> list[np.ndarray]:
    """Rows at the same targets each; all of them where there is no target."""
    rows = np.arange(len(log[COLUMNS[0]]))
    if not len(rows):
        return [rows]
    changes = np.zeros(len(rows) - 1, dtype=bool)
    # Heating ends at the target that is then held.
    for name in (*TARGETS, "holding"):
        if name in log:
            before, after = log[name][:-1], log[name][1:]
            changes |= (before != after) & ~(np.isnan(before) & np.isnan(after))
    return np.split(rows, 1 + np.flatnonzero(changes))


def _name(path: Path, log, rows) -> str:
    name = _stem(path)
    for column, unit in zip(TARGETS, ("K", "GPa"), strict=True):
        if column in log and len(np.unique(log[column])) > 1 and np.isfinite(log[column][rows[0]]):
            name += f" at {log[column][rows[0]]:g} {unit}"
    return name


def _stem(path: Path) -> str:
    """What a run is called."""
    return path.parent.name if path.name in NAMELESS and path.parent.name else path.stem
