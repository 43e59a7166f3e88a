"""Shares of fingerprints in the energy: they add up, and are what they must be where known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from strategies import structures
from toy_calculator import toy_calculator, toy_model
from toy_models import hcp, toy_potential, toy_regressor, toy_structures

from ase_hmlp import HMLP
from ase_hmlp.analysis.fingerprint_energies import FingerprintEnergies, family
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.attribution import TOLERANCE, fingerprint_shares, shares
from ase_hmlp.errors import BondStretchError


@given(structures())
def test_shares_add_up_to_the_levels(structure):
    potential = toy_potential()
    found = fingerprint_shares(potential, structure.geometry(potential))
    levels = structure.evaluate(potential).levels
    for name in ("pair", "orientation"):
        assert sum(found[name].values()) == pytest.approx(
            levels[name], abs=TOLERANCE * len(structure)
        )
    assert "fp_EQQ" in found["orientation"]
    assert not any(key == "" for level in found.values() for key in level)


def without_kernel(regressor):
    return dataclasses.replace(regressor, alpha=np.zeros_like(regressor.alpha))


def test_a_linear_energy_is_coefficient_times_fingerprint():
    regressor = without_kernel(toy_regressor(8, stretch_width=0.05))
    rng = np.random.default_rng(0)
    v, r = rng.normal(size=(5, 8)), 0.74 + 0.02 * rng.normal(size=5)
    coefficients = regressor.linear + (r - regressor.r0)[:, None] * regressor.linear_stretch
    assert shares(regressor, v, r) == pytest.approx(coefficients * v, abs=1e-12)


def test_a_fingerprint_that_does_nothing_has_no_share():
    regressor = toy_regressor(8)
    regressor.transform[:, 3] = regressor.linear[3] = regressor.linear_stretch[3] = 0.0
    v = np.random.default_rng(1).normal(size=(5, 8))
    found = shares(regressor, v, np.full(5, 0.74))
    assert found[:, 3].tolist() == [0.0] * 5 and (found[:, 4] != 0.0).all()


def test_equal_fingerprints_have_equal_shares():
    regressor = toy_regressor(8)
    for array in (regressor.transform.T, regressor.linear, regressor.linear_stretch):
        array[5] = array[2]
    v = np.random.default_rng(2).normal(size=(5, 8))
    v[:, 5] = v[:, 2]
    found = shares(regressor, v, np.full(5, 0.74))
    assert found[:, 5] == pytest.approx(found[:, 2])


def test_two_levels_or_one():
    only_pair = toy_potential(orientation=False)
    calc = HMLP(toy_model(only_pair), threads=1)
    assert set(calc.fingerprint_shares(hcp(3.0))) == {"pair"}


def test_the_calculator_gives_those_of_the_last_structure():
    calc, atoms = toy_calculator(), toy_structures()["hcp"]
    with pytest.raises(RuntimeError, match="shares of fingerprints need one"):
        calc.fingerprint_shares()
    found = calc.fingerprint_shares(atoms)
    assert calc.fingerprint_shares() == found
    energy = sum(sum(level.values()) for level in found.values())
    levels = calc.levels
    assert energy == pytest.approx(levels["pair"] + levels["orientation"], abs=1e-3)


# ---------------------------------------------------------------- the analysis


def test_families_of_a_trajectory_add_up():
    frames = []
    for k in range(12):
        frames.append(toy_structures()["hcp-warm"])
        frames[-1].rattle(0.01, seed=k)
    (result,) = analyse(Trajectory(frames), [FingerprintEnergies(toy_model(), threads=1)])
    *parts, total = result.quantities
    assert parts[0].name == "fp_EQQ" and total.name == "all"
    assert sum(q.value for q in parts) == pytest.approx(total.value, abs=0.1)
    assert {q.name for q in parts} >= {
        "bond",
        "pair gaussian",
        "pair born_mayer",
        "orientation S224",
    }
    calc = toy_calculator()
    energy = np.mean([calc.get_property("energy", a) - calc.levels["zero"] for a in frames])
    assert total.value == pytest.approx(2000.0 * energy / len(frames[0]))
    table = result.table("fingerprints")
    assert len(table["fp_EQQ_meV"]) == 12
    assert result.plot() is not None


def test_a_model_outside_its_data_says_so():
    model = toy_model(volume=(5.0, 6.0))
    (result,) = analyse(Trajectory([hcp(3.0)]), [FingerprintEnergies(model, threads=1)])
    assert any("Frame 0" in note and "volume" in note for note in result.notes)


def test_a_bond_beyond_the_model_is_an_error():
    with pytest.raises(BondStretchError):
        analyse(
            Trajectory([hcp(3.0)]),
            [
                FingerprintEnergies(
                    toy_model(bond_length=(0.8, 0.95), bond_limits=(0.78, 1.1)), threads=1
                )
            ],
        )


def test_families():
    assert family("pair", "gaussian(1.5)") == "pair gaussian"
    assert family("orientation", "S220*damped_sine(2,2)") == "orientation S220"
    assert family("orientation", "fp_EQQ") == "fp_EQQ"
