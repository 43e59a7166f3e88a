"""Logs of runs as states: stretches at one target temperature, their beginnings left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from ase_hmlp.analysis.thermodynamics import StateSamples
from ase_hmlp.errors import TooFewFramesError, TrajectoryError

#: Columns a log must have; their names carry the units.
COLUMNS = (
    "temperature_K",
    "pressure_GPa",
    "volume_A3_per_atom",
    "potential_eV_per_atom",
    "kinetic_eV_per_atom",
)

#: Share of every stretch that is left out while it settles.
SETTLING = 0.25

#: Fewest samples of a stretch, the settling ones included, that make a state.
FEWEST = 20


def read_states(
    path, atoms: int | None = None, mass: float | None = None, settling: float = SETTLING
) -> list[StateSamples]:
    """Read the log of a run, one state for each stretch at one target temperature.

    Parameters
    ----------
    path : path
        A CSV file with the columns `COLUMNS` and perhaps ``target_K`` and ``atoms``, or a folder
        with such a ``log.csv``. A ``summary.json`` beside it may hold the number of ``atoms``.
    atoms : int, optional
        Number of atoms, where neither says.
    mass : float, optional
        Mean mass of an atom, u; hydrogen's if not given.
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
    mass = float(atomic_masses[1]) if mass is None else mass
    states = []
    for stretch in _stretches(log):
        if len(stretch) < FEWEST:
            continue
        rows = stretch[int(settling * len(stretch)) :]
        columns = [log[name][rows] for name in COLUMNS]
        states.append(StateSamples(_name(path, log, rows), n_atoms, mass, *columns))
    if not states:
        raise TooFewFramesError(
            f"{path} has no {FEWEST} samples at one target temperature: nothing to average."
        )
    return states


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
        values = np.array(rows[1:], dtype=float).reshape(-1, len(header))
    except ValueError as error:
        raise TrajectoryError(f"{path} is no log of a run: {error}.") from error
    return dict(zip(header, values.T, strict=True))


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
    """Rows at one target temperature each; all of them where there is no target."""
    rows = np.arange(len(log[COLUMNS[0]]))
    if "target_K" not in log or not len(rows):
        return [rows]
    # Heating ends at the target that is then held.
    changes = np.diff(log["target_K"]) != 0.0
    if "holding" in log:
        changes |= np.diff(log["holding"]) != 0.0
    return np.split(rows, 1 + np.flatnonzero(changes))


def _name(path: Path, log, rows) -> str:
    name = path.parent.name if path.name == "log.csv" and path.parent.name else path.stem
    if "target_K" in log and len(np.unique(log["target_K"])) > 1:
        name += f" at {log['target_K'][rows[0]]:g} K"
    return name
