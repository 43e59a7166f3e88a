"""Table 1 of the seed: <EQQ> of liquid and solid at melting, of Phase I and of Phase II."""

from __future__ import annotations

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
from ase_hmlp.reproduce.measurements import QUENCH
from ase_hmlp.reproduce.points import equilibrium
from ase_hmlp.reproduce.recipe import CANDIDATES, COOLED, Recipe
from ase_hmlp.reproduce.report import Report, TextTable, number, numbers, provenance, words
from ase_hmlp.simulate.sweep import Point

NAME = "table1"

#: Ours should be within this share of the seed's, in Phases I and II.
BAR = 0.15

#: Columns of `seed.TABLE_1`, and what is printed of them.
COLUMNS = {
    "liquid": "liquid, melting",
    "solid": "solid, melting",
    "phase I": "Phase I, 150 K",
    "phase II": "Phase II, 50 K",
}


@dataclass(frozen=True)
class Entry:
    """An entry of the table, and what we have for it; errors are standard errors.

    Attributes
    ----------
    column : key of `COLUMNS`
    point : Point
    status : of the point, see `ase_hmlp.reproduce.folder.State`
    seed : meV/molecule; NaN where the seed has no entry
    value, error : meV/molecule
    shells : of the shells that add up to it, meV/molecule
    volume, volume_error : Å³/atom
    pressure, pressure_error : mean of the run, GPa
    phase : "solid", "liquid" or "undecided", by diffusion
    atoms : int
    time_ps : float
        Of the whole run.
    warnings : int
        That the calculator gave.
    """

    column: str
    point: Point
    status: str
    seed: float
    value: float = math.nan
    error: float = math.nan
    shells: tuple[float, ...] = (math.nan,) * 3
    volume: float = math.nan
    volume_error: float = math.nan
    pressure: float = math.nan
    pressure_error: float = math.nan
    phase: str = ""
    atoms: int = 0
    time_ps: float = 0.0
    warnings: int = 0

    @property
    def ratio(self) -> float:
        """Ours by the seed's."""
        return self.value / self.seed

    @property
    def ratio_error(self) -> float:
        """Standard error of `ratio`; the seed gives none of its own."""
        return self.error / abs(self.seed)


def table_points(recipe: Recipe, model: str, phase_ii) -> dict[tuple[str, float], list[Point]]:
    """Points by column and pressure."""
    points: dict[tuple[str, float], list[Point]] = {}
    for pressure in recipe.pressures:
        melting = seed.melting_temperature(pressure)
        for column, phases, temperature in (
            ("liquid", ("liquid",), melting),
            ("solid", ("hcp",), melting),
            ("phase I", ("hcp",), seed.PHASE_I),
            ("phase II", phase_ii, seed.PHASE_II),
        ):
            if pressure in seed.PRESSURES and math.isnan(_entry_of_seed(column, pressure)):
                continue  # not Phase II at 20 GPa
            points[column, pressure] = [
                equilibrium(phase, pressure, temperature, recipe, model) for phase in phases
            ]
    return points


def wanted(recipe: Recipe, model: str) -> list[Wanted]:
    """What the table needs, column by column."""
    points = table_points(recipe, model, recipe.phase_ii)
    return [
        Wanted(point, ("eqq", "diffusion", *((QUENCH,) if point.phase == COOLED else ())))
        for name in COLUMNS
        for (column, _), some in points.items()
        if column == name
        for point in some
    ]


def entries(reproduction: Reproduction) -> list[Entry]:
    """What there is: by column, crystal and pressure; all crystals that Phase II may be."""
    columns, crystals = list(COLUMNS), ("hcp", "liquid", *CANDIDATES, COOLED)
    points = table_points(reproduction.recipe, reproduction.model, crystals[2:])
    found = [
        _entry(reproduction, column, pressure, point)
        for (column, pressure), some in points.items()
        for point in some
    ]
    found.sort(
        key=lambda e: (
            columns.index(e.column),
            crystals.index(e.point.phase),
            e.point.pressure,
        )
    )
    return [entry for entry in found if entry.status != "to do"]


def _entry(reproduction: Reproduction, column: str, pressure: float, point: Point) -> Entry:
    state = reproduction.state(point)
    expected = _entry_of_seed(column, pressure)
    summary = reproduction.summary(point)
    eqq = reproduction.measured(point, "eqq")
    if eqq is None or summary is None:
        return Entry(column, point, state.status, expected)
    means = summary["stages"][-1]["averages"]
    diffusion = reproduction.measured(point, "diffusion")
    shells = tuple(q.value for name, q in eqq.quantities.items() if name.startswith("shell"))
    total = eqq["<EQQ>"]
    return Entry(
        column,
        point,
        state.status,
        expected,
        total.value,
        total.error,
        shells,
        *_mean(means["volume_A3_per_atom"]),
        *_mean(means["pressure_GPa"]),
        "" if diffusion is None else diffusion.title.rpartition(" ")[2],
        summary["atoms"],
        summary["time_ps"],
        sum(event["count"] for event in summary["events"].values()),
    )


def _mean(average: dict) -> tuple[float, float]:
    mean, error = (average[key] for key in ("mean", "error"))
    return math.nan if mean is None else mean, math.nan if error is None else error


def _entry_of_seed(column: str, pressure: float) -> float:
    if pressure not in seed.PRESSURES:
        return math.nan
    value = seed.TABLE_1[column][seed.PRESSURES.index(pressure)]
    return math.nan if value is None else value


def report(reproduction: Reproduction) -> Report:
    """The seed's Table 1 beside ours.

    Parameters
    ----------
    reproduction : Reproduction
        With whatever points are finished.
    """
    found = entries(reproduction)
    quenched = {
        e.point.pressure: measured.tables[QUENCH]
        for e in found
        if e.point.phase == COOLED
        and (measured := reproduction.measured(e.point, QUENCH)) is not None
    }
    asked = [Wanted(e.point, ()) for e in found]
    return make_report(found, provenance(reproduction, asked), quenched)


def make_report(
    found: list[Entry], inputs: dict, quenched: dict[float, dict[str, np.ndarray]] | None = None
) -> Report:
    """Report of entries, and of what cooling came to by pressure; see `report`."""
    quenched = quenched or {}
    done = [e for e in found if np.isfinite(e.value)]
    notes = [
        "<EQQ>: equations 6 and 7, every pair counted from both ends, per molecule. Errors are "
        "standard errors of ours; the paper gives none.",
        "Melting: both phases at the paper's melting temperature, which it shows in Fig. 1 only "
        "and which is interpolated here, see ase_hmlp.reproduce.seed.melting_temperature.",
    ]
    solids = [e for e in done if e.column in ("phase I", "phase II") and np.isfinite(e.seed)]
    if solids:
        within = [e for e in solids if abs(e.ratio - 1.0) <= BAR]
        notes.append(
            f"Within {100 * BAR:.0f} % of the paper: {len(within)} of {len(solids)} entries of "
            "Phases I and II."
        )
    notes += [f"{e.point.name}: {e.status}." for e in found if e.status != "finished"]
    rows = [_row(e) for e in found]
    header = ("", "phase", "GPa", "K", "paper", "ours", "ratio", "Å³/atom", "is")
    return Report(
        Result(
            NAME,
            "Table 1: <EQQ>, meV/molecule, in the paper and ours",
            (),
            (_table(found), *_quench_tables(quenched)),
            tuple(notes),
            inputs,
            partial(_draw, done),
        ),
        [TextTable("", header, rows), *_quench_text(quenched)],
    )


def _quench_tables(quenched: dict[float, dict[str, np.ndarray]]) -> list[Table]:
    return [
        Table(
            f"cooled-{pressure:g}GPa",
            tuple(Column(name, values, name) for name, values in table.items()),
        )
        for pressure, table in quenched.items()
    ]


def _quench_text(quenched: dict[float, dict[str, np.ndarray]]) -> list[TextTable]:
    """What was cooled, at rest, beside the candidates; the nearest of them is marked."""
    rows = []
    for pressure, table in quenched.items():
        away = [float(x) for x in table["distance"]]
        nearest = 1 + int(np.argmin(away[1:])) if len(away) > 1 else 0
        for k, name in enumerate(table["structure"]):
            rows.append(
                (
                    str(name) + (" (nearest)" if k and k == nearest else ""),
                    f"{pressure:g}",
                    f"{table['volume_A3_per_atom'][k]:.4f}",
                    f"{table['enthalpy_above_meV_per_atom'][k]:.2f}",
                    f"{table['eqq_meV'][k]:.2f}",
                    f"{away[k]:.3f}",
                )
            )
    header = ("at rest", "GPa", "Å³/atom", "meV/atom above", "<EQQ>", "distance")
    title = "What cooling came to; distance: of the factors of equation 7 of nearest neighbours"
    return [TextTable(title, header, rows)] if rows else []


def _row(e: Entry) -> tuple[str, ...]:
    return (
        COLUMNS[e.column],
        e.point.phase,
        f"{e.point.pressure:g}",
        f"{e.point.temperature:g}",
        f"{e.seed:.2f}" if np.isfinite(e.seed) else "-",
        number(e.value, e.error) or e.status,
        number(e.ratio, e.ratio_error),
        number(e.volume, e.volume_error),
        e.phase,
    )


def _table(found: list[Entry]) -> Table:
    return Table(
        NAME,
        (
            Column("point", words(e.point.name for e in found), "point"),
            Column("column", words(e.column for e in found), "column"),
            Column("phase", words(e.point.phase for e in found), "phase"),
            Column("pressure_GPa", numbers(e.point.pressure for e in found), "GPa"),
            Column("temperature_K", numbers(e.point.temperature for e in found), "K"),
            Column("seed_meV", numbers(e.seed for e in found), "paper"),
            Column(
                "eqq_meV",
                numbers(e.value for e in found),
                "ours",
                numbers(e.error for e in found),
            ),
            Column(
                "ratio",
                numbers(e.ratio for e in found),
                "ratio",
                numbers(e.ratio_error for e in found),
            ),
            *(
                Column(f"shell_{k + 1}_meV", numbers(e.shells[k] for e in found), f"shell {k + 1}")
                for k in range(3)
            ),
            Column(
                "volume_A3_per_atom",
                numbers(e.volume for e in found),
                "Å³/atom",
                numbers(e.volume_error for e in found),
            ),
            Column(
                "mean_pressure_GPa",
                numbers(e.pressure for e in found),
                "mean GPa",
                numbers(e.pressure_error for e in found),
            ),
            Column("by_diffusion", words(e.phase for e in found), "is"),
            Column("status", words(e.status for e in found), "status"),
            Column("atoms", numbers(e.atoms for e in found), "atoms"),
            Column("time_ps", numbers(e.time_ps for e in found), "ps"),
            Column("warnings", numbers(e.warnings for e in found), "warnings"),
        ),
    )


@styled
def _draw(done: list[Entry], result: Result) -> Figure:
    figure = Figure(figsize=(7.5, 8.0), layout="constrained")
    left, right = figure.subplots(2, 1, height_ratios=(3, 2), sharex=True)
    second = list(dict.fromkeys(e.point.phase for e in done if e.column == "phase II"))
    series = [("liquid", ""), ("solid", ""), ("phase I", "")]
    series += [("phase II", phase) for phase in second]
    for k, (column, phase) in enumerate(series):
        again, place = divmod(k, len(CURVES))
        style: dict = {"color": CURVES[place], "marker": "^" if again else "o"}
        some = [e for e in done if e.column == column and phase in ("", e.point.phase)]
        x = [e.point.pressure for e in some]
        values, errors = [e.value for e in some], [e.error for e in some]
        label = COLUMNS[column] + (f": {phase}" if phase else "")
        left.errorbar(x, values, errors, label=label, **style)
        ratios, errors = [e.ratio for e in some], [e.ratio_error for e in some]
        right.errorbar(x, ratios, errors, **style)
    for k, column_of_seed in enumerate(seed.TABLE_1.values()):
        y = [math.nan if v is None else v for v in column_of_seed]
        label = "" if k else "the paper"
        left.plot(seed.PRESSURES, y, color=CURVES[k], ls="--", marker="s", mfc="none", label=label)
    right.axhspan(1.0 - BAR, 1.0 + BAR, color="#9aa5b1", alpha=0.3)
    right.axhline(1.0, color="black", lw=0.8)
    left.set(ylabel="⟨EQQ⟩ (meV/molecule)")
    left.set_title(result.title)
    left.legend()
    right.set(xlabel="pressure (GPa)", ylabel="ours / the paper")
    return figure
