"""Fig. 3b of the seed: pair distribution of molecular centres in the liquid, scaled by density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.pair_distributions import first_peak
from ase_hmlp.analysis.result import Column, Result, Table
from ase_hmlp.figure_style import styled
from ase_hmlp.reproduce import seed
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.points import equilibrium
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.reproduce.report import (
    Check,
    Report,
    TextTable,
    checks_table,
    checks_text,
    number,
    numbers,
    provenance,
)

NAME = "fig3b"

#: "Essentially unchanged": first peaks of scaled distributions are within these shares of their
#: means, in position and height.
POSITION, HEIGHT = 0.03, 0.15


@dataclass(frozen=True, eq=False)
class Scaled:
    """Pair distribution of centres at a pressure (GPa).

    Attributes
    ----------
    x : (n,) array
        Distance by the cube root of the volume of a molecule.
    g, error : (n,) arrays
    peak, peak_error : of the first peak, Å
    """

    pressure: float
    x: np.ndarray
    g: np.ndarray
    error: np.ndarray
    peak: float
    peak_error: float

    @property
    def first(self) -> tuple[float, float]:
        """Position, scaled, and height of the first peak."""
        return first_peak(self.x, self.g)


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """The liquid at 1000 K."""
    return [
        Wanted(equilibrium("liquid", p, seed.LIQUID, recipe, model), ("rdf",))
        for p in recipe.liquid_pressures
    ]


def report(reproduction: Reproduction) -> Report:
    """Scaled pair distributions, from whatever points are finished."""
    found = []
    asked = wanted(reproduction.recipe, reproduction.model)
    for w in asked:
        rdf = reproduction.measured(w.point, "rdf")
        if rdf is None:
            continue
        peak, table = rdf["first peak, molecule–molecule"], rdf.tables["scaled"]
        found.append(
            Scaled(
                w.point.pressure,
                table["r_scaled"],
                table["molecule_molecule"],
                table["molecule_molecule_error"],
                peak.value,
                peak.error,
            )
        )
    return make_report(found, provenance(reproduction, asked))


def make_report(found: list[Scaled], inputs: dict) -> Report:
    """Report of what was found; see `report`."""
    said = checks(found)
    firsts = [s.first for s in found]
    peaks = Table(
        NAME,
        (
            Column("pressure_GPa", numbers(s.pressure for s in found), "GPa"),
            Column(
                "first_peak_A",
                numbers(s.peak for s in found),
                "Å",
                numbers(s.peak_error for s in found),
            ),
            Column("first_peak_scaled", numbers(x for x, _ in firsts), "scaled"),
            Column("height", numbers(h for _, h in firsts), "height"),
        ),
    )
    rows = [
        (f"{s.pressure:g}", number(s.peak, s.peak_error), f"{x:.4f}", f"{h:.3f}")
        for s, (x, h) in zip(found, firsts, strict=True)
    ]
    curves = [
        Table(
            f"{s.pressure:g}GPa",
            (
                Column("r_scaled", s.x, "r scaled"),
                Column("molecule_molecule", s.g, "g", s.error),
            ),
        )
        for s in found
    ]
    return Report(
        Result(
            NAME,
            "Fig. 3b: pair distribution of molecules in the liquid at 1000 K, scaled by density",
            (),
            (peaks, checks_table(said), *curves),
            ("Scaled: r times the cube root of the molecules per volume.",),
            inputs,
            partial(_draw, found),
        ),
        [TextTable("First peak", ("GPa", "Å", "scaled", "height"), rows), checks_text(said)],
    )


def checks(found: list[Scaled]) -> list[Check]:
    """Whether the liquid's structure changes."""
    said = "the liquid's scaled structure is essentially unchanged up to 140 GPa"
    if len(found) < 2:
        return [Check(said, "fewer than two pressures", None)]
    firsts = np.array([s.first for s in found])
    off = abs(firsts / firsts.mean(axis=0) - 1.0).max(axis=0)
    text = f"first peaks within {100 * off[0]:.1f} % in position, {100 * off[1]:.0f} % in height"
    return [Check(said, text, bool(off[0] <= POSITION and off[1] <= HEIGHT))]


@styled
def _draw(found: list[Scaled], result: Result) -> Figure:
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axis = figure.subplots()
    for k, s in enumerate(found):
        axis.plot(s.x, s.g, color=CURVES[k % len(CURVES)], label=f"{s.pressure:g} GPa")
    axis.axhline(1.0, color="black", lw=0.6)
    axis.set(xlabel="r × (molecules per volume)$^{1/3}$", ylabel="g")
    axis.set_title(result.title)
    if found:
        axis.legend()
    return figure
