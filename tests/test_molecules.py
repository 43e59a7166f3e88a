"""Which atoms are bonded, what is refused and why, and bonds in cells of any shape."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PERIODIC, VACUUM, permutations, seeds, structures, wrappings

from ase_hmlp.errors import (
    BondingError,
    NoPartnerError,
    OddAtomError,
    PartnerMismatchError,
    TwoPartnersError,
)
from ase_hmlp.molecules import bond_shifts, check_molecules, find_molecules

BOX = 10.0 * np.eye(3)


def line(*x):
    """Atoms along x."""
    return np.array([[v, 0.0, 0.0] for v in x])


@given(structures())
def test_finds_the_molecules_that_were_built(structure):
    s = structure
    found = find_molecules(s.positions, s.cell, s.pbc)
    assert found.dtype == np.intc
    np.testing.assert_array_equal(found, s.molecules)


@given(structures(max_molecules=6), st.data())
def test_wrapping_and_order_do_not_matter(structure, data):
    s = structure
    shifts = data.draw(wrappings(len(s), s.pbc))
    order = data.draw(permutations(len(s)))
    positions = (s.positions + shifts @ s.cell)[order]
    found = find_molecules(positions, s.cell, s.pbc)
    assert {frozenset(map(int, order[m])) for m in found} == {
        frozenset(map(int, m)) for m in s.molecules
    }


@pytest.mark.parametrize("n", [1, 3])
def test_odd_number_of_atoms(n):
    with pytest.raises(OddAtomError, match=f"^{n} atoms cannot all be in molecules"):
        find_molecules(line(*(0.74 * k for k in range(n))), BOX, VACUUM)


def test_atom_without_partner():
    with pytest.raises(NoPartnerError, match=r"^Atom 2 has no partner: no other atom within 1.15"):
        find_molecules(line(0.0, 0.74, 3.0, 5.0), BOX, VACUUM)


def test_atom_with_two_partners():
    with pytest.raises(
        TwoPartnersError, match=r"^Atom 1 has two partners: atoms (0 and 2|2 and 0)"
    ):
        find_molecules(line(0.0, 0.80, 1.605, 5.0), BOX, VACUUM)


def test_partner_that_prefers_another():
    message = (
        r"^Atom 0 has no mutual partner: its nearest is atom 1 \(0.900 Å\), "
        r"which prefers atom 2 \(0.700 Å\)"
    )
    with pytest.raises(PartnerMismatchError, match=message):
        find_molecules(line(0.0, 0.9, 1.6, 2.5), BOX, VACUUM)


def test_atom_nearest_to_its_own_image():
    """Images come in pairs at equal distance; that is not two partners."""
    cell = np.diag([0.7, 10.0, 10.0])
    positions = np.array([[0.0, 0, 0], [0.35, 0.7, 0]])
    with pytest.raises(PartnerMismatchError, match=r"^Atom 0 is nearest to its own periodic image"):
        find_molecules(positions, cell, PERIODIC)


def test_two_images_of_one_atom_are_two_partners():
    with pytest.raises(TwoPartnersError, match=r"^Atom 0 has two partners: atoms 1 and 1"):
        find_molecules(line(0.0, 0.75), np.diag([1.5, 10, 10]), PERIODIC)


def test_longest_bond_can_be_chosen():
    positions = line(0.0, 1.2)
    with pytest.raises(NoPartnerError, match=r"^Atom 0"):
        find_molecules(positions, BOX, VACUUM)
    np.testing.assert_array_equal(find_molecules(positions, BOX, VACUUM, longest=1.3), [[0, 1]])


def test_no_atoms_no_molecules():
    assert find_molecules(np.zeros((0, 3)), BOX, VACUUM).shape == (0, 2)


# ---------------------------------------------------------------- bonds given by the user


def test_given_bonds_are_kept_as_they_are():
    pairs = check_molecules([[3, 0], [1, 2]], 4)
    assert pairs.dtype == np.intc
    np.testing.assert_array_equal(pairs, [[3, 0], [1, 2]])


@pytest.mark.parametrize(
    "bonds, n, message",
    [
        ([[0, 1]], 4, "must be 2 pairs"),
        ([0, 1], 2, "must be 1 pairs"),
        ([[0, 1, 2]], 3, "must be 1.5 pairs"),
        ([[0.0, 1.0]], 2, "type float64"),
        ([[0, 1], [1, 2]], 4, r"atoms \[1, 3\] are named \[2, 0\] times"),
        ([[-1, 1]], 2, r"name atoms \[-1\], but atoms are numbered 0 to 1"),
        ([[0, 0]], 2, r"atoms \[0, 1\] are named \[2, 0\] times"),
        ([[0, 2]], 2, r"name atoms \[2\], but atoms are numbered 0 to 1"),
    ],
)
def test_bad_bonds_are_refused(bonds, n, message):
    with pytest.raises(BondingError, match=message):
        check_molecules(bonds, n)


# ---------------------------------------------------------------- bond shifts


@given(structures())
def test_bond_shifts_are_the_shortest(structure):
    s = structure
    shifts = bond_shifts(s.positions, s.cell, s.pbc, s.molecules)
    assert [tuple(map(int, row)) for row in shifts] == [shift for shift, _ in oracle.bonds(s)]


@given(
    seeds,
    st.sampled_from([0.9, 1.1, 1.6, 2.4, 2.8, 3.3]),
    st.sampled_from([0, 0.5, 1, 3, -4]),
    st.sampled_from([0.74, 1.4, 1.7]),
)
def test_bond_shifts_in_tiny_skewed_cells(seed, width, skew, bond):
    """Cells down to the length of a bond, skewed by several vectors."""
    rng = np.random.default_rng(seed)
    cell = width * (np.eye(3) + 0.05 * rng.normal(size=(3, 3)))
    cell[2] += skew * cell[0] - skew * cell[1]
    axis = rng.normal(size=3)
    ends = np.array([np.zeros(3), bond * axis / np.linalg.norm(axis)])
    ends += rng.uniform(-1, 1, 3) @ cell + rng.integers(-3, 4, size=(2, 3)) @ cell
    molecules = np.array([[0, 1]], dtype=np.intc)
    (shift,) = bond_shifts(ends, cell, PERIODIC, molecules)
    expected, vector = oracle.shortest_image(ends, cell, PERIODIC, 0, 1)
    # The built bond need not be the shortest in the thinnest cells; the shortest is the answer.
    assert np.linalg.norm(ends[1] + shift @ cell - ends[0]) == pytest.approx(
        np.linalg.norm(vector), abs=1e-12
    )
    assert np.linalg.norm(vector) <= bond + 1e-12
    assert shift.tolist() == list(expected)


def test_bond_shifts_stay_zero_without_periodicity():
    shifts = bond_shifts(line(0.0, 30.0), BOX, VACUUM, np.array([[0, 1]], dtype=np.intc))
    assert shifts.tolist() == [[0, 0, 0]]
