"""Several runs side by side: isobars, isochores, isotherms, and derivatives between neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import numpy as np
from ase import units
from matplotlib.figure import Figure

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.isolines import (
    SAME_PRESSURE,
    SAME_TEMPERATURE,
    SAME_VOLUME,
    Line,
    Step,
    lines,
    mean_of,
    neighbours,
)
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.statistics import Estimate, estimate
from ase_hmlp.analysis.thermodynamics import StateSamples, fluctuations
from ase_hmlp.analysis.vinet import VinetFit, fit_vinet
from ase_hmlp.errors import AnalysisError, TooFewFramesError
from ase_hmlp.figure_style import styled

#: Fewest pressures on an isotherm that an equation of state is fitted to: one more than parameters.
FEWEST_FOR_FIT = 4

#: Residuals less probable than this mean that the equation of state is not that of the pressures,
#: as of two phases taken for one. Errors of means are known to some tenths only.
MISFIT = 1e-4

#: Column of heat capacities, by fluctuations and by finite differences.
CAPACITY = "heat_capacity_kB_per_atom"

#: Colour of a run that shares its volume with no other.
ALONE = "#d0d5da"


def slope(
    first: Sequence[StateSamples],
    second: Sequence[StateSamples],
    quantity: Callable[[StateSamples], np.ndarray],
) -> tuple[float, float]:
    """Derivative by temperature of a quantity, between two states.

    Parameters
    ----------
    first, second : sequences of StateSamples
        Independent runs at either state, all of one weight.
    quantity : callable
        Takes a run, returns its samples (s,).

    Returns
    -------
    slope, error : float
        Per K. The error is that of ``quantity - slope T``: what temperature and quantity fluctuate
        together does not count.
    """
    states = first, second
    t1, t2 = (mean_of(runs, lambda run: run.temperature) for runs in states)
    y1, y2 = (mean_of(runs, quantity) for runs in states)
    found = (y2 - y1) / (t2 - t1)
    errors = [
        estimate(quantity(run) - found * run.temperature).error / len(runs)
        for runs in states
        for run in runs
    ]
    return float(found), float(np.linalg.norm(errors) / abs(t2 - t1))


def equation_of_state(
    runs: Sequence[StateSamples],
    same_pressure: float = SAME_PRESSURE,
    same_temperature: float = SAME_TEMPERATURE,
    ensemble: str = "auto",
) -> Result:
    """Put runs side by side: P, V, T, density, enthalpy and what lies between neighbours.

    Runs of different phases are never neighbours. Along isobars, of runs whose volumes vary, heat
    capacity ``(dH/dT)_P`` and thermal expansion ``(dV/dT)_P / V`` by finite differences; along
    isochores, of runs at constant volume, ``(dE/dT)_V`` and ``(dP/dT)_V``; along isotherms of four
    pressures or more, Vinet's equation of state.

    Parameters
    ----------
    runs : sequence of StateSamples
    same_pressure : float, GPa
        Runs that barostats held are on one isobar if they held the same pressure; others, if their
        mean pressures differ by no more than this. See `groups`.
    same_temperature : float, K
        Likewise for thermostats and isotherms.
    ensemble : str
        See `ase_hmlp.analysis.thermodynamics.fluctuations`.

    Returns
    -------
    Result
        Tables ``eos`` (a row for each run), ``isobars`` and ``isochores`` (a row between
        neighbours) and ``isotherms`` (fits).

    Raises
    ------
    TooFewFramesError
        Without a run.
    AnalysisError
        If a run has no volume or pressure.
    """
    if not runs:
        raise TooFewFramesError("There is no run to put side by side.")
    for run in runs:
        if not (np.isfinite(run.volume).all() and np.isfinite(run.pressure).all()):
            raise AnalysisError(f"{run.name} has samples without volume or pressure.")
    held = np.array([run.ensemble == "npt" for run in runs])
    temperatures, pressures = np.array([run.nominal for run in runs]).T
    asked_t, asked_p = np.isfinite([run.targets for run in runs]).T
    volumes = np.array([run.volume.mean() for run in runs])
    isotherms = lines(runs, np.full(len(runs), True), temperatures, same_temperature, asked_t)
    isobars = lines(runs, held, pressures, same_pressure, asked_p)
    isochores = lines(runs, ~held, np.log(volumes), SAME_VOLUME)
    isochores = [Line(c.phase, float(np.exp(c.value)), c.members) for c in isochores]
    tables = [_table_of_runs(runs, isobars, isochores, ensemble)]
    tables += _table_of_steps(runs, isobars, isotherms, _isobar, "isobars")
    tables += _table_of_steps(runs, isochores, isotherms, _isochore, "isochores")
    fits, failures = _fits(runs, isotherms, [*isobars, *isochores])
    if fits:
        tables.append(_table_of_isotherms(fits))
    return Result(
        "eos",
        "Equation of state",
        tuple(_quantities(fits)),
        tuple(tables),
        (*_notes(tables), *failures, *_assumptions(runs, fits)),
        draw=partial(_draw, fits=fits),
    )


def _column(name: str, label: str, estimates: Sequence[Estimate]) -> Column:
    values = np.array([e.value for e in estimates])
    return Column(name, values, label, np.array([e.error for e in estimates]))


def _phase_column(phases: Sequence[str]) -> Column:
    return Column("phase", np.array(phases), "phase")


def _table_of_runs(runs, isobars, isochores, ensemble: str) -> Table:
    on_isobar, on_isochore = np.full((2, len(runs)), np.nan)
    for values, found in ((on_isobar, isobars), (on_isochore, isochores)):
        for line in found:
            values[line.members] = line.value
    found = [fluctuations(run, p, ensemble) for run, p in zip(runs, on_isobar, strict=True)]
    # Elsewhere the pressure is a mean, with an error of its own.
    exact = np.isfinite([run.targets[1] for run in runs]) & np.isfinite(on_isobar)
    enthalpy = [
        estimate(run.enthalpy(p if known else None))
        for run, p, known in zip(runs, on_isobar, exact, strict=True)
    ]
    capacity = _column(
        CAPACITY,
        "heat capacity by fluctuations (k_B/atom)",
        [f.heat_capacity for f in found],
    )
    return Table(
        "eos",
        (
            _column("pressure_GPa", "pressure (GPa)", [estimate(r.pressure) for r in runs]),
            _column("temperature_K", "temperature (K)", [estimate(r.temperature) for r in runs]),
            _column("volume_A3_per_atom", "volume (Å³/atom)", [estimate(r.volume) for r in runs]),
            _column("density_g_per_cm3", "density (g/cm³)", [estimate(r.density) for r in runs]),
            _column("enthalpy_eV_per_atom", "enthalpy (eV/atom)", enthalpy),
            Column("isobar_GPa", on_isobar, "isobar (GPa)"),
            Column("isochore_A3_per_atom", on_isochore, "isochore (Å³/atom)"),
            capacity,
            Column("ensemble", np.array([f.ensemble for f in found]), "ensemble"),
            _phase_column([run.phase for run in runs]),
            Column("run", np.array([run.name for run in runs]), "run"),
        ),
    )


def _table_of_steps(runs, along, isotherms, columns, name: str) -> list[Table]:
    """The table of derivatives along isobars or isochores, if there are neighbours."""
    steps = [step for line in along for step in neighbours(runs, line, isotherms)]
    if not steps:
        return []
    temperatures = np.array([step.mean(lambda run: run.temperature) for step in steps])
    return [
        Table(
            name,
            (
                Column("temperature_K", temperatures, "temperature (K)"),
                *columns(steps),
                _phase_column([step.line.phase for step in steps]),
            ),
        )
    ]


def _isobar(steps: Sequence[Step]) -> tuple[Column, ...]:
    return (
        Column("isobar_GPa", np.array([step.line.value for step in steps]), "isobar (GPa)"),
        _slopes(CAPACITY, "(dH/dT)$_P$ (k_B/atom)", [_capacity(s) for s in steps], units.kB),
        _slopes("expansion_per_K", "(dV/dT)$_P$/V (1/K)", [_expansion(s) for s in steps]),
    )


def _capacity(step: Step) -> tuple[float, float]:
    return slope(*step.states, lambda run: run.enthalpy(step.line.value))


def _expansion(step: Step) -> tuple[float, float]:
    volume = step.mean(lambda run: run.volume)
    return slope(*step.states, lambda run: run.volume / volume)


def _isochore(steps: Sequence[Step]) -> tuple[Column, ...]:
    volumes = np.array([step.line.value for step in steps])
    return (
        Column("isochore_A3_per_atom", volumes, "isochore (Å³/atom)"),
        _slopes(
            CAPACITY,
            "(dE/dT)$_V$ (k_B/atom)",
            [slope(*step.states, lambda run: run.energy) for step in steps],
            units.kB,
        ),
        _slopes(
            "pressure_slope_GPa_per_K",
            "(dP/dT)$_V$ (GPa/K)",
            [slope(*step.states, lambda run: run.pressure) for step in steps],
        ),
    )


def _slopes(name: str, label: str, slopes, unit: float = 1.0) -> Column:
    values, errors = np.array(slopes).T / unit
    return Column(name, values, label, errors)


# ---------------------------------------------------------------- isotherms


@dataclass(frozen=True, eq=False)
class _Isotherm:
    """A fit, and the volumes (Å³/atom) and pressures (GPa) it is to."""

    line: Line
    fit: VinetFit
    volumes: np.ndarray
    pressures: np.ndarray

    @property
    def name(self) -> str:
        return _name(self.line)


def _name(isotherm: Line) -> str:
    return f"{isotherm.value:.0f} K" + (f", {isotherm.phase}" if isotherm.phase else "")


def _fits(runs, isotherms, others) -> tuple[list[_Isotherm], list[str]]:
    """Fits to isotherms, and a sentence on each that nothing fits."""
    fits, failures = [], []
    for line in isotherms:
        crossings = [o for o in others if len(np.intersect1d(o.members, line.members))]
        if len(crossings) < FEWEST_FOR_FIT:
            continue
        try:
            fits.append(_fit(line, [runs[k] for k in line.members]))
        except AnalysisError as error:
            failures.append(f"{_name(line)}: {error}")
    return fits, failures


def _fit(line: Line, runs: Sequence[StateSamples]) -> _Isotherm:
    volumes, pressures = np.array([(run.volume.mean(), run.pressure.mean()) for run in runs]).T
    first = fit_vinet(volumes, pressures, [estimate(run.pressure).error for run in runs])
    # Volumes have errors too, and fluctuate with the pressure.
    along = first.slope(volumes)
    errors = [estimate(r.pressure - s * r.volume).error for r, s in zip(runs, along, strict=True)]
    return _Isotherm(line, fit_vinet(volumes, pressures, errors), volumes, pressures)


def _quantities(fits: Sequence[_Isotherm]) -> list[Quantity]:
    found = []
    for isotherm in fits:
        fit, name = isotherm.fit, isotherm.name
        at = f"at {fit.volume:.4f} Å³/atom, {name}"
        found += [
            Quantity(f"P {at}", fit.pressure, float(fit.errors[0]), "GPa"),
            Quantity(f"B {at}", fit.modulus, float(fit.errors[1]), "GPa"),
        ]
        if np.isfinite(fit.zero).all():
            found += [
                Quantity(f"{parameter} (Vinet), {name}", float(value), float(error), unit)
                for parameter, value, error, unit in zip(
                    ("V0", "K0", "K0'"),
                    fit.zero,
                    fit.zero_errors,
                    ("Å³/atom", "GPa", ""),
                    strict=True,
                )
            ]
    return found


def _table_of_isotherms(fits: Sequence[_Isotherm]) -> Table:
    found = [isotherm.fit for isotherm in fits]
    errors = np.array([fit.errors for fit in found]).T
    zero, zero_errors = (
        np.array(values).T for values in zip(*((f.zero, f.zero_errors) for f in found), strict=True)
    )
    names = ("V0_A3_per_atom", "K0_GPa", "K0_slope")
    labels = ("V₀ (Å³/atom)", "K₀ (GPa)", "K₀′")
    return Table(
        "isotherms",
        (
            Column("temperature_K", np.array([i.line.value for i in fits]), "temperature (K)"),
            Column("volume_A3_per_atom", np.array([f.volume for f in found]), "volume (Å³/atom)"),
            Column("pressure_GPa", np.array([f.pressure for f in found]), "P (GPa)", errors[0]),
            Column("bulk_modulus_GPa", np.array([f.modulus for f in found]), "B (GPa)", errors[1]),
            *map(Column, names, zero, labels, zero_errors),
            _phase_column([isotherm.line.phase for isotherm in fits]),
        ),
    )


# ---------------------------------------------------------------- notes


def _notes(tables: Sequence[Table]) -> list[str]:
    """A line for each run, and for each step along an isobar or isochore."""
    words = {"eos": _run, "isobars": _isobaric_step, "isochores": _isochoric_step}
    notes = []
    for table in tables:
        if table.name in words:
            arrays = table.arrays()
            rows = zip(*arrays.values(), strict=True)
            notes += [words[table.name](dict(zip(arrays, row, strict=True))) for row in rows]
    return notes


def _run(row) -> str:
    capacity = "C_P" if row["ensemble"] == "npt" else "C_V"
    known = np.isfinite(row[CAPACITY])
    return (
        f"{row['run']}: {row['temperature_K']:.0f} K, {row['pressure_GPa']:.2f} GPa, "
        f"{row['volume_A3_per_atom']:.4f} Å³/atom, {row['density_g_per_cm3']:.4f} g/cm³"
        + (f", {capacity} {_heat_capacity(row)}." if known else ".")
    )


def _isobaric_step(row) -> str:
    expansion, error = row["expansion_per_K"], row["expansion_per_K_error"]
    return (
        f"{row['isobar_GPa']:.4g} GPa{_of_phase(row)}, about {row['temperature_K']:.0f} K: "
        f"(dH/dT)_P {_heat_capacity(row)}, (dV/dT)_P/V {expansion:.2e} ± {error:.0e} 1/K."
    )


def _isochoric_step(row) -> str:
    slope, error = row["pressure_slope_GPa_per_K"], row["pressure_slope_GPa_per_K_error"]
    return (
        f"{row['isochore_A3_per_atom']:.4f} Å³/atom{_of_phase(row)}, about "
        f"{row['temperature_K']:.0f} K: (dE/dT)_V {_heat_capacity(row)}, (dP/dT)_V {slope:.2e} ± "
        f"{error:.0e} GPa/K."
    )


def _heat_capacity(row) -> str:
    value, error = row[CAPACITY], row[f"{CAPACITY}_error"]
    return f"{value:.2f} ± {error:.2f} k_B/atom"


def _of_phase(row) -> str:
    return f", {row['phase']}" if row["phase"] else ""


def _assumptions(runs: Sequence[StateSamples], fits: Sequence[_Isotherm]) -> list[str]:
    """What was taken for granted, or cannot be said."""
    notes = [
        f"{i.name}: V0, K0 and K0' are not determined by pressures from {i.pressures.min():.3g} to "
        f"{i.pressures.max():.3g} GPa."
        for i in fits
        if not np.isfinite(i.fit.zero).all()
    ]
    notes += [
        f"{i.name}: Vinet's equation of state misses the pressures by more than their errors."
        for i in fits
        if i.fit.probability < MISFIT
    ]
    unknown = [run.name for run in runs if not run.phase]
    if len(unknown) > 1:
        notes.append(f"These do not say what phase they are, and count as one: {_list(unknown)}.")
    assumed = [run.name for run in runs if run.mass_assumed]
    if assumed:
        notes.append(
            f"The mass of hydrogen is assumed for what does not say its density (--mass gives "
            f"another): {_list(assumed)}."
        )
    return notes


def _list(names: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---------------------------------------------------------------- picture


@styled
def _draw(result: Result, fits: Sequence[_Isotherm]) -> Figure:
    figure = Figure(figsize=(7.5, 9.0), layout="constrained")
    density, isotherms, capacity = figure.subplots(3, 1)
    eos = result.table("eos")
    colours = cycle(CURVES)
    for column, name, unit in (
        ("isobar_GPa", "isobars", "GPa"),
        ("isochore_A3_per_atom", "isochores", "Å³/atom"),
    ):
        steps = [table for table in result.tables if table.name == name]
        known = np.isfinite(eos[column])
        for phase, value in sorted(set(zip(eos["phase"][known], eos[column][known], strict=True))):
            here = (eos["phase"] == phase) & (eos[column] == value)
            label, style = None, {"color": ALONE, "marker": "o"}
            # Of many runs at constant volume, each may be at its own.
            if here.sum() > 1 or column == "isobar_GPa":
                label = f"{value:.4g} {unit}" + (f", {phase}" if phase else "")
                style["color"] = next(colours)
            _along(density, eos, "density_g_per_cm3", here, label=label, **style)
            _along(capacity, eos, CAPACITY, here, **style)
            for table in steps:
                here = (table["phase"] == phase) & (table[column] == value)
                _along(capacity, table, CAPACITY, here, **style, mfc="none", ls="--")
    _draw_isotherms(isotherms, eos, fits)
    density.set(xlabel="temperature (K)", ylabel="density (g/cm³)", title=result.title)
    labelled = len(density.get_legend_handles_labels()[1])
    if labelled:
        density.legend(ncols=1 + (labelled - 1) // 6, fontsize="small")
    capacity.set(xlabel="temperature (K)", ylabel="heat capacity (k_B/atom)")
    capacity.set_title("filled: fluctuations; open: finite differences (dH/dT)$_P$, (dE/dT)$_V$")
    return figure


def _along(axis, table: Table, name: str, rows, **style) -> None:
    """Draw a column of some rows against temperature."""
    order = np.flatnonzero(rows)
    order = order[np.argsort(table["temperature_K"][order])]
    axis.errorbar(
        table["temperature_K"][order], table[name][order], table[f"{name}_error"][order], **style
    )


def _draw_isotherms(axis, eos: Table, fits: Sequence[_Isotherm]) -> None:
    phases = np.unique(eos["phase"])
    for colour, phase in zip(cycle(CURVES), phases, strict=False):
        mine = eos["phase"] == phase
        columns = ("volume_A3_per_atom", "pressure_GPa", "pressure_GPa_error")
        axis.errorbar(
            *(eos[name][mine] for name in columns),
            color=colour,
            ls="",
            marker="o",
            label=phase or None,
        )
    for colour, isotherm in zip(cycle(CURVES), fits, strict=False):
        volumes = np.linspace(isotherm.volumes.min(), isotherm.volumes.max(), 99)
        label = f"Vinet, {isotherm.name}"
        axis.plot(volumes, isotherm.fit(volumes), color=colour, label=label)
    axis.set(xlabel="volume (Å³/atom)", ylabel="pressure (GPa)")
    if fits or phases.any():
        axis.legend()
