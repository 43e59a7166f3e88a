"""Heat capacity, expansion and compressibility where they are known; runs read from files."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from toy_models import hcp

from ase_hmlp.analysis.run_logs import find_logs, phase_of, read_runs, read_states, read_trajectory
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.thermodynamics import (
    StateSamples,
    Thermodynamics,
    fluctuations,
    quantities,
)
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import (
    AnalysisError,
    MissingResultsError,
    MissingVelocitiesError,
    TooFewFramesError,
    TrajectoryError,
)
from ase_hmlp.simulate.run_config import RunConfig
from ase_hmlp.simulate.run_folder import RunFolder
from ase_hmlp.simulate.sweep import point_name

KB = units.kB


def canonical(n_atoms, temperature, samples, seed, name="run"):
    """An Einstein crystal at constant volume: 3 N harmonic oscillators, C_V = 3 k_B per atom."""
    rng = np.random.default_rng(seed)
    # 3 N squares of standard normal deviates, twice.
    kinetic, potential = 0.5 * KB * temperature * rng.chisquare(3 * n_atoms, (2, samples))
    return StateSamples(
        name,
        n_atoms,
        1.008,
        2.0 * kinetic / (3 * n_atoms * KB),
        np.zeros(samples),
        np.full(samples, 2.4),
        potential / n_atoms,
        kinetic / n_atoms,
    )


def isobaric(
    temperature, pressure, samples, seed, n_atoms=500, capacity=3.2, alpha=2e-4, kappa=4e-3
):
    """Enthalpy and volume of known covariance; V = 2.4 (1 + alpha T - kappa P), H linear in T."""
    rng = np.random.default_rng(seed)
    volume = 2.4 * (1.0 + alpha * temperature - kappa * pressure)
    hh = capacity * KB * KB * temperature**2 / n_atoms
    hv = alpha * KB * temperature**2 * volume / n_atoms
    vv = kappa / units.GPa * KB * temperature * volume / n_atoms
    mean = [-15.0 + capacity * KB * temperature, volume]
    h, v = rng.multivariate_normal(mean, [[hh, hv], [hv, vv]], samples).T
    kinetic = 1.5 * KB * temperature * rng.chisquare(3 * n_atoms, samples) / (3 * n_atoms)
    return StateSamples(
        f"{temperature:g} K",
        n_atoms,
        1.008,
        kinetic / (1.5 * KB),
        pressure + 0.5 * rng.normal(size=samples),
        v,
        h - kinetic - pressure * units.GPa * v,
        kinetic,
    )


def agrees(estimate, value, sigmas=4.0):
    assert 0.0 < estimate.error < 0.2 * abs(value)
    assert abs(estimate.value - value) < sigmas * estimate.error


# ---------------------------------------------------------------- fluctuations


def test_einstein_crystal_at_constant_volume():
    found = fluctuations(canonical(50, 300.0, 4000, 1), 0.0)
    assert found.ensemble == "nvt"
    agrees(found.heat_capacity, 3.0)
    # Relative spread of a variance of n normal deviates: sqrt(2 / n).
    assert found.heat_capacity.error == pytest.approx(3.0 * np.sqrt(2 / 4000), rel=0.5)


def test_einstein_crystal_at_constant_energy():
    """Kinetic energy is a Beta(3N/2, 3N/2) share of the total one (uniform on the energy shell)."""
    rng, n, temperature = np.random.default_rng(2), 50, 300.0
    total = 3.0 * KB * temperature
    kinetic = total * rng.beta(1.5 * n, 1.5 * n, 4000)
    samples = StateSamples(
        "run",
        n,
        1.008,
        kinetic / (1.5 * KB),
        np.zeros(4000),
        np.full(4000, 2.4),
        total - kinetic,
        kinetic,
    )
    found = fluctuations(samples, 0.0)
    assert found.ensemble == "nve"
    # Exact for 3 N degrees of freedom up to 1 / N.
    assert 0.0 < found.heat_capacity.error < 0.3
    assert found.heat_capacity.value == pytest.approx(3.0, abs=4 * found.heat_capacity.error + 0.06)


def test_constant_pressure():
    found = fluctuations(isobaric(200.0, 50.0, 6000, 3), 50.0)
    assert found.ensemble == "npt"
    agrees(found.heat_capacity, 3.2)
    agrees(found.expansion, 2e-4)
    agrees(found.compressibility, 4e-3)


def test_correlated_samples_are_not_biased():
    """A short run of correlated samples: the plain variance would be too small by g / n = 10 %."""
    rng, memory, n, atoms = np.random.default_rng(4), 0.9, 190, 50
    capacity = []
    for _ in range(60):
        noise = rng.normal(size=n) * np.sqrt(1 - memory**2)
        x = np.empty(n)
        x[0] = rng.normal()
        for k in range(1, n):
            x[k] = memory * x[k - 1] + noise[k]
        # Potential of variance 3 k^2 T^2 / N per atom at 100 K, nothing kinetic.
        energy = KB * 100.0 * np.sqrt(3.0 / atoms) * x
        samples = StateSamples(
            "run", atoms, 1.0, np.full(n, 100.0), np.zeros(n), np.full(n, 2.0), energy, 0.0 * energy
        )
        capacity.append(fluctuations(samples, 0.0, "nvt").heat_capacity.value)
    known = np.isfinite(capacity)
    assert known.mean() > 0.8
    mean, error = np.nanmean(capacity), np.nanstd(capacity) / np.sqrt(known.sum())
    # Runs that look uncorrelated enough to be kept are those of smaller variance: a few per cent.
    assert abs(mean - 3.0) < 3 * error + 0.15


def test_a_drift_has_no_heat_capacity():
    samples = canonical(50, 300.0, 200, 5)
    heating = np.linspace(0.0, 5.0, 200) * KB * 300.0
    drifting = StateSamples(
        "heating",
        50,
        1.008,
        samples.temperature,
        samples.pressure,
        samples.volume,
        samples.potential + heating,
        samples.kinetic,
    )
    assert np.isnan(fluctuations(drifting, 0.0).heat_capacity.value)


def test_the_wrong_ensemble_is_refused():
    constant, varying = canonical(50, 300.0, 50, 6), isobaric(200.0, 50.0, 50, 7)
    with pytest.raises(AnalysisError, match=r"run: the volume is constant, which is not npt\."):
        fluctuations(constant, 0.0, "npt")
    with pytest.raises(AnalysisError, match=r"200 K: the volume varies, which is not nvt\."):
        fluctuations(varying, 50.0, "nvt")
    with pytest.raises(AnalysisError, match="An ensemble is one of auto, nve, nvt, npt, not 'nph'"):
        fluctuations(varying, 50.0, "nph")
    with pytest.raises(AnalysisError, match="not 'nph'"):
        Thermodynamics(ensemble="nph")


def enthalpies(runs, pressure=None):
    """Enthalpies of runs, and their errors."""
    found = [{q.name: q for q in quantities(run, pressure, "auto")}["enthalpy"] for run in runs]
    return np.array([q.value for q in found]), np.array([q.error for q in found])


def test_the_error_of_an_enthalpy_is_its_scatter_at_constant_volume():
    """The mean pressure is as uncertain as it is: by far the most of P V."""
    runs = []
    for seed in range(80):
        run = canonical(64, 300.0, 200, seed)
        pressure = 50.0 + np.random.default_rng([1, seed]).normal(size=200)
        runs.append(replace(run, pressure=pressure))
    values, errors = enthalpies(runs)
    # 80 values know their scatter to 8 %, and an error is known to some 10 % in each run.
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    assert errors.mean() == pytest.approx(2.4 * units.GPa / np.sqrt(200), rel=0.2)
    mean = np.mean([run.energy.mean() + 2.4 * units.GPa * run.pressure.mean() for run in runs])
    assert values.mean() == pytest.approx(mean)
    # At a pressure that is given, that of the energy is left.
    _, exact = enthalpies(runs, 50.0)
    assert exact.mean() < 0.5 * errors.mean()


def test_the_error_of_an_enthalpy_is_its_scatter_where_the_volume_varies():
    runs = [isobaric(200.0, 50.0, 200, seed) for seed in range(80)]
    values, errors = enthalpies(runs)
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    # The mean is that at the mean pressure: the covariance of P and V is not in it.
    run = runs[0]
    work = run.pressure.mean() * units.GPa * run.volume.mean()
    assert values[0] == pytest.approx(run.energy.mean() + work, abs=1e-9)


# ---------------------------------------------------------------- from trajectories


def einstein_frames(frames, temperature=300.0, seed=8, stress=True, energy=True, momenta=True):
    """Independent samples of an Einstein crystal of 32 atoms, as ASE would store them."""
    rng = np.random.default_rng(seed)
    crystal = hcp(3.0, (2, 2, 2))
    spring = 5.0  # eV/Å²
    for _ in range(frames):
        atoms = crystal.copy()
        shift = np.sqrt(KB * temperature / spring) * rng.normal(size=(len(atoms), 3))
        atoms.positions += shift
        if momenta:
            spread = np.sqrt(atoms.get_masses() * KB * temperature)
            atoms.set_momenta(spread[:, None] * rng.normal(size=(len(atoms), 3)))
        results = {}
        if energy:
            results["energy"] = 0.5 * spring * (shift**2).sum()
        if stress:
            results["stress"] = -0.2 * np.array([1, 1, 1, 0, 0, 0.0])
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms


def thermo_of(frames, **settings):
    trajectory = Trajectory(frames, molecular=False, timestep=10.0)
    return analyse(trajectory, [Thermodynamics(**settings)])[0]


def test_einstein_crystal_frame_by_frame():
    result = thermo_of(einstein_frames(800))
    capacity = result["C_V, fluctuations"]
    agrees(capacity, 3.0)
    assert capacity.unit == "k_B/atom"
    # Per mole of H2, two atoms: 2 R for each k_B per atom.
    assert result["C_V, molar"].unit == "J/(K mol H2)"
    molar = result["C_V, molar"].value / capacity.value
    assert molar == pytest.approx(2 * 8.31446, rel=1e-5)
    agrees(result["temperature"], 300.0)
    agrees(result["energy"], 3.0 * KB * 300.0)
    assert result["volume"].value == pytest.approx(3.0)
    # 1.008 u in 3 Å³: 1.66054 g/cm³ for each u/Å³.
    assert result["density"].value == pytest.approx(1.008 / 3.0 * 1.66054, rel=1e-5)
    # Virial part 0.2 eV/Å³, kinetic part N k T / V.
    expected = (0.2 + KB * result["temperature"].value / 3.0) / units.GPa
    assert result["pressure"].value == pytest.approx(expected)
    enthalpy = result["energy"].value + result["pressure"].value * units.GPa * 3.0
    assert result["enthalpy"].value == pytest.approx(enthalpy)
    assert result.table("thermo")["time_ps"][3] == pytest.approx(0.03)


def test_pressure_agrees_with_ase():
    (atoms,) = einstein_frames(1)
    (second,) = einstein_frames(1, seed=9)
    series = thermo_of([atoms, second]).table("thermo")
    stress = atoms.get_stress(include_ideal_gas=True)
    assert series["pressure_GPa"][0] == pytest.approx(-stress[:3].mean() / units.GPa)
    assert series["temperature_K"][0] == pytest.approx(atoms.get_temperature())


def test_without_stress_there_is_no_pressure():
    result = thermo_of(einstein_frames(50, stress=False))
    assert "pressure" not in [q.name for q in result.quantities]
    assert "enthalpy" not in [q.name for q in result.quantities]
    enthalpy = thermo_of(einstein_frames(50, stress=False), pressure=100.0)["enthalpy"].value
    assert enthalpy == pytest.approx(result["energy"].value + 100 * units.GPa * 3.0)


def breathing(frames):
    for k, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell * (1 + 1e-3 * np.sin(2.3 * k)), scale_atoms=True)
        yield atoms


def test_what_cannot_be_computed():
    with pytest.raises(MissingResultsError, match=r"Frame 0 .* stored without its energy"):
        thermo_of(einstein_frames(5, energy=False))
    with pytest.raises(MissingVelocitiesError, match="which the kinetic energy needs"):
        thermo_of(einstein_frames(5, momenta=False))
    with pytest.raises(
        MissingResultsError, match="its volume varies: give the pressure of the baro"
    ):
        thermo_of(breathing(einstein_frames(20, stress=False)))
    zeros = list(einstein_frames(5))
    for atoms in zeros:
        atoms.calc.results["energy"] = 0.0
    with pytest.raises(MissingResultsError, match="without energies: they are all exactly zero"):
        thermo_of(zeros)
    with pytest.raises(TooFewFramesError, match="thermo needs at least 2"):
        thermo_of(einstein_frames(1))


def test_a_cluster_has_energies_and_a_heat_capacity():
    frames = list(einstein_frames(60))
    for atoms in frames:
        results = {"energy": atoms.get_potential_energy()}
        atoms.pbc = False
        atoms.calc = SinglePointCalculator(atoms, **results)
    result = thermo_of(frames)
    assert [q.name for q in result.quantities][:2] == ["temperature", "energy"]
    assert result["C_V, fluctuations"].value == pytest.approx(3.0, rel=0.5)


# ---------------------------------------------------------------- logs


def write_log(path, targets, rows=40, drop=(), **extra):
    """A log with `rows` samples at each target temperature."""
    rng = np.random.default_rng(1)
    names = ["step", "target_K", "temperature_K", "pressure_GPa", "volume_A3_per_atom"]
    names += ["potential_eV_per_atom", "kinetic_eV_per_atom", *extra]
    names = [n for n in names if n not in drop]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, extrasaction="ignore")
        writer.writeheader()
        for k, target in enumerate(np.repeat(targets, rows)):
            temperature = target * (1 + 0.02 * rng.normal())
            row = {
                "step": 10 * k,
                "target_K": target,
                "temperature_K": temperature,
                "pressure_GPa": 50 + rng.normal(),
                "volume_A3_per_atom": 2.4 + 0.01 * rng.normal(),
                "potential_eV_per_atom": -15.0 + 1.5 * KB * temperature,
                "kinetic_eV_per_atom": 1.5 * KB * temperature,
            }
            writer.writerow(row | extra)


def test_stretches_of_a_log(tmp_path):
    path = tmp_path / "log.csv"
    write_log(path, [100.0, 150.0, 200.0], atoms=64)
    states = read_states(path)
    assert [s.name for s in states] == [f"{tmp_path.name} at {t} K" for t in (100, 150, 200)]
    assert [len(s) for s in states] == [30, 30, 30]
    assert {s.n_atoms for s in states} == {64}
    for state, target in zip(states, (100.0, 150.0, 200.0), strict=True):
        assert state.temperature.mean() == pytest.approx(target, rel=0.02)
    assert read_states(tmp_path)[1].volume == pytest.approx(states[1].volume)
    assert len(read_states(path, settling=0.0)[0]) == 40
    assert read_states(path, atoms=12, mass=2.014)[0].n_atoms == 12


def test_the_number_of_atoms_of_a_run_may_be_in_its_summary(tmp_path):
    write_log(tmp_path / "log.csv", [100.0])
    with pytest.raises(TrajectoryError, match=r"does not say of how many atoms.*give them\."):
        read_states(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"atoms": 128}))
    assert read_states(tmp_path)[0].n_atoms == 128


def test_half_a_row_of_a_killed_run_is_left_out(tmp_path):
    path = tmp_path / "log.csv"
    write_log(path, [100.0])
    text = path.read_text()
    path.write_text(text[: text.rstrip().rindex(",") - 3])
    assert len(read_states(path, atoms=8, settling=0.0)[0]) == 39


def test_what_is_no_log(tmp_path):
    with pytest.raises(TrajectoryError, match=r"There is no log .*nowhere\.csv"):
        read_states(tmp_path / "nowhere.csv")
    with pytest.raises(TrajectoryError, match=r"There is no log .*log\.csv"):
        read_states(tmp_path)
    (tmp_path / "thesis.csv").write_text("years,of\nwork,1\n")
    with pytest.raises(TrajectoryError, match="it has no column temperature_K"):
        read_states(tmp_path / "thesis.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(TrajectoryError, match=r"picture\.csv is no log"):
        read_states(tmp_path / "picture.csv")
    write_log(tmp_path / "words.csv", [100.0], atoms="many")
    with pytest.raises(TrajectoryError, match=r"words\.csv is no log of a run: could not convert"):
        read_states(tmp_path / "words.csv")
    write_log(tmp_path / "short.csv", [100.0], rows=19, atoms=8)
    with pytest.raises(TooFewFramesError, match="no 20 samples at one target temperature"):
        read_states(tmp_path / "short.csv")
    with pytest.raises(TrajectoryError, match="from 0 to below 1, not 1"):
        read_states(tmp_path / "short.csv", settling=1.0)


def test_atoms_of_any_element_have_a_density():
    atoms = Atoms("Ar4", np.eye(4, 3), cell=[5, 5, 5], pbc=True)
    frames, rng = [], np.random.default_rng(0)
    for _ in range(50):
        frames.append(atoms.copy())
        frames[-1].set_momenta(rng.normal(size=(4, 3)))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=rng.normal())
    result = thermo_of(frames)
    assert result["density"].value == pytest.approx(4 * 39.948 / 125 * 1.66054, rel=1e-4)
    # Per mole of atoms: R for each k_B per atom.
    assert result["C_V, molar"].unit == "J/(K mol atoms)"
    molar = result["C_V, molar"].value / result["C_V, fluctuations"].value
    assert molar == pytest.approx(8.31446, rel=1e-5)


def deuterium(frames, **settings):
    """Frames of D₂."""
    for atoms in einstein_frames(frames, **settings):
        results = dict(atoms.calc.results)
        velocities = atoms.get_velocities()
        atoms.set_masses(np.full(len(atoms), 2.014))
        atoms.set_velocities(velocities / np.sqrt(2.014 / 1.008))
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms


def test_a_table_of_an_analysis_says_of_what_it_is(tmp_path):
    """``thermo.csv`` was read as one of hydrogen, and of an unknown number of atoms."""
    result = thermo_of(deuterium(40))
    result.save(tmp_path / "d2")
    (state,) = read_states(tmp_path / "d2" / "thermo.csv", settling=0.0)
    assert (state.name, state.n_atoms, state.mass_assumed) == ("d2", 32, False)
    assert state.density.mean() == pytest.approx(result["density"].value)
    assert state.mass == pytest.approx(2.014)
    assert "atoms" not in [axis.get_ylabel() for axis in result.plot().axes]


def test_a_trajectory_is_a_state(tmp_path):
    path = tmp_path / "d2.extxyz"
    write(path, list(deuterium(40)))
    state = read_trajectory(path)
    assert (state.name, state.n_atoms, len(state)) == ("d2", 32, 30)
    assert state.mass == pytest.approx(2.014) and not state.mass_assumed
    series = thermo_of(deuterium(40)).table("thermo")
    for name, values in (
        ("temperature_K", state.temperature),
        ("pressure_GPa", state.pressure),
        ("volume_A3_per_atom", state.volume),
        ("potential_eV_per_atom", state.potential),
        ("kinetic_eV_per_atom", state.kinetic),
    ):
        assert values == pytest.approx(series[name][10:], rel=1e-5)
    assert read_trajectory(path, mass=1.008).density == pytest.approx(0.5 * state.density, rel=1e-2)
    write(tmp_path / "short.extxyz", list(deuterium(19)))
    with pytest.raises(TooFewFramesError, match=r"short\.extxyz has no 20 frames"):
        read_trajectory(tmp_path / "short.extxyz")
    with pytest.raises(TrajectoryError, match="from 0 to below 1, not 1"):
        read_trajectory(path, settling=1.0)


# ---------------------------------------------------------------- folders of runs and sweeps


def write_point(sweep, name, status="finished", structure=None, **summary):
    """A point of a sweep, as `hmlp run` leaves it; without a status, one that has not ended."""
    folder = sweep / "points" / name
    folder.mkdir(parents=True)
    write_log(folder / "log.csv", [100.0], atoms=64)
    record = {"config": {"structure": structure}}
    (folder / "run.json").write_text(json.dumps({"record": record, "sessions": []}))
    if status:
        text = json.dumps({"status": status, "atoms": 64, **summary})
        (folder / "summary.json").write_text(text)
    return folder


def test_runs_that_failed_or_have_not_ended_are_left_out(tmp_path):
    write_point(tmp_path, "hcp-50GPa-100K")
    write_point(tmp_path, "hcp-60GPa-100K", "failed", reason="Bond 3 broke.")
    going_on = write_point(tmp_path, "hcp-70GPa-100K", "")
    (tmp_path / "points" / "hcp-80GPa-100K").mkdir()
    logs, left_out = find_logs(tmp_path)
    assert [log.parent.name for log in logs] == ["hcp-50GPa-100K"]
    log = going_on / "log.csv"
    assert left_out == [
        "hcp-60GPa-100K is left out: it failed (Bond 3 broke).",
        f"hcp-70GPa-100K is left out: it has not ended ({log} can be given itself).",
        "hcp-80GPa-100K is left out: it has no log.csv.",
    ]
    read = read_runs([tmp_path, log])
    assert [state.name for state in read.states] == ["hcp-50GPa-100K", "hcp-70GPa-100K"]
    assert read.notes == left_out
    assert read.logs == [*logs, log] and not read.trajectories
    with pytest.raises(TooFewFramesError, match="hcp-70GPa-100K is left out: it has not ended"):
        read_runs([going_on])


def test_a_short_run_does_not_take_the_others_with_it(tmp_path):
    write_log(tmp_path / "long.csv", [100.0], atoms=8)
    write_log(tmp_path / "short.csv", [100.0], rows=19, atoms=8)
    read = read_runs([tmp_path / "short.csv", tmp_path / "long.csv"])
    assert [state.name for state in read.states] == ["long"]
    assert len(read.notes) == 1 and "short.csv has no 20 samples" in read.notes[0]


def test_the_phase_of_a_run(tmp_path):
    """Of a point, that of the grid: a run of another phase's structure may be another phase."""
    for name, structure, phase in (
        ("P63m-16-100GPa-300K", {"phase": "P63m-16"}, "P63m-16"),
        ("cooled--0.5GPa-1e+03K", {"phase": "hcp"}, "cooled"),
        ("hcp-nve-20GPa-300K", {"phase": None, "file": "a.extxyz"}, "hcp-nve"),
        ("mine", {"phase": "liquid"}, "liquid"),
        ("file", {"phase": None, "file": "a.extxyz"}, ""),
        ("atoms", None, ""),
    ):
        folder = write_point(tmp_path, name, structure=structure)
        assert phase_of(folder / "log.csv") == phase
        assert read_states(folder)[0].phase == phase
    # As `hmlp run` and `hmlp sweep` write them.
    config = RunConfig(structure={"phase": "P21c-24-a"}, stage=[{"ensemble": "nve", "steps": 1}])
    RunFolder(tmp_path / "run", {"config": config.record}).begin_session({})
    assert phase_of(tmp_path / "run" / "log.csv") == "P21c-24-a"
    for pressure, temperature in ((-0.5, 300.0), (1e-5, 0.1), (123.4, 1e7)):
        name = point_name("P63m-16", pressure, temperature)
        assert phase_of(tmp_path / "points" / name / "log.csv") == "P63m-16"
    (tmp_path / "elsewhere-1GPa-1K").mkdir()
    assert phase_of(tmp_path / "elsewhere-1GPa-1K" / "log.csv") == ""


def test_a_mass_that_nothing_says_is_assumed(tmp_path):
    write_log(tmp_path / "bare.csv", [100.0], atoms=8)
    write_log(tmp_path / "dense.csv", [100.0], atoms=8, density_g_per_cm3=1.39)
    assert read_states(tmp_path / "bare.csv")[0].mass_assumed
    assert read_states(tmp_path / "bare.csv")[0].mass == pytest.approx(1.008)
    assert not read_states(tmp_path / "bare.csv", mass=2.014)[0].mass_assumed
    (dense,) = read_states(tmp_path / "dense.csv")
    assert not dense.mass_assumed and dense.mass == pytest.approx(2.014, rel=0.01)
