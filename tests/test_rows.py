"""Training rows: Jacobians of fingerprints, and rows times coefficients against the calculator."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from strategies import Structure, build_structure, structures
from test_potential import LEVELS, smallest_cell
from toy_models import ORIENTATION_BASIS, PAIR_BASIS, hcp, toy_potential, toy_regressor

from ase_hmlp.fingerprints import ANGULAR_NAMES, gaussians, is_real_channel
from ase_hmlp.levels import Accumulator, OrientationLevel, PairLevel
from ase_hmlp.training.rows import LevelDesign, bond_jacobian, fingerprints

#: Seven and five functions: both tables have padding channels.
BASIS = {
    PairLevel: PAIR_BASIS,
    OrientationLevel: replace(
        ORIENTATION_BASIS, functions=(*ORIENTATION_BASIS.functions, *gaussians([1.0]))
    ),
}
BOTH = pytest.mark.parametrize("level", BASIS, ids=lambda level: level.centre)
POTENTIAL = toy_potential(e0=0.0)

# As in test_potential: the kinks of the interpolant, spacing^2/6 f'''' times the step, with
# f'''' < 200 Å^-4 for the functions here (times 8, the largest angular invariant), a few
# neighbours each.
STEP, TOLERANCE = 1e-4, 1e-5


def check_jacobian(jacobian, of_structure, structure, tolerance):
    """Derivatives of arrays by positions of two atoms and by all strains."""
    n = len(structure)
    for i in range(2):
        for x in range(3):
            numerical = oracle.position_derivative(of_structure, structure, i, x, STEP)
            np.testing.assert_allclose(jacobian[..., 3 * i + x], numerical, rtol=0, atol=tolerance)
    for voigt in range(6):
        numerical = oracle.strain_derivative(of_structure, structure, voigt, STEP)
        np.testing.assert_allclose(
            jacobian[..., 3 * n + voigt], numerical, rtol=0, atol=5 * tolerance
        )


@BOTH
@settings(max_examples=8)
@given(structure=structures(max_molecules=4))
def test_jacobian_of_fingerprints(level, structure):
    def of_structure(s):
        return fingerprints(level, BASIS[level], s.geometry(POTENTIAL))

    jacobian = level.jacobian(BASIS[level], structure.geometry(POTENTIAL))
    v = of_structure(structure)
    assert jacobian.shape == (*v.shape, 3 * len(structure) + 6)
    check_jacobian(jacobian, of_structure, structure, TOLERANCE)


@BOTH
def test_jacobian_where_atoms_meet_their_images(level):
    structure = smallest_cell()

    def of_structure(s):
        return fingerprints(level, BASIS[level], s.geometry(POTENTIAL))

    jacobian = level.jacobian(BASIS[level], structure.geometry(POTENTIAL))
    check_jacobian(jacobian, of_structure, structure, TOLERANCE)


@BOTH
@settings(max_examples=8)
@given(structure=structures(max_molecules=4))
def test_jacobian_of_bond_lengths(level, structure):
    def of_structure(s):
        return level.bond_length(s.geometry(POTENTIAL))

    jacobian = bond_jacobian(level, structure.geometry(POTENTIAL))
    # No tables: truncation h^4/30 * 24/r^4 and round-off 1e-15/h.
    check_jacobian(jacobian, of_structure, structure, 1e-9)


@BOTH
def test_kernel_columns(level):
    """k(y, y_s) and k(y, 0) k(0, y_s) with the bond length, and compressed fingerprints."""
    regressor = LEVELS[level.centre.replace("atom", "pair").replace("molecule", "orientation")]
    regressor = (regressor.pair or regressor.orientation).regressor
    rng = np.random.default_rng(0)
    v = rng.normal(size=(9, regressor.transform.shape[1]))
    r = 0.74 + 0.05 * rng.normal(size=9)
    y, near, isolated = regressor.columns(v, r)
    expected = v @ regressor.transform.T
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)
    square = ((expected[:, None] - regressor.representatives) ** 2).sum(axis=2)
    bond = np.exp(-(((r[:, None] - regressor.rep_bond) / regressor.stretch_width) ** 2) / 2)
    # The exponential is good to 1e-14; exponents up to 50 carry 1e-15 of themselves.
    np.testing.assert_allclose(near, np.exp(-square / 2) * bond, rtol=1e-12, atol=1e-300)
    norms = (regressor.representatives**2).sum(axis=1) + (expected**2).sum(axis=1)[:, None]
    np.testing.assert_allclose(isolated, np.exp(-norms / 2) * bond, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33])
def test_any_number_of_representatives(n):
    """Representatives are padded to blocks of 16; the padding counts for nothing."""
    regressor = toy_regressor(8, seed=n, representatives=n)
    level = PairLevel(PAIR_BASIS, regressor)
    structure = build_structure(1, 2, 3.2, [], (True, True, True), False)
    potential = replace(LEVELS["pair"], pair=level)
    energies = structure.evaluate(potential).energies
    expected = oracle.energies(potential, structure, ANGULAR_NAMES)
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-9)
    assert regressor.columns(np.zeros((3, 8)), np.full(3, 0.74))[1].shape == (3, n)


@pytest.mark.parametrize("x", [0.0, 1e-300, 1e-8, 0.3, 0.6931, 1.0, 30.0, 690.0, 699.9])
def test_exponential(x):
    """The kernel's exponential against the library's."""
    bond = 0.74 + np.sqrt(2.0 * x)
    regressor = replace(
        toy_regressor(8, representatives=1, stretch_width=1.0),
        representatives=np.zeros((1, 5)),
        rep_bond=np.array([bond]),
    )
    near = regressor.columns(np.zeros((1, 8)), np.array([0.74]))[1][0, 0]
    exponent = (0.74 - bond) ** 2 / 2
    # 1e-14 and what one unit in the last place of the exponent amounts to.
    assert near == pytest.approx(np.exp(-exponent), rel=1e-14 + 3e-16 * x, abs=0)


@pytest.mark.parametrize("n_components", [0, 1, 128])
def test_regressor_components(n_components):
    regressor = toy_regressor(8, components=n_components)
    v = np.random.default_rng(1).uniform(size=(4, 8))
    y, near, _ = regressor.columns(v, np.full(4, 0.75))
    assert y.shape == (4, n_components)
    assert np.isfinite(near).all()


def test_oversized_regressors_are_refused():
    with pytest.raises(ValueError, match="at most 512 fingerprints and 128 components"):
        toy_regressor(8, components=129).machine  # noqa: B018
    with pytest.raises(ValueError, match="at most 512 fingerprints and 128 components"):
        toy_regressor(516).machine  # noqa: B018


def test_fingerprints_of_another_basis_are_refused():
    with pytest.raises(ValueError, match="fingerprints do not match the regressor"):
        toy_regressor(8).columns(np.zeros((2, 12)), np.full(2, 0.74))


# ---------------------------------------------------------------- rows times coefficients


def design(level, stretch_width, seed):
    """A level without coefficients."""
    basis = BASIS[level]
    names = level.names(basis)
    regressor = toy_regressor(len(names), seed, stretch_width=stretch_width)
    nothing = np.zeros(len(names))
    regressor = replace(
        regressor,
        linear=nothing,
        linear_stretch=nothing,
        alpha=np.zeros_like(regressor.alpha),
    )
    return LevelDesign(level, basis, regressor, is_real_channel(names))


def check_rows(design, structure, seed):
    rng = np.random.default_rng(seed)
    geometry = structure.geometry(POTENTIAL)
    coefficients = rng.normal(size=design.n_coefficients)
    rows = design.rows(geometry)
    n = len(structure)
    assert rows.shape == (design.n_coefficients, 1 + 3 * n + 6)
    row = coefficients @ rows
    out = Accumulator.zeros(n)
    design.with_coefficients(coefficients).add_to(out, geometry)
    # Round-off: sums of up to 1e4 numbers that reach 100 (r^-5 times invariants and coefficients
    # in close contact) and cancel.
    scale = (np.abs(coefficients)[:, None] * np.abs(rows)).sum(axis=0)
    tolerance = 1e-13 * (scale + scale.max())
    assert abs(row[0] - out.energies.sum()) <= tolerance[0]
    assert (np.abs(-row[1 : 1 + 3 * n] - out.forces.ravel()) <= tolerance[1 : 1 + 3 * n]).all()
    assert (np.abs(row[1 + 3 * n :] - out.virials.sum(axis=0)) <= tolerance[1 + 3 * n :]).all()
    return row


@BOTH
@pytest.mark.parametrize("stretch_width", [0.05, 0.0])
@settings(max_examples=10)
@given(structure=structures(max_molecules=5))
def test_rows_times_coefficients_are_what_the_potential_returns(level, stretch_width, structure):
    check_rows(design(level, stretch_width, seed=5), structure, seed=6)


@BOTH
@pytest.mark.parametrize("stretch_width", [0.05, 0.0])
def test_rows_of_a_crystal(level, stretch_width):
    structure = Structure.of(hcp(2.6, (2, 1, 1), seed=2, bond_spread=0.02))
    row = check_rows(design(level, stretch_width, seed=7), structure, seed=8)
    assert np.abs(row).min() > 0


@BOTH
def test_each_block_of_rows_by_itself(level):
    """Linear: sum v; stretch: sum (r - r0) v; kernel: sum k(y, y_s, r) - k(0, y_s, r)."""
    structure = Structure.of(hcp(2.6, (1, 1, 1), seed=3, bond_spread=0.03))
    d, geometry = design(level, 0.05, seed=9), structure.geometry(POTENTIAL)
    rows, k = d.rows(geometry), int(d.free.sum())
    v, r = fingerprints(level, d.basis, geometry), level.bond_length(geometry)
    expected = np.concatenate(
        [
            v[:, d.free].sum(axis=0),
            ((r - d.regressor.r0)[:, None] * v[:, d.free]).sum(axis=0),
            [
                sum(
                    oracle.regressor_energy(
                        replace(d.regressor, alpha=np.eye(len(d.regressor.alpha))[s]), v[c], r[c]
                    )
                    for c in range(len(v))
                )
                for s in range(len(d.regressor.alpha))
            ],
        ]
    )
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-12, atol=1e-12)
    assert k < len(d.free)
    assert d.n_linear == 2 * k


@BOTH
def test_held_channels_have_no_rows(level):
    """A channel that is not free keeps its coefficient through a fit."""
    d = design(level, 0.05, seed=1)
    free = d.free.copy()
    free[2] = False
    fixed = np.zeros(len(free))
    fixed[2] = 3.5
    held = LevelDesign(level, d.basis, replace(d.regressor, linear=fixed), free)
    assert held.n_coefficients == d.n_coefficients - 2
    coefficients = np.random.default_rng(0).normal(size=held.n_coefficients)
    fitted = held.with_coefficients(coefficients)
    assert fitted.regressor.linear[2] == 3.5
    assert fitted.regressor.linear_stretch[2] == 0.0
    structure = Structure.of(hcp(2.6, (1, 1, 1), seed=3))
    geometry = structure.geometry(POTENTIAL)
    out = Accumulator.zeros(len(structure))
    fitted.add_to(out, geometry)
    baseline = 3.5 * fingerprints(level, d.basis, geometry)[:, 2].sum()
    energy = coefficients @ held.rows(geometry)[:, 0]
    # Energies of up to 1e3 eV with unit coefficients: round-off below 1e-10.
    assert out.energies.sum() == pytest.approx(energy + baseline, abs=1e-10)
