"""Training rows: derivatives of fingerprints, and rows times coefficients against the potential."""

import pickle
from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from strategies import PERIODIC, Structure, build_structure, structures
from test_potential import FINGERPRINTS, LEVELS, NO_BOND, smallest_cell
from toy_models import (
    ENVIRONMENT_BASIS,
    ORIENTATION_BASIS,
    OVERLAP_BASIS,
    hcp,
    toy_potential,
    toy_regressor,
)

from ase_hmlp._core.evaluate import regress
from ase_hmlp._core.levels import ISOLATED
from ase_hmlp._core.rows import fingerprint_jacobian
from ase_hmlp.levels import EnvironmentLevel, OrientationLevel
from ase_hmlp.potential import Potential
from ase_hmlp.training.kernel_ridge import NormalEquations, gram
from ase_hmlp.training.rows import NUGGET, EnvironmentDesign, LinearDesign, bond_jacobian

POTENTIAL = toy_potential(e0=0.0)
N_FINGERPRINTS = 265

#: The overlaps among them.
FORMS = slice(33, 89)

# As in test_potential: the kinks of the interpolant, spacing^2/6 f'''' times the step; of
# products of sums over neighbours, up to 1e2 times as much.
STEP, TOLERANCE = 1e-4, 1e-5


def check_jacobian(jacobian, of_structure, structure, tolerance):
    """Derivatives of arrays by positions of two atoms and by all strains."""
    n = len(structure)
    scale = tolerance * (1.0 + np.abs(of_structure(structure)))
    for i in range(2):
        for x in range(3):
            numerical = oracle.position_derivative(of_structure, structure, i, x, STEP)
            assert (np.abs(jacobian[..., 3 * i + x] - numerical) <= scale).all()
    for voigt in range(6):
        numerical = oracle.strain_derivative(of_structure, structure, voigt, STEP)
        assert (np.abs(jacobian[..., 3 * n + voigt] - numerical) <= 5 * scale).all()


def environment_design(stretch_width=0.05, seed=5, **kwargs):
    """The environment level without coefficients."""
    regressor = toy_regressor(N_FINGERPRINTS, seed, stretch_width=stretch_width, **kwargs)
    nothing = np.zeros(N_FINGERPRINTS)
    regressor = replace(
        regressor, linear=nothing, linear_stretch=nothing, alpha=np.zeros_like(regressor.alpha)
    )
    return EnvironmentDesign(
        POTENTIAL.stretch,
        ENVIRONMENT_BASIS,
        regressor,
        np.ones(N_FINGERPRINTS),
        overlap=OVERLAP_BASIS,
    )


def linear_design(name, held=()):
    """The pair or orientation level, all coefficients free but those of functions in `held`."""
    level = getattr(POTENTIAL, name)
    free = np.ones_like(level.coefficients, dtype=bool)
    free[:, list(held)] = False
    kept = np.where(free, 0.0, level.coefficients)
    level = replace(level, coefficients=kept)
    return LinearDesign(POTENTIAL.stretch, level, free, np.ones_like(level.coefficients))


DESIGNS = {
    "pair": linear_design("pair"),
    "pair, baseline held": linear_design("pair", held=[6]),
    "orientation": linear_design("orientation"),
    "environment": environment_design(),
    "rigid environment": environment_design(stretch_width=0.0),
    "linear environment": environment_design(representatives=0),
}
EVERY_DESIGN = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)


def alone(level):
    """A potential that has nothing but one level."""
    name = {EnvironmentLevel: "environment", OrientationLevel: "orientation"}.get(
        type(level), "pair"
    )
    return Potential(0.0, NO_BOND, POTENTIAL.stretch, **{name: level})


# ---------------------------------------------------------------- fingerprints


def jacobian_of(structure):
    """Derivatives of the environment's fingerprints."""
    geometry, design = structure.geometry(POTENTIAL), DESIGNS["environment"]
    placed, _, moments = design._seen(geometry)
    return fingerprint_jacobian(
        design._interaction, placed, geometry.molecules, moments, *geometry.pairs.args
    )


def fingerprints_of(structure):
    return POTENTIAL.fingerprints(structure.geometry(POTENTIAL))


@settings(max_examples=8)
@given(structure=structures(max_molecules=4))
def test_jacobian_of_fingerprints(structure):
    jacobian = jacobian_of(structure)
    n = len(structure)
    assert jacobian.shape == (n // 2, N_FINGERPRINTS, 3 * n + 6)
    check_jacobian(jacobian, fingerprints_of, structure, TOLERANCE)


def test_jacobian_where_atoms_meet_their_images():
    structure = smallest_cell()
    check_jacobian(jacobian_of(structure), fingerprints_of, structure, TOLERANCE)


def test_every_fingerprint_depends_on_positions_and_strain():
    """No column of the Jacobian is zero by mistake, nor the same for two fingerprints."""
    structure = Structure.of(hcp(2.6, (2, 1, 1), seed=2, bond_spread=0.02))
    moved = 0.1 * np.random.default_rng(1).normal(size=structure.positions.shape)
    jacobian = jacobian_of(structure.moved(structure.positions + moved))
    flat = jacobian.transpose(1, 0, 2).reshape(N_FINGERPRINTS, -1)
    norms = np.linalg.norm(flat, axis=1)
    assert norms.min() > 1e-3
    cosines = flat @ flat.T / np.outer(norms, norms) - np.eye(N_FINGERPRINTS)
    assert np.abs(cosines).max() < 1 - 1e-6


@settings(max_examples=8)
@given(structure=structures(max_molecules=4))
def test_jacobian_of_bond_lengths(structure):
    jacobian = bond_jacobian(structure.geometry(POTENTIAL))
    # No tables: truncation h^4/30 * 24/r^4 and round-off 1e-15/h.
    check_jacobian(jacobian, lambda s: s.geometry(POTENTIAL).bond_length, structure, 1e-9)


# ---------------------------------------------------------------- the regressor


def test_kernel_columns():
    """k(y, y_s) and k(y, 0) k(0, y_s) with the bond length, and compressed fingerprints."""
    regressor = POTENTIAL.environment.regressor
    rng = np.random.default_rng(0)
    v = rng.normal(size=(9, regressor.transform.shape[1]))
    r = 0.74 + 0.05 * rng.normal(size=9)
    y, near, isolated = regressor.columns(v, r)
    expected = v @ regressor.transform.T
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)
    square = ((expected[:, None] - regressor.representatives) ** 2).sum(axis=2)
    bond = np.exp(-(((r[:, None] - regressor.rep_bond) / regressor.stretch_width) ** 2) / 2)
    # Exponents up to 50 carry 1e-15 of themselves.
    np.testing.assert_allclose(near, np.exp(-square / 2) * bond, rtol=1e-12, atol=1e-300)
    norms = (regressor.representatives**2).sum(axis=1) + (expected**2).sum(axis=1)[:, None]
    np.testing.assert_allclose(isolated, np.exp(-norms / 2) * bond, rtol=1e-12, atol=1e-300)


def isolated_bound(g):
    """How far the kernel's table of isolated molecules may be off, value and slope in r.

    Cubic Hermite interpolation with nodes so far apart; the fourth derivative of a Gaussian of
    width w is at most 3 / w^4.
    """
    if g.stretch_width == 0:
        return 0.0, 0.0
    weights = np.abs(g.alpha) * np.exp(-0.5 * (g.representatives**2).sum(axis=1))
    fourth, h = 3.0 / g.stretch_width**4 * weights.sum(), ISOLATED[2]
    return h**4 / 384 * fourth, np.sqrt(3.0) / 216 * h**3 * fourth


@pytest.mark.parametrize("stretch_width", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("representatives", [0, 1, 15, 16, 17, 33])
def test_regressor_matches_oracle(stretch_width, representatives):
    """Energies and both slopes; what pads representatives to blocks of 16 counts for nothing."""
    g = toy_regressor(8, 3, representatives=representatives, stretch_width=stretch_width)
    rng = np.random.default_rng(representatives)
    v, r = rng.normal(size=(12, 8)), 0.74 + 0.05 * rng.normal(size=12)
    # Alone, at the ends of what any bond may be, and far from all representatives.
    v[0], r[1:3], v[3] = 0.0, [0.55, 1.1], 60.0
    energy, gradient, slope = regress(g.machine, v, r, 1)
    value_bound, slope_bound = isolated_bound(g)
    for c in range(len(v)):
        expected = oracle.regressor_energy(g, v[c], r[c])
        assert energy[c] == pytest.approx(expected, abs=value_bound + 1e-13, rel=1e-12)
        along = oracle.derivative(lambda h, c=c: oracle.regressor_energy(g, v[c], r[c] + h), 1e-3)
        assert slope[c] == pytest.approx(along, abs=slope_bound + 1e-7)
        for k in range(8):
            step = np.eye(8)[k]
            numerical = oracle.derivative(
                lambda h, c=c, step=step: oracle.regressor_energy(g, v[c] + h * step, r[c]), 1e-3
            )
            assert gradient[c, k] == pytest.approx(numerical, abs=3 * value_bound + 1e-9)


def test_representatives_close_together_lose_no_digits():
    """Far from the origin, with large coefficients that cancel: against eighty-bit arithmetic."""
    rng = np.random.default_rng(6)
    n, far = 40, np.array([200.0, -150.0, 80.0])
    g = replace(
        toy_regressor(3, components=3, representatives=n, stretch_width=0.0),
        transform=np.eye(3),
        linear=np.zeros(3),
        linear_stretch=np.zeros(3),
        representatives=far + rng.normal(size=(n, 3)),
        alpha=1e4 * rng.normal(size=n),
    )
    v = far + rng.normal(size=(10, 3))
    energy, _, _ = regress(g.machine, v, np.full(10, 0.74), 1)
    apart = (v[:, None] - g.representatives).astype(np.longdouble)
    terms = g.alpha * np.exp(-(apart**2).sum(axis=2) / 2)
    # A relative 1e-14 of each term; 1e-16 of |y|^2 = 7e4 in the exponents would be 7e-12.
    allowed = 1e-14 * np.abs(terms).sum(axis=1).astype(float)
    assert (np.abs(energy - terms.sum(axis=1).astype(float)) <= allowed).all()


@pytest.mark.parametrize("x", [0.0, 1e-300, 1e-8, 0.3, 0.6931, 1.0, 30.0, 300.0, 690.0, 699.9])
def test_exponential(x):
    """The kernel's exponential against the library's."""
    far = np.sqrt(2.0 * x)
    regressor = replace(
        toy_regressor(1, representatives=1, components=1, stretch_width=0.0),
        transform=np.ones((1, 1)),
        linear=np.zeros(1),
        linear_stretch=np.zeros(1),
        representatives=np.array([[far]]),
        alpha=np.ones(1),
    )
    # At y = -far, exp(-2 far^2) less exp(-far^2); at y = far, 1 less exp(-far^2).
    v = np.array([[0.0], [2.0 * far]])
    energy, _, _ = regress(regressor.machine, v, np.full(2, 0.74), 1)
    exponent = far**2 / 2
    near = np.exp(-exponent)
    expected = near - np.exp(-5.0 * exponent)
    # The kernel's relative error and that of an exponent with 1e-16 of its terms (5 times x).
    assert energy[1] == pytest.approx(expected, rel=3e-14 + 2e-15 * x, abs=5e-16 * near)
    assert energy[0] == pytest.approx(0.0, abs=1e-13 * near)


@pytest.mark.parametrize("n_components", [0, 1, 64])
def test_regressor_components(n_components):
    regressor = toy_regressor(8, components=n_components)
    v, r = np.random.default_rng(1).uniform(size=(4, 8)), np.full(4, 0.75)
    y, near, _ = regressor.columns(v, r)
    assert y.shape == (4, n_components)
    assert near.shape == (4, 20)
    energy, _, _ = regress(regressor.machine, v, r, 1)
    expected = [oracle.regressor_energy(regressor, x, 0.75) for x in v]
    np.testing.assert_allclose(energy, expected, rtol=0, atol=isolated_bound(regressor)[0] + 1e-13)


def test_oversized_regressors_are_refused():
    with pytest.raises(ValueError, match="at most 268 fingerprints and 64 components"):
        toy_regressor(8, components=65).machine  # noqa: B018
    with pytest.raises(ValueError, match="at most 268 fingerprints and 64 components"):
        toy_regressor(269).machine  # noqa: B018


def test_fingerprints_of_another_basis_are_refused():
    with pytest.raises(ValueError, match="fingerprints do not match the regressor"):
        regress(toy_regressor(8).machine, np.zeros((2, 12)), np.full(2, 0.74), 1)


# ---------------------------------------------------------------- rows times coefficients


def check_rows(design, structure, seed):
    """Rows times random coefficients against the kernel; returns the product."""
    rng = np.random.default_rng(seed)
    geometry = structure.geometry(POTENTIAL)
    coefficients = rng.normal(size=design.n_coefficients)
    rows = design.rows(geometry)
    n = len(structure)
    assert rows.shape == (design.n_coefficients, 1 + 3 * n + 6)
    level = design.with_coefficients(coefficients)
    out = alone(level).evaluate(geometry)
    held = design.with_coefficients(np.zeros_like(coefficients))
    fixed = alone(held).evaluate(geometry)
    row = coefficients @ rows
    found = np.concatenate(
        [
            [out.energies.sum() - fixed.energies.sum()],
            -(out.forces - fixed.forces).ravel(),
            (out.virials - fixed.virials).sum(axis=0),
        ]
    )
    # Round-off: sums of up to 1e4 numbers that reach 100 (r^-5 times invariants and coefficients
    # in close contact) and cancel.
    scale = (np.abs(coefficients)[:, None] * np.abs(rows)).sum(axis=0)
    tolerance = 1e-13 * (scale + scale.max())
    if isinstance(level, EnvironmentLevel):
        # The kernel's table of isolated molecules; a strain moves atoms by up to 1 Å more.
        value, slope = isolated_bound(level.regressor)
        reach = np.abs(design.regressor.transform).sum(axis=0) @ np.abs(jacobian_of(structure)).sum(
            axis=0
        )
        tolerance = tolerance + np.concatenate([[n * value], n * slope + 5 * value * reach])
    assert (np.abs(row - found) <= tolerance).all()
    return row


@EVERY_DESIGN
@settings(max_examples=8)
@given(structure=structures(max_molecules=5))
def test_rows_times_coefficients_are_what_the_potential_returns(design, structure):
    check_rows(design, structure, seed=6)


@EVERY_DESIGN
def test_rows_of_a_crystal(design):
    structure = Structure.of(hcp(2.6, (2, 1, 1), seed=2, bond_spread=0.02))
    row = check_rows(design, structure, seed=8)
    assert np.abs(row).min() > 0


@EVERY_DESIGN
def test_rows_are_derivatives(design):
    """Of the energies in their first column, without any detour through the potential."""
    structure = build_structure(4, 3, 2.6, [], PERIODIC, True)
    rows = design.rows(structure.geometry(POTENTIAL))

    def energies(s):
        return design.rows(s.geometry(POTENTIAL))[:, 0]

    n = len(structure)
    scale = TOLERANCE * (1.0 + np.abs(rows).max(axis=1))
    for i, x in ((0, 0), (3, 2)):
        numerical = oracle.position_derivative(energies, structure, i, x, STEP)
        assert (np.abs(rows[:, 1 + 3 * i + x] - numerical) <= scale).all()
    for voigt in (1, 5):
        numerical = oracle.strain_derivative(energies, structure, voigt, STEP)
        assert (np.abs(rows[:, 1 + 3 * n + voigt] - numerical) <= 5 * scale).all()


@EVERY_DESIGN
def test_designs_survive_pickling(design):
    """They go to other processes; their tables stay behind and are made again."""
    geometry = Structure.of(hcp(2.6, (1, 1, 1), seed=3)).geometry(POTENTIAL)
    rows = design.rows(geometry)
    again = pickle.loads(pickle.dumps(design))
    np.testing.assert_array_equal(again.rows(geometry), rows)


@pytest.mark.parametrize("name", ["pair", "orientation"])
def test_first_column_of_linear_rows(name):
    structure = Structure.of(hcp(2.6, (1, 1, 1), seed=3, bond_spread=0.03))
    design, geometry = DESIGNS[name], structure.geometry(POTENTIAL)
    if name == "pair":
        expected = oracle.pair_fingerprints(design.level, design.stretch, structure)
    else:
        expected = oracle.orientation_fingerprints(ORIENTATION_BASIS, structure)
    found = design.energies(geometry)
    np.testing.assert_array_equal(found, design.rows(geometry)[:, 0])
    np.testing.assert_allclose(found, expected.sum(axis=0).ravel(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("stretch_width", [0.05, 0.0])
def test_each_block_of_environment_rows_by_itself(stretch_width):
    """Sums of v, of (r - r0) v, but of overlaps, and of k(y, y_s, r) - k(0, y_s, r).

    The last by the Cholesky factor L of the representatives' kernel matrix: L times the rows.
    """
    structure = Structure.of(hcp(2.6, (1, 1, 1), seed=3, bond_spread=0.03))
    d, geometry = environment_design(stretch_width, seed=9), structure.geometry(POTENTIAL)
    rows = d.rows(geometry)
    v, r = d.fingerprints(geometry), d.held_length(geometry)
    assert np.abs(r - geometry.bond_length).max() > 1e-4
    np.testing.assert_allclose(
        r - d.stretch.r0, oracle.held_stretch(d.stretch, geometry.bond_length), rtol=0, atol=1e-15
    )
    s = len(d.regressor.alpha)
    kernel = [
        sum(
            oracle.regressor_energy(replace(d.regressor, alpha=np.eye(s)[k]), v[m], r[m])
            for m in range(len(v))
        )
        for k in range(s)
    ]
    factor = np.linalg.cholesky(gram(d.regressor) + NUGGET * np.eye(s))
    blocks = [v.sum(axis=0), np.delete((r - d.regressor.r0) @ v, FORMS), kernel]
    found = rows[:, 0].copy()
    found[-s:] = factor @ found[-s:]
    if not stretch_width:
        del blocks[1]
    np.testing.assert_allclose(found, np.concatenate(blocks), rtol=1e-12, atol=1e-12)
    assert d.n_linear == sum(map(len, blocks[:-1]))
    assert d.n_coefficients == d.n_linear + s


def test_held_functions_have_no_rows():
    """A function that is not free keeps its coefficients through a fit."""
    whole, held = DESIGNS["pair"], DESIGNS["pair, baseline held"]
    assert held.n_coefficients == whole.n_coefficients - 4
    coefficients = np.random.default_rng(0).normal(size=held.n_coefficients)
    fitted = held.with_coefficients(coefficients)
    np.testing.assert_array_equal(fitted.coefficients[:, 6], POTENTIAL.pair.coefficients[:, 6])
    np.testing.assert_array_equal(fitted.coefficients[:, :6].ravel(), coefficients)
    # What is held is part of the potential, but of no row.
    assert (held.level.coefficients[:, :6] == 0).all()
    assert fitted.coefficients[0, 6] > 0
    geometry = Structure.of(hcp(2.6, (1, 1, 1), seed=3)).geometry(POTENTIAL)
    energy = alone(fitted).evaluate(geometry).energies.sum()
    baseline = fitted.coefficients[:, 6] @ whole.energies(geometry).reshape(4, -1)[:, 6]
    assert abs(baseline) > 0.1
    expected = coefficients @ held.energies(geometry) + baseline
    # Energies of up to 1e3 eV with unit coefficients: round-off below 1e-10.
    assert energy == pytest.approx(expected, abs=1e-10)


# ---------------------------------------------------------------- priors


@pytest.mark.parametrize("name", ["pair", "orientation"])
def test_linear_penalty(name):
    """A coefficient of one prior standard deviation costs one, whatever its fingerprint's size."""
    design = DESIGNS[name]
    rng = np.random.default_rng(0)
    design = replace(design, spread=rng.uniform(0.1, 3.0, size=design.spread.shape))
    penalty = design.penalty(0.2)
    np.testing.assert_array_equal(penalty, np.diag(np.diag(penalty)))
    one = 0.2 / design.spread.ravel()
    np.testing.assert_allclose(np.diag(penalty) * one**2, 1.0, rtol=1e-12)


@pytest.mark.parametrize("stretch_width", [0.05, 0.0])
def test_environment_penalty(stretch_width):
    design = environment_design(stretch_width)
    design = replace(design, spread=np.random.default_rng(0).uniform(0.1, 3.0, N_FINGERPRINTS))
    penalty, n = design.penalty(1.5, 0.2), design.n_linear
    assert not penalty[:n, n:].any()
    assert not penalty[n:, :n].any()
    one = 0.2 / design.spread
    linear = np.diag(penalty[:n, :n])
    np.testing.assert_array_equal(penalty[:n, :n], np.diag(linear))
    np.testing.assert_allclose(linear[:N_FINGERPRINTS] * one**2, 1.0, rtol=1e-12)
    if stretch_width:
        # One width of the kernel is a typical change of the bond length.
        per_length = np.delete(one, FORMS) / stretch_width
        np.testing.assert_allclose(linear[N_FINGERPRINTS:] * per_length**2, 1.0, rtol=1e-12)
    # What one costs in the kernel's coefficients is what it costs in the representatives' own.
    k = gram(design.regressor)
    kernel = np.random.default_rng(1).normal(size=len(k))
    own = design.of_representatives(kernel)
    expected = own @ (k + NUGGET * np.eye(len(k))) @ own / 1.5**2
    assert kernel @ penalty[n:, n:] @ kernel == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(penalty[n:, n:], np.eye(len(k)) / 1.5**2)
    assert 0 < NUGGET <= 1e-5


def test_normal_equations_keep_their_digits():
    """Representatives that are all but the same, and labels a thousand times surer than the prior.

    The truth is the least-squares solution by singular values, which squares nothing.
    """
    rng = np.random.default_rng(2)
    design = environment_design(0.0, representatives=5)
    y = 0.3 * rng.normal(size=(120, 2))
    regressor = replace(
        design.regressor,
        transform=np.eye(2),
        representatives=y,
        rep_bond=np.zeros(120),
        alpha=np.zeros(120),
    )
    design = replace(design, regressor=regressor)
    v = 0.3 * rng.normal(size=(400, 2))
    truth, sigma, prior = np.sin(3.0 * v[:, 0]) * v[:, 1], 1e-4, 1.0
    _, near, isolated = regressor.columns(v, np.zeros(400))
    columns = near - isolated
    factor = np.linalg.cholesky(gram(regressor) + NUGGET * np.eye(120))
    whole = np.vstack([columns / sigma, factor.T / prior])
    exact = np.linalg.lstsq(whole, np.concatenate([truth / sigma, np.zeros(120)]), rcond=None)[0]

    equations = NormalEquations.zeros(120)
    equations.add(np.linalg.solve(factor, columns.T), truth, np.full(400, sigma))
    found = design.of_representatives(equations.solve(np.eye(120) / prior**2).coefficients)
    np.testing.assert_allclose(columns @ found, columns @ exact, rtol=0, atol=0.01 * sigma)
    # The representatives' own equations lose what is as small.
    equations = NormalEquations.zeros(120)
    equations.add(columns.T, truth, np.full(400, sigma))
    own = equations.solve(factor @ factor.T / prior**2).coefficients
    assert np.abs(columns @ (own - exact)).max() > 0.01 * sigma


def test_levels_of_the_suite_are_all_there():
    """The potentials these tests compare with cover every level that has rows."""
    assert set(FINGERPRINTS) <= set(LEVELS)
