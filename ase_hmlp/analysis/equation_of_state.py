"""Several runs side by side: isobars, isotherms, and the derivatives between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from ase import units
from matplotlib.figure import Figure
from scipy.optimize import curve_fit

from ase_hmlp.analysis.figures import CURVES
from ase_hmlp.analysis.result import Column, Quantity, Result, Table
from ase_hmlp.analysis.statistics import Estimate, estimate
from ase_hmlp.analysis.thermodynamics import StateSamples, fluctuations
from ase_hmlp.errors import AnalysisError, TooFewFramesError
from ase_hmlp.figure_style import styled

#: Pressures (GPa) and temperatures (K) closer than this are one isobar or isotherm.
SAME_PRESSURE, SAME_TEMPERATURE = 1.0, 10.0

#: Fewest states on an isotherm that an equation of state is fitted to: one more than parameters.
FEWEST_FOR_FIT = 4


def vinet(volume, v0: float, k0: float, slope: float) -> np.ndarray:
    """Pressure of Vinet's equation of state, GPa (Vinet and others, J. Phys. C 19, L467, 1986).

    Parameters
    ----------
    volume : array, Å³ per atom
    v0 : float, Å³ per atom
    k0 : float, GPa
        Bulk modulus at zero pressure.
    slope : float
        Its pressure derivative.
    """
    x = np.cbrt(np.asarray(volume) / v0)
    return 3.0 * k0 * (1.0 - x) / x**2 * np.exp(1.5 * (slope - 1.0) * (1.0 - x))


def fit_vinet(volume, pressure, error=None) -> tuple[np.ndarray, np.ndarray]:
    """Fit Vinet's equation to an isotherm.

    Parameters
    ----------
    volume, pressure : (n,) arrays, Å³ per atom and GPa; n at least 4
    error : (n,) array, GPa, optional
        Standard errors of the pressures.

    Returns
    -------
    parameters, errors : (3,) arrays
        V0, K0 and K0'. They are correlated: far from zero pressure none is known well by itself.

    Raises
    ------
    AnalysisError
        If nothing fits.
    """
    known = error is not None and np.isfinite(error).all() and (np.asarray(error) > 0.0).all()
    try:
        # Hydrogen's own equation of state is a start for any of its isotherms.
        found, covariance = curve_fit(
            vinet,
            volume,
            pressure,
            p0=(1.2 * max(np.max(volume), 10.0), 0.3, 6.8),
            sigma=error if known else None,
            absolute_sigma=known,
            bounds=((1.01 * np.max(volume), 1e-6, 1.0), (1e3, 1e4, 50.0)),
        )
    except (RuntimeError, ValueError) as exc:
        raise AnalysisError(f"Vinet's equation of state does not fit: {exc}") from exc
    return found, np.sqrt(np.diag(covariance))


def groups(values, tolerance: float) -> list[np.ndarray]:
    """Indices of values that belong together: sorted, no gap above the tolerance.

    Parameters
    ----------
    values : (n,) array
    tolerance : float
    """
    order = np.argsort(values, kind="stable")
    return np.split(order, 1 + np.flatnonzero(np.diff(np.asarray(values)[order]) > tolerance))


def slope(
    first: StateSamples, second: StateSamples, values: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """Derivative by temperature of a quantity, between two states.

    Parameters
    ----------
    first, second : StateSamples
    values : two arrays
        The quantity along either.

    Returns
    -------
    slope, error : float
        Per K. The error is that of ``values - slope T``: what temperature and quantity fluctuate
        together does not count.
    """
    runs = list(zip((first, second), values, strict=True))
    (t1, y1), (t2, y2) = ((run.temperature.mean(), y.mean()) for run, y in runs)
    found = (y2 - y1) / (t2 - t1)
    errors = [estimate(y - found * run.temperature).error for run, y in runs]
    return float(found), float(np.linalg.norm(errors) / abs(t2 - t1))


def equation_of_state(
    runs: Sequence[StateSamples],
    same_pressure: float = SAME_PRESSURE,
    same_temperature: float = SAME_TEMPERATURE,
    ensemble: str = "auto",
) -> Result:
    """Put runs side by side: P, V, T, density, enthalpy and what lies between neighbours.

    Along isobars, heat capacity ``(dH/dT)_P`` and thermal expansion ``(dV/dT)_P / V`` by finite
    differences; along isotherms of four states or more, Vinet's equation of state.

    Parameters
    ----------
    runs : sequence of StateSamples
    same_pressure : float, GPa
        Runs whose pressures differ by less are on one isobar: those that barostats held, means of
        runs without.
    same_temperature : float, K
        Likewise for isotherms.
    ensemble : str
        See `ase_hmlp.analysis.thermodynamics.fluctuations`.

    Returns
    -------
    Result
        Tables ``eos`` (a row for each run), ``isobars`` (a row between neighbours) and
        ``isotherms`` (fits).

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
    temperatures, pressures = np.array([run.nominal for run in runs]).T
    isobars = groups(pressures, same_pressure)
    common = np.empty(len(runs))
    for members in isobars:
        common[members] = pressures[members].mean()
    tables = [_table_of_runs(runs, common, ensemble)]
    between = [
        pair
        for members in isobars
        for pair in _neighbours(
            members[np.argsort(temperatures[members])], temperatures, same_temperature
        )
    ]
    if between:
        tables.append(_table_of_isobars(runs, between, common))
    quantities, fits = _isotherms(runs, groups(temperatures, same_temperature))
    if fits is not None:
        tables.append(fits)
    return Result(
        "eos",
        "Equation of state",
        tuple(quantities),
        tuple(tables),
        _notes(tables),
        draw=_draw,
    )


def _neighbours(members, temperatures, same: float):
    """Successive pairs along an isobar that are not on one isotherm as well."""
    return [(a, b) for a, b in pairwise(members) if temperatures[b] - temperatures[a] > same]


def _column(name: str, label: str, estimates: Sequence[Estimate], scale: float = 1.0) -> Column:
    values = scale * np.array([e.value for e in estimates])
    return Column(name, values, label, scale * np.array([e.error for e in estimates]))


def _table_of_runs(runs, common, ensemble: str) -> Table:
    found = [fluctuations(run, p, ensemble) for run, p in zip(runs, common, strict=True)]
    enthalpy = [estimate(run.enthalpy(p)) for run, p in zip(runs, common, strict=True)]
    capacity = _column(
        "heat_capacity_kB_per_atom",
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
            Column("isobar_GPa", common, "isobar (GPa)"),
            capacity,
            Column("ensemble", np.array([f.ensemble for f in found]), "ensemble"),
            Column("run", np.array([run.name for run in runs]), "run"),
        ),
    )


def _table_of_isobars(runs, between, common) -> Table:
    rows = []
    for a, b in between:
        first, second = runs[a], runs[b]
        pressure = common[a]
        capacity = slope(first, second, (first.enthalpy(pressure), second.enthalpy(pressure)))
        volume = 0.5 * (first.volume.mean() + second.volume.mean())
        expansion = slope(first, second, (first.volume / volume, second.volume / volume))
        middle = 0.5 * (first.temperature.mean() + second.temperature.mean())
        rows.append((middle, pressure, *np.array(capacity) / units.kB, *expansion))
    middle, pressure, capacity, capacity_error, expansion, expansion_error = np.array(rows).T
    return Table(
        "isobars",
        (
            Column("temperature_K", middle, "temperature (K)"),
            Column("isobar_GPa", pressure, "isobar (GPa)"),
            Column(
                "heat_capacity_kB_per_atom",
                capacity,
                "(dH/dT)$_P$ (k_B/atom)",
                capacity_error,
            ),
            Column("expansion_per_K", expansion, "(dV/dT)$_P$/V (1/K)", expansion_error),
        ),
    )


def _isotherms(runs, members_of) -> tuple[list[Quantity], Table | None]:
    quantities: list[Quantity] = []
    rows = []
    for members in members_of:
        if len(members) < FEWEST_FOR_FIT:
            continue
        chosen = [runs[k] for k in members]
        temperature = float(np.mean([run.temperature.mean() for run in chosen]))
        parameters, errors = fit_vinet(
            np.array([run.volume.mean() for run in chosen]),
            np.array([run.pressure.mean() for run in chosen]),
            np.array([estimate(run.pressure).error for run in chosen]),
        )
        rows.append((temperature, *parameters, *errors))
        for name, value, error, unit in zip(
            ("V0", "K0", "K0'"), parameters, errors, ("Å³/atom", "GPa", ""), strict=True
        ):
            label = f"{name} (Vinet), {temperature:.0f} K"
            quantities.append(Quantity(label, float(value), float(error), unit))
    if not rows:
        return quantities, None
    temperature, v0, k0, slope0, v0_error, k0_error, slope0_error = np.array(rows).T
    return quantities, Table(
        "isotherms",
        (
            Column("temperature_K", temperature, "temperature (K)"),
            Column("V0_A3_per_atom", v0, "V₀ (Å³/atom)", v0_error),
            Column("K0_GPa", k0, "K₀ (GPa)", k0_error),
            Column("K0_slope", slope0, "K₀′", slope0_error),
        ),
    )


def _notes(tables: Sequence[Table]) -> tuple[str, ...]:
    """A line for each run, and for each step along an isobar."""
    eos, *others = tables
    rows = zip(
        *(
            eos[column]
            for column in (
                "run",
                "temperature_K",
                "pressure_GPa",
                "volume_A3_per_atom",
                "density_g_per_cm3",
                "ensemble",
                "heat_capacity_kB_per_atom",
                "heat_capacity_kB_per_atom_error",
            )
        ),
        strict=True,
    )
    lines = [
        f"{name}: {t:.0f} K, {p:.2f} GPa, {v:.4f} Å³/atom, {rho:.4f} g/cm³"
        + (f", {'C_P' if kind == 'npt' else 'C_V'} {c:.2f} ± {e:.2f} k_B/atom." if c == c else ".")
        for name, t, p, v, rho, kind, c, e in rows
    ]
    for table in others:
        if table.name == "isobars":
            lines += [
                f"{p:.1f} GPa, about {t:.0f} K: (dH/dT)_P {c:.2f} ± {e:.2f} k_B/atom, "
                f"(dV/dT)_P/V {a:.2e} ± {ae:.0e} 1/K."
                for t, p, c, e, a, ae in zip(*table.arrays().values(), strict=True)
            ]
    return tuple(lines)


@styled
def _draw(result: Result) -> Figure:
    figure = Figure(figsize=(7.5, 9.0), layout="constrained")
    density, isotherms, capacity = figure.subplots(3, 1)
    eos = result.table("eos")
    for colour, isobar in zip(CURVES * 9, np.unique(eos["isobar_GPa"]), strict=False):
        rows = np.flatnonzero(eos["isobar_GPa"] == isobar)
        rows = rows[np.argsort(eos["temperature_K"][rows])]
        style = {"color": colour, "marker": "o", "label": f"{isobar:.0f} GPa"}
        for axis, name in ((density, "density_g_per_cm3"), (capacity, "heat_capacity_kB_per_atom")):
            axis.errorbar(
                eos["temperature_K"][rows], eos[name][rows], eos[f"{name}_error"][rows], **style
            )
        if any(table.name == "isobars" for table in result.tables):
            steps = result.table("isobars")
            mine = steps["isobar_GPa"] == isobar
            name = "heat_capacity_kB_per_atom"
            capacity.errorbar(
                steps["temperature_K"][mine],
                steps[name][mine],
                steps[f"{name}_error"][mine],
                color=colour,
                marker="s",
                mfc="none",
                ls="--",
            )
    isotherms.errorbar(
        eos["volume_A3_per_atom"],
        eos["pressure_GPa"],
        eos["pressure_GPa_error"],
        color=CURVES[0],
        ls="",
        marker="o",
    )
    if any(table.name == "isotherms" for table in result.tables):
        fits = result.table("isotherms")
        volumes = np.linspace(eos["volume_A3_per_atom"].min(), eos["volume_A3_per_atom"].max(), 99)
        for colour, row in zip(CURVES * 9, range(len(fits["temperature_K"])), strict=False):
            names = ("V0_A3_per_atom", "K0_GPa", "K0_slope")
            isotherms.plot(
                volumes,
                vinet(volumes, *(fits[name][row] for name in names)),
                color=colour,
                label=f"Vinet, {fits['temperature_K'][row]:.0f} K",
            )
        isotherms.legend()
    density.set(xlabel="temperature (K)", ylabel="density (g/cm³)", title=result.title)
    isotherms.set(xlabel="volume (Å³/atom)", ylabel="pressure (GPa)")
    capacity.set(xlabel="temperature (K)", ylabel="heat capacity (k_B/atom)")
    capacity.set_title("filled: fluctuations; open: finite differences (dH/dT)$_P$")
    density.legend()
    return figure
