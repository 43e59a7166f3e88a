"""Radial and orientation functions, their tables, and fingerprints, against the oracle."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from numpy.polynomial.chebyshev import Chebyshev
from strategies import Structure, rotations, structures
from toy_models import (
    ENVIRONMENT_BASIS,
    ORIENTATION_BASIS,
    OVERLAP_BASIS,
    PAIR_BASIS,
    dimer,
    from_molecules,
    hcp,
    molecule,
    random_axes,
    toy_potential,
    toy_structures,
)

from ase_hmlp._core.levels import (
    Interaction,
    cubic_intervals,
    evaluate_angular,
    evaluate_angular_slopes,
    evaluate_cutoff,
    evaluate_radial,
)
from ase_hmlp.fingerprints import (
    ANGULAR_NAMES,
    NEVER,
    ORIENTATION_NAMES,
    QUADRUPOLE_ANGULAR,
    RADIAL_KINDS,
    STRETCH_NAMES,
    OverlapBasis,
    RadialBasis,
    RadialFunction,
    born_mayer,
    damped_sines,
    environment_names,
    gaussians,
    orientation_names,
    overlap_names,
    pair_names,
    quadrupole,
    shells,
)
from ase_hmlp.levels import (
    ATOM_SPACING,
    CENTRE_SPACING,
    LONGEST,
    ORBITAL_SPACING,
    OrientationLevel,
    PairLevel,
    interaction,
)
from ase_hmlp.potential import Potential
from ase_hmlp.training.rows import EnvironmentDesign, LinearDesign

#: Every basis, the spacing of its tables, and whether the cutoff function is in them.
BASES = {
    "pair": (PAIR_BASIS, ATOM_SPACING, False),
    "orientation": (ORIENTATION_BASIS, CENTRE_SPACING, True),
    "environment": (ENVIRONMENT_BASIS, CENTRE_SPACING, True),
}
EVERY_BASIS = pytest.mark.parametrize("basis, spacing, cut", BASES.values(), ids=BASES)
FUNCTIONS = [
    *gaussians([0.7, 2.0]),
    *damped_sines([1.3, 4.0], [0.9, 2.5]),
    *quadrupole(),
    *born_mayer(0.3),
    *shells([1.1, 2.4], 0.35),
    RadialFunction("wendland", 2.1),
]
POTENTIAL = toy_potential()
FORMS = slice(33, 89)


def direct(function, basis, r, cut=True):
    """Value and slope from the kernel, without a table."""
    kind = RADIAL_KINDS[function.kind]
    r = np.ascontiguousarray(r, dtype=float)
    cutoff = basis.cutoff if cut else NEVER
    return evaluate_radial(kind, function.a, function.b, r, cutoff, basis.inner, basis.outer)


def end(basis, cut):
    """Where a table ends: atoms may be farther apart than centres."""
    return basis.cutoff + (0.0 if cut else LONGEST)


def nodes(basis, spacing, cut):
    """Distances of a table's nodes."""
    return spacing * np.arange(round(end(basis, cut) / spacing) + 1)


def table(basis, spacing, cut):
    """Cubic intervals of all functions of a basis, padded to whole blocks."""
    made = basis.evaluate(nodes(basis, spacing, cut), cut=cut)
    padding = ((0, 0), (0, -len(basis.functions) % 4))
    return cubic_intervals(*(np.pad(x, padding) for x in made), spacing)


def read_table(intervals, spacing, r):
    """Values and slopes (n, channels) of cubic intervals at distances r (n)."""
    place = np.minimum((np.asarray(r) / spacing).astype(int), len(intervals) - 1)
    x = (r / spacing - place)[:, None, None]
    c0, c1, c2, c3 = np.moveaxis(intervals[place], 2, 0)
    value = c0 + x * (c1 + x * (c2 + x * c3))
    slope = (c1 + x * (2 * c2 + 3 * x * c3)) / spacing
    return value.reshape(len(r), -1), slope.reshape(len(r), -1)


def pieces(basis, start, stop):
    """Intervals on which every function of a basis is analytic."""
    joints = [start, basis.inner, basis.outer, stop]
    joints = sorted({x for x in joints if start <= x <= stop})
    return list(pairwise(joints))


def fourth_derivative(function, basis, start, cut):
    """Largest fourth derivative of a radial function beyond `start`, piece by piece."""
    largest = 0.0
    for left, right in pieces(basis, start, end(basis, cut)):
        fit = Chebyshev.interpolate(
            lambda r: oracle.radial(function, basis, r, cut), 60, domain=(left, right)
        )
        largest = max(largest, np.abs(fit.deriv(4)(np.linspace(left, right, 1000))).max())
    return largest


def interpolation_bounds(basis, spacing, cut, start):
    """Error bounds of cubic Hermite values, h^4/384 max|f''''|, and slopes, √3/216 h^3 max|f''''|.

    They hold where the joints of the pieces are nodes of the table.
    """
    h = spacing
    fourth = np.array([fourth_derivative(f, basis, start, cut) for f in basis.functions])
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


def test_without_a_cutoff_functions_are_what_the_equations_say():
    """Atoms' distances are not cut off; the separation of their molecules is."""
    r = np.linspace(0.4, 9.0, 200)
    basis = RadialBasis(tuple(FUNCTIONS), 4.2, 0.9, 1.3)
    values, slopes = basis.evaluate(r, cut=False)
    assert values.shape == slopes.shape == (200, len(FUNCTIONS))
    for k, function in enumerate(FUNCTIONS):
        expected = oracle.radial(function, basis, r, cut=False)
        np.testing.assert_allclose(values[:, k], expected, rtol=1e-12, atol=1e-300)
        np.testing.assert_array_equal(slopes[:, k], direct(function, basis, r, cut=False)[1])
        cut = basis.evaluate(r, cut=True)[0][:, k]
        np.testing.assert_allclose(
            cut, expected * oracle.cutoff_function(r, 4.2), rtol=1e-12, atol=1e-300
        )


def test_cutoff_function():
    r = np.linspace(0.0, 5.0, 301)
    value, slope = evaluate_cutoff(r, 4.2)
    np.testing.assert_allclose(value, oracle.cutoff_function(r, 4.2), rtol=0, atol=1e-15)
    expected = oracle.derivative(lambda h: oracle.cutoff_function(r + h, 4.2), 1e-3)
    # Across the end its third derivative jumps by 48/rc^3: 1e-6 of that at most.
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6)
    assert (value[r >= 4.2] == 0).all()
    assert (slope[r >= 4.2] == 0).all()


# ---------------------------------------------------------------- tables


@EVERY_BASIS
def test_interpolation_error(basis, spacing, cut):
    start = 0.3
    r = np.random.default_rng(0).uniform(start, end(basis, cut), 4000)
    value, slope = read_table(table(basis, spacing, cut), spacing, r)
    value_bound, slope_bound = interpolation_bounds(basis, spacing, cut, start)
    for k, function in enumerate(basis.functions):
        exact, exact_slope = direct(function, basis, r, cut)
        # Round-off where the function itself is flat.
        assert np.abs(value[:, k] - exact).max() <= value_bound[k] + 1e-13
        assert np.abs(slope[:, k] - exact_slope).max() <= slope_bound[k] + 1e-11
        # The bounds are no more than ten times what happens: they mean something.
        assert np.abs(value[:, k] - exact).max() >= 0.1 * value_bound[k]
        assert np.abs(slope[:, k] - exact_slope).max() >= 0.1 * slope_bound[k]


@EVERY_BASIS
def test_interpolant_takes_value_and_slope_at_the_nodes(basis, spacing, cut):
    """From both sides: it is continuously differentiable."""
    intervals = table(basis, spacing, cut)
    r = nodes(basis, spacing, cut)[1:-1]
    values, slopes = basis.evaluate(r, cut=cut)
    n = len(basis.functions)
    first, second, third, fourth = np.moveaxis(intervals, 2, 0).reshape(4, len(intervals), -1)
    for left, right, expected in (
        ((first + second + third + fourth)[:-1], first[1:], values),
        ((second + 2 * third + 3 * fourth)[:-1], second[1:], spacing * slopes),
    ):
        np.testing.assert_allclose(right[:, :n], expected, rtol=0, atol=1e-15)
        np.testing.assert_allclose(left[:, :n], expected, rtol=0, atol=1e-13)


def test_cubics_are_their_own_interpolants():
    """Coefficients of one interval, by hand: 1 - 2 x + 3 x^2 - 4 x^3 in units of the spacing."""
    h, powers = 0.25, np.array([1.0, -2.0, 3.0, -4.0])
    values = np.array([[1.0] * 4, [powers.sum()] * 4])
    slopes = np.array([[-2.0] * 4, [-2.0 + 6.0 - 12.0] * 4]) / h
    intervals = cubic_intervals(values, slopes, h)
    assert intervals.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(intervals[0, 0], np.tile(powers[:, None], 4), rtol=0, atol=1e-14)


def test_cutoff_between_nodes_is_still_smooth():
    """The last interval then holds the joint: its error is of third order, not fourth."""
    basis, h = RadialBasis(gaussians([2.0]), cutoff=4.0021), 0.005
    r = h * np.arange(802)
    made = (np.pad(x, ((0, 0), (0, 3))) for x in basis.evaluate(r, cut=True))
    last = np.linspace(basis.cutoff - 0.01, basis.cutoff, 200)
    value, slope = read_table(cubic_intervals(*made, h), h, last)
    exact = direct(basis.functions[0], basis, last)
    # f''' jumps by 48 g/rc^3 < 0.75 g at the joint, g = exp(-4) < 0.02.  A cubic interpolant
    # misses a jump J in f''' by at most h^3 J/6 in value and h^2 J/2 in slope.
    jump = 0.75 * 0.02
    assert np.abs(value[:, 0] - exact[0]).max() <= h**3 * jump / 6
    assert np.abs(slope[:, 0] - exact[1]).max() <= h**2 * jump / 2


def test_tables_of_an_interaction():
    """Coefficients times functions, each in the channel where the kernel looks for it."""
    record = POTENTIAL.interaction.record
    pair, orientation = POTENTIAL.pair, POTENTIAL.orientation
    assert record["cutoff"] == POTENTIAL.cutoff == pair.basis.cutoff
    assert record["environment"] == ENVIRONMENT_BASIS.cutoff
    held = POTENTIAL.stretch
    assert record["stretch"] == [held.r0, held.low, held.high, held.margin]
    r = np.random.default_rng(0).uniform(0.3, pair.basis.cutoff + LONGEST, 500)
    found = read_table(record["atoms.intervals"], record["atoms.spacing"], r)[0]
    expected = pair.coefficients @ oracle.radial_channels(pair.basis, r, cut=False)
    bounds = interpolation_bounds(pair.basis, ATOM_SPACING, False, 0.3)[0]
    allowed = np.abs(pair.coefficients) @ bounds + 1e-12
    assert (np.abs(found - expected.T) <= allowed).all()
    r = r[r < POTENTIAL.cutoff]
    found = read_table(record["centres.intervals"], record["centres.spacing"], r)[0]
    of_environment = oracle.radial_channels(ENVIRONMENT_BASIS, r)
    densities, aligned, k = np.split(of_environment, [4, 5])
    expected = [
        *densities,
        *(orientation.coefficients @ oracle.radial_channels(ORIENTATION_BASIS, r)),
        *aligned,
        oracle.cutoff_function(r, PAIR_BASIS.cutoff),
        *k,
    ]
    of_environment = interpolation_bounds(ENVIRONMENT_BASIS, CENTRE_SPACING, True, 0.3)[0]
    of_densities, of_aligned, of_shells = np.split(of_environment, [4, 5])
    of_orientation = interpolation_bounds(ORIENTATION_BASIS, CENTRE_SPACING, True, 0.3)[0]
    # The cutoff function's fourth derivative: at most 72 (5 - 1) / rc^4 < 1 here.
    allowed = [
        *of_densities,
        *(np.abs(orientation.coefficients) @ of_orientation),
        *of_aligned,
        CENTRE_SPACING**4 / 384,
        *of_shells,
    ]
    assert (np.abs(found - np.transpose(expected)) <= np.array(allowed) + 1e-12).all()


def test_tables_reach_the_longest_cutoff():
    """Whichever level has it; the others' functions are zero beyond their own."""
    for cutoffs in ((4.5, 4.0, 4.2), (3.0, 4.1, 3.5), (3.0, 3.5, 4.013)):
        bases = (
            RadialBasis(basis.functions, cutoff, basis.inner, basis.outer)
            for basis, cutoff in zip(
                (PAIR_BASIS, ORIENTATION_BASIS, ENVIRONMENT_BASIS), cutoffs, strict=True
            )
        )
        pair, orientation, environment = bases
        made = interaction(
            POTENTIAL.stretch,
            PairLevel(pair, np.ones((4, 7))),
            OrientationLevel(orientation, np.ones((6, 4))),
            environment,
        )
        record = made.record
        assert made.cutoff == max(cutoffs)
        assert record["environment"] == cutoffs[2]
        assert record["centres.n_intervals"] * CENTRE_SPACING >= max(cutoffs) - 1e-12
        assert record["atoms.n_intervals"] * ATOM_SPACING >= max(cutoffs) + LONGEST - 1e-12
        r = CENTRE_SPACING * np.arange(record["centres.n_intervals"])
        at_nodes = record["centres.intervals"][:, :, 0].reshape(len(r), 20)
        for channels, cutoff in (
            ([11], cutoffs[0]),
            (range(4, 10), cutoffs[1]),
            ([0, 1, 2, 3, 10, *range(12, 20)], cutoffs[2]),
        ):
            for channel in channels:
                assert (at_nodes[r >= cutoff, channel] == 0).all()
                assert (at_nodes[(r > 2.0) & (r < cutoff - 0.02), channel] != 0).all()


def test_malformed_tables_are_refused():
    def zeros(n, channels, spacing):
        return np.zeros((n, channels)), np.zeros((n, channels)), spacing

    stretch = 0.74, 0.6, 0.9, 0.02
    Interaction(zeros(601, 4, 0.01), zeros(401, 20, 0.01), 4.0, 3.0, stretch)
    with pytest.raises(ValueError, match="another number of channels"):
        Interaction(zeros(601, 8, 0.01), zeros(401, 20, 0.01), 4.0, 3.0, stretch)
    with pytest.raises(ValueError, match="another number of channels"):
        Interaction(zeros(601, 4, 0.01), zeros(401, 12, 0.01), 4.0, 3.0, stretch)
    with pytest.raises(ValueError, match="ends before the cutoff"):
        Interaction(zeros(601, 4, 0.01), zeros(400, 20, 0.01), 4.0, 3.0, stretch)


def test_unknown_function_is_refused():
    with pytest.raises(ValueError, match="unknown radial function 'lorentzian'"):
        RadialFunction("lorentzian", 1.0)


@EVERY_BASIS
def test_basis_survives_plain_data(basis, spacing, cut):
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


def test_slopes_of_the_invariants():
    cosines = np.random.default_rng(5).uniform(-1, 1, size=(100, 3))
    slopes = evaluate_angular_slopes(cosines)
    for x in range(3):
        step = np.eye(3)[x]
        expected = oracle.derivative(lambda h, step=step: evaluate_angular(cosines + h * step), 0.1)
        # Polynomials of the fourth degree in each cosine: the stencil is exact for them.
        np.testing.assert_allclose(slopes[x], expected, rtol=0, atol=1e-12)


def test_fp_eqq_is_equation_6_times_equation_7():
    """The one unit coefficient of fp_EQQ is the energy of two molecules."""
    names = orientation_names(ORIENTATION_BASIS)
    assert names.count("fp_EQQ") == 1
    assert len(names) == len(ORIENTATION_NAMES) * len(ORIENTATION_BASIS.functions)
    coefficients = (np.array(names) == "fp_EQQ").astype(float).reshape(len(ORIENTATION_NAMES), -1)
    level = OrientationLevel(ORIENTATION_BASIS, coefficients)
    rng = np.random.default_rng(4)
    a, b, r_hat = (random_axes(1, rng)[0] for _ in range(3))
    r = 3.1
    centres = r * np.outer([0, 1], r_hat)
    ends = np.stack([centres - 0.37 * np.array([a, b]), centres + 0.37 * np.array([a, b])], 1)
    geometry = POTENTIAL.tracker().update(
        ends.reshape(-1, 3), np.eye(3), (False,) * 3, np.array([[0, 1], [2, 3]], dtype=np.intc)
    )
    found = Potential(0.0, POTENTIAL.bond, orientation=level).evaluate(geometry)
    expected = oracle.quadrupole_form(a @ r_hat, b @ r_hat, a @ b) * r**-5
    expected *= (1 - (r / ORIENTATION_BASIS.cutoff) ** 2) ** 3
    # Table error at 3.1 Å: h^4/384 of 1680 r^-9 = 0.06, times 35.
    assert found.levels["orientation"] == pytest.approx(expected, abs=1e-10)


# ---------------------------------------------------------------- fingerprints

#: Bounds hold beyond the shortest distance of any pair in the structures drawn.
PAIR_BOUND = interpolation_bounds(PAIR_BASIS, ATOM_SPACING, False, 1.0)[0]
#: Centres can be nearer than atoms; the frozen functions are flat there but for the cutoff.
ORIENTATION_BOUND = interpolation_bounds(ORIENTATION_BASIS, CENTRE_SPACING, True, 0.3)[0]
ENVIRONMENT_BOUND = interpolation_bounds(ENVIRONMENT_BASIS, CENTRE_SPACING, True, 0.3)[0]


def linear_design(level):
    """All coefficients of a level free."""
    c = level.coefficients
    return LinearDesign(POTENTIAL.stretch, level, np.ones_like(c, dtype=bool), np.ones_like(c))


def fingerprint_sums(level, structure):
    """Energies of a structure for unit coefficients, one at a time, as the level orders them."""
    found = linear_design(level).energies(structure.geometry(POTENTIAL))
    return found.reshape(level.coefficients.shape)


def count_pairs(structure, cutoff):
    centres, _, _ = oracle.molecules_of(structure)
    return len(oracle.neighbours(centres, structure.cell, structure.pbc, cutoff)) // 2


@settings(max_examples=12)
@given(structures(max_molecules=5))
def test_pair_fingerprints_match_oracle(structure):
    level = POTENTIAL.pair
    found = fingerprint_sums(level, structure)
    expected = oracle.pair_fingerprints(level, POTENTIAL.stretch, structure).sum(axis=0)
    # Four distances a pair, stretches below 0.3 Å; the cutoff function's own error is 3e-11, times
    # functions of at most 1; round-off of sums below 1e3.
    bound = 4 * count_pairs(structure, PAIR_BASIS.cutoff) * (PAIR_BOUND + 3e-11)
    assert (np.abs(found - expected) <= bound + 1e-12).all()


@settings(max_examples=12)
@given(structures(max_molecules=5))
def test_orientation_fingerprints_match_oracle(structure):
    found = fingerprint_sums(POTENTIAL.orientation, structure)
    expected = oracle.orientation_fingerprints(ORIENTATION_BASIS, structure).sum(axis=0)
    # Largest value of any invariant: 8 (S224 at ca = cb = c = 1); round-off as above.
    bound = 8 * count_pairs(structure, ORIENTATION_BASIS.cutoff) * ORIENTATION_BOUND
    assert (np.abs(found - expected) <= bound + 1e-12).all()


def overlap_bound(inner, outer, start):
    """How far tables of g1, g2, g3 and s may be off beyond `start`."""
    functions = (
        *gaussians(OVERLAP_BASIS.widths),
        RadialFunction("wendland", OVERLAP_BASIS.support),
    )
    basis = RadialBasis(functions, OVERLAP_BASIS.reach, inner, outer)
    return interpolation_bounds(basis, ORBITAL_SPACING, False, start)[0]


#: Between molecules and within one, whose bonds are longer.
OVERLAP_BOUND = np.maximum(overlap_bound(*OVERLAP_BASIS.freeze, 0.3), overlap_bound(0.0, 0.0, 0.5))


def form_tolerance(structure):
    """Largest error (m, 56) of forms v . S^-1 . v' and v . S^-2 . v', to first order.

    Each entry of S and v is a sum over four distances; weights are at most 1.
    """
    *of_orbitals, of_overlap = 4.0 * OVERLAP_BOUND + 1e-14
    of_vectors = np.array([0.0, *of_orbitals, *of_orbitals, *np.repeat(of_orbitals, 3)])
    out = []
    for m, u in enumerate(oracle.molecules_of(structure)[1]):
        matrix, vectors = oracle.cluster(OVERLAP_BASIS, POTENTIAL.stretch, structure, m)
        inverse = np.linalg.inv(matrix)
        y = np.abs(inverse @ vectors)
        total = y.sum(axis=0)
        once = np.outer(total, of_vectors + 0.5 * of_overlap * total)
        # What solves S y = v is off by S^-1 times what S y and v are.
        twice = y.T @ np.outer(np.abs(inverse).sum(axis=1), of_vectors + of_overlap * total)
        # Once more for what the molecule has alone.
        out.append(
            np.hstack(
                [2.0 * oracle.quadratic_forms(off + off.T, np.abs(u)) for off in (once, twice)]
            )
        )
    return np.array(out)


def environment_tolerance(count, structure):
    """Largest error (m, 265) of fingerprints of molecules with so many neighbours."""
    n = count[:, None].astype(float)
    densities, aligned, of_shells = np.split(ENVIRONMENT_BOUND, [4, 5])
    # Functions of at most 1: vectors and tensors of at most n; a product of two of them is off by
    # n (n of one, bound of the other), both ways. Stretches are below 0.3 Å.
    kinds = np.tile(densities, 3)
    k, o = np.triu_indices(12)
    contractions = np.tile(n**2 * (kinds[k] + kinds[o]), 2)
    k, o = np.triu_indices(4)
    products = np.tile(n**2 * (densities[k] + densities[o]), 2)
    return np.hstack(
        [
            n * densities,
            n * kinds,
            np.tile(8 * n * aligned, 5),
            n * of_shells,
            0.3 * n * densities,
            form_tolerance(structure),
            contractions,
            products,
        ]
    )


@settings(max_examples=15)
@given(structures(max_molecules=5))
def test_environment_fingerprints_match_oracle(structure):
    found = POTENTIAL.fingerprints(structure.geometry(POTENTIAL))
    expected, count = oracle.environment_fingerprints(
        ENVIRONMENT_BASIS, POTENTIAL.stretch, structure, OVERLAP_BASIS
    )
    assert found.shape == expected.shape == (len(structure) // 2, 265)
    assert (np.abs(found - expected) <= environment_tolerance(count, structure) + 1e-11).all()
    assert (found[count == 0] == 0).all()


def test_environment_fingerprints_of_a_crystal_all_differ_from_zero():
    """Of molecules that turn freely; and no two of the fingerprints are the same."""
    structure = Structure.of(hcp(2.6, (2, 2, 1), seed=3, bond_spread=0.02))
    structure = structure.moved(
        structure.positions + 0.1 * np.random.default_rng(0).normal(size=structure.positions.shape)
    )
    v = POTENTIAL.fingerprints(structure.geometry(POTENTIAL))
    expected, count = oracle.environment_fingerprints(
        ENVIRONMENT_BASIS, POTENTIAL.stretch, structure, OVERLAP_BASIS
    )
    assert (np.abs(v - expected) <= environment_tolerance(count, structure) + 1e-11).all()
    assert (np.abs(v).max(axis=0) > 1e-4).all()
    assert np.abs(np.corrcoef(v.T) - np.eye(265)).max() < 1 - 1e-9


# ---------------------------------------------------------------- overlap forms


def forms_of(structure, threads=1, overlap=OVERLAP_BASIS):
    """The kernel's forms (m, 56)."""
    potential = POTENTIAL if overlap is OVERLAP_BASIS else toy_potential(overlap=overlap)
    return potential.fingerprints(structure.geometry(potential, threads))[:, FORMS]


def smaller_than_the_reach():
    """Two molecules in a cell 1.7 to 2.8 Å wide: clusters of several images of both."""
    atoms = hcp(2.6, (1, 1, 1), seed=7, bond_spread=0.05)
    assert atoms.cell.lengths().min() < OVERLAP_BASIS.inner
    return atoms


CLUSTERS = toy_structures() | {
    "dense": hcp(1.7, (2, 1, 1), seed=2, bond_spread=0.02),
    "tiny": smaller_than_the_reach(),
    "contact": dimer(1.35, seed=4),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_forms_match_oracle(name):
    structure = Structure.of(CLUSTERS[name])
    found = forms_of(structure)
    expected = oracle.overlap_forms(OVERLAP_BASIS, POTENTIAL.stretch, structure)
    allowed = form_tolerance(structure)
    assert (np.abs(found - expected) <= allowed).all()
    if name != "molecule":
        # The bounds mean something: next to the forms they are small.
        assert allowed.max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "change",
    [
        {"support": 2.3},
        {"widths": (0.5, 1.5, 2.5)},
        {"reach": 4.4, "inner": 0.0},
        {"reach": 2.5},
        {"ridge": 0.5},
        {"freeze": (1.5, 2.2)},
        {"freeze": (0.0, 0.0)},
    ],
    ids=str,
)
def test_forms_of_other_bases_match_oracle(change):
    """Every number of the basis is where it belongs, whichever level reaches farthest."""
    overlap = replace(OVERLAP_BASIS, **change)
    structure = Structure.of(CLUSTERS["dense"])
    found = forms_of(structure, overlap=overlap)
    expected = oracle.overlap_forms(overlap, POTENTIAL.stretch, structure)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)
    assert np.abs(found - forms_of(structure)).max() > 1e-3


def test_without_a_basis_there_are_no_forms():
    structure = Structure.of(hcp(2.6, (2, 1, 1), seed=5))
    bare = toy_potential(overlap=None)
    v = bare.fingerprints(structure.geometry(bare))
    assert (v[:, FORMS] == 0).all()
    others = np.delete(np.arange(v.shape[1]), FORMS)
    expected = POTENTIAL.fingerprints(structure.geometry(POTENTIAL))
    np.testing.assert_array_equal(v[:, others], expected[:, others])
    expected, _ = oracle.environment_fingerprints(ENVIRONMENT_BASIS, bare.stretch, structure)
    assert (expected[:, FORMS] == 0).all()


@pytest.mark.parametrize("length", [0.65, 0.74, 0.9])
def test_forms_vanish_for_a_molecule_out_of_reach(length):
    assert (forms_of(Structure.of(molecule(length))) == 0.0).all()
    apart = Structure.of(dimer(OVERLAP_BASIS.reach + 1e-6, seed=3))
    assert (forms_of(apart) == 0.0).all()
    near = Structure.of(dimer(OVERLAP_BASIS.inner, seed=3))
    assert (np.abs(forms_of(near)[:, :10]).max(axis=1) > 1e-3).all()


@given(structures(max_molecules=4), rotations())
def test_forms_do_not_turn(structure, rotation):
    """Nor do they change in a mirror, or when the atoms of a molecule change places."""
    expected = forms_of(structure)
    turned = forms_of(structure.deformed(rotation))
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-11)
    molecules = structure.molecules.copy()
    molecules[0] = molecules[0, ::-1]
    swapped = forms_of(replace(structure, molecules=molecules))
    np.testing.assert_allclose(swapped, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_see_the_same_forms(threads):
    structure = Structure.of(CLUSTERS["hcp-warm"])
    np.testing.assert_allclose(forms_of(structure, threads), forms_of(structure), rtol=1e-13)


@pytest.mark.parametrize("joint", ["inner", "reach"])
def test_forms_are_smooth_as_a_neighbour_crosses(joint):
    """One of two neighbours, to second order."""
    where = getattr(OVERLAP_BASIS, joint)
    direction = np.array([0.36, 0.48, 0.8])
    axes = random_axes(3, np.random.default_rng(2))

    def forms(separation):
        centres = np.array([np.zeros(3), separation * direction, [0.0, -1.9, 0.9]])
        return forms_of(Structure.of(from_molecules(centres, axes)))[0]

    def differences(h):
        """Slopes and curvatures h before and behind the joint, and how they differ."""
        x = where + h * np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4])
        f = np.array([forms(r) for r in x])
        slope = [(f[k + 1] - f[k - 1]) / (2 * h) for k in (2, 6)]
        curvature = [(f[k + 1] - 2 * f[k] + f[k - 1]) / h**2 for k in (2, 6)]
        return np.abs(slope[1] - slope[0]), np.abs(curvature[1] - curvature[0])

    wide, narrow = differences(0.02), differences(0.01)
    for coarse, fine in zip(wide, narrow, strict=True):
        # No jump is left as the distance to the joint is halved.
        assert coarse.max() > 1e-5
        assert fine.max() < 0.65 * coarse.max()


def test_forms_of_a_dimer_by_hand():
    """Two parallel molecules beyond all freezing, within `inner`: a matrix of two rows."""
    overlap = replace(OVERLAP_BASIS, freeze=(0.0, 0.0))
    r, bond = 2.0, 0.74
    axes = np.array([[0.0, 0, 1.0], [0.0, 0, 1.0]])
    atoms = from_molecules(np.array([[0.0, 0, 0], [r, 0, 0]]), axes)
    found = forms_of(Structure.of(atoms), overlap=overlap)

    def s(x):
        x = x / overlap.support
        return (1 - x) ** 4 * (1 + 4 * x)

    def g(x):
        return np.exp(-((x / overlap.widths[1]) ** 2))

    far = np.hypot(r, bond)
    own, other = (1 + overlap.ridge) * (2 + 2 * s(bond)), 2 * s(r) + 2 * s(far)
    determinant = own**2 - other**2
    # 1,1: the inverse's first entry, or its square's, less 1 / own; polar g2,g2: along x only.
    one = own / determinant - 1 / own
    here, there = 2 + 2 * g(bond), 2 * g(r) + 2 * g(far)
    even = own * (here**2 + there**2) - 2 * other * here * there
    polar = 2 * g(r) + 2 * g(far) * r / far
    squared = (own**2 + other**2) / determinant**2
    expected = {
        "overlap2 even 1,1": squared - own**-2,
        "overlap2 polar g2,g2": polar**2 * squared,
        "overlap even 1,1": one,
        "overlap even g2,g2": even / determinant - here**2 / own,
        "overlap odd g2,g2": 0.0,
        "overlap polar g2,g2": polar**2 * own / determinant,
        "overlap along g2,g2": 0.0,
    }
    for name, value in expected.items():
        column = overlap_names().index(name)
        np.testing.assert_allclose(found[:, column], value, rtol=1e-9, atol=1e-14)


def test_overlap_basis_survives_plain_data():
    assert OverlapBasis.from_dict(OVERLAP_BASIS.to_dict()) == OVERLAP_BASIS


def test_malformed_overlap_tables_are_refused():
    def zeros(n, channels, spacing):
        return np.zeros((n, channels)), np.zeros((n, channels)), spacing

    levels = zeros(601, 4, 0.01), zeros(401, 20, 0.01), 4.0, 3.0, (0.74, 0.6, 0.9, 0.02)
    numbers = 0.01, 2.0, 0.6, 0.8, 2.0, 1.0, 0.1
    Interaction(*levels, (np.zeros((2, 601, 4)), np.zeros((2, 601, 4)), *numbers))
    for between, within in ((8, 4), (4, 8)):
        tables = np.zeros((2, 601, between)), np.zeros((2, 601, within))
        with pytest.raises(ValueError, match="another number of channels"):
            Interaction(*levels, (*tables, *numbers))


def test_the_training_design_sees_the_same_fingerprints():
    """Which other levels there are does not matter, nor how far their pairs reach."""
    geometry = Structure.of(hcp(2.6, (2, 1, 1), seed=5)).geometry(POTENTIAL)
    design = EnvironmentDesign(
        POTENTIAL.stretch, ENVIRONMENT_BASIS, None, np.zeros(0), overlap=OVERLAP_BASIS
    )
    np.testing.assert_allclose(
        design.fingerprints(geometry), POTENTIAL.fingerprints(geometry), rtol=1e-13, atol=1e-14
    )


def test_names_line_up_with_coefficients():
    basis = RadialBasis(gaussians([2.0]) + born_mayer(0.3), 4.0)
    assert pair_names(basis) == [
        "gaussian(2)",
        "born_mayer(0.3)",
        "gaussian(2)*(s+s')",
        "born_mayer(0.3)*(s+s')",
        "gaussian(2)*ss'",
        "born_mayer(0.3)*ss'",
        "gaussian(2)*(s²+s'²)",
        "born_mayer(0.3)*(s²+s'²)",
    ]
    assert len(STRETCH_NAMES) == 4
    names = orientation_names(RadialBasis(gaussians([2.0]) + quadrupole(), 4.0))
    assert names[:2] == ["S000*gaussian(2)", "S000*quadrupole"]
    assert names[2:4] == ["S202+S022*gaussian(2)", "S202+S022*quadrupole"]
    assert names[8:10] == ["S224*gaussian(2)", "fp_EQQ"]
    names = environment_names(ENVIRONMENT_BASIS)
    assert len(names) == len(set(names)) == 265
    assert names[:5] == [
        "density gaussian(1.4)",
        "density gaussian(2)",
        "density gaussian(2.6)",
        "density damped_sine(2,2)",
        "axial gaussian(1.4)",
    ]
    assert names[8] == "axial-bb gaussian(1.4)"
    assert names[12] == "axial-cRb gaussian(1.4)"
    assert names[16:21] == [f"{s} gaussian(2.4)" for s in ("S022", "S220", "S222", "S224", "S044")]
    assert names[21:23] == ["shell(1.3,0.45)", "shell(1.6,0.45)"]
    assert names[28:30] == ["shell(3.4,0.45)", "stretched gaussian(1.4)"]
    assert names[33:89] == overlap_names()
    assert names[33:35] == ["overlap even 1,1", "overlap even 1,g1"]
    assert names[42:44] == ["overlap even g3,g3", "overlap odd g1,g1"]
    assert names[49:51] == ["overlap polar g1,g1", "overlap polar g1,g2"]
    assert names[55] == "overlap along g1,g1"
    assert names[60:62] == ["overlap along g3,g3", "overlap2 even 1,1"]
    assert names[88:90] == ["overlap2 along g3,g3", "vector R*gaussian(1.4),R*gaussian(1.4)"]
    assert names[90] == "vector R*gaussian(1.4),R*gaussian(2)"
    assert names[93] == "vector R*gaussian(1.4),ccR*gaussian(1.4)"
    assert names[167] == "tensor RR*gaussian(1.4),RR*gaussian(1.4)"
    assert names[244] == "tensor cRb*damped_sine(2,2),cRb*damped_sine(2,2)"
    assert names[245] == "vector-axis gaussian(1.4),gaussian(1.4)"
    assert names[264] == "tensor-axis damped_sine(2,2),damped_sine(2,2)"
