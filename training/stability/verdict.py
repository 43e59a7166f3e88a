"""What a run came to, from what is in its folder, by the limits of its model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ase_hmlp.errors import BondStretchError, ContactError
from ase_hmlp.model_io import Model
from ase_hmlp.simulate import run_folder as names
from ase_hmlp.simulate.observables import read_log
from ase_hmlp.simulate.summary import SETTLING, averages
from ase_hmlp.simulate.sweep import Point
from ase_hmlp.training.stability.watch import EXTREMES, left, read_extremes

#: The criteria, and what each says if it is not met.
CRITERIA = {
    "crash": "the run ended before its time",
    "bond": "a bond left the lengths that were trained on",
    "contact": "atoms of two molecules came closer than any labelled",
}

#: Errors that are also the failure of another criterion, without a step at which it was seen.
_SAME = {BondStretchError.__name__: "bond", ContactError.__name__: "contact"}


@dataclass(frozen=True)
class Outcome:
    """A point of the grid; names carry the units.

    Attributes
    ----------
    verdict : "ok"; or the criteria that were not met, and "unfinished" of a run that goes on; or
        "not run", if it could not begin
    bond_ps, contact_ps, crash_ps : when each criterion was first not met, if it was not
    error, reason : name and words of what a run ended with before its time
    time_ps : how far it came
    molecules_outside : how many different molecules had a bond outside the domain
    largest_deviation_meV, mean_deviation_meV : predicted, of the most uncertain atom at any time
        and of all atoms
    share_uncertain : of the structures looked at, those with an atom above the threshold
    mean_density_g_per_cm3, mean_temperature_K, mean_pressure_GPa : without the first quarter
    microseconds_per_atom_step : all that the run took, the start included
    frames : structures of it that were written down for labelling
    """

    phase: str
    pressure_GPa: float
    temperature_K: float
    verdict: str
    bond_ps: float | None = None
    contact_ps: float | None = None
    crash_ps: float | None = None
    error: str = ""
    reason: str = ""
    time_ps: float = 0.0
    atoms: int = 0
    shortest_bond_A: float | None = None
    longest_bond_A: float | None = None
    shortest_contact_A: float | None = None
    molecules_outside: int = 0
    largest_deviation_meV: float | None = None
    mean_deviation_meV: float | None = None
    share_uncertain: float | None = None
    mean_density_g_per_cm3: float | None = None
    mean_temperature_K: float | None = None
    mean_pressure_GPa: float | None = None
    microseconds_per_atom_step: float | None = None
    frames: int = 0

    @property
    def passed(self) -> bool:
        """Whether it ran to its end and met every criterion."""
        return self.verdict == "ok"


def judge(point: Point, folder: Path, model: Model, reason: str = "", frames: int = 0) -> Outcome:
    """Judge a run.

    Parameters
    ----------
    point : Point
    folder : Path
        Of the run.
    model : Model
        That it ran with: the limits are its own.
    reason : str
        Why it has no end, if it did not begin or could not be written.
    frames : int
        Structures of it that were written down for labelling.
    """
    place = point.phase, point.pressure, point.temperature
    path = folder / names.SUMMARY
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if not (folder / names.LOG).exists() or not (folder / EXTREMES).exists():
        return Outcome(*place, "not run", reason=reason)
    log = read_log(folder / names.LOG)
    extremes, molecules = read_extremes(folder / EXTREMES)
    if not len(log) or not len(extremes):
        return Outcome(*place, "not run", reason=reason)
    first = _first_trips(model, extremes)
    ended: dict[str, Any] = {"time_ps": float(extremes["time_ps"][-1])}
    if summary is not None:
        steps = max(1, summary["steps"]) * summary["atoms"]
        ended = {
            "time_ps": summary["time_ps"],
            "atoms": summary["atoms"],
            "microseconds_per_atom_step": 1e6 * summary["seconds"] / steps,
        }
        if summary["status"] == "failed":
            time, error = summary["time_ps"], summary.get("error", "")
            first["crash"] = time
            if error in _SAME:
                first.setdefault(_SAME[error], time)
            ended |= {"error": error}
        reason = summary.get("reason", "")
    missed = [name for name in CRITERIA if name in first]
    missed += ["unfinished"] * (summary is None)
    verdict = ", ".join(missed) or "ok"
    numbers: dict[str, Any] = {f"{name}_ps": time for name, time in first.items()}
    return replace(
        Outcome(*place, verdict),
        **numbers,
        reason=reason,
        shortest_bond_A=float(extremes["bond_min_A"].min()),
        longest_bond_A=float(extremes["bond_max_A"].max()),
        shortest_contact_A=_finite(extremes["contact_A"].min()),
        molecules_outside=len({k for row in molecules for k in row}),
        **_deviations(log, model),
        **_means(log),
        **ended,
        frames=frames,
    )


def _first_trips(model: Model, extremes: np.ndarray) -> dict[str, float]:
    """When (ps) bonds and contacts were first outside: such steps have a row of their own."""
    first: dict[str, float] = {}
    for row in extremes:
        trips = left(model.domain, row["bond_min_A"], row["bond_max_A"], row["contact_A"])
        for name in trips:
            first.setdefault(name, float(row["time_ps"]))
    return first


def _deviations(log: np.ndarray, model: Model) -> dict[str, Any]:
    largest = log["deviation_max_meV"]
    largest = largest[~np.isnan(largest)]
    if not len(largest):
        return {}
    limit = model.uncertainty_threshold
    return {
        "largest_deviation_meV": float(largest.max()),
        "mean_deviation_meV": float(np.nanmean(log["deviation_meV_per_atom"])),
        "share_uncertain": None if limit is None else float((largest > 1000.0 * limit).mean()),
    }


def _means(log: np.ndarray) -> dict[str, Any]:
    means = averages(log[int(SETTLING * len(log)) :])
    columns = ("density_g_per_cm3", "temperature_K", "pressure_GPa")
    return {f"mean_{column}": _finite(means[column]["mean"]) for column in columns}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
