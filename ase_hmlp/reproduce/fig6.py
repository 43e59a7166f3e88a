"""Fig. 6 of the seed: order parameter O against temperature, and where Phase II goes over to I."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.result import Column, Result, Table
from ase_hmlp.figure_style import styled
from ase_hmlp.reproduce import seed
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.measurements import ORDER
from ase_hmlp.reproduce.points import equilibrium
from ase_hmlp.reproduce.recipe import CANDIDATES, Recipe, with_phase_ii
from ase_hmlp.reproduce.report import (
    Check,
    Report,
    TextTable,
    checks_table,
    checks_text,
    number,
    numbers,
    provenance,
    words,
)

NAME = "fig6"


@dataclass(frozen=True)
class Order:
    """Order of a crystal at a pressure (GPa) and temperature (K); errors are standard errors.

    Attributes
    ----------
    o, o_error : equation 5
    headless, headless_error : with P2 in place of the cosine
    enthalpy, enthalpy_error : eV/atom, potential and kinetic
    """

    phase: str
    pressure: float
    temperature: float
    o: float
    o_error: float
    headless: float
    headless_error: float
    enthalpy: float
    enthalpy_error: float


@dataclass(frozen=True)
class Transition:
    """Where O falls below 0.1.

    Attributes
    ----------
    low, high : K
        Highest temperature before and lowest behind; NaN where there is none.
    steepest : K
        Where enthalpy rises fastest between two temperatures; NaN with fewer than three.
    """

    phase: str
    pressure: float
    low: float
    high: float
    steepest: float

    @property
    def temperature(self) -> float:
        """Middle, K."""
        return 0.5 * (self.low + self.high)

    def __str__(self) -> str:
        if math.isnan(self.high):
            return f"above {self.low:g} K"
        if math.isnan(self.low):
            return f"below {self.high:g} K"
        return f"{self.low:g} to {self.high:g} K"


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """Every crystal at every temperature, pressure by pressure."""
    return [
        Wanted(equilibrium(phase, pressure, temperature, recipe, model), (ORDER,))
        for phase in recipe.order_phases
        for pressure in recipe.order_pressures
        for temperature in recipe.order_temperatures
    ]


def orders(reproduction: Reproduction) -> list[Order]:
    """What there is, in the order of phases, pressures, temperatures."""
    found = []
    for w in wanted(with_phase_ii(reproduction.recipe, CANDIDATES), reproduction.model):
        measured, summary = reproduction.measured(w.point, ORDER), reproduction.summary(w.point)
        if measured is None or summary is None:
            continue
        o, headless = measured["O"], measured["O (headless)"]
        enthalpy = summary["stages"][-1]["averages"]["enthalpy_eV_per_atom"]
        numbers_ = (o.value, o.error, headless.value, headless.error)
        means = [math.nan if enthalpy[k] is None else enthalpy[k] for k in ("mean", "error")]
        p = w.point
        found.append(Order(p.phase, p.pressure, p.temperature, *numbers_, *means))
    return found


def transitions(found: list[Order]) -> list[Transition]:
    """Where each crystal loses its order at each pressure."""
    result = []
    for phase, pressure in dict.fromkeys((x.phase, x.pressure) for x in found):
        some = [x for x in found if (x.phase, x.pressure) == (phase, pressure)]
        ordered = [x.o >= seed.DISORDERED for x in some]
        # The first temperature without order counts: later ones may only be noise.
        k = ordered.index(False) if False in ordered else len(some)
        low = some[k - 1].temperature if k else math.nan
        high = some[k].temperature if k < len(some) else math.nan
        t = np.array([x.temperature for x in some])
        h = np.array([x.enthalpy for x in some])
        steepest = math.nan
        if len(some) > 2 and np.isfinite(h).all():
            steepest = float((0.5 * (t[1:] + t[:-1]))[int(np.argmax(np.diff(h) / np.diff(t)))])
        result.append(Transition(phase, pressure, low, high, steepest))
    return result


def checks(found: list[Transition]) -> list[Check]:
    """What the seed says of the boundary."""
    result = []
    low, high = seed.TRANSITIONS
    for phase in dict.fromkeys(t.phase for t in found):
        some = [t for t in found if t.phase == phase]
        text = ", ".join(f"{t} at {t.pressure:g} GPa" for t in some)
        outside = [
            t for t in some if t.high <= low or t.low >= high
        ]  # comparisons with NaN are false: not outside
        known = [t for t in some if math.isfinite(t.temperature)]
        within = False if outside else True if len(known) == len(some) else None
        result.append(
            Check(
                f"II goes over to I between {low:g} and {high:g} K "
                f"({seed.TRANSITION_PRESSURES[0]:g} to {seed.TRANSITION_PRESSURES[1]:g} GPa)",
                f"{phase}: {text}",
                within,
            )
        )
        rises: bool | None = None
        if len(known) > 1:
            middles = [t.temperature for t in known]
            rises = all(b >= a for a, b in itertools.pairwise(middles))
            rises = rises and middles[-1] > middles[0]
        result.append(Check("the temperature of it rises with pressure", f"{phase}: {text}", rises))
        steep = [t for t in known if math.isfinite(t.steepest)]
        if steep:
            result.append(
                Check(
                    "(dH/dT) at constant pressure peaks at the same temperature",
                    f"{phase}: "
                    + ", ".join(f"{t.steepest:g} K at {t.pressure:g} GPa" for t in steep),
                    all(t.low <= t.steepest <= t.high for t in steep),
                )
            )
    return result


def report(reproduction: Reproduction) -> Report:
    """O against temperature, from whatever points are finished."""
    asked = wanted(with_phase_ii(reproduction.recipe, CANDIDATES), reproduction.model)
    return make_report(orders(reproduction), provenance(reproduction, asked))


def make_report(found: list[Order], inputs: dict) -> Report:
    """Report of what was found; see `report`."""
    boundary = transitions(found)
    said = checks(boundary)
    columns = (
        Column("phase", words(x.phase for x in found), "phase"),
        Column("pressure_GPa", numbers(x.pressure for x in found), "GPa"),
        Column("temperature_K", numbers(x.temperature for x in found), "K"),
        Column("O", numbers(x.o for x in found), "O", numbers(x.o_error for x in found)),
        Column(
            "O_headless",
            numbers(x.headless for x in found),
            "O, headless",
            numbers(x.headless_error for x in found),
        ),
        Column(
            "enthalpy_eV_per_atom",
            numbers(x.enthalpy for x in found),
            "eV/atom",
            numbers(x.enthalpy_error for x in found),
        ),
    )
    rows = [
        (
            x.phase,
            f"{x.pressure:g}",
            f"{x.temperature:g}",
            number(x.o, x.o_error),
            number(x.headless, x.headless_error),
            number(x.enthalpy, x.enthalpy_error),
        )
        for x in found
    ]
    return Report(
        Result(
            NAME,
            "Fig. 6: order parameter O of Phase II against temperature",
            (),
            (Table(NAME, columns), checks_table(said)),
            (
                "O: equation 5 against the crystal relaxed with the model. Runs start ordered, so "
                "that the temperature found is where the order does not last this long.",
                f"Phase I where O < {seed.DISORDERED:g}.",
            ),
            inputs,
            partial(_draw, found),
        ),
        [
            TextTable("", ("phase", "GPa", "K", "O", "O, headless", "eV/atom"), rows),
            checks_text(said),
        ],
    )


@styled
def _draw(found: list[Order], result: Result) -> Figure:
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axis = figure.subplots()
    for k, (phase, pressure) in enumerate(dict.fromkeys((x.phase, x.pressure) for x in found)):
        some = [x for x in found if (x.phase, x.pressure) == (phase, pressure)]
        axis.errorbar(
            [x.temperature for x in some],
            [x.o for x in some],
            [x.o_error for x in some],
            color=CURVES[k % len(CURVES)],
            marker="o",
            label=f"{phase}, {pressure:g} GPa",
        )
    axis.axhline(seed.DISORDERED, color="black", ls="--", lw=0.8, label="Phase I below")
    axis.set(xlabel="temperature (K)", ylabel="O", title=result.title)
    axis.legend()
    return figure
