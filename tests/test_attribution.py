"""Shares of fingerprints in the energy: they add up, and are what they must be where known."""

import dataclasses

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
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
    assert list(found) == ["pair", "orientation", "environment"]
    for name in found:
        assert sum(found[name].values()) == pytest.approx(
            levels[name], abs=TOLERANCE * len(structure)
        )
        assert list(found[name]) == getattr(potential, name).names
    # The first two levels are sums of their fingerprints: that far they add up to round-off.
    for name in ("pair", "orientation"):
        size = sum(abs(share) for share in found[name].values())
        assert sum(found[name].values()) == pytest.approx(levels[name], abs=1e-12 * size)


@settings(max_examples=6)
@given(structures(max_molecules=3))
def test_shares_of_linear_levels_are_coefficients_times_fingerprints(structure):
    potential = toy_potential()
    found = fingerprint_shares(potential, structure.geometry(potential))
    v = oracle.pair_fingerprints(potential.pair, potential.stretch, structure)
    w = oracle.orientation_fingerprints(potential.orientation.basis, structure)
    for level, x in ((potential.pair, v), (potential.orientation, w)):
        shares_of = found["pair" if level is potential.pair else "orientation"]
        expected = (level.coefficients * x.sum(axis=0)).ravel()
        # The tables' errors, as in the potential's own energies.
        np.testing.assert_allclose(list(shares_of.values()), expected, rtol=0, atol=1e-8)
    eqq = potential.orientation.names.index("fp_EQQ")
    row, column = divmod(eqq, len(potential.orientation.basis.functions))
    expected = potential.orientation.coefficients[row, column] * w.sum(axis=0)[row, column]
    assert found["orientation"]["fp_EQQ"] == pytest.approx(expected, abs=1e-8)


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


@pytest.mark.parametrize("level", ["pair", "orientation", "environment"])
def test_levels_that_are_not_there_have_no_shares(level):
    others = dict.fromkeys({"pair", "orientation", "environment"} - {level}, False)
    calc = HMLP(toy_model(toy_potential(**others)), threads=1)
    assert set(calc.fingerprint_shares(hcp(3.0))) == {level}


def test_held_bonds_have_the_shares_of_bonds_at_the_end():
    """The environment's fingerprints are charged with what the potential says, bonds held."""
    potential = toy_potential(pair=False, orientation=False)
    atoms = hcp(3.0)
    ends = atoms.positions.reshape(-1, 2, 3)
    middle = ends.mean(axis=1, keepdims=True)
    atoms.positions = (middle + (ends - middle) * 0.93 / 0.74).reshape(-1, 3)
    calc = HMLP(toy_model(potential), threads=1)
    found = calc.fingerprint_shares(atoms)["environment"]
    assert sum(found.values()) == pytest.approx(calc.levels["environment"], abs=1e-3)
    assert abs(calc.levels["environment"]) > 0.03


def test_the_calculator_gives_those_of_the_last_structure():
    calc, atoms = toy_calculator(), toy_structures()["hcp"]
    with pytest.raises(RuntimeError, match="shares of fingerprints need one"):
        calc.fingerprint_shares()
    found = calc.fingerprint_shares(atoms)
    assert calc.fingerprint_shares() == found
    energy = sum(sum(level.values()) for level in found.values())
    levels = calc.levels
    expected = sum(levels[name] for name in ("pair", "orientation", "environment"))
    assert energy == pytest.approx(expected, abs=1e-3)


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
        "environment density",
        "environment tensor-axis",
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
    assert family("environment", "vector-axis gaussian(1),gaussian(2)") == "environment vector-axis"
    assert family("environment", "shell(2,0.4)") == "environment shell"
