"""The calculator's contract: results, cache, bonds that are kept, warnings, copies."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
import warnings

import ase.db
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_calculator import DOMAIN, toy_calculator, toy_model
from toy_models import dimer, from_molecules, hcp, molecule, pa3, toy_potential, toy_structures

from ase_hmlp import HMLP
from ase_hmlp.errors import (
    BondingError,
    BondStretchError,
    DomainWarning,
    PartnerMismatchError,
    TwoPartnersError,
)
from ase_hmlp.potential import Potential

ALL = {"energy", "free_energy", "energies", "forces", "stress", "stresses"}


def warm(seed=5):
    """16 atoms, triclinic, no symmetry."""
    atoms = hcp(3.0, (2, 2, 1), seed=seed, bond_spread=0.01)
    atoms.set_cell(atoms.cell.array @ [[1, 0.05, 0], [0, 1, 0.04], [0, 0, 1]], scale_atoms=True)
    atoms.rattle(0.02, seed=seed)
    return atoms


def fresh(atoms, **kwargs):
    """Energy and forces from a calculator that has never seen another structure."""
    atoms = atoms.copy()
    atoms.calc = toy_calculator(**kwargs)
    return atoms.get_potential_energy(), atoms.get_forces()


def assert_as_fresh(atoms):
    energy, forces = fresh(atoms)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-10)
    assert np.abs(atoms.get_forces() - forces).max() < 1e-10


def pairs(molecules):
    return {tuple(sorted(map(int, pair))) for pair in molecules}


@pytest.fixture
def evaluations(monkeypatch):
    """Counts evaluations of the potential."""
    calls = []
    evaluate = Potential.evaluate
    monkeypatch.setattr(Potential, "evaluate", lambda self, g: calls.append(1) or evaluate(self, g))
    return calls


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("asked", sorted(ALL))
def test_one_calculation_fills_everything(asked, evaluations):
    atoms = warm()
    calc = toy_calculator()
    calc.get_property(asked, atoms)
    assert set(calc.results) == ALL
    for name in ALL:
        calc.get_property(name, atoms)
    assert len(evaluations) == 1
    assert set(calc.implemented_properties) == ALL


def test_parts_sum_to_the_whole():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    energy = atoms.get_potential_energy()
    assert calc.results["free_energy"] == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, abs=1e-10)
    assert sum(calc.levels.values()) == pytest.approx(energy, abs=1e-10)
    assert set(calc.levels) == {"zero", "bond", "pair", "orientation", "environment"}
    assert np.allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=0, atol=1e-12)
    assert atoms.get_stresses().shape == (16, 6)


@pytest.mark.parametrize("name", toy_structures())
def test_forces_are_the_energy_gradient(name):
    atoms = toy_structures()[name]
    atoms.calc = toy_calculator(volume=(1.0, 9.0), contact=0.6)
    some = range(0, len(atoms), max(1, len(atoms) // 4))
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=some)
    # Central differences of energies of a few eV: 1e-8 truncation, 1e-9 round-off.
    assert np.abs(atoms.get_forces()[list(some)] - numerical).max() < 2e-6


def test_stress_is_the_strain_derivative_tensile_positive():
    atoms = warm()
    atoms.calc = toy_calculator()
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    assert np.abs(atoms.get_stress() - numerical).max() < 1e-7
    assert np.abs(numerical).min() > 1e-5  # every component is tested
    squeezed = pa3(2.0)
    squeezed.calc = toy_calculator()
    assert squeezed.get_stress()[:3].max() < 0  # compressed: negative


def test_stress_leaves_the_kinetic_part_to_ase():
    atoms = warm()
    atoms.calc = toy_calculator()
    still = atoms.get_stress()
    atoms.set_momenta(0.2 * np.random.default_rng(1).normal(size=(16, 3)))
    assert np.array_equal(atoms.get_stress(), still)
    v, m = atoms.get_velocities(), atoms.get_masses()
    kinetic = -np.einsum("i,ia,ib->ab", m, v, v) / atoms.get_volume()
    voigt = kinetic[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert np.allclose(atoms.get_stress(include_ideal_gas=True), still + voigt, atol=1e-14)
    # ASE divides the per-atom kinetic part by the volume per atom.
    parts = atoms.get_stresses(include_ideal_gas=True) - atoms.get_stresses()
    assert np.allclose(parts.sum(axis=0), len(atoms) * voigt, atol=1e-12)


@pytest.mark.parametrize(
    "cell",
    [None, [5.0, 5.0, 0.0], [[5, 0.1, 0.3], [0.2, 5, 0.7], [5.2, 5.1, 1.0]]],
    ids=["none", "two", "in a plane"],
)
def test_no_stress_without_three_cell_vectors(cell, evaluations):
    atoms = dimer(2.6)
    if cell is not None:
        atoms.set_cell(cell)
    atoms.calc = toy_calculator()
    with pytest.raises(PropertyNotImplementedError, match="three cell vectors"):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError, match="three cell vectors"):
        atoms.get_stresses()
    before = len(evaluations)
    forces = atoms.get_forces()
    assert len(evaluations) == before  # what could be calculated was
    assert np.abs(forces).max() > 0
    assert set(atoms.calc.results) == ALL - {"stress", "stresses"}


def test_stress_of_a_molecule_in_a_box_is_its_virial():
    atoms = molecule(0.80)
    atoms.calc = toy_calculator()
    energy = atoms.get_potential_energy()
    virial = np.einsum("ia,ib->ab", atoms.positions, atoms.get_forces())
    atoms.set_cell([9, 9, 9])
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-12)
    assert np.allclose(atoms.get_stress(voigt=False), -virial / 729, atol=1e-12)


def test_dynamics_in_vacuum(tmp_path):
    atoms = dimer(2.8, seed=1)
    atoms.calc = toy_calculator()
    atoms.set_momenta(0.1 * np.random.default_rng(0).normal(size=(4, 3)))
    before = atoms.get_total_energy()
    VelocityVerlet(
        atoms, 0.25 * units.fs, trajectory=str(tmp_path / "t.traj"), logfile=str(tmp_path / "log")
    ).run(40)
    assert atoms.get_total_energy() == pytest.approx(before, abs=2e-3)
    assert len(ase.io.read(tmp_path / "t.traj", ":")) == 41


def test_masses_do_not_matter():
    atoms = warm()
    atoms.calc = toy_calculator()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for masses in ([2.014] * 16, [1.008, 2.014] * 8, [3.016] * 16):
        heavy = warm()
        heavy.set_masses(masses)
        heavy.calc = toy_calculator()
        assert heavy.get_potential_energy() == energy
        assert np.array_equal(heavy.get_forces(), forces)
        assert np.array_equal(heavy.get_stress(), atoms.get_stress())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_but_round_off(threads):
    """Sums are each thread's own; with the same number of threads not a bit changes."""
    atoms = hcp(3.0, (4, 4, 4), seed=2, bond_spread=0.01)
    results = []
    for n in (1, threads, threads):
        calc = toy_calculator(threads=n)
        calc.get_property("energy", atoms)
        results.append(calc.results)
    for name in ALL:
        scale = np.abs(results[0][name]).max()
        assert np.abs(results[0][name] - results[1][name]).max() < 1e-13 * scale, name
        assert np.array_equal(results[1][name], results[2][name]), name


# ---------------------------------------------------------------- cells


def test_cell_smaller_than_the_cutoff():
    atoms = pa3(2.6)
    assert max(atoms.cell.lengths()) < 3.0 < toy_potential().cutoff
    atoms.calc = toy_calculator()
    big = atoms.copy().repeat((3, 3, 3))
    energy, forces = fresh(big)
    assert atoms.get_potential_energy() == pytest.approx(energy / 27, abs=1e-9)
    assert np.abs(forces.reshape(27, -1, 3) - atoms.get_forces()).max() < 1e-9


@pytest.mark.parametrize("pbc", [(1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("height", [0.0, 1.0, 30.0])
def test_non_periodic_directions_have_no_images(pbc, height):
    """A slab is a slab, whatever cell vector is given along its normal, atoms in it or not."""
    atoms = warm()
    normal = ~np.array(pbc, dtype=bool)
    slab = atoms.copy()
    slab.pbc = pbc
    cell = atoms.cell.array.copy()
    unit = np.linalg.inv(cell).T
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    cell[normal] = height * unit[normal]
    slab.set_cell(cell)
    wide = atoms.copy()
    wide_cell = atoms.cell.array.copy()
    # Far beyond the cutoff along directions that leave the periodic ones alone.
    kept = wide_cell[~normal]
    basis = np.linalg.svd(kept, full_matrices=True)[2][len(kept) :] if len(kept) else np.eye(3)
    wide_cell[normal] = 40.0 * basis
    wide.set_cell(wide_cell)
    energy, forces = fresh(wide, volume=(1.0, 1e6))
    slab_energy, slab_forces = fresh(slab)
    assert slab_energy == pytest.approx(energy, abs=1e-10)
    assert np.abs(slab_forces - forces).max() < 1e-10


def test_any_basis_of_the_lattice_will_do():
    """Forces and stress of a crystal described by long, nearly parallel cell vectors."""
    atoms = warm()
    skewed = warm()
    skewed.set_cell(np.array([[1, 0, 0], [5, 1, 0], [-7, 4, 1]]) @ atoms.cell.array)
    for a in (atoms, skewed):
        a.calc = toy_calculator()
    assert np.abs(skewed.get_forces() - atoms.get_forces()).max() < 1e-10
    assert np.abs(skewed.get_stress() - atoms.get_stress()).max() < 1e-11
    # In the same calculator the change of basis moves no atom either.
    atoms.set_cell(skewed.cell)
    assert_as_fresh(atoms)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_atoms_outside_the_cell(seed):
    atoms = warm()
    energy, forces = fresh(atoms)
    rng = np.random.default_rng(seed)
    atoms.positions += rng.integers(-3, 4, (16, 3)) @ atoms.cell.array
    moved_energy, moved_forces = fresh(atoms)
    assert moved_energy == pytest.approx(energy, abs=1e-10)
    assert np.abs(moved_forces - forces).max() < 1e-10


# ---------------------------------------------------------------- arguments


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="cutoff"):
        HMLP(toy_model(), cutoff=3.0)
    with pytest.raises(TypeError, match="not cutoff: make a new calculator"):
        toy_calculator().set(cutoff=3.0)


@pytest.mark.parametrize("threads", [0, -1, True, False])
def test_threads_below_one_are_refused(threads):
    with pytest.raises((ValueError), match="threads must be at least 1"):
        HMLP(toy_model(), threads=threads)


@pytest.mark.parametrize("threads", [1.5, "2", [2]])
def test_threads_that_are_no_whole_number_are_refused(threads):
    with pytest.raises(TypeError, match="threads must be a whole number"):
        HMLP(toy_model(), threads=threads)


def test_threads_default_to_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert HMLP(toy_model()).threads == 3
    assert HMLP(toy_model(), threads=np.int64(2)).threads == 2


def test_set_changes_bonds_and_threads():
    atoms = molecule()
    atoms.calc = calc = toy_calculator()
    atoms.get_potential_energy()
    assert calc.set(threads=2) == {"threads": 2}
    assert calc.threads == 2
    assert calc.results  # threads change no result
    calc.set(bonds=np.array([[1, 0]]))
    assert not calc.results
    atoms.get_potential_energy()
    assert calc.molecules.tolist() == [[1, 0]]
    assert calc.todict()["bonds"] == [[1, 0]]


# ---------------------------------------------------------------- cache


def test_same_structure_is_not_calculated_twice(evaluations):
    atoms = warm()
    atoms.calc = toy_calculator()
    for _ in range(2):
        atoms.get_forces()
        atoms.get_stress()
        atoms.set_masses([2.0] * 16)
        atoms.set_initial_charges([0.1] * 16)
    assert len(evaluations) == 1
    atoms.positions[3, 1] += 1e-12
    atoms.get_forces()
    assert len(evaluations) == 2
    atoms.set_cell(atoms.cell * (1 + 1e-12))
    atoms.get_forces()
    assert len(evaluations) == 3


def test_results_cannot_be_corrupted_from_outside():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    expected = {name: np.copy(calc.get_property(name, atoms)) for name in ALL}
    for name in ("energies", "forces", "stress", "stresses"):
        calc.get_property(name, atoms)[:] = 99.0
        with pytest.raises(ValueError, match="read-only"):
            calc.results[name][:] = 99.0
    calc.molecules[:] = 0
    calc.levels["bond"] = 99.0
    for name in ALL:
        assert np.array_equal(calc.get_property(name, atoms), expected[name]), name
    atoms.positions[0, 0] += 0.01
    assert calc.molecules.min() == 0 and len(np.unique(calc.molecules)) == 16
    assert_as_fresh(atoms)


def test_failure_leaves_no_stale_results():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_potential_energy()
    good = atoms.positions.copy()
    atoms.positions[0] += [0.0, 0.0, 1.2]
    for _ in range(2):  # the second time must not find anything cached either
        with pytest.raises(BondingError):
            atoms.get_potential_energy()
        with pytest.raises(BondingError):
            calc.uncertainties(atoms)
        assert not calc.results
    atoms.positions = good
    assert_as_fresh(atoms)


def test_results_do_not_depend_on_history():
    rng = np.random.default_rng(7)
    atoms = warm()
    atoms.calc = toy_calculator()
    for step in range(30):
        atoms.rattle(0.004, rng=rng)
        strain = np.eye(3) + 0.002 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        if step % 5 == 0:
            atoms.wrap()
        assert_as_fresh(atoms)


# ---------------------------------------------------------------- bonds


def test_molecules_and_levels_need_a_calculation():
    with pytest.raises(RuntimeError, match="bonds are unknown"):
        toy_calculator().molecules  # noqa: B018
    with pytest.raises(RuntimeError, match="there are no energies"):
        toy_calculator().levels  # noqa: B018
    with pytest.raises(RuntimeError, match="uncertainties need one"):
        toy_calculator().uncertainties()


def count_searches(monkeypatch):
    import ase_hmlp.calculator as module

    searches = []
    find = module.find_molecules
    monkeypatch.setattr(module, "find_molecules", lambda *args: searches.append(1) or find(*args))
    return searches


@pytest.mark.parametrize("how", ["wrap atoms", "translate by a cell", "strain", "drift"])
def test_bonds_are_kept_through_what_moves_no_atom(how, monkeypatch):
    searches = count_searches(monkeypatch)
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_forces()
    kept = calc.molecules
    for _ in range(3):
        if how == "wrap atoms":
            atoms.translate([0.15, 0.1, 0.2])  # so that other atoms wrap each time
            atoms.wrap()
        elif how == "translate by a cell":
            atoms.positions[::3] += atoms.cell[1] - 2 * atoms.cell[2]
        elif how == "strain":
            atoms.set_cell(atoms.cell.array * 1.05 + 0.03, scale_atoms=True)
        else:
            atoms.positions += 0.17
        atoms.get_forces()
        assert_as_fresh(atoms)
    assert np.array_equal(calc.molecules, kept)
    # `assert_as_fresh` searches once each time.
    assert len(searches) == 4


def hot_contact(gap):
    """Two molecules in line, their inner atoms `gap` apart, which may be nearer than bonded."""
    centres = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, gap + 0.8]])
    return from_molecules(centres, np.array([[0.0, 0.0, 1.0]] * 2), 0.8)


def test_bonds_are_kept_through_a_contact_closer_than_a_bond():
    calc = toy_calculator(contact=0.6)
    for gap in np.arange(1.6, 0.7, -0.1):
        atoms = hot_contact(gap)
        atoms.calc = calc
        atoms.get_forces()
        assert pairs(calc.molecules) == {(0, 1), (2, 3)}
    with pytest.raises(BondingError):
        fresh(hot_contact(0.72))


def test_a_jump_into_an_ambiguous_contact_keeps_bonds_that_hold():
    atoms = hot_contact(2.0)
    atoms.calc = calc = toy_calculator(contact=0.6)
    atoms.get_forces()
    atoms.positions = hot_contact(0.72).positions
    energy = atoms.get_potential_energy()
    assert pairs(calc.molecules) == {(0, 1), (2, 3)}
    assert energy == pytest.approx(fresh(atoms, bonds=[[0, 1], [2, 3]], contact=0.6)[0], abs=1e-12)


def test_a_jump_into_an_ambiguous_contact_with_bonds_that_do_not_hold_raises():
    atoms = hot_contact(2.0)
    atoms.calc = toy_calculator(contact=0.6, bond_length=(0.6, 0.79))
    with pytest.warns(DomainWarning):
        atoms.get_forces()
    atoms.positions = hot_contact(0.72).positions
    with pytest.raises(PartnerMismatchError, match="Atom 0"):
        atoms.get_forces()


def test_equally_near_neighbours_after_a_jump_raise_if_bonds_do_not_hold():
    atoms = hot_contact(2.0)
    atoms.calc = toy_calculator(contact=0.6, bond_length=(0.6, 0.795))
    with pytest.warns(DomainWarning):
        atoms.get_forces()
    atoms.positions = hot_contact(0.80).positions
    with pytest.raises(TwoPartnersError, match="Atom 1"):
        atoms.get_forces()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_permuted_atoms_are_noticed(seed):
    order = np.random.default_rng(seed).permutation(16)
    calc = toy_calculator()
    atoms = warm()
    atoms.calc = calc
    atoms.get_forces()
    atoms = warm()[order]
    atoms.calc = calc
    assert_as_fresh(atoms)


def test_one_exchange_of_two_atoms_is_noticed():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_forces()
    i, j = calc.molecules[:2, 0]
    atoms.positions[[i, j]] = atoms.positions[[j, i]]
    assert_as_fresh(atoms)
    assert pairs(calc.molecules) != pairs(toy_calculator_molecules(warm()))


def toy_calculator_molecules(atoms):
    calc = toy_calculator()
    calc.get_property("energy", atoms)
    return calc.molecules


def test_another_structure_of_as_many_atoms_is_noticed():
    calc = toy_calculator()
    for atoms in (warm(), hcp(2.6, (2, 2, 1), seed=9), warm(seed=11), pa3(3.0).repeat((2, 1, 1))):
        atoms.calc = calc
        assert_as_fresh(atoms)
        assert pairs(calc.molecules) == pairs(toy_calculator_molecules(atoms))


def test_other_numbers_of_atoms_and_pbc_are_noticed():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_forces()
    for other in (warm().repeat((2, 1, 1)), warm()[:8], molecule(), warm()):
        other.calc = calc
        assert_as_fresh(other)


def test_bond_across_the_boundary_breaks_when_periodicity_goes():
    atoms = molecule()
    atoms.set_cell([4.0, 4.0, 4.0])
    atoms.pbc = True
    atoms.positions[1] += [0.0, 4.0, 0.0]
    atoms.calc = toy_calculator(volume=(1.0, 50.0))
    atoms.get_forces()
    atoms.pbc = False
    with pytest.raises(BondingError, match="Atom 0 has no partner"):
        atoms.get_forces()


def test_bond_pulled_apart_is_an_error_not_a_new_bond():
    """Two molecules exchange atoms in small steps: never a silent swap."""
    atoms = hot_contact(1.3)
    atoms.calc = calc = toy_calculator(contact=0.6)
    with (
        pytest.warns(DomainWarning, match="bond between atoms"),
        pytest.raises(BondStretchError, match="bond between atoms 0 and 1"),
    ):
        for _ in range(20):
            atoms.get_forces()
            assert pairs(calc.molecules) == {(0, 1), (2, 3)}
            atoms.positions[1:3] += [[0, 0, 0.05], [0, 0, -0.02]]


def test_given_bonds_are_used_and_kept():
    atoms = hot_contact(0.72)
    atoms.calc = calc = toy_calculator(bonds=[[1, 0], [3, 2]], contact=0.6)
    atoms.get_forces()
    assert calc.molecules.tolist() == [[1, 0], [3, 2]]
    moved = atoms[[0, 2, 1, 3]]
    moved.calc = calc
    with pytest.raises(BondStretchError, match=r"between atoms \d and \d is 1\.520 Å"):
        moved.get_forces()


@pytest.mark.parametrize(
    "bonds", [[[0, 1], [2, 2]], [[0, 1], [1, 2]], [[0.0, 1.0]], [0, 1], [], [[0, 1, 2]], 3, "01"]
)
def test_impossible_bonds_are_refused_at_once(bonds):
    with pytest.raises(BondingError, match="bonds must"):
        HMLP(toy_model(), bonds=bonds)


def test_bonds_for_another_number_of_atoms():
    atoms = warm()
    atoms.calc = toy_calculator(bonds=[[0, 1]])
    with pytest.raises(BondingError, match="8 pairs of atom indices for 16 atoms"):
        atoms.get_forces()


# ---------------------------------------------------------------- warnings


def outside(kind):
    return {
        "volume": lambda: pa3(6.5),
        "bond_length": lambda: molecule(1.0),
        "contact": lambda: hot_contact(0.85),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("volume", r"The volume is 6\.500 Å³/atom; the training data have 1\.500 to 6\.000"),
        (
            "bond_length",
            r"bond between atoms 0 and 1 is 1\.000 Å; the solids and liquids of .* have 0\.600",
        ),
        ("contact", r"Atoms [12] and [12] of different molecules are 0\.850 Å apart; the training"),
    ],
)
def test_leaving_the_domain_warns_once_of_each_kind(kind, sentence):
    atoms = outside(kind)
    atoms.calc = calc = toy_calculator()
    with pytest.warns(DomainWarning, match=sentence) as caught:
        atoms.get_forces()
    assert len([w for w in caught if w.category is DomainWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        atoms.positions += 0.01
        atoms.get_forces()
    calc.forget()
    atoms.positions += 0.01
    with pytest.warns(DomainWarning, match=sentence):
        atoms.get_forces()
    for other in {"volume", "bond_length", "contact"} - {kind}:
        atoms = outside(other)
        atoms.calc = calc
        with pytest.warns(DomainWarning) as caught:
            atoms.get_forces()
        assert len([w for w in caught if w.category is DomainWarning]) == 1


def test_warnings_turned_into_errors_stop_every_time():
    atoms = outside("volume")
    atoms.calc = toy_calculator()
    for _ in range(2):
        with pytest.raises(DomainWarning, match="volume"):
            atoms.get_forces()


def test_volume_means_nothing_without_full_periodicity():
    atoms = molecule()
    atoms.set_cell([20, 20, 20])
    atoms.pbc = (True, True, False)
    atoms.calc = toy_calculator()
    atoms.get_forces()  # a DomainWarning would be an error here
    assert abs(atoms.get_stress()).max() < 1e-12


# ---------------------------------------------------------------- uncertainties


def test_uncertainties_are_the_potentials():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_forces()
    sigma = calc.uncertainties()
    assert sigma.shape == (16,) and (sigma > 0).all()
    tracker = calc.model.potential.tracker()
    geometry = tracker.update(atoms.positions, atoms.cell.array, atoms.pbc, calc.molecules)
    assert np.allclose(sigma, calc.model.potential.deviations(geometry), rtol=1e-10)
    other = hcp(2.6, (2, 2, 1), seed=9)
    # Neighbours found anew come in another order: round-off.
    fresh = toy_calculator().uncertainties(other)
    assert np.allclose(calc.uncertainties(other), fresh, rtol=1e-12, atol=0)
    assert not np.allclose(calc.uncertainties(other), sigma)
    assert np.allclose(calc.uncertainties(atoms), sigma, rtol=1e-10)


def test_uncertainties_need_variances_in_the_model():
    potential = toy_potential()
    level = potential.environment
    without = dataclasses.replace(
        level, regressor=dataclasses.replace(level.regressor, variance=None)
    )
    for changed in (without, None):
        calc = HMLP(toy_model(dataclasses.replace(potential, environment=changed)))
        with pytest.raises(PropertyNotImplementedError, match="'toy' was saved without"):
            calc.uncertainties(warm())
        assert np.isfinite(calc.get_property("energy", warm()))


def test_both_atoms_of_a_molecule_are_as_uncertain():
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    sigma = calc.uncertainties(atoms)[calc.molecules]
    assert np.array_equal(sigma[:, 0], sigma[:, 1])
    energies = atoms.get_potential_energies()[calc.molecules]
    assert np.array_equal(energies[:, 0], energies[:, 1])
    assert np.ptp(energies[:, 0]) > 1e-3


# ---------------------------------------------------------------- copies and files


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=["deepcopy", "pickle"],
)
def test_copies_calculate_the_same_and_keep_bonds(duplicate, evaluations):
    atoms = hot_contact(2.0)
    atoms.calc = calc = toy_calculator(contact=0.6)
    atoms.get_forces()
    atoms.positions = hot_contact(0.72).positions  # a new calculator would raise
    energy, sigma = atoms.get_potential_energy(), calc.uncertainties()
    other = duplicate(calc)
    before = len(evaluations)
    assert other.get_property("energy", atoms) == energy
    assert len(evaluations) == before  # results came along
    assert np.allclose(other.uncertainties(), sigma, rtol=1e-10)
    atoms.calc = other
    atoms.positions[0] += 0.01
    atoms.get_forces()
    assert pairs(other.molecules) == {(0, 1), (2, 3)}
    assert calc.atoms != other.atoms


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=["deepcopy", "pickle"],
)
def test_copies_know_what_was_calculated(duplicate):
    atoms = warm()
    atoms.calc = calc = toy_calculator()
    atoms.get_potential_energy()
    other = duplicate(calc)
    assert np.array_equal(other.bond_lengths, calc.bond_lengths)
    assert np.array_equal(other.molecules, calc.molecules)
    assert other.shortest_contact == calc.shortest_contact


def test_what_was_forgotten_is_calculated_again():
    """Bonds that were kept by history only are another structure's once that is forgotten."""
    atoms = hot_contact(2.0)
    atoms.calc = calc = toy_calculator(contact=0.6)
    atoms.get_forces()
    atoms.positions = hot_contact(0.72).positions
    atoms.get_potential_energy()
    calc.forget()
    with pytest.raises(BondingError):
        atoms.get_potential_energy()
    with pytest.raises(RuntimeError, match="the bonds are unknown"):
        _ = calc.bond_lengths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_of_a_process_with_threads_do_not_wait_for_them(tmp_path):
    script = """
import os, sys, warnings
from ase_hmlp import HMLP
from ase_hmlp.simulate.structures import load
warnings.simplefilter("ignore")  # Python's own, about forks and threads
atoms = load("P21c-8").repeat((3, 3, 3))
atoms.calc = HMLP(threads=2)
energy = atoms.get_potential_energy()
child = os.fork()
if not child:
    atoms.calc = HMLP(threads=2)
    os._exit(0 if abs(atoms.get_potential_energy() - energy) < 1e-9 else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    # Not here: the source folder would be imported in place of what is installed.
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0


def test_deepcopy_shares_the_model():
    calc = toy_calculator()
    assert copy.deepcopy(calc).model is calc.model


def test_trajectories_and_databases_keep_the_results(tmp_path):
    atoms = warm()
    atoms.calc = toy_calculator(bonds=toy_calculator_molecules(warm()))
    expected = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.write(tmp_path / "a.traj")
    atoms.write(tmp_path / "a.extxyz")
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(atoms)
    row = ase.db.connect(tmp_path / "a.db").get(1)
    assert (row.calculator, row.calculator_parameters["model"]) == ("hmlp", "toy")
    for again in (
        ase.io.read(tmp_path / "a.traj"),
        ase.io.read(tmp_path / "a.extxyz"),
        row.toatoms(),
    ):
        assert again.get_potential_energy() == pytest.approx(expected[0], abs=1e-7)
        assert np.allclose(again.get_forces(), expected[1], atol=1e-7)
        assert np.allclose(again.get_stress(), expected[2], atol=1e-7)


def test_model_domain_and_parameters_are_there():
    model = toy_model()
    calc = HMLP(model, threads=1)
    assert calc.model is model
    assert calc.domain == DOMAIN
    assert calc.name == "hmlp"
    assert calc.todict() == {"model": "toy", "bonds": None, "threads": 1}
