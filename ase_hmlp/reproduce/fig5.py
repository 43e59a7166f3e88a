"""Fig. 5 of the seed: energy of fp_EQQ in solid and liquid, and two molecules in H, X and T."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.fingerprint_energies import FP_EQQ
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.calculator import HMLP
from ase_hmlp.errors import DomainWarning, StructureError
from ase_hmlp.figure_style import styled
from ase_hmlp.reproduce import seed
from ase_hmlp.reproduce.fig4 import PHASES
from ase_hmlp.reproduce.folder import Reproduction, Wanted
from ase_hmlp.reproduce.measurements import FINGERPRINTS
from ase_hmlp.reproduce.points import equilibrium
from ase_hmlp.reproduce.recipe import Recipe
from ase_hmlp.reproduce.report import (
    CLEAR,
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
from ase_hmlp.simulate.build import BOND_LENGTH

NAME = "fig5"

#: Axes of the two molecules; the separation is along z.
ARRANGEMENTS = {"H": ("x", "x"), "X": ("x", "y"), "T": ("x", "z")}

#: Separations, Å.
SEPARATIONS = np.arange(1.5, 4.501, 0.05)

#: Crossings are the same within this, Å.
SAME = 0.1


@dataclass(frozen=True)
class Share:
    """Energy of fp_EQQ in a phase at melting, meV/molecule, at a pressure (GPa)."""

    phase: str
    pressure: float
    temperature: float
    energy: Quantity


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """Both phases at the seed's melting temperatures."""
    return [
        Wanted(equilibrium(phase, p, seed.melting_temperature(p), recipe, model), (FINGERPRINTS,))
        for p in recipe.pressures
        for phase in PHASES
    ]


def dimer(arrangement: str, separation: float) -> Atoms:
    """Two molecules with their centres `separation` (Å) apart along z, in vacuum."""
    positions = []
    for axis, side in zip(ARRANGEMENTS[arrangement], (-0.5, 0.5), strict=True):
        half = 0.5 * BOND_LENGTH * np.eye(3)["xyz".index(axis)]
        middle = np.array([0.0, 0.0, side * separation])
        positions += [middle - half, middle + half]
    return Atoms("H4", positions)


def dimer_energies(model) -> dict[str, np.ndarray]:
    """Interaction energies of two molecules at `SEPARATIONS`.

    Parameters
    ----------
    model : see `ase_hmlp.HMLP`

    Returns
    -------
    dict of arrays, meV
        By arrangement; NaN where atoms are closer than the model has an answer for.
    """
    calculator = HMLP(model, threads=1)
    curves = {}
    with warnings.catch_warnings():
        # A dimer in vacuum is outside of what bulk volumes cover.
        warnings.simplefilter("ignore", DomainWarning)
        alone = Atoms("H2", [[0.0, 0.0, 0.0], [0.0, 0.0, BOND_LENGTH]])
        alone.calc = HMLP(model, threads=1)
        apart = 2.0 * alone.get_potential_energy()
        for name in ARRANGEMENTS:
            energies = []
            for separation in SEPARATIONS:
                atoms = dimer(name, separation)
                atoms.calc = calculator
                try:
                    energies.append(1000.0 * (atoms.get_potential_energy() - apart))
                except StructureError:
                    energies.append(math.nan)
            curves[name] = np.array(energies)
    return curves


def crossing(curves: dict[str, np.ndarray], separations=SEPARATIONS) -> float:
    """Separation (Å) below which X is lower than T, and above which T is; NaN without one."""
    difference = curves["X"] - curves["T"]
    rises = np.flatnonzero((difference[:-1] < 0.0) & (difference[1:] >= 0.0))
    if not len(rises):
        return math.nan
    k = int(rises[-1])
    share = difference[k] / (difference[k] - difference[k + 1])
    return float(separations[k] + share * (separations[k + 1] - separations[k]))


def report(reproduction: Reproduction) -> Report:
    """Shares of fp_EQQ from whatever points are finished, and the dimers."""
    found = []
    asked = wanted(reproduction.recipe, reproduction.model)
    for w in asked:
        measured = reproduction.measured(w.point, FINGERPRINTS)
        if measured is not None and FP_EQQ in measured.quantities:
            p = w.point
            found.append(Share(PHASES[p.phase], p.pressure, p.temperature, measured[FP_EQQ]))
    curves = {name: np.full(len(SEPARATIONS), math.nan) for name in ARRANGEMENTS}
    if reproduction.has_its_model:
        curves = dimer_energies(reproduction.model)
    return make_report(found, curves, provenance(reproduction, asked))


def checks(found: list[Share], curves: dict[str, np.ndarray]) -> list[Check]:
    """What the seed says of both."""
    at = crossing(curves)
    known = bool(np.isfinite(curves["X"] - curves["T"]).any())
    result = [
        Check(
            f"X is lower than T below {seed.CROSSING:g} Å, T above (DFT)",
            "no crossing" if math.isnan(at) else f"below {at:.2f} Å",
            bool(abs(at - seed.CROSSING) <= SAME) if known else None,
        )
    ]
    by = {(s.phase, s.pressure): s.energy for s in found}
    stronger, clear, texts = [], [], []
    for pressure in dict.fromkeys(s.pressure for s in found):
        if pressure <= seed.FP_EQQ_ABOVE:
            continue
        solid, liquid = (by.get((phase, pressure)) for phase in ("solid", "liquid"))
        if solid is None or liquid is None:
            continue
        difference = abs(solid.value) - abs(liquid.value)
        stronger.append(difference > 0.0)
        clear.append(abs(difference) > CLEAR * math.hypot(solid.error, liquid.error))
        texts.append(
            f"{number(solid.value, solid.error)} against {number(liquid.value, liquid.error)} "
            f"at {pressure:g} GPa"
        )
    holds: bool | None = None
    if stronger and all(clear):
        holds = all(stronger)
    result.append(
        Check(
            f"above {seed.FP_EQQ_ABOVE:g} GPa fp_EQQ contributes more in the solid",
            "; ".join(texts) or "no pressure with both phases",
            holds,
        )
    )
    return result


def make_report(found: list[Share], curves: dict[str, np.ndarray], inputs: dict) -> Report:
    """Report of what was found; see `report`."""
    said = checks(found, curves)
    shares = Table(
        NAME,
        (
            Column("pressure_GPa", numbers(s.pressure for s in found), "GPa"),
            Column("temperature_K", numbers(s.temperature for s in found), "K"),
            Column("phase", words(s.phase for s in found), "phase"),
            Column(
                "fp_EQQ_meV",
                numbers(s.energy.value for s in found),
                "fp_EQQ",
                numbers(s.energy.error for s in found),
            ),
        ),
    )
    dimers = Table(
        "dimers",
        (
            Column("separation_A", SEPARATIONS, "separation (Å)"),
            *(Column(f"{name}_meV", curve, name) for name, curve in curves.items()),
        ),
    )
    rows = [
        (
            s.phase,
            f"{s.pressure:g}",
            f"{s.temperature:g}",
            number(s.energy.value, s.energy.error),
        )
        for s in found
    ]
    return Report(
        Result(
            NAME,
            "Fig. 5: fp_EQQ in solid and liquid at melting; two molecules",
            (),
            (shares, checks_table(said), dimers),
            (
                "fp_EQQ: its share of the energy (ase_hmlp.attribution), meV/molecule. The paper "
                "shows a share without unit, so only signs and order compare.",
                f"Dimers: bonds of {BOND_LENGTH:g} Å; the crossing agrees within {SAME:g} Å.",
            ),
            inputs,
            partial(_draw, found, curves),
        ),
        [TextTable("", ("", "GPa", "K", "fp_EQQ, meV/molecule"), rows), checks_text(said)],
    )


@styled
def _draw(found: list[Share], curves: dict[str, np.ndarray], result: Result) -> Figure:
    figure = Figure(figsize=(7.5, 7.5), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    for k, phase in enumerate(PHASES.values()):
        some = [s for s in found if s.phase == phase]
        top.errorbar(
            [s.pressure for s in some],
            [s.energy.value for s in some],
            [s.energy.error for s in some],
            color=CURVES[k],
            marker="o",
            label=phase,
        )
    top.set(xlabel="pressure (GPa)", ylabel="fp_EQQ (meV/molecule)")
    top.set_title(result.title)
    top.legend()
    for k, (name, curve) in enumerate(curves.items()):
        bottom.plot(SEPARATIONS, curve - curves["T"], color=CURVES[k], label=name)
    bottom.axvline(seed.CROSSING, color="black", ls="--", lw=0.8, label="T and X in the paper")
    near = abs(np.concatenate([c - curves["T"] for c in curves.values()]))
    if np.isfinite(near).any():
        # Where molecules touch, the differences are of another size.
        high = float(np.nanquantile(near, 0.9))
        bottom.set_ylim(-high, high)
    bottom.set(xlabel="separation (Å)", ylabel="energy above T (meV)")
    bottom.legend()
    return figure
