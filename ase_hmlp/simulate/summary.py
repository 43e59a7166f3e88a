"""What a run comes to: averages with standard errors, extremes, warnings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ase_hmlp.model_io import Domain
from ase_hmlp.simulate.averages import block_average, drift

#: Share of a stage that is left out of its averages, while it settles.
SETTLING = 0.25

#: Columns of the log that are averaged.
AVERAGED = (
    "temperature_K",
    "pressure_GPa",
    "volume_A3_per_atom",
    "density_g_per_cm3",
    "potential_eV_per_atom",
    "enthalpy_eV_per_atom",
    "bond_length_A",
    "deviation_meV_per_atom",
)

#: Kinds of events that mean the run left what the model was trained on.
TRIPS = ("bond_length", "contact", "volume", "deviation", "failed")


def averages(rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean and standard error of each of `AVERAGED`.

    Parameters
    ----------
    rows : structured array from `ase_hmlp.simulate.observables.read_log`

    Returns
    -------
    dict of dict
        ``{"temperature_K": {"mean": ..., "error": ...}, ...}``; NaN where there are no numbers, or
        too few for an error.
    """
    result = {}
    for name in AVERAGED:
        values = rows[name][~np.isnan(rows[name])]
        mean, error = block_average(values)
        result[name] = {"mean": mean, "error": error}
    return result


def summarise(
    log: np.ndarray,
    events: list[dict[str, Any]],
    config,
    domain: Domain,
    threshold: float | None,
) -> dict[str, Any]:
    """Sum up a run.

    Parameters
    ----------
    log : structured array
    events : list of dict
    config : ase_hmlp.simulate.run_config.RunConfig
    domain : ase_hmlp.model_io.Domain
        Of the model.
    threshold : float or None
        Mean predicted deviation, meV/atom, that is a warning.
    """
    stages = []
    for number, stage in enumerate(config.stages, 1):
        rows = log[log["stage"] == number]
        settled = rows[int(SETTLING * len(rows)) :]
        slope, error = drift(settled["time_ps"], settled["conserved_meV_per_atom"])
        stages.append(
            {
                "ensemble": stage.method.ensemble,
                "steps": stage.steps,
                "averages": averages(settled),
                "drift_meV_per_atom_per_ps": {"mean": slope, "error": error},
            }
        )
    deviations = log["deviation_meV_per_atom"]
    deviations = deviations[~np.isnan(deviations)]
    counts = Counter(event["kind"] for event in events)
    first: dict[str, dict] = {}
    for event in events:
        first.setdefault(event["kind"], {"step": event["step"], "message": event["message"]})
    return {
        "stages": stages,
        "extremes": {
            "bond_min_A": _least(log["bond_min_A"]),
            "bond_max_A": -_least(-log["bond_max_A"]),
            "contact_A": _least(log["contact_A"]),
            "deviation_meV_per_atom": -_least(-deviations),
        },
        "samples": {
            "all": len(log),
            "bond_length": int(
                (
                    (log["bond_min_A"] < domain.bond_length[0])
                    | (log["bond_max_A"] > domain.bond_length[1])
                ).sum()
            ),
            "contact": int((log["contact_A"] < domain.contact).sum()),
            "deviation": int((deviations > threshold).sum()) if threshold else 0,
        },
        "deviation_threshold": threshold,
        "events": {
            kind: {"count": counts[kind], "first_step": note["step"], "message": note["message"]}
            for kind, note in first.items()
        },
    }


def _least(values: np.ndarray) -> float:
    return float(values.min()) if len(values) else float("nan")
