"""Radial and orientation functions, their tables, and fingerprints, against the oracle."""

from itertools import pairwise

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from numpy.polynomial.chebyshev import Chebyshev
from strategies import structures
from toy_models import ORIENTATION_BASIS, PAIR_BASIS, random_axes, toy_potential

from ase_hmlp._core.levels import evaluate_angular, evaluate_radial
from ase_hmlp.fingerprints import (
    ANGULAR_NAMES,
    QUADRUPOLE_ANGULAR,
    RADIAL_KINDS,
    RadialBasis,
    RadialFunction,
    born_mayer,
    damped_sines,
    gaussians,
    is_real_channel,
    orientation_names,
    quadrupole,
)
from ase_hmlp.levels import OrientationLevel, PairLevel

BASES = {"pair": PAIR_BASIS, "orientation": ORIENTATION_BASIS}
FUNCTIONS = [
    *gaussians([0.7, 2.0]),
    *damped_sines([1.3, 4.0], [0.9, 2.5]),
    *quadrupole(),
    *born_mayer(0.3),
]
POTENTIAL = toy_potential()


def direct(function, basis, r):
    """Value and slope from the kernel, without a table."""
    kind = RADIAL_KINDS[function.kind]
    r = np.ascontiguousarray(r, dtype=float)
    return evaluate_radial(kind, function.a, function.b, r, basis.cutoff, basis.inner, basis.outer)


def pieces(basis, start):
    """Intervals on which every function of a basis is analytic."""
    joints = [start, basis.inner, basis.outer, basis.cutoff]
    joints = sorted({x for x in joints if start <= x <= basis.cutoff})
    return list(pairwise(joints))


def fourth_derivative(function, basis, start):
    """Largest fourth derivative of a radial function beyond `start`, piece by piece."""
    largest = 0.0
    for left, right in pieces(basis, start):
        fit = Chebyshev.interpolate(
            lambda r: oracle.radial(function, basis, r), 50, domain=(left, right)
        )
        largest = max(largest, np.abs(fit.deriv(4)(np.linspace(left, right, 1000))).max())
    return largest


def interpolation_bounds(basis, start):
    """Error bounds of cubic Hermite values, h^4/384 max|f''''|, and slopes, √3/216 h^3 max|f''''|.

    They hold where the joints of the pieces are nodes of the table.
    """
    h = basis.spacing
    fourth = np.zeros(len(basis.names))
    for k, function in enumerate(basis.functions):
        fourth[k] = fourth_derivative(function, basis, start)
    return h**4 / 384 * fourth, np.sqrt(3.0) / 216 * h**3 * fourth


# ---------------------------------------------------------------- radial functions


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
@pytest.mark.parametrize("inner, outer", [(0.0, 0.0), (0.9, 1.3)])
def test_radial_function_matches_oracle(function, inner, outer):
    basis = RadialBasis((function,), 4.2, inner, outer)
    r = np.linspace(0.4, 4.6, 400)
    value, _ = direct(function, basis, r)
    expected = oracle.radial(function, basis, r)
    # A few operations each: 1e-13 of the largest value.
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
@pytest.mark.parametrize("inner, outer", [(0.0, 0.0), (0.9, 1.3)])
def test_radial_slope_is_the_derivative(function, inner, outer):
    basis = RadialBasis((function,), 4.2, inner, outer)
    r = np.linspace(0.5, 4.4, 301)
    r = r[[abs(x - np.array([inner, outer, 4.2])).min() > 0.01 for x in r]]
    _, slope = direct(function, basis, r)
    expected = oracle.derivative(lambda h: oracle.radial(function, basis, r + h), 1e-3)
    # Truncation h^4/30 f^(5) with f^(5) up to 2e5 times the value at 0.5 Å (r^-5: 15120 r^-10), and
    # round-off 1e-16/1e-3 of the value: 1e-7 of the largest slope holds both.
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_value_and_two_derivatives_vanish_at_the_cutoff(function):
    """|f| <= G t^3 with t = 1 - (r/rc)^2 < 2 delta/rc: cubic in the distance to the cutoff."""
    rc = 4.2
    basis = RadialBasis((function,), rc, 0.9, 1.3)
    delta = np.array([0.3, 0.1, 1e-2, 1e-3, 1e-4])
    value, slope = direct(function, basis, rc - delta)
    near = np.linspace(rc - 0.3, rc, 100)
    bare = oracle.radial(function, RadialBasis((function,), 1e6, 0.9, 1.3), near)
    g, dg = np.abs(bare).max(), np.abs(np.gradient(bare, near)).max()
    t = 2 * delta / rc
    # 1.001: the bounds are attained in the limit, and G comes from a grid.
    assert (np.abs(value) <= 1.001 * g * t**3).all()
    assert (np.abs(slope) <= 1.001 * (6 / rc * g * t**2 + dg * t**3)).all()
    assert (direct(function, basis, [rc, rc + 1e-9, 2 * rc]) == 0).all()


def test_frozen_distance():
    """The quadrupole's inverse fifth root shows the distance it saw."""
    (function,) = quadrupole()
    inner, outer, rc = 0.9, 1.3, 4.0
    basis = RadialBasis((function,), rc, inner, outer)

    def seen(r):
        value, _ = direct(function, basis, r)
        return (value / oracle.cutoff_function(r, rc)) ** -0.2

    r = np.linspace(0.3, 2.0, 200)
    np.testing.assert_allclose(seen(r), oracle.frozen(r, inner, outer), rtol=1e-14)
    low = seen(np.linspace(0.0, inner, 50))
    np.testing.assert_allclose(low, inner + 0.5 * (outer - inner), rtol=1e-14)
    # Twice continuously differentiable at both ends: it leaves its limits with the fourth power,
    # 5/2 w (delta/w)^4 at most (the integral of 10 t^3).
    delta, width = np.array([1e-1, 3e-2, 1e-2, 3e-3]), outer - inner
    bound = 2.5 * width * (delta / width) ** 4 + 1e-14
    assert (np.abs(seen(inner + delta) - seen(np.array([inner]))) <= bound).all()
    assert (np.abs(seen(outer - delta) - (outer - delta)) <= bound).all()


def test_baseline_is_never_frozen():
    (function,) = born_mayer(0.3)
    r = np.array([0.05, 0.5, 0.9, 1.2])
    value, _ = direct(function, RadialBasis((function,), 4.0, 0.9, 1.3), r)
    np.testing.assert_allclose(value, np.exp(-r / 0.3) * oracle.cutoff_function(r, 4.0), rtol=1e-14)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_interpolation_error(basis):
    start = 0.3
    r = np.random.default_rng(0).uniform(start, basis.cutoff, 4000)
    value, slope = basis.table.evaluate(r)
    value_bound, slope_bound = interpolation_bounds(basis, start)
    for k, function in enumerate(basis.functions):
        exact, exact_slope = direct(function, basis, r)
        # 1e-13: round-off where the function itself is flat.
        assert np.abs(value[:, k] - exact).max() <= value_bound[k] + 1e-13
        assert np.abs(slope[:, k] - exact_slope).max() <= slope_bound[k] + 1e-11
        # The bound is no more than ten times what happens: it means something.
        assert np.abs(value[:, k] - exact).max() >= 0.1 * value_bound[k]
    assert (value[:, len(basis.functions) :] == 0).all()
    assert (slope[:, len(basis.functions) :] == 0).all()


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_slope_is_the_derivative_of_the_interpolant(basis):
    h = basis.spacing
    middle = h * (np.arange(int(0.5 / h), int(basis.cutoff / h) - 1, 7) + 0.5)
    _, slope = basis.table.evaluate(middle)
    numerical = oracle.derivative(lambda x: basis.table.evaluate(middle + x)[0], h / 8)
    # The stencil is exact for cubics; what is left is round-off, 1e-16 / (h / 8).
    np.testing.assert_allclose(slope, numerical, rtol=0, atol=1e-11)


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_interpolant_is_continuous_at_the_nodes(basis):
    nodes = basis.spacing * np.arange(100, 700, 13)
    left, right = (basis.table.evaluate(nodes + x) for x in (-1e-12, 1e-12))
    # Slopes are at most 10 and curvatures at most 100 here: 2e-12 of the way changes 2e-10.
    np.testing.assert_allclose(left, right, rtol=0, atol=2e-10)


def test_cutoff_between_nodes_is_still_smooth():
    """The last interval then holds the joint: its error is of third order, not fourth."""
    basis = RadialBasis(gaussians([2.0]), cutoff=4.0021, spacing=0.005)
    last = np.linspace(basis.cutoff - 0.01, basis.cutoff, 200)
    value, slope = basis.table.evaluate(last)
    exact = direct(basis.functions[0], basis, last)
    # f''' jumps by 48 g/rc^3 < 0.75 g at the joint, g = exp(-4) < 0.02.  A cubic interpolant
    # misses a jump J in f''' by at most h^3 J/6 in value and h^2 J/2 in slope.
    h, jump = basis.spacing, 0.75 * 0.02
    assert np.abs(value[:, 0] - exact[0]).max() <= h**3 * jump / 6
    assert np.abs(slope[:, 0] - exact[1]).max() <= h**2 * jump / 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 64])
def test_any_number_of_functions(n):
    basis = RadialBasis(gaussians(np.linspace(0.5, 3.0, n)), 4.0)
    assert basis.table.channels == 4 * ((n + 3) // 4)
    assert is_real_channel(basis.names).sum() == n
    r = np.array([1.0, 2.0])
    np.testing.assert_allclose(
        basis.table.evaluate(r)[0].T, oracle.radial_channels(basis, r), rtol=0, atol=1e-9
    )


def test_too_many_or_no_functions_are_refused():
    with pytest.raises(ValueError, match="1 to 64 functions"):
        RadialBasis(gaussians(np.linspace(0.5, 3.0, 65)), 4.0).table  # noqa: B018
    with pytest.raises(ValueError, match="1 to 64 functions"):
        RadialBasis((), 4.0).table  # noqa: B018


def test_unknown_function_is_refused():
    with pytest.raises(ValueError, match="unknown radial function 'lorentzian'"):
        RadialFunction("lorentzian", 1.0)


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_basis_survives_plain_data(basis):
    assert RadialBasis.from_dict(basis.to_dict()) == basis


# ---------------------------------------------------------------- orientational invariants


def test_angular_invariants_match_oracle():
    rng = np.random.default_rng(1)
    a, b, r = (random_axes(200, rng) for _ in range(3))
    cosines = np.column_stack([(a * r).sum(1), (b * r).sum(1), (a * b).sum(1)])
    values = evaluate_angular(cosines)
    for n in range(200):
        expected = oracle.angular(a[n], b[n], r[n])
        # Polynomials of cosines with coefficients up to 35: round-off below 1e-13.
        np.testing.assert_allclose(
            values[n], [expected[name] for name in ANGULAR_NAMES], rtol=0, atol=1e-13
        )
    np.testing.assert_allclose(
        values[:, ANGULAR_NAMES.index(QUADRUPOLE_ANGULAR)],
        oracle.quadrupole_form(*cosines.T),
        rtol=0,
        atol=1e-13,
    )


def test_quadrupole_invariant_is_the_interaction_of_quadrupoles():
    """3/4 Q^2 S224 is the Coulomb energy of two linear quadrupoles, Q = 2 for these charges."""
    rng = np.random.default_rng(2)
    for a, b, r in zip(*(random_axes(20, rng) for _ in range(3)), strict=True):
        coarse, fine = (oracle.point_charge_quadrupoles(a, b, r, h) for h in (0.02, 0.01))
        form = evaluate_angular(np.array([[a @ r, b @ r, a @ b]]))[0, 5]
        # Extrapolated to points; the rest is h^4 times moments whose coefficients reach 2e4.
        assert (4 * fine - coarse) / 3 == pytest.approx(3 * form, abs=1e-2)


def test_invariants_are_orthogonal():
    """Independent orientations average the product of two different invariants to zero."""
    x, weight = np.polynomial.legendre.leggauss(8)
    phi = 2 * np.pi * np.arange(12) / 12
    ca, cb, angle = (g.ravel() for g in np.meshgrid(x, x, phi, indexing="ij"))
    w = np.einsum("i,j,k->ijk", weight / 2, weight / 2, np.full(12, 1 / 12)).ravel()
    c = ca * cb + np.sqrt((1 - ca**2) * (1 - cb**2)) * np.cos(angle)
    s = evaluate_angular(np.column_stack([ca, cb, c]))
    gram = s.T @ (w[:, None] * s)
    # The quadrature is exact for these polynomials.
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), rtol=0, atol=1e-13)
    legendre = {"S000": 1, "S202": 1 / 5, "S022": 1 / 5, "S220": 1 / 5, "S404": 1 / 9}
    for name, norm in legendre.items():
        row = ANGULAR_NAMES.index(name)
        assert gram[row, row] == pytest.approx(norm, abs=1e-13)


def test_invariants_are_even_and_swap():
    rng = np.random.default_rng(3)
    ca, cb, c = rng.uniform(-1, 1, size=(3, 50))
    s = evaluate_angular(np.column_stack([ca, cb, c]))
    flipped = evaluate_angular(np.column_stack([-ca, cb, -c]))
    swapped = evaluate_angular(np.column_stack([cb, ca, c]))
    np.testing.assert_allclose(flipped, s, rtol=0, atol=1e-14)
    partner = [ANGULAR_NAMES.index(n[0] + n[2] + n[1] + n[3]) for n in _letters()]
    np.testing.assert_allclose(swapped, s[:, partner], rtol=0, atol=1e-14)


def _letters():
    return list(ANGULAR_NAMES)


def test_fp_eqq_is_equation_6_times_equation_7():
    names = orientation_names(ORIENTATION_BASIS)
    assert names.count("fp_EQQ") == 1
    column = names.index("fp_EQQ")
    assert len(names) == len(ANGULAR_NAMES) * ORIENTATION_BASIS.table.channels
    rng = np.random.default_rng(4)
    a, b, r_hat = (random_axes(1, rng)[0] for _ in range(3))
    r = 3.1
    centres = r * np.outer([0, 1], r_hat)
    ends = np.stack([centres - 0.37 * np.array([a, b]), centres + 0.37 * np.array([a, b])], 1)
    geometry = POTENTIAL.tracker().update(
        ends.reshape(-1, 3), np.eye(3), (False,) * 3, np.array([[0, 1], [2, 3]], dtype=np.intc)
    )
    w = OrientationLevel.fingerprints(ORIENTATION_BASIS, geometry)
    expected = oracle.quadrupole_form(a @ r_hat, b @ r_hat, a @ b) * r**-5
    expected *= (1 - (r / ORIENTATION_BASIS.cutoff) ** 2) ** 3
    # Table error at 3.1 Å: h^4/384 of 1680 r^-9 = 0.06, times 35.
    np.testing.assert_allclose(w[:, column], expected, rtol=0, atol=1e-11)


# ---------------------------------------------------------------- fingerprints

#: Bounds hold beyond the shortest distance of any pair in the structures drawn.
PAIR_BOUND = interpolation_bounds(PAIR_BASIS, 1.0)[0]
#: Centres can be nearer than atoms; the frozen functions are flat there but for the cutoff.
ORIENTATION_BOUND = interpolation_bounds(ORIENTATION_BASIS, 0.3)[0]


@settings(max_examples=12)
@given(structures(max_molecules=5))
def test_pair_fingerprints_match_oracle(structure):
    geometry = structure.geometry(POTENTIAL)
    v, contact = PairLevel.fingerprints(PAIR_BASIS, geometry)
    expected, count = oracle.pair_fingerprints(PAIR_BASIS, structure)
    # The interpolation error of each neighbour, and round-off of sums below 1e3.
    assert (np.abs(v - expected) <= count[:, None] * PAIR_BOUND + 1e-12).all()
    assert (np.isinf(contact) == (count == 0)).all()
    assert (contact > 1.0).all()


@settings(max_examples=12)
@given(structures(max_molecules=5))
def test_orientation_fingerprints_match_oracle(structure):
    geometry = structure.geometry(POTENTIAL)
    w = OrientationLevel.fingerprints(ORIENTATION_BASIS, geometry)
    expected, count = oracle.orientation_fingerprints(ORIENTATION_BASIS, structure, ANGULAR_NAMES)
    # Largest value of any invariant: 8 (S224 at ca = cb = c = 1); round-off as above.
    bound = 8 * np.tile(ORIENTATION_BOUND, len(ANGULAR_NAMES))
    assert (np.abs(w - expected) <= count[:, None] * bound + 1e-12).all()


def test_names_line_up_with_columns():
    assert PAIR_BASIS.names == [
        "gaussian(0.9)",
        "gaussian(1.4)",
        "gaussian(2.2)",
        "gaussian(3)",
        "damped_sine(1.5,1.2)",
        "damped_sine(3,2)",
        "born_mayer(0.3)",
        "",
    ]
    names = orientation_names(RadialBasis(gaussians([2.0]), 4.0))
    assert names[:8] == ["S000*gaussian(2)", "", "", "", "S202*gaussian(2)", "", "", ""]
