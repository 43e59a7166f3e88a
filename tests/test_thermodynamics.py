"""Heat capacity, expansion, compressibility and equations of state where they are known."""

import csv
import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from toy_models import hcp

from ase_hmlp.analysis.equation_of_state import equation_of_state, fit_vinet, groups, slope, vinet
from ase_hmlp.analysis.run_logs import read_states
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.thermodynamics import StateSamples, Thermodynamics, fluctuations
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import (
    AnalysisError,
    MissingResultsError,
    MissingVelocitiesError,
    TooFewFramesError,
    TrajectoryError,
)

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


# ---------------------------------------------------------------- several runs


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
    assert result.plot() is not None


def test_the_error_of_a_slope_is_its_scatter():
    slopes, errors = zip(
        *(
            slope(a, b, (a.enthalpy(50.0), b.enthalpy(50.0)))
            for a, b in (
                (isobaric(150.0, 50.0, 200, 2 * k), isobaric(200.0, 50.0, 200, 2 * k + 1))
                for k in range(80)
            )
        ),
        strict=True,
    )
    # 80 slopes know their scatter to 8 %.
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.25)


def test_vinet_is_found_again():
    """Loubeyre's hydrogen, per atom: V0 25.433 cm³/mol H2, K0 0.162 GPa, K0' 6.813."""
    true = (25.433 / 6.02214 * 10 / 2, 0.162, 6.813)
    volume = np.linspace(2.0, 6.0, 9)
    found, errors = fit_vinet(volume, vinet(volume, *true))
    assert found == pytest.approx(true, rel=1e-3)
    noise = np.random.default_rng(0).normal(size=9)
    sigma = 0.01 * vinet(volume, *true)
    found, errors = fit_vinet(volume, vinet(volume, *true) + sigma * noise, sigma)
    assert (abs(found - true) < 4 * errors).all()
    # Numbers of the seed's comparison: 25 GPa at 8.08 Å³ a molecule, 100 at 4.71.
    assert vinet([4.04, 2.355], *true) == pytest.approx([25.0, 100.0], rel=0.01)


def test_an_isotherm_is_fitted():
    true = (20.0, 0.2, 6.8)
    runs = []
    for k, volume in enumerate((2.0, 2.4, 3.0, 4.0, 5.0)):
        run = canonical(50, 300.0, 100, k, f"{volume} Å³")
        pressure = vinet(volume, *true) + 0.01 * np.random.default_rng(k).normal(size=100)
        full = np.full(100, volume)
        runs.append(
            StateSamples(
                run.name, 50, 1.008, run.temperature, pressure, full, run.potential, run.kinetic
            )
        )
    result = equation_of_state(runs, same_temperature=30.0)
    for name, value in zip(("V0", "K0", "K0'"), true, strict=True):
        (quantity,) = (q for q in result.quantities if q.name.startswith(f"{name} (Vinet), "))
        assert abs(quantity.value - value) < 4 * quantity.error
    assert "isobars" not in [t.name for t in result.tables]
    assert result.plot() is not None


def test_groups():
    found = groups(np.array([100.4, 20.0, 99.8, 60.0, 20.9]), 1.0)
    assert [sorted(g.tolist()) for g in found] == [[1, 4], [3], [0, 2]]


def test_no_runs_and_no_volume():
    with pytest.raises(TooFewFramesError, match="no run"):
        equation_of_state([])
    run = canonical(50, 300.0, 50, 0)
    run.volume[:] = np.nan
    with pytest.raises(AnalysisError, match="run has samples without volume or pressure"):
        equation_of_state([run])


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
    frames = []
    for k in range(10):
        frames.append(atoms.copy())
        frames[-1].set_momenta(np.random.default_rng(k).normal(size=(4, 3)))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=0.1 * k)
    density = thermo_of(frames)["density"].value
    assert density == pytest.approx(4 * 39.948 / 125 * 1.66054, rel=1e-4)
