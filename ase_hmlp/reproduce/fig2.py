"""Fig. 2 of the seed: vibrons of solid and liquid, bond length and E2g phonon against pressure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.figure_style import styled
from ase_hmlp.reproduce import seed
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.measurements import Measured
from ase_hmlp.reproduce.points import equilibrium, spectrum
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.reproduce.report import (
    CLEAR,
    Check,
    Report,
    TextTable,
    checks_table,
    checks_text,
    goes,
    measured,
    number,
    numbers,
    provenance,
    words,
)

NAME = "fig2"

#: Phases with their temperatures (K), and what they are called.
PHASES = {"hcp": ("solid", seed.PHASE_I), "liquid": ("liquid", seed.LIQUID)}

_UNKNOWN = float("nan")


@dataclass(frozen=True, eq=False)
class Lines:
    """What a phase shows at a pressure (GPa).

    Attributes
    ----------
    phase : "solid" or "liquid"
    raman, total : Quantity
        Vibron in phase, and of all molecules, 1/cm, without the error of the time step.
    bond : Quantity
        Mean bond length, Å.
    e2g : Quantity
        1/cm; NaN in the liquid.
    spectrum : dict of arrays
    """

    phase: str
    pressure: float
    temperature: float
    raman: Quantity
    total: Quantity
    bond: Quantity
    e2g: Quantity
    spectrum: dict[str, np.ndarray]


@dataclass(frozen=True)
class Turnover:
    """Where a frequency is highest.

    Attributes
    ----------
    pressure : float, GPa
        NaN where it is highest at an end of what there is.
    holds : bool or None
        Whether it turns over; None where errors do not tell.
    """

    pressure: float
    holds: bool | None


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """Each phase at constant pressure, and from its end at constant energy."""
    found = []
    for phase, (_, temperature) in PHASES.items():
        for pressure in recipe.spectrum_pressures:
            parent = equilibrium(phase, pressure, temperature, recipe, model)
            found.append(Wanted(parent, ("bonds",)))
            lines = ("vibron", "e2g") if phase == "hcp" else ("vibron",)
            found.append(Wanted(spectrum(parent, recipe), lines, parent))
    return found


def report(reproduction: Reproduction) -> Report:
    """Frequencies against pressure, from whatever points are finished."""
    found = []
    asked = wanted(reproduction.recipe, reproduction.model)
    for w in asked:
        vibron = reproduction.measured(w.point, "vibron")
        if w.parent is None or vibron is None:
            continue
        phase, temperature = PHASES[w.parent.phase]
        found.append(
            Lines(
                phase,
                w.point.pressure,
                temperature,
                vibron["in-phase (Raman) peak, zero step"],
                vibron["total peak, zero step"],
                _of(reproduction.measured(w.parent, "bonds"), "mean bond length"),
                _of(reproduction.measured(w.point, "e2g"), "E2g peak"),
                vibron.tables["vibron"],
            )
        )
    return make_report(found, provenance(reproduction, asked))


def _of(measured: Measured | None, name: str) -> Quantity:
    return Quantity(name, _UNKNOWN, _UNKNOWN, "") if measured is None else measured[name]


def turnover(pressures: Sequence[float], peaks: Sequence[Quantity]) -> Turnover:
    """Find where a frequency turns over: the top of a parabola by the highest and its neighbours.

    It does if the highest is above both ends by `CLEAR` standard errors, and does not if it is one
    of the ends and above the other by as many.

    Parameters
    ----------
    pressures : sequence of float, GPa, rising
    peaks : sequence of Quantity
    """
    values = np.array([q.value for q in peaks])
    if len(values) < 3 or not np.isfinite(values).all():
        return Turnover(_UNKNOWN, None)

    def above(end: int) -> bool:
        # Not where an error is unknown.
        return bool(values[k] - values[end] > CLEAR * math.hypot(peaks[k].error, peaks[end].error))

    k = int(values.argmax())
    if k == 0 or k == len(values) - 1:
        return Turnover(_UNKNOWN, False if above(-1 if k == 0 else 0) else None)
    near = slice(k - 1, k + 2)
    curvature, slope, _ = np.polyfit(np.array(pressures)[near] - pressures[k], values[near], 2)
    top = float(pressures[k] - 0.5 * slope / curvature)
    return Turnover(top, True if above(0) and above(-1) else None)


def checks(found: list[Lines]) -> list[Check]:
    """What the seed says of each panel."""
    result = []
    for phase, temperature in PHASES.values():
        some = [x for x in found if x.phase == phase]
        if not some:
            continue
        pressures = [x.pressure for x in some]
        for kind in ("raman", "total"):
            at = turnover(pressures, [getattr(x, kind) for x in some])
            highest = max(some, key=lambda x: getattr(x, kind).value)
            text = f"{kind}: highest at {highest.pressure:g} GPa"
            if math.isfinite(at.pressure):
                text += f", turnover near {at.pressure:.0f} GPa"
            result.append(
                Check(
                    f"the vibron of the {phase} at {temperature:g} K turns over near "
                    f"{seed.TURNOVER:g} GPa",
                    text,
                    at.holds,
                )
            )
    solid = [x for x in found if x.phase == "solid"]
    bonds = [x.bond for x in solid if math.isfinite(x.bond.value)]
    if len(bonds) > 1:
        text = ", ".join(number(b.value, b.error) for b in bonds)
        said = "the mean bond length of Phase I falls with pressure"
        result.append(Check(said, f"{text} Å", goes(bonds, -1.0)))
    e2g = [x for x in solid if math.isfinite(x.e2g.value)]
    if len(e2g) > 1:
        (low, slow), (high, fast) = seed.E2G
        text = ", ".join(f"{number(x.e2g.value, x.e2g.error)} at {x.pressure:g} GPa" for x in e2g)
        said = f"E2g rises, from {slow:g} 1/cm at {low:g} GPa to {fast:g} at {high:g} GPa"
        inside = all(slow < x.e2g.value < fast for x in e2g)
        result.append(Check(said, text, goes([x.e2g for x in e2g], 1.0) if inside else False))
    return result


def make_report(found: list[Lines], inputs: dict) -> Report:
    """Report of what was found; see `report`."""
    said = checks(found)
    columns = [
        Column("phase", words(x.phase for x in found), "phase"),
        Column("pressure_GPa", numbers(x.pressure for x in found), "GPa"),
        Column("temperature_K", numbers(x.temperature for x in found), "K"),
    ]
    for name, key in (
        ("raman_per_cm", "raman"),
        ("total_per_cm", "total"),
        ("bond_length_A", "bond"),
        ("e2g_per_cm", "e2g"),
    ):
        columns.append(measured(name, (getattr(x, key) for x in found)))
    rows = [
        (
            x.phase,
            f"{x.pressure:g}",
            f"{x.temperature:g}",
            *(number(q.value, q.error) for q in (x.raman, x.total, x.bond, x.e2g)),
        )
        for x in found
    ]
    spectra = [
        Table(
            f"{x.phase}-{x.pressure:g}GPa",
            tuple(Column(name, values, name) for name, values in x.spectrum.items()),
        )
        for x in found
    ]
    header = ("", "GPa", "K", "vibron, in phase", "vibron, all", "bond, Å", "E2g")
    return Report(
        Result(
            NAME,
            "Fig. 2: vibrons, bond length and E2g phonon against pressure",
            (),
            (Table(NAME, tuple(columns)), checks_table(said), *spectra),
            (
                "Frequencies in 1/cm, at constant energy in the mean cell of a run at constant "
                "pressure; those of vibrons without the error of the time step.",
                f"Agrees: the turnover is above both ends by {CLEAR:g} standard errors.",
            ),
            inputs,
            partial(_draw, found),
        ),
        [TextTable("", header, rows), checks_text(said)],
    )


@styled
def _draw(found: list[Lines], result: Result) -> Figure:
    figure = Figure(figsize=(8.5, 7.0), layout="constrained")
    axes = figure.subplots(2, 2)
    solid, liquid = ([x for x in found if x.phase == p] for p, _ in PHASES.values())
    for axis, some, title in (
        (axes[0, 0], solid, f"solid, {seed.PHASE_I:g} K"),
        (axes[0, 1], liquid, f"liquid, {seed.LIQUID:g} K"),
    ):
        for k, (kind, label) in enumerate((("raman", "in phase"), ("total", "all"))):
            _points(axis, some, kind, CURVES[k], label)
        axis.axvline(seed.TURNOVER, color="black", ls="--", lw=0.8, label="turnover in the paper")
        axis.set(ylabel="vibron (1/cm)")
        axis.set_title(title)
        axis.legend()
    for k, (some, label) in enumerate(((solid, "solid"), (liquid, "liquid"))):
        _points(axes[1, 0], some, "bond", CURVES[k], label)
    axes[1, 0].set(ylabel="mean bond length (Å)")
    axes[1, 0].legend()
    _points(axes[1, 1], solid, "e2g", CURVES[0], "ours")
    (low, slow), (high, fast) = seed.E2G
    axes[1, 1].plot(
        [low, high], [slow, fast], color="black", ls="none", marker="s", mfc="none", label="paper"
    )
    axes[1, 1].set(ylabel="E2g (1/cm)")
    axes[1, 1].legend()
    for axis in axes.flat:
        axis.set_xlabel("pressure (GPa)")
    figure.suptitle(result.title)
    return figure


def _points(axis, some: list[Lines], kind: str, colour: str, label: str) -> None:
    found = [getattr(x, kind) for x in some]
    axis.errorbar(
        [x.pressure for x in some],
        [q.value for q in found],
        [q.error for q in found],
        color=colour,
        marker="o",
        label=label,
    )
