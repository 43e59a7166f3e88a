"""Forces in the coordinates of molecules, and the standard errors they have."""

import dataclasses

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from toy_models import hcp

from ase_hmlp.training.frames import frame_from_atoms
from ase_hmlp.training.weights import Weights, molecular_forces, targets


@pytest.fixture
def frame():
    atoms = hcp(3.0, (2, 2, 1), seed=4, bond_spread=0.02)
    rng = np.random.default_rng(5)
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(
        atoms, energy=-31.0, forces=forces, stress=rng.normal(size=6)
    )
    return frame_from_atoms(atoms, "toy")


def parts(frame, forces):
    """What moves, stretches and turns: (m, 3), (m,), (m, 2)."""
    m, values = len(frame.molecules), molecular_forces(frame, np.asarray(forces).ravel())
    return values[: 3 * m].reshape(m, 3), values[3 * m : 4 * m], values[4 * m :].reshape(m, 2)


def test_the_transformation_is_orthogonal(frame):
    matrix = molecular_forces(frame, np.eye(3 * frame.n_atoms))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3 * frame.n_atoms), atol=1e-14)


def test_what_moves_stretches_and_turns(frame):
    first, second = frame.molecules.T
    bonds = frame.bond_vectors()
    axes = bonds / np.linalg.norm(bonds, axis=1)[:, None]
    forces = np.zeros((frame.n_atoms, 3))
    forces[first] = forces[second] = [0.3, -0.2, 0.1]
    centre, stretch, turn = parts(frame, forces)
    np.testing.assert_allclose(centre, np.sqrt(2.0) * np.array([[0.3, -0.2, 0.1]] * len(first)))
    np.testing.assert_allclose(np.hstack([stretch[:, None], turn]), 0.0, atol=1e-15)
    forces[first], forces[second] = -0.7 * axes, 0.7 * axes
    centre, stretch, turn = parts(frame, forces)
    np.testing.assert_allclose(stretch, 0.7 * np.sqrt(2.0))
    np.testing.assert_allclose(np.hstack([centre, turn]), 0.0, atol=1e-15)
    across = np.cross(axes, [0.36, 0.48, 0.8])
    forces[first], forces[second] = -across, across
    centre, stretch, turn = parts(frame, forces)
    expected = np.sqrt(2.0) * np.linalg.norm(across, axis=1)
    np.testing.assert_allclose(np.linalg.norm(turn, axis=1), expected)
    np.testing.assert_allclose(np.hstack([centre, stretch[:, None]]), 0.0, atol=1e-15)


def test_least_squares_with_one_error_for_all_is_that_of_atoms(frame):
    """With constant errors the coordinates do not matter."""
    weights = Weights(force=0.05, relative=0.0)
    rows = np.random.default_rng(6).normal(size=(3, 7 + 3 * frame.n_atoms))
    mine = weights.in_molecules(frame, rows) / weights.sigma(frame)
    forces = slice(1, 1 + 3 * frame.n_atoms)
    atoms = rows[:, forces] / 0.05
    np.testing.assert_allclose(mine[:, forces] @ mine[:, forces].T, atoms @ atoms.T, rtol=1e-12)
    np.testing.assert_array_equal(weights.in_molecules(frame, rows)[:, 0], rows[:, 0])
    np.testing.assert_array_equal(weights.in_molecules(frame, rows)[:, -6:], rows[:, -6:])
    np.testing.assert_allclose(
        weights.in_molecules(frame, targets(frame))[forces],
        -molecular_forces(frame, frame.forces.ravel()),
    )


def test_each_part_has_its_own_error(frame):
    weights = Weights(force=0.04, torque=0.01, relative=0.1)
    m = len(frame.molecules)
    sigma = weights.sigma(frame)[1 : 1 + 6 * m]
    centre, stretch, turn = parts(frame, frame.forces)
    np.testing.assert_allclose(
        sigma[: 3 * m : 3], np.hypot(0.04, 0.1 * np.linalg.norm(centre, axis=1))
    )
    np.testing.assert_allclose(sigma[3 * m : 4 * m], np.hypot(0.04, 0.1 * np.abs(stretch)))
    np.testing.assert_allclose(
        sigma[4 * m :: 2], np.hypot(0.01, 0.1 * np.linalg.norm(turn, axis=1))
    )
    heavy = dataclasses.replace(frame, weight=4.0)
    np.testing.assert_allclose(weights.sigma(heavy), 0.5 * weights.sigma(frame))


def test_energy_and_stress_count_less_where_forces_are_strong(frame):
    weights = Weights(energy=0.002, force=0.04, stress=0.4, relative=0.1)
    rms = np.sqrt((frame.forces**2).mean())
    more = np.sqrt(1.0 + (0.5 * 0.1 * rms / 0.04) ** 2)
    assert more > 1.2  # a strong one
    assert weights.strength(frame) == pytest.approx(more, rel=1e-12)
    sigma = weights.sigma(frame)
    assert sigma[0] == pytest.approx(0.002 * frame.n_atoms * more, rel=1e-12)
    np.testing.assert_allclose(sigma[-6:], 0.4 * GPa * frame.volume * more, rtol=1e-12)
