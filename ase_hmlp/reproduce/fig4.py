"""Fig. 4 of the seed: pair distributions of solid and liquid at melting, and which packs closer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.figure_style import styled
from ase_hmlp.reproduce import seed
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.points import equilibrium
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.reproduce.report import (
    CLEAR,
    Check,
    Report,
    TextTable,
    checks_table,
    checks_text,
    measured,
    number,
    numbers,
    provenance,
    words,
)

NAME = "fig4"

PHASES = {"hcp": "solid", "liquid": "liquid"}

#: Peaks are at the same place within this share.
SAME = 0.01


@dataclass(frozen=True, eq=False)
class Packing:
    """A phase at melting, at a pressure (GPa).

    Attributes
    ----------
    phase : "solid" or "liquid"
    atoms, molecules : Quantity
        First peaks between molecules: of atoms, of centres, Å.
    bond : Quantity
        Mean bond length, Å.
    volume : Quantity
        Å³/atom.
    curves : dict of arrays
        The pair distributions, by column.
    """

    phase: str
    pressure: float
    temperature: float
    atoms: Quantity
    molecules: Quantity
    bond: Quantity
    volume: Quantity
    curves: dict[str, np.ndarray]


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """Both phases at the seed's melting temperatures."""
    return [
        Wanted(equilibrium(phase, p, seed.melting_temperature(p), recipe, model), ("rdf", "bonds"))
        for p in recipe.contact_pressures
        for phase in PHASES
    ]


def report(reproduction: Reproduction) -> Report:
    """Pair distributions of both phases, from whatever points are finished."""
    found = []
    asked = wanted(reproduction.recipe, reproduction.model)
    for w in asked:
        rdf, bonds = (reproduction.measured(w.point, name) for name in ("rdf", "bonds"))
        summary = reproduction.summary(w.point)
        if rdf is None or bonds is None or summary is None:
            continue
        volume = summary["stages"][-1]["averages"]["volume_A3_per_atom"]
        error = math.nan if volume["error"] is None else volume["error"]
        found.append(
            Packing(
                PHASES[w.point.phase],
                w.point.pressure,
                w.point.temperature,
                rdf["first peak, atom–atom, intermolecular"],
                rdf["first peak, molecule–molecule"],
                bonds["mean bond length"],
                Quantity("volume", volume["mean"], error, "Å³/atom"),
                rdf.tables["rdf"],
            )
        )
    return make_report(found, provenance(reproduction, asked))


def checks(found: list[Packing]) -> list[Check]:
    """What the seed says of both phases at each pressure."""
    result = []
    for pressure in dict.fromkeys(p.pressure for p in found):
        pair = {p.phase: p for p in found if p.pressure == pressure}
        if len(pair) < 2:
            continue
        solid, liquid = pair["solid"], pair["liquid"]
        at = f"{pressure:g} GPa: "
        for said, name, sign in (
            ("molecules are closer in the liquid", "molecules", -1.0),
            ("bonds are longer in the liquid", "bond", 1.0),
            (
                "the liquid is denser"
                if pressure > seed.MELTING_MAXIMUM
                else "the liquid is less dense",
                "volume",
                -1.0 if pressure > seed.MELTING_MAXIMUM else 1.0,
            ),
        ):
            a, b = getattr(liquid, name), getattr(solid, name)
            difference = sign * (a.value - b.value)
            error = float(np.hypot(a.error, b.error))
            clear = abs(difference) > CLEAR * error
            text = f"{_text(a)} against {_text(b)} {a.unit}"
            result.append(Check(at + said, text, difference > 0.0 if clear else None))
        a, b = liquid.atoms, solid.atoms
        same = within(a, b, SAME)
        said = "atoms of different molecules are as close"
        result.append(Check(at + said, f"{_text(a)} against {_text(b)} Å", same))
    return result


def within(a: Quantity, b: Quantity, share: float) -> bool | None:
    """Whether two values differ by no more than a share of the second, as far as errors tell."""
    off, error = abs(a.value - b.value), CLEAR * float(np.hypot(a.error, b.error))
    if off + error <= share * b.value:
        return True
    return False if off - error > share * b.value else None


def _text(quantity: Quantity) -> str:
    return number(quantity.value, quantity.error) or "none"


def make_report(found: list[Packing], inputs: dict) -> Report:
    """Report of what was found; see `report`."""
    said = checks(found)
    columns = [
        Column("pressure_GPa", numbers(p.pressure for p in found), "GPa"),
        Column("temperature_K", numbers(p.temperature for p in found), "K"),
        Column("phase", words(p.phase for p in found), "phase"),
    ]
    for name, key in (
        ("atoms_first_peak_A", "atoms"),
        ("molecules_first_peak_A", "molecules"),
        ("bond_length_A", "bond"),
        ("volume_A3_per_atom", "volume"),
    ):
        columns.append(measured(name, (getattr(p, key) for p in found)))
    rows = [
        (
            p.phase,
            f"{p.pressure:g}",
            f"{p.temperature:g}",
            *(number(q.value, q.error) for q in (p.molecules, p.atoms, p.bond, p.volume)),
        )
        for p in found
    ]
    curves = [
        Table(
            f"{p.phase}-{p.pressure:g}GPa",
            tuple(Column(name, values, name) for name, values in p.curves.items()),
        )
        for p in found
    ]
    header = ("", "GPa", "K", "molecules, Å", "atoms, Å", "bond, Å", "Å³/atom")
    return Report(
        Result(
            NAME,
            "Fig. 4: pair distributions of solid and liquid at melting",
            (),
            (Table(NAME, tuple(columns)), checks_table(said), *curves),
            (
                "Molecules, atoms: first peaks between centres, and between atoms of different "
                "molecules.",
                f"Agrees: by more than {CLEAR:g} standard errors; atoms: within {100 * SAME:g} %.",
            ),
            inputs,
            partial(_draw, found),
        ),
        [TextTable("", header, rows), checks_text(said)],
    )


@styled
def _draw(found: list[Packing], result: Result) -> Figure:
    pressures = list(dict.fromkeys(p.pressure for p in found)) or [0.0]
    figure = Figure(figsize=(max(7.5, 3.8 * len(pressures)), 8.0), layout="constrained")
    axes = figure.subplots(3, len(pressures), squeeze=False)
    kinds = {
        "atom_atom_intermolecular": "atoms",
        "atom_molecule": "atom, molecule",
        "molecule_molecule": "molecules",
    }
    for column, pressure in enumerate(pressures):
        for axis, (kind, label) in zip(axes[:, column], kinds.items(), strict=True):
            for p in found:
                if p.pressure == pressure:
                    colour = CURVES[0] if p.phase == "solid" else CURVES[1]
                    axis.plot(p.curves["r_A"], p.curves[kind], color=colour, label=p.phase)
            axis.set_xlim(1.0, max((p.curves["r_A"].max() for p in found), default=2.0))
            axis.set(xlabel="r (Å)", ylabel=f"g, {label}")
        axes[0, column].set_title(f"{pressure:g} GPa")
    if found:
        axes[0, 0].legend()
    figure.suptitle(result.title)
    return figure
