"""Neighbour lists against brute force over images; the skin against fresh lists."""

from collections import Counter

import numpy as np
import oracle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import PERIODIC, VACUUM, Structure, seeds, structures
from toy_models import hcp

from ase_hmlp.errors import CellError
from ase_hmlp.geometry import GeometryTracker
from ase_hmlp.neighbors import NeighbourList, complete_cell, neighbour_list


def entries(first, index, shift):
    """Neighbours as (i, j, shift)."""
    owner = np.repeat(np.arange(len(first) - 1), np.diff(first))
    return [
        (int(i), int(j), tuple(map(int, s))) for i, j, s in zip(owner, index, shift, strict=True)
    ]


def reverse(i, j, shift):
    """The same pair from its other end."""
    return j, i, tuple(-k for k in shift)


def check_against_brute_force(positions, cell, pbc, cutoff):
    """The full list, and the half list: every pair once, from either end."""
    expected = oracle.neighbours(positions, cell, pbc, cutoff)
    # Round-off may put a pair at exactly the cutoff on either side.
    distances = np.array([np.linalg.norm(d) for *_, d in expected])
    doubtful = (np.abs(distances - cutoff) < 1e-9).any()
    if doubtful:
        return []
    found = entries(*neighbour_list(positions, cell, pbc, cutoff))
    assert Counter(found) == Counter((i, j, s) for i, j, s, _ in expected)
    half = entries(*neighbour_list(positions, cell, pbc, cutoff, half=True))
    assert 2 * len(half) == len(found)
    assert Counter(half) + Counter(reverse(*pair) for pair in half) == Counter(found)
    return found


@given(structures(), st.sampled_from([2.5, 0.6, 1.3, 4.0]))
def test_list_matches_brute_force(structure, cutoff):
    s = structure
    found = check_against_brute_force(s.positions, s.cell, s.pbc, cutoff)
    # A full list: every pair from both ends.
    assert {reverse(*pair) for pair in found} == set(found)


@given(seeds, st.sampled_from([(-5, 0, 3), (0, 0, 0), (2, -1, 7)]), st.booleans())
def test_skewed_cells_of_points(seed, skew, tiny):
    """Cells skewed by many vectors, thinner than the cutoff; random points, not molecules."""
    rng = np.random.default_rng(seed)
    cell = (1.2 if tiny else 3.0) * (np.eye(3) + 0.1 * rng.normal(size=(3, 3)))
    cell[1] += skew[0] * cell[0]
    cell[2] += skew[1] * cell[0] + (skew[2] % 2) * cell[1]
    points = rng.uniform(-1, 2, size=(3, 3)) @ cell
    check_against_brute_force(points, cell, rng.random(3) < 0.7, 2.0)


@pytest.mark.parametrize("pbc", [PERIODIC, (True, False, True), VACUUM])
def test_many_bins(pbc):
    """A cell several cutoffs wide in every direction, so that bins are many."""
    rng = np.random.default_rng(5)
    cell = np.array([[14.0, 0, 0], [3.0, 12.0, 0], [-2.0, 1.0, 13.0]])
    points = rng.uniform(-0.5, 1.5, size=(90, 3)) @ cell
    assert len(check_against_brute_force(points, cell, pbc, 3.7)) > 50


@pytest.mark.parametrize("edge", [0.0, 1.0, -1e-17, np.nextafter(1.0, 0.0)])
def test_points_on_cell_faces(edge):
    cell = np.diag([5.0, 6.0, 7.0])
    points = np.array([[edge, 0.5, 0.5], [0.1, 0.5, 0.5], [0.95, 0.5, edge]]) @ cell
    check_against_brute_force(points, cell, PERIODIC, 2.4)


@pytest.mark.parametrize("far", [1_000, 60_000])
def test_points_far_outside_the_cell(far):
    """As after a long run of a liquid whose atoms were never wrapped."""
    cell = np.diag([4.0, 4.5, 5.0])
    near = np.array([[0.5, 0.5, 0.5], [2.0, 1.0, 0.7]])
    away = far * np.array([1, -2, 1])
    positions = near + np.array([[0, 0, 0], away]) @ cell
    search = neighbour_list(positions, cell, PERIODIC, 3.0)
    expected = {
        (i, j, tuple(int(k) for k in np.array(s) + (i - j) * away))
        for i, j, s, _ in oracle.neighbours(near, cell, PERIODIC, 3.0)
    }
    assert set(entries(*search)) == expected
    rows = NeighbourList.from_search(search, cell)
    # Far apart shifts are told apart, too.
    assert (rows.integer_shifts[rows.shift_id] == search[2]).all()


def test_one_point_alone_has_no_neighbours():
    first, index, shift = neighbour_list(np.zeros((1, 3)), np.eye(3), VACUUM, 3.0)
    assert first.tolist() == [0, 0]
    assert index.shape == (0,)
    assert shift.shape == (0, 3)
    assert len(neighbour_list(np.zeros((1, 3)), np.eye(3), VACUUM, 3.0, half=True)[1]) == 0


def test_a_point_meets_its_own_images():
    found = entries(*neighbour_list(np.zeros((1, 3)), np.eye(3), PERIODIC, 1.1))
    assert set(found) == {
        (0, 0, tuple(int(k) for k in sign * np.eye(3)[x])) for x in range(3) for sign in (1, -1)
    }
    half = entries(*neighbour_list(np.zeros((1, 3)), np.eye(3), PERIODIC, 1.1, half=True))
    assert len(half) == 3
    assert set(half) | {reverse(*pair) for pair in half} == set(found)


def test_points_in_a_plane_and_on_a_line():
    """No extent along directions without periodicity."""
    points = np.zeros((20, 3))
    points[:, 0] = np.arange(20.0)
    assert len(check_against_brute_force(points, np.eye(3), VACUUM, 2.5)) == 2 * 19 + 2 * 18


# ---------------------------------------------------------------- cells


@given(seeds, st.sampled_from([(True, True, False), (False, True, False), VACUUM, PERIODIC]))
def test_complete_cell(seed, pbc):
    raw = 4.0 * np.random.default_rng(seed).normal(size=(3, 3))
    assume(np.linalg.svd(raw, compute_uv=False)[-1] > 0.1)
    kept, missing = np.flatnonzero(pbc), np.flatnonzero(~np.array(pbc))
    cell = raw.copy()
    cell[missing] = 0.0
    done = complete_cell(cell, pbc)
    np.testing.assert_array_equal(done[kept], raw[kept])
    # Unit vectors normal to the rest and to each other, to a few units of round-off.
    np.testing.assert_allclose(done[missing] @ done[missing].T, np.eye(len(missing)), atol=1e-14)
    np.testing.assert_allclose(done[missing] @ done[kept].T, 0.0, atol=1e-12)
    # What stands in directions without periodicity does not matter.
    np.testing.assert_array_equal(done, complete_cell(raw, pbc))


@pytest.mark.parametrize(
    "cell, pbc",
    [
        (np.zeros((3, 3)), PERIODIC),
        (np.diag([3.0, 0.0, 3.0]), PERIODIC),
        (np.diag([3.0, 0.0, 3.0]), (False, True, False)),
        (np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1]]), PERIODIC),
        (np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), PERIODIC),
        (np.array([[1.0, 0, 0], [-3.0, 0, 0], [0, 0, 1]]), (True, True, False)),
    ],
    ids=["zero", "one zero", "chain of zero", "parallel", "coplanar", "slab of parallels"],
)
def test_cell_without_volume_is_refused(cell, pbc):
    with pytest.raises(CellError, match="no volume along its periodic directions"):
        complete_cell(cell, pbc)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1e3])
def test_thin_but_honest_cells_are_accepted(scale):
    cell = scale * np.array([[1.0, 0, 0], [5.0, 1.0, 0], [-4.0, 7.0, 1.0]])
    np.testing.assert_array_equal(complete_cell(cell, PERIODIC), cell)


# ---------------------------------------------------------------- lists with a skin


def within(neighbours, points, cutoff):
    """Sorted (i, j, vector) of a half list's pairs inside the cutoff, each from both ends."""
    owner = np.repeat(np.arange(len(points)), np.diff(neighbours.first))
    vectors = points[neighbours.index] + neighbours.shifts[neighbours.shift_id] - points[owner]
    near = (vectors**2).sum(axis=1) < cutoff**2
    rows = np.vstack(
        [
            np.column_stack([owner, neighbours.index, vectors])[near],
            np.column_stack([neighbours.index, owner, -vectors])[near],
        ]
    )
    return rows[np.lexsort(np.round(rows, 6).T)]


def centres_of(geometry):
    """Bond midpoints (m, 3) that the list of pairs refers to."""
    return geometry.positions[geometry.molecules[:, 0]] + 0.5 * geometry.bonds


def same_geometry(a, b, tracker):
    """Whether two geometries hold the same pairs inside the cutoff, to round-off."""
    left, right = (within(g.pairs, centres_of(g), tracker.cutoff) for g in (a, b))
    assert left.shape == right.shape
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a.bonds, b.bonds, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a.bond_length, b.bond_length, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a.axes * a.bond_length[:, None], a.bonds, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(a.positions, b.positions)


@given(structures(), st.sampled_from([2.2, 4.0]))
def test_geometry_has_every_pair_of_molecules_once(structure, cutoff):
    s = structure
    geometry = GeometryTracker(cutoff, skin=0.0).update(s.positions, s.cell, s.pbc, s.molecules)
    vectors = np.array([d for _, d in oracle.bonds(s)])
    np.testing.assert_allclose(geometry.bonds, vectors, rtol=0, atol=1e-10)
    centres = centres_of(geometry)
    expected = oracle.neighbours(centres, s.cell, s.pbc, cutoff)
    distances = np.array([np.linalg.norm(d) for *_, d in expected])
    assume(not (np.abs(distances - cutoff) < 1e-9).any())
    found = within(geometry.pairs, centres, cutoff)
    assert len(found) == len(expected) == 2 * len(geometry.pairs.index)
    rows = np.array([[i, j, *d] for i, j, _, d in expected]).reshape(-1, 5)
    rows = rows[np.lexsort(np.round(rows, 6).T)]
    np.testing.assert_allclose(found, rows, rtol=0, atol=1e-9)


@settings(max_examples=10)
@given(structures(max_molecules=6), seeds)
def test_tracker_follows_a_random_walk(structure, seed):
    rng = np.random.default_rng(seed)
    cutoff = 2.6
    tracker, s, steps = GeometryTracker(cutoff), structure, 30
    for step in range(steps):
        if step % 3 == 1:
            s = s.deformed(np.eye(3) + 0.004 * rng.normal(size=(3, 3)))
        elif step % 3 == 2:
            # Molecules wander; bonds only shake, for a long bond in a small cell is another bond.
            walk = 0.008 * rng.normal(size=s.positions.shape)
            walk[s.molecules] += 0.08 * rng.normal(size=(len(s.molecules), 1, 3))
            s = s.moved(s.positions + walk)
        args = s.positions, s.cell, s.pbc, s.molecules
        same_geometry(tracker.update(*args), GeometryTracker(cutoff).update(*args), tracker)
    # Rebuilt neither always nor never: a step is about a fifth of half the skin.
    assert 1 < tracker.builds < steps / 2


def solid():
    return Structure.of(hcp(3.2, (2, 2, 1), seed=1))


def update(tracker, s):
    return tracker.update(s.positions, s.cell, s.pbc, s.molecules)


def test_tracker_keeps_lists_while_nothing_moves():
    tracker, s = GeometryTracker(3.0), solid()
    for _ in range(5):
        update(tracker, s)
    update(tracker, s.moved(s.positions + 0.1))
    update(tracker, s)
    assert tracker.builds == 1


@pytest.mark.parametrize("distance, builds", [(0.19, 1), (0.21, 2)])
def test_tracker_rebuilds_after_half_a_skin(distance, builds):
    tracker, s = GeometryTracker(3.0, skin=0.4), solid()
    update(tracker, s)
    positions = s.positions.copy()
    positions[s.molecules[1], 1] += distance
    update(tracker, s.moved(positions))
    assert tracker.builds == builds


def test_tracker_follows_centres_and_notices_wrapped_atoms():
    """Bonds may turn and stretch; atoms put elsewhere by opposite cell vectors leave the centre."""
    tracker, s = GeometryTracker(3.0, skin=0.4), solid()
    update(tracker, s)
    a, b = s.molecules[1]
    positions = s.positions.copy()
    positions[a, 1] += 0.3
    positions[b, 1] -= 0.3
    update(tracker, s.moved(positions))
    assert tracker.builds == 1
    positions = s.positions.copy()
    positions[a] += s.cell[0]
    positions[b] -= s.cell[0]
    moved = s.moved(positions)
    same_geometry(update(tracker, moved), update(GeometryTracker(3.0, skin=0.4), moved), tracker)
    assert tracker.builds == 2


@pytest.mark.parametrize("strain, builds", [(0.11, 1), (0.12, 2), (-0.11, 1), (-0.12, 2)])
def test_tracker_rebuilds_after_a_strain(strain, builds):
    """A pair at the edge of the list (3.4 Å) may close by 0.4 Å: a strain of 0.1176."""
    tracker, s = GeometryTracker(3.0, skin=0.4), solid()
    update(tracker, s)
    update(tracker, s.deformed(np.diag([1.0, 1.0 + strain, 1.0])))
    assert tracker.builds == builds


def test_tracker_notices_a_cell_that_moves_without_its_atoms():
    tracker, s = GeometryTracker(3.0), solid()
    update(tracker, s)
    other = s.moved(s.positions, s.cell @ np.diag([1.0, 1.0, 1.2]))
    same_geometry(update(tracker, other), update(GeometryTracker(3.0), other), tracker)
    assert tracker.builds == 2


def test_tracker_notices_other_periodicity_molecules_or_number():
    tracker, s = GeometryTracker(3.0), solid()
    update(tracker, s)
    tracker.update(s.positions, s.cell, (True, True, False), s.molecules)
    assert tracker.builds == 2
    tracker.update(s.positions, s.cell, (True, True, False), s.molecules[::-1].copy())
    assert tracker.builds == 3
    two = s.molecules[:1] * 0 + np.array([0, 1])
    tracker.update(s.positions[:2], s.cell, (True, True, False), two.astype(np.intc))
    assert tracker.builds == 4


def test_molecules_changed_in_place_are_noticed():
    tracker, s = GeometryTracker(3.0), solid()
    update(tracker, s)
    s.molecules[:] = s.molecules[::-1].copy()
    geometry = update(tracker, s)
    assert tracker.builds == 2
    same_geometry(geometry, update(GeometryTracker(3.0), s), tracker)


def test_geometry_outlives_the_next_update():
    """A geometry still describes its own structure after the tracker has followed a strain."""
    tracker, s = GeometryTracker(3.0), solid()
    before = update(tracker, s)
    update(tracker, s.deformed(1.01 * np.eye(3)))
    assert tracker.builds == 1
    same_geometry(before, update(GeometryTracker(3.0), s), tracker)


def test_strained_list_is_the_list_of_the_strained_cell():
    s = solid()
    rows = NeighbourList.from_search(neighbour_list(s.positions, s.cell, s.pbc, 3.0), s.cell)
    np.testing.assert_array_equal(rows.shifts, rows.integer_shifts @ s.cell)
    assert len(np.unique(rows.integer_shifts, axis=0)) == len(rows.integer_shifts)


def test_a_molecule_is_a_neighbour_of_its_own_images_but_not_of_itself():
    """In a cell 2 Å wide: along each axis one pair, though two images are near."""
    cell = 2.0 * np.eye(3)
    s = Structure(
        np.array([[0.0, 0, 0], [0.74, 0, 0]]), cell, PERIODIC, np.array([[0, 1]], dtype=np.intc)
    )
    geometry = update(GeometryTracker(2.1, skin=0.0), s)
    assert geometry.pairs.first.tolist() == [0, 3]
    assert geometry.pairs.index.tolist() == [0, 0, 0]
    vectors = geometry.pairs.shifts[geometry.pairs.shift_id]
    np.testing.assert_allclose(np.sort(np.abs(vectors), axis=0)[-1], 2.0)
    assert np.linalg.matrix_rank(vectors) == 3


def test_bonds_across_the_cell_have_their_centre_between_the_atoms():
    """Not half a cell away: the list refers to the first atom plus half the bond."""
    cell = 6.0 * np.eye(3)
    s = Structure(
        np.array([[5.8, 0, 0], [0.54, 0, 0], [3.0, 0, 0], [3.74, 0, 0]]),
        cell,
        PERIODIC,
        np.array([[0, 1], [2, 3]], dtype=np.intc),
    )
    geometry = update(GeometryTracker(3.0, skin=0.0), s)
    np.testing.assert_allclose(geometry.bonds[:, 0], 0.74)
    np.testing.assert_allclose(centres_of(geometry)[:, 0], [6.17, 3.37])
    # 2.8 Å one way and 3.2 Å the other.
    found = within(geometry.pairs, centres_of(geometry), 3.0)
    np.testing.assert_allclose(found, [[0, 1, -2.8, 0, 0], [1, 0, 2.8, 0, 0]], atol=1e-12)
