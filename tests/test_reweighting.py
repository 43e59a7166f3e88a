"""`hmlp reweight`: ensembles whose averages are known, and what is refused."""

import dataclasses
import io
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from click.testing import CliRunner
from rich.console import Console
from toy_calculator import toy_model

import ase_hmlp.training
from ase_hmlp import HMLP
from ase_hmlp.cli import main
from ase_hmlp.errors import DataError
from ase_hmlp.model_io import save_model
from ase_hmlp.training.model_commands import _reweighting_table
from ase_hmlp.training.reweighting import (
    FEWEST,
    FILE,
    Ensemble,
    averages,
    energies_of,
    read_ensembles,
)

SHIPPED = Path(ase_hmlp.training.__file__).parent / "data" / FILE

KT = units.kB * 150.0
K0, K1 = 1.0, 1.3  # kT per x²


def oscillators(n, seed=0):
    """x in a harmonic well of stiffness `K0`: <x²> is 1 / K0, under `K1` 1 / K1."""
    x = np.random.default_rng(seed).normal(size=n) / np.sqrt(K0)
    return Ensemble(
        "wells",
        150.0,
        [],
        0.5 * K0 * KT * x**2,
        0.5 * K1 * KT * x**2 - 31.7,
        np.arange(n),
        {"<EQQ>": x**2, "bond": x},
    )


def test_harmonic_wells():
    """Exact in closed form; a thousand snapshots, so errors of some percent are five of ours."""
    ensemble = oscillators(4000)
    square, mean = averages(ensemble, ensemble.dft)
    assert square.sampled[0] == pytest.approx(1.0 / K0, abs=5 * square.sampled[1])
    assert square.reweighted[0] == pytest.approx(1.0 / K1, abs=5 * square.reweighted[1])
    # -cov(x², (K1 - K0) x² / 2) = -(K1 - K0) / K0²
    first = 1.0 / K0 - (K1 - K0) / K0**2
    assert square.first_order[0] == pytest.approx(first, abs=5 * square.first_order[1])
    assert square.reweighted[1] < 0.05 and square.first_order[1] < 0.05
    assert mean.reweighted[0] == pytest.approx(0.0, abs=5 * mean.reweighted[1])
    # var(x²) = 2 / K0²
    assert square.spread == pytest.approx(0.5 * (K1 - K0) * np.sqrt(2.0) / K0, rel=0.1)


def test_bootstrap_error_is_the_scatter_of_repetitions():
    runs = [averages(oscillators(200, seed), oscillators(200, seed).dft)[0] for seed in range(60)]
    scatter = np.std([run.reweighted[0] for run in runs], ddof=1)
    # Relative error of a standard deviation from 60 values: 9 %.
    assert np.mean([run.reweighted[1] for run in runs]) == pytest.approx(scatter, rel=0.35)


def walkers(number, seed):
    """Of three snapshots each, all of them where the walker is."""
    one = oscillators(number, seed)
    many = {name: np.repeat(getattr(one, name), 3) for name in ("sampled", "dft", "walker")}
    observables = {name: np.repeat(values, 3) for name, values in one.observables.items()}
    return dataclasses.replace(one, **many, observables=observables)


def test_errors_of_few_walkers_are_no_smaller():
    """The mean square error is the variance of a mean of three, whose bootstrap is 2/3 of it."""
    squares = []
    for seed in range(200):
        ensemble = walkers(3, seed)
        squares.append(averages(ensemble, ensemble.sampled)[1].sampled[1] ** 2)
    # Of three values a variance is uncertain by as much as it is; three times that over √200.
    assert np.mean(squares) == pytest.approx(1.0 / K0 / 3, rel=3.0 / np.sqrt(200))


@pytest.mark.parametrize("number", [1, 2])
def test_errors_of_hardly_any_walkers_are_unknown(number):
    ensemble = walkers(number, 0)
    for row in averages(ensemble, ensemble.dft):
        for value, error in (row.sampled, row.first_order, row.reweighted):
            assert np.isfinite(value) and np.isnan(error)
        assert row.to_dict()["reweighted"] == [row.reweighted[0], None]
    printed = io.StringIO()
    Console(file=printed, width=200).print(_reweighting_table([("DFT", row)]))
    assert f"{row.reweighted[0]:.4f} ± - " in printed.getvalue()


def test_same_energies_change_nothing():
    ensemble = oscillators(50)
    for row in averages(ensemble, ensemble.sampled + 3.0):
        assert row.reweighted == pytest.approx(row.sampled)
        assert row.first_order == pytest.approx(row.sampled)
        assert row.effective == pytest.approx(50)
        assert row.spread == pytest.approx(0.0, abs=1e-9)


def write_ensemble(path, n=FEWEST, **changes):
    """Two molecules in a box, labelled by a toy; `changes` to the info of the last frame."""
    rng, frames = np.random.default_rng(3), []
    for k in range(n):
        half = 0.37 * (v := rng.normal(size=(2, 3))) / np.linalg.norm(v, axis=1)[:, None]
        centres = np.array([[1.5, 1.5, 1.5], [1.5, 1.5, 4.2]])
        positions = np.stack([centres - half, centres + half], axis=1).reshape(4, 3)
        atoms = Atoms("H4", positions=positions, cell=[3.0, 3.0, 5.4], pbc=True)
        atoms.set_array("partner", np.array([1, 0, 3, 2]))
        atoms.calc = HMLP(toy_model(contact=0.3, contact_limit=0.2, volume=(1.0, 20.0)))
        energy = atoms.get_potential_energy()
        atoms.info.update(
            ensemble="toys", walker=k // 2, temperature=150.0, sampled_energy=energy + 0.001 * k
        )
        if k == n - 1:
            atoms.info.update(changes)
            atoms.info = {key: value for key, value in atoms.info.items() if value is not None}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((4, 3)))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def test_energies_of_a_model_are_those_of_its_calculator(tmp_path):
    (ensemble,) = read_ensembles(write_ensemble(tmp_path / "e.extxyz"))
    model = toy_model(contact=0.3, contact_limit=0.2, volume=(1.0, 20.0))
    np.testing.assert_allclose(energies_of(model, ensemble), ensemble.dft, atol=1e-7)
    np.testing.assert_allclose(ensemble.sampled - ensemble.dft, 0.001 * np.arange(8), atol=1e-7)
    np.testing.assert_allclose(ensemble.observables["bond"], 0.74, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sampled_energy": None}, "frame 7 lacks sampled_energy."),
        ({"temperature": 300.0}, "frames of toys are of more than one temperature."),
        ({"ensemble": "other"}, "toys has 7 frames, and takes 8 to say anything."),
    ],
)
def test_bad_files_are_refused(tmp_path, changes, sentence):
    path = write_ensemble(tmp_path / "e.extxyz", **changes)
    with pytest.raises(DataError, match=re.escape(f"{path}: {sentence}")):
        read_ensembles(path)


def test_command(tmp_path):
    """The model's energies are those of the labels: both rows are alike."""
    path = write_ensemble(tmp_path / "e.extxyz")
    save_model(
        toy_model(contact=0.3, contact_limit=0.2, volume=(1.0, 20.0)), tmp_path / "toy.joblib"
    )
    arguments = ["reweight", str(tmp_path / "toy.joblib"), "--ensembles", str(path)]
    out = tmp_path / "numbers.json"
    result = CliRunner().invoke(main, [*arguments, "-o", str(out)], env={"COLUMNS": None})
    assert result.exit_code == 0, result.output
    assert "<EQQ>, meV/molecule" in result.output
    assert "…" not in result.output  # nothing is cut off in a pipe
    rows = json.loads(out.read_text())
    assert [row["energies"] for row in rows] == ["DFT"] * 2 + [str(tmp_path / "toy.joblib")] * 2
    for dft, model in zip(rows[:2], rows[2:], strict=True):
        assert model["reweighted"] == pytest.approx(dft["reweighted"], rel=1e-4)
    again = CliRunner().invoke(main, [*arguments, "-o", str(out)])
    assert again.exit_code != 0
    assert "is there already" in again.output
    nowhere = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "none" / "n.json")])
    assert nowhere.exit_code == 2 and "there is no folder" in nowhere.output


@pytest.mark.skipif(not SHIPPED.exists(), reason="not computed yet")
def test_shipped_ensembles():
    """Whole, of one recipe, and near enough to DFT's for weights to mean something."""
    for ensemble in read_ensembles():
        assert len(ensemble.frames) >= FEWEST
        assert all("PBE" in atoms.info["label"] for atoms in ensemble.frames)
        (eqq, bond) = averages(ensemble, ensemble.dft)
        assert eqq.spread < 4.0  # kT
        assert -200.0 < eqq.first_order[0] < -20.0
        assert 0.70 < bond.first_order[0] < 0.76
