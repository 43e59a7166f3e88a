"""Structures, supercells, relaxation, averages and constant-pressure dynamics."""

import numpy as np
import pytest
from ase import units
from ase.io import read
from ase.stress import full_3x3_to_voigt_6_stress
from toy_models import hcp, pa3, toy_potential

from ase_hmlp import HMLP
from ase_hmlp.errors import ContactError, NotConvergedError
from ase_hmlp.model_io import Domain, Model, load_model
from ase_hmlp.molecules import find_molecules
from ase_hmlp.simulate import demo, figures, structures
from ase_hmlp.simulate.averages import block_average, drift
from ase_hmlp.simulate.build import phase, supercell, thickness
from ase_hmlp.simulate.npt import NPTRun, NPTSettings, read_log, settled
from ase_hmlp.simulate.relax import relax, residuals


@pytest.fixture(scope="module")
def model():
    domain = Domain((1.5, 6.0), (0.0, 300.0), (0.5, 1.0), (0.4, 1.15), 1.0, 0.5)
    return Model(toy_potential(), domain, "toy")


# ---------------------------------------------------------------- structures


@pytest.mark.parametrize("name", structures.NAMES)
def test_structures_are_molecular_and_say_where_they_are_from(name):
    atoms = phase(name)
    assert len(atoms) == int(name.split("-")[1])
    assert (atoms.numbers == 1).all()
    assert atoms.calc is None
    assert set(atoms.arrays) == {"numbers", "positions"}
    assert "PBE" in atoms.info["provenance"]
    pairs = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    lengths = [atoms.get_distance(*p, mic=True) for p in pairs]
    assert 0.70 < min(lengths) and max(lengths) < 0.78
    assert 2.2 < atoms.get_volume() / len(atoms) < 2.7


def test_unknown_structure_lists_the_known():
    with pytest.raises(KeyError, match="P63m-16"):
        phase("Cmca-4")


@pytest.mark.parametrize("name", structures.NAMES)
@pytest.mark.parametrize("min_atoms", [1, 100, 192, 500])
def test_supercell_is_large_enough_and_compact(name, min_atoms):
    cell = phase(name)
    big = supercell(cell, min_atoms)
    faces = thickness(big.cell)
    assert min_atoms <= len(big)
    if len(big) > max(1.25 * min_atoms, min_atoms + len(cell)):
        # Those of fewer atoms are needles.
        assert len(big) <= 2.0 * min_atoms and faces.max() < 2.5 * faces.min()
    assert big.get_volume() / len(big) == pytest.approx(cell.get_volume() / len(cell))
    assert len(big) == np.prod(big.info["repeat"]) * len(cell)
    if min_atoms >= 192:
        assert faces.min() > 0.6 * big.get_volume() ** (1 / 3)


# ---------------------------------------------------------------- relaxation


def test_relaxation_meets_both_tolerances(model):
    atoms = pa3(3.0)
    atoms.rattle(0.02, seed=1)
    before = atoms.copy()
    atoms.calc = HMLP(model)
    result = relax(atoms, 30.0)
    assert atoms == before
    fresh = result.atoms.copy()
    fresh.calc = HMLP(model)
    forces = fresh.get_forces()
    assert np.linalg.norm(forces, axis=1).max() <= 0.01
    target = full_3x3_to_voigt_6_stress(-30.0 * np.eye(3))
    np.testing.assert_allclose(fresh.get_stress() / units.GPa, target, atol=0.1)
    assert residuals(fresh, 30.0) == pytest.approx((result.fmax, result.stress_error), abs=1e-8)
    assert result.pressure == pytest.approx(30.0, abs=0.1)
    enthalpy = fresh.get_potential_energy() + 30.0 * units.GPa * fresh.get_volume()
    assert result.enthalpy == pytest.approx(enthalpy / len(fresh), abs=1e-9)


def test_relaxed_enthalpy_is_a_minimum(model):
    atoms = pa3(3.0)
    atoms.calc = HMLP(model)
    result = relax(atoms, 30.0)
    for strain in (-0.01, 0.01):
        other = result.atoms.copy()
        other.set_cell(other.cell * (1.0 + strain), scale_atoms=True)
        other.calc = HMLP(model)
        enthalpy = other.get_potential_energy() + 30.0 * units.GPa * other.get_volume()
        assert enthalpy / len(other) > result.enthalpy


def test_relaxation_that_does_not_converge_says_what_is_left(model):
    atoms = pa3(4.0)
    atoms.calc = HMLP(model)
    with pytest.raises(NotConvergedError, match=r"3 steps at 30 GPa.*eV/Å.*GPa off the target"):
        relax(atoms, 30.0, max_steps=3)


# ---------------------------------------------------------------- averages


def test_block_average_sees_correlation():
    rng = np.random.default_rng(0)
    memory, n, trials = 0.9, 4000, 60
    noise = rng.normal(size=(trials, n))
    series = np.zeros((trials, n))
    for k in range(1, n):
        series[:, k] = memory * series[:, k - 1] + noise[:, k]
    errors = [block_average(x)[1] for x in series]
    exact = 1.0 / (1.0 - memory) / np.sqrt(n)
    # Taking the largest of several estimates errs on the safe side.
    assert exact < np.mean(errors) < 1.6 * exact
    naive = series.std(axis=1).mean() / np.sqrt(n)
    assert np.mean(errors) > 3.0 * naive


def test_block_average_of_few_samples():
    assert block_average([2.0, 4.0])[0] == 3.0
    assert np.isnan(block_average([2.0, 4.0])[1])
    assert np.isnan(block_average([])[0])


def test_drift_is_the_slope():
    time = np.linspace(0.0, 5.0, 200)
    slope, error = drift(time, 0.3 * time - 1.0)
    assert slope == pytest.approx(0.3)
    assert error == pytest.approx(0.0, abs=1e-9)
    noise = np.random.default_rng(1).normal(size=200)
    slope, error = drift(time, 0.3 * time + 0.1 * noise)
    assert 0.0 < error < 0.03
    assert abs(slope - 0.3) < 4.0 * error
    assert np.isnan(drift(time[:5], time[:5])).all()


# ---------------------------------------------------------------- dynamics

SHORT = NPTSettings(
    pressure=30.0,
    temperature=150.0,
    heating_steps=210,
    holding_steps=500,
    stages=3,
    thermostat_time=20.0,
    sample_interval=5,
    frame_interval=50,
)


@pytest.fixture(scope="module")
def short_run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("npt")
    atoms = supercell(hcp(3.2, (1, 1, 1), seed=1), 32)
    atoms.calc = HMLP(model, threads=1)
    atoms = relax(atoms, 30.0).atoms
    seen = []
    run = NPTRun(atoms, SHORT, folder / "run.traj", folder / "log.csv")
    run.run(seen.append)
    return run, seen


def test_schedule_heats_in_stages_then_holds():
    stages = SHORT.schedule()
    assert [s[0] for s in stages] == [30.0, 90.0, 150.0, 150.0]
    assert [s[1] for s in stages] == [70, 70, 70, 500]
    assert [s[2] for s in stages] == [False, False, False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"timestep": -1.0},
        {"heating_steps": 2, "stages": 3},
        {"holding_steps": -1},
        {"frame_interval": 15, "sample_interval": 10},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        NPTSettings(**wrong)


def test_log_and_trajectory_agree_with_the_run(short_run):
    run, seen = short_run
    log = read_log(run.log)
    assert seen == run.samples
    assert list(log["step"]) == list(range(0, 711, 5))
    np.testing.assert_allclose(log["time_ps"], log["step"] * 0.5e-3)
    assert log["holding"].sum() == 100
    assert len(settled(log)) == 75
    frames = read(run.trajectory, ":")
    assert len(frames) == 15
    for k, frame in enumerate(frames):
        row = log[log["step"] == 50 * k][0]
        n = len(frame)
        assert frame.get_temperature() == pytest.approx(row["temperature_K"], rel=1e-6)
        assert frame.get_potential_energy() / n == pytest.approx(
            row["potential_eV_per_atom"], rel=1e-8
        )
        assert frame.get_volume() / n == pytest.approx(row["volume_A3_per_atom"], rel=1e-8)
        np.testing.assert_allclose(
            [row[c] for c in ("a_A", "b_A", "c_A", "alpha_deg", "beta_deg", "gamma_deg")],
            frame.cell.cellpar(),
            rtol=1e-8,
        )
        stress = frame.get_stress(voigt=False, include_ideal_gas=True) / units.GPa
        assert row["pressure_GPa"] == pytest.approx(-np.trace(stress) / 3.0, abs=1e-6)


def test_levels_in_the_log_sum_to_the_potential(short_run):
    run, _ = short_run
    log = read_log(run.log)
    zero = run.atoms.calc.model.potential.e0
    names = ("bond", "pair", "orientation", "environment")
    levels = sum(log[f"{name}_eV_per_atom"] for name in names)
    np.testing.assert_allclose(zero + levels, log["potential_eV_per_atom"], atol=1e-8)


def test_conserved_quantity_is_conserved(short_run):
    log = read_log(short_run[0].log)
    heat = 1000.0 * np.ptp(log["potential_eV_per_atom"] + log["kinetic_eV_per_atom"])
    assert heat > 10.0
    assert np.ptp(log["conserved_meV_per_atom"]) < 0.05 * heat
    assert log["conserved_meV_per_atom"][0] == 0.0


def test_dynamics_heats_at_the_target_pressure(short_run):
    log = read_log(short_run[0].log)
    assert log["temperature_K"][0] == pytest.approx(60.0, rel=0.4)
    assert log["temperature_K"][-40:].mean() == pytest.approx(150.0, rel=0.3)
    assert log["pressure_GPa"][20:].mean() == pytest.approx(30.0, abs=2.0)
    assert log["alignment"][0] == pytest.approx(1.0)


def test_centre_of_mass_stays(short_run):
    momentum = short_run[0].atoms.get_momenta().sum(axis=0)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-8)


def test_runs_repeat(model, tmp_path):
    logs = []
    for name in ("a", "b"):
        atoms = hcp(3.2, (2, 2, 1), seed=1)
        atoms.calc = HMLP(model, threads=1)
        settings = NPTSettings(pressure=30.0, heating_steps=30, holding_steps=0, stages=1)
        NPTRun(atoms, settings, tmp_path / f"{name}.traj", tmp_path / f"{name}.csv").run()
        logs.append((tmp_path / f"{name}.csv").read_text())
    assert logs[0] == logs[1]


# ---------------------------------------------------------------- demo


@pytest.fixture
def toy_demo(model, tmp_path):
    from ase_hmlp.model_io import save_model

    path = save_model(model, tmp_path / "toy.joblib")
    npt = NPTSettings(pressure=30.0, heating_steps=40, holding_steps=60, stages=2)
    return demo.DemoSettings(model=str(path), phase="P21c-8", threads=1, npt=npt)


def test_demo_that_fails_says_so_in_its_summary(toy_demo, tmp_path):
    import json

    def fail(sample):
        if sample.step == 50:
            raise ContactError("Atoms 1 and 2 are on top of each other.")

    with pytest.raises(ContactError):
        demo.run_demo(tmp_path / "demo", toy_demo, on_sample=fail)
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["steps"] == 50
    assert "results" not in summary


def test_demo_interrupted_before_the_hold_has_no_averages(toy_demo, tmp_path):
    def interrupt(sample):
        if sample.step == 20:
            raise KeyboardInterrupt

    result = demo.run_demo(tmp_path / "demo", toy_demo, on_sample=interrupt)
    assert result.summary["status"] == "interrupted"
    values = {r["quantity"]: r["value"] for r in result.summary["results"]}
    assert values["mean pressure"] is None
    assert values["relaxed volume"] > 0


def test_demo_reports_a_structure_outside_the_training_data(toy_demo, tmp_path):
    from dataclasses import replace

    from ase_hmlp.model_io import save_model

    model = load_model(toy_demo.model)
    narrow = replace(model.domain, volume=(5.0, 6.0))
    path = save_model(replace(model, domain=narrow), tmp_path / "narrow.joblib")
    result = demo.run_demo(tmp_path / "demo", replace(toy_demo, model=str(path)))
    assert any("Å³/atom" in text for text in result.summary["domain_warnings"])


def test_figures_draw_the_data(short_run):
    run, _ = short_run
    log = read_log(run.log)
    frames = read(run.trajectory, ":")
    timeline = figures.timeline(log, 30.0)
    assert len(timeline.axes) == 4
    np.testing.assert_allclose(timeline.axes[0].lines[0].get_ydata(), log["temperature_K"])
    assert len(figures.levels(log).axes) == 1
    assert len(figures.conservation(log).axes) == 2
    crystal = figures.crystal(frames[0], frames[-1], run.molecules)
    drawn = crystal.axes[0].collections[0].get_segments()
    assert len(drawn) == len(run.molecules)
    histogram = figures.molecules(frames[3:], frames[0], run.molecules).axes[0]
    area = sum(p.get_width() * p.get_height() for p in histogram.patches)
    assert area == pytest.approx(1.0)
