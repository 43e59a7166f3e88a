"""Logs of runs as states: stretches at one temperature and pressure, their beginnings left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from ase_hmlp.analysis.thermodynamics import DENSITY, StateSamples
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

#: Folder of the runs of a sweep.
POINTS = "points"

#: Share of every stretch that is left out while it settles.
SETTLING = 0.25

#: Fewest samples of a stretch, the settling ones included, that make a state.
FEWEST = 20


def read_states(
    path, atoms: int | None = None, mass: float | None = None, settling: float = SETTLING
) -> list[StateSamples]:
    """Read the log of a run, one state for each stretch at one target temperature and pressure.

    Parameters
    ----------
    path : path
        A CSV file with the columns `COLUMNS` and perhaps `TARGETS`, ``density_g_per_cm3`` and
        ``atoms``, or a folder with such a ``log.csv``. A ``summary.json`` beside it may hold the
        number of ``atoms``.
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
    if not 0.0 <= settling < 1.0:
        raise TrajectoryError(f"The share left out must be from 0 to below 1, not {settling}.")
    log = _read(path)
    n_atoms = atoms or _number_of_atoms(path, log)
    mass = _mass(log) if mass is None else mass
    states = []
    for stretch in _stretches(log):
        if len(stretch) < FEWEST:
            continue
        rows = stretch[int(settling * len(stretch)) :]
        t, p, volume, potential, kinetic = (log[name][rows] for name in COLUMNS)
        held = [float(log[name][rows[0]]) if name in log else np.nan for name in TARGETS]
        name, targets = _name(path, log, rows), tuple(held)
        states.append(StateSamples(name, n_atoms, mass, t, p, volume, potential, kinetic, targets))
    if not states:
        raise TooFewFramesError(
            f"{path} has no {FEWEST} samples at one target temperature and pressure: nothing to "
            "average."
        )
    return states


def log_paths(path) -> list[Path]:
    """The log of a run, or those of all runs of a sweep, by name.

    Parameters
    ----------
    path : path
        A log, the folder of a run, or that of a sweep or reproduction.

    Raises
    ------
    TrajectoryError
        If there is none.
    """
    of_sweep = sorted((Path(path) / POINTS).glob("*/log.csv"))
    return of_sweep or [log_path(path)]


def log_path(path) -> Path:
    """The log itself, of a log or the folder of a run.

    Raises
    ------
    TrajectoryError
        If it is not there.
    """
    path = Path(path)
    path = path / "log.csv" if path.is_dir() else path
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


def _mass(log) -> float:
    """Mean mass of an atom by density and volume, u; hydrogen's where they do not say."""
    if "density_g_per_cm3" in log:
        masses = log["density_g_per_cm3"] * log["volume_A3_per_atom"] / DENSITY
        if np.isfinite(masses).any():
            return float(np.nanmean(masses))
    return float(atomic_masses[1])


def _number_of_atoms(path: Path, log) -> int:
    if len(log.get("atoms", ())):
        return int(log["atoms"][0])
    summary = path.with_name("summary.json")
    try:
        return int(json.loads(summary.read_text(encoding="utf-8"))["atoms"])
    except (OSError, ValueError, KeyError, TypeError):
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
    name = path.parent.name if path.name == "log.csv" and path.parent.name else path.stem
    for column, unit in zip(TARGETS, ("K", "GPa"), strict=True):
        if column in log and len(np.unique(log[column])) > 1 and np.isfinite(log[column][rows[0]]):
            name += f" at {log[column][rows[0]]:g} {unit}"
    return name
