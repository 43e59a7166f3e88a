"""Isobars, isochores and isotherms of runs, and equations of state, where they are known."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.io import write
from click.testing import CliRunner
from test_thermodynamics import KB, canonical, deuterium, isobaric, write_log, write_point

from ase_hmlp.analysis.equation_of_state import equation_of_state, slope
from ase_hmlp.analysis.isolines import groups
from ase_hmlp.analysis.thermodynamics import StateSamples
from ase_hmlp.analysis.vinet import fit_vinet, vinet
from ase_hmlp.cli import main
from ase_hmlp.errors import AnalysisError, TooFewFramesError

#: Loubeyre's hydrogen, per atom: V0 25.433 cm³/mol H2, K0 0.162 GPa, K0' 6.813.
HYDROGEN = (25.433 / 6.02214 * 10 / 2, 0.162, 6.813)


def at(pressure, temperature, phase="", seed=0, samples=300, **settings):
    """A run that held a pressure and a temperature."""
    run = isobaric(temperature, pressure, samples, seed, **settings)
    name = f"{phase}-{pressure:g}GPa-{temperature:g}K"
    return replace(run, name=name, targets=(temperature, pressure), phase=phase)


def tables(result):
    return [table.name for table in result.tables]


# ---------------------------------------------------------------- what belongs together


def members(found):
    return [sorted(group.tolist()) for group in found]


def test_groups():
    assert members(groups([100.4, 20.0, 99.8, 60.0, 20.9], 1.0)) == [[1, 4], [3], [0, 2]]
    assert members(groups([5.0], 1.0)) == [[0]]
    assert members(groups([], 1.0)) == []


def test_groups_are_no_chains():
    """Of values each close to the next, the first and the last are not close."""
    values = np.arange(2.0, 8.0, 0.8)
    for group in groups(values, 1.0):
        assert np.ptp(values[group]) <= 1.0
    assert sorted(np.concatenate(groups(values, 1.0)).tolist()) == list(range(len(values)))


def test_what_was_asked_for_is_told_apart_however_close():
    values = np.array([2.0, 2.8, 3.6, 2.8 + 1e-12, 2.0])
    asked = np.full(5, True)
    assert members(groups(values, 10.0, asked)) == [[0, 4], [1, 3], [2]]
    # A mean belongs to what it is nearest to, if that is near.
    values = np.array([2.0, 2.8, 2.5, 3.2, 3.4])
    asked = np.array([True, True, False, False, False])
    assert members(groups(values, 1.0, asked)) == [[0], [1, 2, 3], [4]]


# ---------------------------------------------------------------- isobars


def test_derivatives_along_an_isobar():
    runs = [isobaric(t, 50.0, 3000, int(t)) for t in (250.0, 150.0, 200.0)]
    result = equation_of_state(runs)
    isobars = result.table("isobars")
    assert isobars["temperature_K"] == pytest.approx([175.0, 225.0], abs=1.0)
    for name, expected in (
        ("heat_capacity_kB_per_atom", 3.2),
        ("expansion_per_K", 2e-4 * 2.4 / (2.4 * (1 + 2e-4 * 200 - 4e-3 * 50))),
    ):
        errors = isobars[f"{name}_error"]
        assert (errors > 0).all() and (errors < 0.2 * expected).all()
        assert (abs(isobars[name] - expected) < 4 * errors + 0.01 * expected).all()
    eos = result.table("eos")
    assert eos["run"].tolist() == ["250 K", "150 K", "200 K"]
    assert set(eos["ensemble"]) == {"npt"}
    assert eos["density_g_per_cm3"] == pytest.approx(
        1.008 * 1.66054 / eos["volume_A3_per_atom"], rel=1e-3
    )
    assert np.isnan(eos["isochore_A3_per_atom"]).all()
    assert result.plot() is not None


def enthalpy(run):
    return run.enthalpy(50.0)


def test_the_error_of_a_slope_is_its_scatter():
    def slopes(replicas):
        pairs = (
            [[isobaric(t, 50.0, 200, [k, r, int(t)]) for r in range(replicas)] for t in (150, 200)]
            for k in range(80)
        )
        found, errors = np.array([slope(*pair, enthalpy) for pair in pairs]).T
        # 80 slopes know their scatter to 8 %.
        assert errors.mean() == pytest.approx(found.std(), rel=0.25)
        return errors.mean()

    # Of four runs instead of one at either end, half the error.
    assert slopes(4) == pytest.approx(0.5 * slopes(1), rel=0.1)


def test_phases_are_kept_apart():
    """A liquid is larger by 0.1 Å³ and higher in energy than the crystal at the same P and T."""
    runs = [at(100.0, t, "hcp", int(t)) for t in (300.0, 600.0)]
    for run in (at(100.0, t, "liquid", int(t)) for t in (300.0, 600.0, 900.0)):
        runs.append(replace(run, volume=run.volume + 0.1, potential=run.potential + 0.03))
    result = equation_of_state(runs)
    assert result.table("eos")["phase"].tolist() == ["hcp"] * 2 + ["liquid"] * 3
    isobars = result.table("isobars")
    assert isobars["phase"].tolist() == ["hcp", "liquid", "liquid"]
    assert isobars["temperature_K"] == pytest.approx([450.0, 450.0, 750.0], rel=0.02)
    assert isobars["heat_capacity_kB_per_atom"] == pytest.approx([3.2] * 3, abs=0.15)
    assert "100 GPa, liquid, about 750 K: (dH/dT)_P" in "\n".join(result.notes)
    axis = result.plot().axes[0]
    assert axis.get_legend_handles_labels()[1] == ["100 GPa, hcp", "100 GPa, liquid"]
    unnamed = [replace(run, phase="") for run in runs[:2]]
    assert "hcp-100GPa-300K, hcp-100GPa-600K" in equation_of_state(unnamed).notes[-1]
    assert not any("do not say what phase" in note for note in result.notes)


def test_a_grid_has_an_isobar_for_every_pressure_and_an_isotherm_for_every_temperature():
    """Steps of 0.8 GPa and of 10 K, within what is one isobar or isotherm for others."""
    pressures, temperatures = (2.0, 2.8, 3.6, 4.4), (100.0, 110.0, 120.0)
    runs = [at(p, t, "hcp", [int(10 * p), int(t)]) for p in pressures for t in temperatures]
    result = equation_of_state(runs)
    isobars = result.table("isobars")
    assert isobars["isobar_GPa"].tolist() == [p for p in pressures for _ in range(2)]
    assert isobars["temperature_K"] == pytest.approx([105.0, 115.0] * 4, abs=2.0)
    assert result.table("isotherms")["temperature_K"].tolist() == list(temperatures)


def test_several_runs_of_a_state_are_one_neighbour():
    runs = [at(50.0, t, "hcp", [int(t), k]) for t in (150.0, 200.0) for k in range(4)]
    isobars = equation_of_state(runs).table("isobars")
    alone = equation_of_state(runs[::4]).table("isobars")
    assert len(isobars["temperature_K"]) == 1
    for name in ("heat_capacity_kB_per_atom_error", "expansion_per_K_error"):
        assert isobars[name] == pytest.approx(0.5 * alone[name], rel=0.3)


def test_temperatures_that_are_not_apart_have_no_derivative():
    """As of a run's log, which says what was asked for, and its trajectory, which does not."""
    run = at(50.0, 200.0)
    for other in (run, at(50.0, 200.0, seed=1)):
        runs = [run, replace(other, targets=(np.nan, np.nan))]
        assert tables(equation_of_state(runs, same_temperature=0.0)) == ["eos"]


# ---------------------------------------------------------------- isochores


def at_volume(temperature, seed, volume=2.4, thermal=0.006, conserved=False):
    """An Einstein crystal whose pressure rises by `thermal` GPa/K."""
    run = canonical(100, temperature, 2000, seed, f"{temperature:g} K")
    pressure = 20.0 + thermal * temperature + 0.3 * np.random.default_rng(seed).normal(size=2000)
    energy = 3.0 * KB * temperature - run.kinetic if conserved else run.potential
    full = np.full(2000, volume)
    return replace(run, pressure=pressure, volume=full, potential=energy)


@pytest.mark.parametrize("conserved", [False, True], ids=["nvt", "nve"])
def test_runs_at_constant_volume_are_on_isochores(conserved):
    """C_V = 3 k_B by definition; pressures that differ by 0.3 GPa made an isobar of them."""
    runs = [at_volume(t, k, conserved=conserved) for k, t in enumerate((150.0, 200.0, 100.0))]
    runs.append(at_volume(175.0, 9, volume=2.4001, conserved=conserved))
    result = equation_of_state(runs)
    assert tables(result) == ["eos", "isochores"]
    eos, isochores = result.table("eos"), result.table("isochores")
    assert set(eos["ensemble"]) == {"nve" if conserved else "nvt"}
    assert np.isnan(eos["isobar_GPa"]).all()
    assert eos["isochore_A3_per_atom"] == pytest.approx([2.4, 2.4, 2.4, 2.4001], rel=1e-9)
    assert isochores["isochore_A3_per_atom"] == pytest.approx([2.4, 2.4])
    assert isochores["temperature_K"] == pytest.approx([125.0, 175.0], abs=1.0)
    for name, expected in (("heat_capacity_kB_per_atom", 3.0), ("pressure_slope_GPa_per_K", 6e-3)):
        errors = isochores[f"{name}_error"]
        assert (errors > 0).all() and (errors < 0.1 * expected).all()
        assert (abs(isochores[name] - expected) < 4 * errors).all()
    assert "2.4000 Å³/atom, about 125 K: (dE/dT)_V" in "\n".join(result.notes)
    # Nothing else is at the volume of the last.
    assert result.plot().axes[0].get_legend_handles_labels()[1] == ["2.4 Å³/atom"]


def test_the_enthalpies_of_a_table_have_the_errors_of_their_pressures():
    held, free = at(50.0, 200.0), at_volume(200.0, 1)
    errors = equation_of_state([held, free]).table("eos")["enthalpy_eV_per_atom_error"]
    # Pressures of 0.3 GPa and a heat capacity of 3 k_B of 100 atoms, in 2000 independent samples.
    expected = np.hypot(2.4 * units.GPa * 0.3, np.sqrt(3.0 / 100) * KB * 200.0) / np.sqrt(2000)
    assert errors[1] == pytest.approx(expected, rel=0.2)
    # A barostat's pressure is exact: sqrt(<H^2>) in 300.
    expected = np.sqrt(3.2 / 500) * KB * 200.0 / np.sqrt(300)
    assert errors[0] == pytest.approx(expected, rel=0.2)


# ---------------------------------------------------------------- isotherms


def volumes_at(pressures, parameters=HYDROGEN):
    """Volumes of Vinet's equation of state at pressures, by interpolation."""
    volumes = np.geomspace(1.0, parameters[0], 200_000)
    return np.interp(pressures, vinet(volumes, *parameters)[::-1], volumes[::-1])


def modulus_at(volume, parameters=HYDROGEN):
    step = 1e-4 * volume
    difference = vinet(volume + step, *parameters) - vinet(volume - step, *parameters)
    return -volume * difference / (2.0 * step)


def test_vinet_is_found_again():
    volume = np.linspace(2.0, 6.0, 9)
    fit = fit_vinet(volume, vinet(volume, *HYDROGEN))
    assert fit.zero == pytest.approx(HYDROGEN, rel=1e-3)
    assert fit.pressure == pytest.approx(vinet(fit.volume, *HYDROGEN), rel=1e-6)
    assert fit.modulus == pytest.approx(modulus_at(fit.volume), rel=1e-5)
    assert fit(volume) == pytest.approx(vinet(volume, *HYDROGEN), rel=1e-5)
    assert -volume * fit.slope(volume) == pytest.approx(modulus_at(volume), rel=1e-4)
    noise = np.random.default_rng(0).normal(size=9)
    sigma = 0.002 * vinet(volume, *HYDROGEN)
    fit = fit_vinet(volume, vinet(volume, *HYDROGEN) + sigma * noise, sigma)
    assert (abs(fit.zero - HYDROGEN) < 4 * fit.zero_errors).all()
    assert 0.01 < fit.probability < 0.99
    # Numbers of the seed's comparison: 25 GPa at 8.08 Å³ a molecule, 100 at 4.71.
    assert vinet([4.04, 2.355], *HYDROGEN) == pytest.approx([25.0, 100.0], rel=0.01)


@pytest.mark.parametrize(
    "pressures, error",
    [
        ((80, 90, 100, 110), 0.02),
        ((100, 105, 110, 115), 0.02),
        ((2, 2.8, 3.6, 4.4), 0.017),
        ((20, 40, 60, 80, 100, 120, 140), 0.05),
        ((0.0, 0.3, 0.5, 1, 2, 5, 10), 0.02),
    ],
)
def test_any_isotherm_has_a_bulk_modulus(pressures, error):
    """Exact pressures with errors as of runs: they always fit, and errors are the scatter."""
    pressures = np.array(pressures, dtype=float)
    volumes, rng = volumes_at(pressures), np.random.default_rng(1)
    sigma = np.full(len(pressures), error)
    fits = [fit_vinet(volumes, pressures + rng.normal(scale=sigma), sigma) for _ in range(100)]
    true = np.array([vinet(fits[0].volume, *HYDROGEN), modulus_at(fits[0].volume)])
    off = np.array([(np.array([fit.pressure, fit.modulus]) - true) / fit.errors for fit in fits])
    # The root of a mean of 100 squares is known to 7 %; limits of x leave less scatter.
    scatter = np.sqrt((off**2).mean(axis=0))
    assert (0.7 < scatter).all() and (scatter < 1.25).all()
    assert max(fit.errors[1] / fit.modulus for fit in fits) < 0.02
    # V0 is far off, or amid the data, where an unlucky few do not know it to a half.
    determined = [fit for fit in fits if np.isfinite(fit.zero).all()]
    wide = np.ptp(pressures) > 100 or pressures.min() == 0.0
    assert len(determined) > 90 if wide else not determined
    off = np.array([(fit.zero - HYDROGEN) / fit.zero_errors for fit in determined])
    assert len(off) == 0 or (np.sqrt((off**2).mean(axis=0)) < 1.25).all()


def test_what_is_not_known_to_a_half_is_not_determined():
    pressures, rng = np.array([50.0, 100.0, 150.0, 200.0]), np.random.default_rng(2)
    volumes, sigma = volumes_at(pressures), np.full(4, 0.05)
    fits = [fit_vinet(volumes, pressures + rng.normal(scale=sigma), sigma) for _ in range(100)]
    known = [fit for fit in fits if np.isfinite(fit.zero).all()]
    assert 5 < len(known) < 95
    assert all((fit.zero_errors < 0.5 * fit.zero).all() for fit in known)


def test_what_no_equation_of_state_fits():
    with pytest.raises(AnalysisError, match="the pressure does not fall with the volume"):
        fit_vinet([2.0, 2.1, 2.2, 2.3], [10.0, 11.0, 12.0, 13.0])
    with pytest.raises(AnalysisError, match="fewer than three pressures are above zero"):
        fit_vinet([10.0, 12.0, 14.0, 16.0], [0.2, 0.1, -0.1, -0.2])
    # Half of it is another phase, 3 % larger at the same pressures.
    pressures = np.array([40.0, 60.0, 80.0, 100.0, 120.0, 140.0])
    volumes = volumes_at(pressures) * np.repeat([1.03, 1.0], 3)
    assert fit_vinet(volumes, pressures, np.full(6, 0.05)).probability < 1e-9


def isotherm(pressures, temperature=300.0, phase="hcp", parameters=HYDROGEN, samples=200):
    """Runs at pressures, of volumes that fluctuate as little as theirs of a few hundred atoms."""
    runs = []
    for k, (pressure, volume) in enumerate(
        zip(pressures, volumes_at(pressures, parameters), strict=True)
    ):
        rng = np.random.default_rng([k, int(temperature)])
        run = canonical(100, temperature, samples, k)
        name = f"{phase}-{pressure:g}GPa"
        runs.append(
            replace(
                run,
                name=name,
                phase=phase,
                targets=(temperature, pressure),
                pressure=pressure + 0.3 * rng.normal(size=samples),
                volume=volume * (1.0 + 2e-3 * rng.normal(size=samples)),
            )
        )
    return runs


def test_an_isotherm_is_fitted():
    pressures = (80.0, 90.0, 100.0, 110.0)
    result = equation_of_state(isotherm(pressures))
    fitted = result.table("isotherms")
    (volume,) = fitted["volume_A3_per_atom"]
    for name, true in (
        ("bulk_modulus_GPa", modulus_at(volume)),
        ("pressure_GPa", vinet(volume, *HYDROGEN)),
    ):
        assert abs(fitted[name] - true) < 4 * fitted[f"{name}_error"]
    # Volumes known to 2e-3 / sqrt(200) of themselves count B times that in the pressure, beside
    # 0.3 GPa / sqrt(200); a parabola through four even points knows its middle to 0.8 of that.
    expected = 0.8 * np.hypot(2e-3 * modulus_at(volume), 0.3) / np.sqrt(200)
    assert fitted["pressure_GPa_error"] == pytest.approx(expected, rel=0.25)
    assert np.isnan(fitted["V0_A3_per_atom"]).all()
    assert "300 K, hcp: V0, K0 and K0' are not determined by pressures from 80 to 110" in "".join(
        result.notes
    )
    assert [q.name for q in result.quantities] == [
        f"P at {volume:.4f} Å³/atom, 300 K, hcp",
        f"B at {volume:.4f} Å³/atom, 300 K, hcp",
    ]
    assert result.quantities[1].value == fitted["bulk_modulus_GPa"][0]
    wide = equation_of_state(isotherm((1.0, 5.0, 20.0, 60.0, 100.0, 140.0)))
    for name, value in zip(("V0", "K0", "K0'"), HYDROGEN, strict=True):
        quantity = wide[f"{name} (Vinet), 300 K, hcp"]
        assert abs(quantity.value - value) < 4 * quantity.error


def test_the_isotherms_of_two_phases_are_two():
    pressures, larger = (40.0, 60.0, 80.0, 100.0), (1.05 * HYDROGEN[0], *HYDROGEN[1:])
    runs = isotherm(pressures) + isotherm(pressures, phase="liquid", parameters=larger)
    result = equation_of_state(runs)
    fitted = result.table("isotherms")
    assert fitted["phase"].tolist() == ["hcp", "liquid"]
    assert fitted["bulk_modulus_GPa"][1] == pytest.approx(fitted["bulk_modulus_GPa"][0], rel=0.01)
    labels = result.plot().axes[1].get_legend_handles_labels()[1]
    assert {"hcp", "liquid", "Vinet, 300 K, hcp", "Vinet, 300 K, liquid"} == set(labels)
    assert not any("misses" in note for note in result.notes)
    mixed = equation_of_state([replace(run, phase="") for run in runs])
    assert any("300 K: Vinet's equation of state misses" in note for note in mixed.notes)


def test_an_isotherm_that_nothing_fits_is_a_note(tmp_path):
    runs = isotherm((80.0, 90.0, 100.0, 110.0))
    shuffled = [
        replace(run, volume=other.volume) for run, other in zip(runs, runs[::-1], strict=True)
    ]
    result = equation_of_state(shuffled + isotherm((40.0, 60.0, 80.0, 100.0), 600.0))
    assert len(result.table("eos")["run"]) == 8
    assert result.table("isotherms")["temperature_K"].tolist() == [600.0]
    assert (
        "300 K, hcp: Vinet's equation of state does not fit: the pressure does not fall with the "
        "volume."
    ) in result.notes
    assert len(result.save(tmp_path)) == 5


def test_runs_of_one_state_are_no_isotherm():
    runs = [at(100.0, 300.0, "hcp", k) for k in range(5)]
    # Nor where the pressures are means.
    unasked = [replace(run, targets=(np.nan, np.nan)) for run in runs]
    for result in (equation_of_state(runs), equation_of_state(unasked)):
        assert tables(result) == ["eos"]
        assert len(result.notes) == 5  # one each


def test_an_isotherm_at_constant_volumes():
    runs = []
    for k, volume in enumerate((2.0, 2.4, 3.0, 4.0, 5.0)):
        run = canonical(50, 300.0, 100, k, f"{volume} Å³")
        pressure = vinet(volume, *HYDROGEN) + 0.01 * np.random.default_rng(k).normal(size=100)
        full = np.full(100, volume)
        runs.append(
            StateSamples(
                run.name, 50, 1.008, run.temperature, pressure, full, run.potential, run.kinetic
            )
        )
    result = equation_of_state(runs, same_temperature=30.0)
    for name, value in zip(("V0", "K0", "K0'"), HYDROGEN, strict=True):
        (quantity,) = (q for q in result.quantities if q.name.startswith(f"{name} (Vinet), "))
        assert abs(quantity.value - value) < 4 * quantity.error
    assert tables(result) == ["eos", "isotherms"]
    assert result.plot() is not None


# ---------------------------------------------------------------- what it says and refuses


def test_an_assumed_mass_is_said():
    runs = [replace(at(50.0, 200.0, "hcp", k), mass_assumed=k > 0) for k in range(7)]
    note = equation_of_state(runs).notes[-1]
    assert note.startswith("The mass of hydrogen is assumed") and note.endswith("and 2 more.")
    assert not any("mass" in note for note in equation_of_state(runs[:1]).notes)


def test_no_runs_and_no_volume():
    with pytest.raises(TooFewFramesError, match="no run"):
        equation_of_state([])
    run = canonical(50, 300.0, 50, 0)
    run.volume[:] = np.nan
    with pytest.raises(AnalysisError, match="run has samples without volume or pressure"):
        equation_of_state([run])


# ---------------------------------------------------------------- the command


def eos(*arguments):
    result = CliRunner().invoke(main, ["analyse", "eos", *(str(a) for a in arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_sweep_of_two_phases(tmp_path):
    """Phases are a column of the table; a point that failed is no part of it."""
    for phase in ("hcp", "liquid"):
        for temperature in (100, 200):
            folder = write_point(tmp_path / "sweep", f"{phase}-50GPa-{temperature}K")
            write_log(folder / "log.csv", [float(temperature)], target_GPa=50.0)
    write_point(tmp_path / "sweep", "hcp-50GPa-300K", "failed", reason="It exploded.")
    output = eos(tmp_path / "sweep", "-o", tmp_path / "out")
    assert "hcp-50GPa-300K is left out: it failed (It exploded)." in output
    assert "hcp-50GPa-300K: " not in output
    with (tmp_path / "out" / "eos.csv").open(encoding="utf-8") as stream:
        assert [row["phase"] for row in csv.DictReader(stream)] == ["hcp"] * 2 + ["liquid"] * 2
    record = json.loads((tmp_path / "out" / "eos.json").read_text())
    assert record["tables"]["isobars"]["phase"] == ["hcp", "liquid"]
    assert record["tables"]["isobars"]["isobar_GPa"] == [50.0, 50.0]
    assert len(record["inputs"]["logs"]) == 4


def test_trajectories_and_the_tables_of_their_analysis(tmp_path):
    write(tmp_path / "d2.traj", list(deuterium(40)))
    path, out = tmp_path / "d2.traj", tmp_path / "out"
    thermo = ["analyse", "thermo", str(path), "-o", str(tmp_path / "cold")]
    assert CliRunner().invoke(main, thermo).exit_code == 0
    write(tmp_path / "hot.extxyz", list(deuterium(40, temperature=600.0, seed=3)))
    output = eos(tmp_path / "cold" / "thermo.csv", path, tmp_path / "hot.extxyz", "-o", out)
    record = json.loads((out / "eos.json").read_text())
    table = record["tables"]["eos"]
    assert table["run"] == ["cold", "d2", "hot"]
    # 2.014 u in 3 Å³.
    assert table["density_g_per_cm3"] == pytest.approx([2.014 / 3.0 * 1.66054] * 3, rel=1e-4)
    assert table["temperature_K"][0] == pytest.approx(table["temperature_K"][1])
    # The three are at one volume: 3 k_B, as of any Einstein crystal, of 32 atoms.
    (capacity,) = record["tables"]["isochores"]["heat_capacity_kB_per_atom"]
    (error,) = record["tables"]["isochores"]["heat_capacity_kB_per_atom_error"]
    assert abs(capacity - 3.0) < 4 * error and error < 0.3
    assert [len(record["inputs"][kind]) for kind in ("logs", "trajectories")] == [1, 2]
    assert "mass of hydrogen" not in output
