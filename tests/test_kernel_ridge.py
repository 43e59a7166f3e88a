"""The sparse kernel ridge regressor, as an estimator and against plain linear algebra."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from ase_hmlp.errors import DataError
from ase_hmlp.training.kernel_ridge import (
    NormalEquations,
    SparseKernelRidge,
    choose_representatives,
    compression,
    gram,
    most_informative,
    predictive_variance,
)


@parametrize_with_checks([SparseKernelRidge(n_representatives=40)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def sine_data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(n, 2))
    return x, np.sin(2 * x[:, 0]) * np.cos(x[:, 1]) + 0.5 * x[:, 1] + 7.0


def test_learns_a_smooth_function():
    x, y = sine_data()
    unseen, truth = sine_data(seed=1)
    model = SparseKernelRidge(n_representatives=120, noise=1e-3).fit(x, y)
    linear = SparseKernelRidge(n_representatives=0, noise=1e-3).fit(x, y)
    error = np.abs(model.predict(unseen) - truth).mean()
    # The spread of the truth is 0.7; a linear fit leaves most of it.
    assert error < 0.01 < 0.2 < np.abs(linear.predict(unseen) - truth).mean()


def test_grid_search_with_group_splits():
    x, y = sine_data(120)
    search = GridSearchCV(
        SparseKernelRidge(n_representatives=40),
        {"length_scale": [0.05, 1.0]},
        cv=GroupKFold(3),
    ).fit(x, y, groups=np.arange(120) // 20)
    assert search.best_params_ == {"length_scale": 1.0}


def kernel_matrix(y, stretch=None):
    """Covariance of what the Gaussian process says at points, given that it is zero at y = 0."""
    distance = ((y[:, None] - y[None]) ** 2).sum(axis=2)
    norms = (y**2).sum(axis=1)
    k = np.exp(-0.5 * distance) - np.exp(-0.5 * (norms[:, None] + norms[None]))
    if stretch is not None:
        k *= np.exp(-0.5 * (stretch[:, None] - stretch[None]) ** 2)
    return k


def pivots(k, n):
    """Points chosen by brute force: each has the largest variance left, by its Schur complement."""
    chosen = []
    for _ in range(n):
        known = k[np.ix_(chosen, chosen)]
        cross = k[:, chosen]
        left = np.diag(k) - np.einsum("ij,ji->i", cross, np.linalg.pinv(known) @ cross.T)
        left[chosen] = -1.0
        chosen.append(int(left.argmax()))
    return chosen


@pytest.mark.parametrize("width", [0.0, 0.3])
@pytest.mark.parametrize("spread", [0.4, 1.0, 3.0])
def test_most_informative_points_are_the_pivots_of_the_kernel_matrix(spread, width):
    rng = np.random.default_rng(3)
    y, stretch = spread * rng.normal(size=(40, 3)), width * rng.normal(size=40)
    found = most_informative(y, stretch, 12)
    assert found.tolist() == pivots(kernel_matrix(y, stretch), 12)
    assert len(set(found.tolist())) == 12
    # Asking for more does not change the first ones.
    assert most_informative(y, stretch, 20)[:12].tolist() == found.tolist()


def test_most_informative_points_depend_on_the_kernel():
    """A wide one can tell points from their neighbours that a narrow one cannot."""
    rng = np.random.default_rng(4)
    y = rng.normal(size=(60, 2))
    assert (
        most_informative(0.3 * y, np.zeros(60), 8).tolist()
        != most_informative(3.0 * y, np.zeros(60), 8).tolist()
    )
    # What is left to be told is less for the wide one, with the same number of points.
    rest = []
    for scale in (0.3, 1.0, 3.0):
        k = kernel_matrix(scale * y)
        chosen = most_informative(scale * y, np.zeros(60), 8)
        cross = k[:, chosen]
        told = cross @ np.linalg.solve(k[np.ix_(chosen, chosen)], cross.T)
        rest.append(np.trace(k - told) / np.trace(k))
    assert rest[0] < rest[1] < rest[2]


def test_most_informative_points_stop_when_nothing_is_left():
    square = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 1]], dtype=float)
    chosen = most_informative(square, np.zeros(5), 5)
    # The origin is known, and a point that comes twice is told by its twin.
    assert set(chosen.tolist()) == {1, 2, 3}
    assert set(most_informative(square, np.arange(5.0), 5).tolist()) == {1, 2, 3, 4}
    assert most_informative(np.zeros((4, 2)), np.zeros(4), 3).tolist() == []
    assert most_informative(square, np.zeros(5), 0).tolist() == []
    assert most_informative(np.zeros((0, 2)), np.zeros(0), 3).tolist() == []


def test_representatives_are_the_most_informative_points():
    rng = np.random.default_rng(5)
    v, r = rng.normal(size=(50, 4)), 0.74 + 0.05 * rng.normal(size=50)
    transform = 0.4 * rng.normal(size=(3, 4))
    for width in (0.0, 0.08):
        regressor = choose_representatives(v, r, transform, width, 0.75, 10)
        y = v @ transform.T
        chosen = pivots(kernel_matrix(y, r / width if width else None), 10)
        np.testing.assert_array_equal(regressor.representatives, y[chosen])
        np.testing.assert_array_equal(regressor.rep_bond, r[chosen])
        assert (regressor.r0, regressor.stretch_width) == (0.75, width)
        for name in ("linear", "linear_stretch", "alpha"):
            assert not getattr(regressor, name).any()
        # Their kernel matrix is that of the points.
        np.testing.assert_allclose(
            gram(regressor),
            kernel_matrix(y[chosen], r[chosen] / width if width else None),
            rtol=0,
            atol=1e-14,
        )


def test_compression_whitens_by_degrees():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(500, 3)) @ np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.1]])
    white = v @ compression(v, 1.0, 1e-6, 1.0).T
    plain = v @ compression(v, 0.0, 1e-6, 1.0).T
    assert np.ptp(white.std(axis=0)) < 1e-10
    assert np.ptp(plain.std(axis=0)) > 0.1
    for y, length in ((white, 1.0), (plain, 1.0), (v @ compression(v, 0.5, 1e-6, 2.0).T, 2.0)):
        # mean square distance of two centres: 2 sum of variances
        assert 2 * y.var(axis=0).sum() == pytest.approx(length**-2, rel=1e-9)
    assert compression(v[:, [0, 0]], 0.5, 1e-6, 1.0).shape == (1, 2)


def distance(transform, step):
    """How far the kernel sees two points apart that differ by a step."""
    return np.linalg.norm(transform @ step)


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_a_fingerprint_of_no_importance_is_left_out(whitening):
    rng = np.random.default_rng(1)
    v = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
    found = compression(v, whitening, 1e-6, 1.5, importance=[1.0, 0.0, 1.0, 0.3])
    assert found.shape == (3, 4) and not found[:, 1].any()
    # As if it had never been there.
    rest = compression(v[:, [0, 2, 3]], whitening, 1e-6, 1.5, importance=[1.0, 1.0, 0.3])
    np.testing.assert_allclose(found[:, [0, 2, 3]], rest, rtol=1e-12)
    assert compression(v, whitening, 1e-6, 1.5, importance=np.zeros(4)).shape == (0, 4)


def test_half_the_importance_takes_twice_the_step():
    """To be as far away, by the measure of what stays as important as it was."""
    rng = np.random.default_rng(2)
    v = rng.normal(size=(400, 3)) * [5.0, 0.2, 1.0]
    full = compression(v, 0.0, 1e-6, 1.0, importance=[1.0, 1.0, 1.0])
    half = compression(v, 0.0, 1e-6, 1.0, importance=[1.0, 0.5, 1.0])
    np.testing.assert_array_equal(full, compression(v, 0.0, 1e-6, 1.0))
    first, second, third = np.eye(3)

    def by_first(transform, step):
        return distance(transform, step) / distance(transform, first)

    assert by_first(half, 2.0 * second) == pytest.approx(by_first(full, second), rel=1e-9)
    assert by_first(half, third) == pytest.approx(by_first(full, third), rel=1e-9)
    # Only what they are to each other counts, and the typical distance stays what is asked for.
    twice = compression(v, 0.0, 1e-6, 1.0, importance=[2.0, 1.0, 2.0])
    np.testing.assert_allclose(np.abs(twice), np.abs(half), rtol=1e-9)
    assert 2 * (v @ half.T).var(axis=0).sum() == pytest.approx(1.0, rel=1e-9)


def test_importance_counts_less_where_components_are_whitened():
    """By the share that whitening leaves of the spread of a component."""
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(rng.normal(size=(400, 2)) - rng.normal(size=(400, 2)).mean(axis=0))
    v = q - q.mean(axis=0)
    v[:, 1] -= v[:, 0] * (v[:, 0] @ v[:, 1]) / (v[:, 0] @ v[:, 0])  # uncorrelated
    first, second = np.eye(2) * v.std(axis=0)
    for whitening in (0.0, 0.3, 1.0):
        t = compression(v, whitening, 1e-6, 1.0, importance=[1.0, 0.25])
        ratio = distance(t, second) / distance(t, first)
        assert ratio == pytest.approx(0.25 ** (1.0 - whitening), rel=1e-9)


def test_normal_equations_are_weighted_least_squares():
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(6, 50)), rng.normal(size=50)
    sigma = rng.uniform(0.5, 2.0, size=50)
    equations = NormalEquations.zeros(6)
    equations.add(rows[:, :20], y[:20], sigma[:20])
    equations.add(rows[:, 20:], y[20:], sigma[20:])
    penalty = np.diag(np.arange(1.0, 7.0))
    stacked = np.vstack([(rows / sigma).T, np.sqrt(penalty)])
    expected = np.linalg.lstsq(stacked, np.concatenate([y / sigma, np.zeros(6)]), rcond=None)[0]
    solution = equations.solve(penalty)
    np.testing.assert_allclose(solution.coefficients, expected, rtol=1e-9)
    np.testing.assert_allclose(
        solution.covariance(2, 5),
        np.linalg.inv(equations.matrix + penalty)[2:5, 2:5],
        rtol=1e-9,
    )
    # A block with the coefficients before it held fixed fits what those leave over.
    held = equations.block(4, 6, known=expected[:4]).solve(np.zeros((2, 2))).coefficients
    rest = (y - expected[:4] @ rows[:4]) / sigma
    np.testing.assert_allclose(
        held, np.linalg.lstsq((rows[4:] / sigma).T, rest, rcond=None)[0], rtol=1e-9
    )


def test_total_of_parts_is_the_whole():
    """Leaving parts out is fitting without them, to the last bit of their sums."""
    rng = np.random.default_rng(2)
    parts = []
    for n in (5, 3, 8):
        part = NormalEquations.zeros(4)
        part.add(rng.normal(size=(4, n)), rng.normal(size=n), rng.uniform(0.5, 2.0, size=n))
        parts.append(part)
    before = parts[0].matrix.copy()
    total = NormalEquations.total(parts)
    np.testing.assert_allclose(total.matrix, sum(p.matrix for p in parts), rtol=1e-15)
    np.testing.assert_allclose(total.vector, sum(p.vector for p in parts), rtol=1e-15, atol=1e-15)
    assert total.n_observations == 16
    # The parts stay what they were.
    np.testing.assert_array_equal(parts[0].matrix, before)
    assert parts[0].n_observations == 5
    two = NormalEquations.total(iter(parts[1:]))
    np.testing.assert_allclose(two.matrix, total.matrix - parts[0].matrix, rtol=0, atol=1e-13)
    assert two.n_observations == 11


def test_infinite_errors_leave_a_label_out():
    rows, y = np.array([[1.0, 1.0, 1.0]]), np.array([2.0, 4.0, 1e9])
    equations = NormalEquations.zeros(1)
    equations.add(rows, y, np.array([1.0, 1.0, np.inf]))
    assert equations.solve(np.zeros((1, 1))).coefficients[0] == pytest.approx(3.0)


def test_what_no_jitter_rescues_is_an_error_with_a_name():
    equations = NormalEquations(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2))
    with pytest.raises(DataError, match="have no solution"):
        equations.solve(np.zeros((2, 2)))


def test_jitter_rescues_a_singular_system():
    equations = NormalEquations.zeros(3)
    equations.add(np.ones((3, 5)), np.ones(5), np.ones(5))
    solution = equations.solve(np.zeros((3, 3)))
    assert np.isfinite(solution.coefficients).all()
    assert solution.coefficients.sum() == pytest.approx(1.0, rel=1e-6)
    assert 0 < solution.jitter <= 1e-10


def test_predictive_variance_is_that_of_the_gaussian_process():
    """With every training point a representative the sparse form is the exact posterior."""
    rng = np.random.default_rng(1)
    v, noise, prior = rng.normal(size=(12, 2)), 0.1, 0.7
    r = np.zeros(12)
    regressor = choose_representatives(v, r, np.eye(2), 0.0, 0.0, 12)
    _, near, isolated = regressor.columns(v, r)
    equations = NormalEquations.zeros(12)
    equations.add((near - isolated).T, np.zeros(12), np.full(12, noise))
    solution = equations.solve(gram(regressor) / prior**2)
    variance = predictive_variance(regressor, solution.covariance(0, 12), prior)
    test = np.concatenate([3.0 * rng.normal(size=(8, 2)), np.zeros((1, 2))])
    _, near, isolated = regressor.columns(test, np.zeros(9))
    k = near - isolated
    own = 1.0 - np.exp(-(test**2).sum(axis=1))
    sparse = prior**2 * (own - np.einsum("ij,jk,ik->i", k, variance, k))

    # Exact: f(y) with f(0) = 0 known.
    def kernel(a, b):
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        at_zero = np.exp(-0.5 * (a**2).sum(axis=1))[:, None] * np.exp(-0.5 * (b**2).sum(axis=1))
        return prior**2 * (np.exp(-0.5 * distance) - at_zero)

    train = kernel(v, v) + noise**2 * np.eye(12)
    cross = kernel(test, v)
    exact = np.diag(kernel(test, test) - cross @ np.linalg.solve(train, cross.T))
    # 1e-8 is added to the kernel matrix before it is inverted.
    np.testing.assert_allclose(sparse, exact, rtol=1e-4, atol=1e-6)
    assert abs(sparse[8]) < 1e-12
