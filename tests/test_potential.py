"""Energies, forces and virials of every level and of their sum: derivatives and symmetries."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    PERIODIC,
    VACUUM,
    Structure,
    build_structure,
    multiples,
    permutations,
    rotations,
    structures,
    translations,
    wrappings,
)
from toy_models import from_molecules, hcp, pa3, toy_potential, toy_structures

from ase_hmlp.fingerprints import ANGULAR_NAMES
from ase_hmlp.levels import BondLevel
from ase_hmlp.molecules import find_molecules
from ase_hmlp.potential import Potential

NO_BOND = BondLevel("polynomial", (0.0,), 0.74, 0.6, 0.9)

# Without the energy zero, whose 30 eV a molecule only cost digits in differences.
FULL = toy_potential(e0=0.0)
LEVELS = {
    "bond": toy_potential(e0=0.0, pair=False, orientation=False),
    "morse": toy_potential(e0=0.0, pair=False, orientation=False, bond="morse"),
    "pair": replace(toy_potential(e0=0.0, orientation=False), bond=NO_BOND),
    "orientation": replace(toy_potential(e0=0.0, pair=False), bond=NO_BOND),
    "rigid kernels": replace(toy_potential(e0=0.0, stretch_width=0.0), bond=NO_BOND),
    "sum": FULL,
}

STEP = 1e-4
# Finite differences with STEP, eV/Å or eV.  Truncation is h^4/30 f^(5) < 1e-12.  Round-off: 1e-15
# of energies up to 20 eV, divided by the step, is 2e-10.  Largest are the kinks of the interpolant:
# its curvature jumps by at most spacing^2/6 f'''' at a node, 4e-6 times 130 eV/Å^4 (the baseline at
# 1 Å), and a jump inside the stencil shifts the difference by up to jump * STEP: 5e-8 for each pair
# that close, of which an atom has few.  A strain moves pairs by up to 4.5 Å as much.
TOLERANCE = 1e-6

#: Sums of the same numbers in another order, or of distances rounded differently: energies up to
#: 20 eV and forces up to 100 eV/Å in strained examples, with positions up to 50 Å from the origin
#: (7e-15 Å) times curvatures up to 1000 eV/Å^2.
ROUND_OFF = 1e-10


def check_derivatives(potential, structure, atoms=(0, 1)):
    """Forces on some atoms and all six strain components against finite differences."""
    evaluation = structure.evaluate(potential)

    def energy(s):
        return s.evaluate(potential).energies.sum()

    for i in atoms:
        for x in range(3):
            numerical = -oracle.position_derivative(energy, structure, i, x, STEP)
            assert evaluation.forces[i, x] == pytest.approx(numerical, abs=TOLERANCE)
    virial = evaluation.virials.sum(axis=0)
    for voigt in range(6):
        numerical = oracle.strain_derivative(energy, structure, voigt, STEP)
        assert virial[voigt] == pytest.approx(numerical, abs=5 * TOLERANCE)
    return evaluation


# ---------------------------------------------------------------- energies


@settings(max_examples=12)
@given(structures(max_molecules=4))
def test_energies_match_oracle(structure):
    """The whole potential, from positions to per-atom energies, without tables."""
    potential = toy_potential()
    energies = structure.evaluate(potential).energies
    expected = oracle.energies(potential, structure, ANGULAR_NAMES)
    # Table errors: 2e-12 Å^4 (h^4/384) times 130 eV/Å^4 for each close pair; 1e-8 is generous.
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["hcp", "pa3", "dimer"])
def test_crystals_match_oracle(name):
    potential, structure = toy_potential(), Structure.of(toy_structures()[name])
    energies = structure.evaluate(potential).energies
    expected = oracle.energies(potential, structure, ANGULAR_NAMES)
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


@given(structures())
def test_levels_add_up(structure):
    potential = toy_potential()
    whole = structure.evaluate(potential)
    assert set(whole.levels) == {"zero", "bond", "pair", "orientation"}
    assert sum(whole.levels.values()) == pytest.approx(whole.energies.sum(), abs=ROUND_OFF)
    parts = [structure.evaluate(LEVELS[n]) for n in ("bond", "pair", "orientation")]
    for name in ("energies", "forces", "virials"):
        total = sum(getattr(p, name) for p in parts)
        if name == "energies":
            total = total + potential.e0
        np.testing.assert_allclose(getattr(whole, name), total, rtol=0, atol=ROUND_OFF)


def test_isolated_molecules_have_their_bond_energy_exactly():
    """Farther apart than any cutoff: pair and orientation levels add exactly nothing."""
    centres = 20.0 * np.arange(3)[:, None] * np.ones(3)
    lengths = np.array([0.70, 0.74, 0.80])
    structure = Structure.of(from_molecules(centres, np.eye(3), lengths))
    evaluation = structure.evaluate(FULL)
    assert evaluation.levels["pair"] == 0.0
    assert evaluation.levels["orientation"] == 0.0
    assert evaluation.shortest_contact == np.inf
    bonds_only = structure.evaluate(LEVELS["bond"])
    for name in ("energies", "forces", "virials"):
        np.testing.assert_array_equal(getattr(evaluation, name), getattr(bonds_only, name))


@given(structures())
def test_shortest_contact(structure):
    evaluation = structure.evaluate(FULL)
    s = structure
    partner = {
        frozenset(map(int, m)): shift
        for m, (shift, _) in zip(s.molecules, oracle.bonds(s), strict=True)
    }
    expected, who = np.inf, set()
    for i, j, shift, d in oracle.neighbours(s.positions, s.cell, s.pbc, 4.5):
        bond = partner.get(frozenset((i, j)))
        flipped = None if bond is None else tuple(-k for k in bond)
        bonded = bond is not None and shift == (bond if i < j else flipped)
        r = np.linalg.norm(d)
        if not bonded and r < expected + 1e-12:
            who = {i, j} | (who if abs(r - expected) < 1e-12 else set())
            expected = min(expected, r)
    assert evaluation.shortest_contact == pytest.approx(expected, abs=1e-12)
    assert not who or evaluation.contact_atom in who


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=6)
@given(structure=structures(max_molecules=5))
def test_forces_and_virial_are_derivatives(level, structure):
    check_derivatives(LEVELS[level], structure)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["hcp-warm", "dimer"])
def test_forces_and_virial_of_crystals_are_derivatives(level, name):
    check_derivatives(LEVELS[level], Structure.of(toy_structures()[name]))


def smallest_cell():
    """One molecule in a skewed cell, 1.8 to 2 Å wide: every neighbour is an image of itself."""
    cell = np.array([[1.9, 0.1, 0.0], [-1.8, 2.1, 0.2], [0.3, 0.4, 2.0]])
    positions = np.array([[0.1, 0.2, 0.3], [0.4, 0.7, 0.75]])
    return Structure(positions, cell, PERIODIC, np.array([[0, 1]], dtype=np.intc))


@pytest.mark.parametrize("level", LEVELS)
def test_atoms_that_meet_their_own_images(level):
    structure = smallest_cell()
    check_derivatives(LEVELS[level], structure)
    energies = structure.evaluate(LEVELS[level]).energies
    expected = oracle.energies(LEVELS[level], structure, ANGULAR_NAMES)
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


def test_stretched_bonds_pull_on_the_kernels_too():
    """Both kernels see the bond length: their forces along the bond are derivatives as well."""
    atoms = hcp(2.6, (1, 1, 1), seed=7, bond_spread=0.05)
    for level in ("pair", "orientation"):
        rigid = replace(LEVELS[level], **{level: _without_stretch(getattr(LEVELS[level], level))})
        with_stretch = check_derivatives(LEVELS[level], Structure.of(atoms))
        without = check_derivatives(rigid, Structure.of(atoms))
        assert np.abs(with_stretch.forces - without.forces).max() > 1e-3


def _without_stretch(level):
    regressor = replace(
        level.regressor,
        stretch_width=0.0,
        linear_stretch=np.zeros_like(level.regressor.linear_stretch),
    )
    return type(level)(level.basis, regressor)


# ---------------------------------------------------------------- symmetries


def assert_same(a, b, order=slice(None), rotation=None):
    """Evaluation a is b with atoms reordered and vectors rotated."""
    forces, virials = b.forces[order], tensors(b.virials[order])
    if rotation is not None:
        forces, virials = forces @ rotation, rotation.T @ virials @ rotation
    np.testing.assert_allclose(a.energies, b.energies[order], rtol=0, atol=ROUND_OFF)
    np.testing.assert_allclose(a.forces, forces, rtol=0, atol=ROUND_OFF)
    np.testing.assert_allclose(tensors(a.virials), virials, rtol=0, atol=ROUND_OFF)


def tensors(voigt):
    """Voigt rows (n, 6) as matrices (n, 3, 3)."""
    return voigt[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]


@given(structures(), translations())
def test_translation(structure, shift):
    moved = structure.moved(structure.positions + shift)
    assert_same(moved.evaluate(FULL), structure.evaluate(FULL))


@given(structures(), rotations())
def test_rotation_with_the_cell(structure, rotation):
    turned = structure.deformed(rotation)
    assert_same(turned.evaluate(FULL), structure.evaluate(FULL), rotation=rotation)


@given(structures(), st.data())
def test_permutation(structure, data):
    """Atoms in any order; molecules, and the atoms of each, too."""
    order = data.draw(permutations(len(structure)))
    where = np.argsort(order).astype(np.intc)
    permuted = replace(
        structure, positions=structure.positions[order], molecules=where[structure.molecules]
    )
    assert_same(permuted.evaluate(FULL), structure.evaluate(FULL), order=order)
    shuffled = replace(permuted, molecules=permuted.molecules[::-1, ::-1].copy())
    assert_same(shuffled.evaluate(FULL), structure.evaluate(FULL), order=order)


@given(structures())
def test_swapping_the_atoms_of_a_molecule(structure):
    a, b = structure.molecules[0]
    order = np.arange(len(structure))
    order[[a, b]] = b, a
    swapped = structure.moved(structure.positions[order])
    assert_same(swapped.evaluate(FULL), structure.evaluate(FULL), order=order)


@given(structures(scatter=False), st.data())
def test_wrapping_single_atoms(structure, data):
    shifts = data.draw(wrappings(len(structure), structure.pbc))
    wrapped = structure.moved(structure.positions + shifts @ structure.cell)
    assert_same(wrapped.evaluate(FULL), structure.evaluate(FULL))


@given(structures(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-3, 3))))
def test_other_cells_of_the_same_lattice(structure, skews):
    """Adding periodic cell vectors to one another leaves the crystal as it is."""
    cell = structure.cell.copy()
    for row, other, times in skews[:3]:
        if row != other and structure.pbc[row] and structure.pbc[other]:
            cell[row] += times * cell[other]
    other = structure.moved(structure.positions, cell)
    # Skewed vectors can be 100 Å long: ten times the round-off.
    a, b = other.evaluate(FULL), structure.evaluate(FULL)
    np.testing.assert_allclose(a.energies, b.energies, rtol=0, atol=10 * ROUND_OFF)
    np.testing.assert_allclose(a.forces, b.forces, rtol=0, atol=10 * ROUND_OFF)


@given(structures(max_molecules=4), st.data())
def test_supercells_are_extensive(structure, data):
    times = data.draw(multiples(structure.pbc))
    grid = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), -1).reshape(-1, 3)
    n = len(structure)
    offsets = grid @ structure.cell
    positions = (structure.positions + offsets[:, None]).reshape(-1, 3)
    cell = structure.cell * np.array(times)[:, None]
    # Partners may be in different copies, so the molecules are found again.
    molecules = find_molecules(positions, cell, structure.pbc)
    supercell = Structure(positions, cell, structure.pbc, molecules)
    assert_same(
        supercell.evaluate(FULL), structure.evaluate(FULL), order=np.tile(np.arange(n), len(grid))
    )


@given(structures())
def test_no_net_force(structure):
    for potential in LEVELS.values():
        forces = structure.evaluate(potential).forces
        assert np.abs(forces.sum(axis=0)).max() < ROUND_OFF


@given(structures(pbc=VACUUM))
def test_no_net_torque_in_vacuum(structure):
    for potential in LEVELS.values():
        forces = structure.evaluate(potential).forces
        arms = structure.positions - structure.positions.mean(axis=0)
        assert np.abs(np.cross(arms, forces).sum(axis=0)).max() < ROUND_OFF


@given(structures(pbc=VACUUM))
def test_virial_in_vacuum_is_the_moment_of_the_forces(structure):
    """dE/dstrain = -sum r F where nothing is periodic, symmetric because there is no torque."""
    for potential in LEVELS.values():
        evaluation = structure.evaluate(potential)
        moment = -structure.positions.T @ evaluation.forces
        np.testing.assert_allclose(
            tensors(evaluation.virials).sum(axis=0), moment, rtol=0, atol=10 * ROUND_OFF
        )


def test_cubic_symmetry():
    """Pa-3: all atoms equal, no force on centres, an isotropic stress."""
    structure = Structure.of(pa3(2.6))
    evaluation = structure.evaluate(FULL)
    np.testing.assert_allclose(evaluation.energies, evaluation.energies[0], atol=ROUND_OFF)
    on_centres = evaluation.forces[structure.molecules].sum(axis=1)
    np.testing.assert_allclose(on_centres, 0.0, atol=ROUND_OFF)
    virial = evaluation.virials.sum(axis=0)
    np.testing.assert_allclose(virial, virial[0] * np.array([1, 1, 1, 0, 0, 0]), atol=ROUND_OFF)
    assert abs(virial[0]) > 0.1


# ---------------------------------------------------------------- smoothness


def approaching(rc, atoms_of_pair, delta):
    """Two molecules side by side, with atoms (or centres) `rc - delta` apart along z."""
    axes = np.array([[1.0, 0.2, 0.0], [0.9, -0.3, 0.0]])
    if atoms_of_pair:
        axes = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    separation = rc - delta + (0.74 if atoms_of_pair else 0.0)
    centres = np.array([[0.0, 0, 0], [0.0, 0, separation]])
    return Structure.of(from_molecules(centres, axes))


@pytest.mark.parametrize("level", ["pair", "orientation"])
def test_smooth_as_a_pair_crosses_the_cutoff(level):
    """Energy vanishes with the cube of the distance to the cutoff, force with its square."""
    potential = LEVELS[level]
    rc = getattr(potential, level).basis.cutoff
    energies, forces = [], []
    for delta in (0.08, 0.04, 0.02, -1e-9, -0.01):
        evaluation = approaching(rc, level == "pair", delta).evaluate(potential)
        energies.append(abs(evaluation.energies.sum()))
        forces.append(np.abs(evaluation.forces).max())
    # Exactly nothing beyond; the next order changes the powers of two by delta over a length of the
    # radial functions, some 10 % here.
    assert energies[3:] == [0.0, 0.0]
    assert forces[3:] == [0.0, 0.0]
    for k in (0, 1):
        assert energies[k] / energies[k + 1] == pytest.approx(8.0, rel=0.15)
        assert forces[k] / forces[k + 1] == pytest.approx(4.0, rel=0.15)
    assert forces[2] > 0


def test_forces_are_continuous_along_a_scan():
    """Twice as fine a scan has half the largest step in any force: no jump anywhere."""

    def largest_step(n):
        z = np.linspace(1.6, 5.2, n)
        forces = [approaching(0.0, False, -x).evaluate(FULL).forces for x in z]
        return np.abs(np.diff(forces, axis=0)).max()

    coarse, fine = largest_step(201), largest_step(401)
    assert fine == pytest.approx(coarse / 2, rel=0.1)


# ---------------------------------------------------------------- threads, plain data, variances


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", ["hcp-warm", "pa3", "molecule"])
def test_threads_change_no_bit(threads, name):
    structure = Structure.of(toy_structures()[name])
    one, many = (structure.evaluate(FULL, threads=t) for t in (1, threads))
    for field in ("energies", "forces", "virials"):
        np.testing.assert_array_equal(getattr(one, field), getattr(many, field))


def test_evaluations_do_not_pile_up():
    geometry = Structure.of(toy_structures()["hcp-warm"]).geometry(FULL)
    first, second = FULL.evaluate(geometry), FULL.evaluate(geometry)
    np.testing.assert_array_equal(first.forces, second.forces)
    np.testing.assert_array_equal(first.virials, second.virials)


def test_potential_survives_plain_data():
    structure = Structure.of(toy_structures()["hcp-warm"])
    potential = toy_potential(seed=3)
    again = Potential.from_dict(potential.to_dict())
    a, b = structure.evaluate(potential), structure.evaluate(again)
    np.testing.assert_array_equal(a.energies, b.energies)
    np.testing.assert_array_equal(a.forces, b.forces)
    np.testing.assert_array_equal(
        potential.deviations(structure.geometry(potential)),
        again.deviations(structure.geometry(again)),
    )


def test_cutoff_covers_every_level():
    assert FULL.cutoff >= max(FULL.pair.basis.cutoff, FULL.orientation.basis.cutoff)


def test_deviations_match_the_formula():
    """Prior times sqrt(k(x, x) - k V k), from the oracle's fingerprints."""
    structure = build_structure(3, 3, 3.2, [], PERIODIC, True)
    lengths = np.array([np.linalg.norm(d) for _, d in oracle.bonds(structure)])
    of_atom = np.empty(len(structure))
    of_atom[structure.molecules] = lengths[:, None]
    expected = np.zeros(len(structure))
    v, _ = oracle.pair_fingerprints(FULL.pair.basis, structure)
    w, _ = oracle.orientation_fingerprints(FULL.orientation.basis, structure, ANGULAR_NAMES)
    for i in range(len(structure)):
        expected[i] += deviation(FULL.pair.regressor, v[i], of_atom[i]) ** 2
    for m, (a, b) in enumerate(structure.molecules):
        expected[[a, b]] += deviation(FULL.orientation.regressor, w[m], lengths[m]) ** 2 / 4
    found = FULL.deviations(structure.geometry(FULL))
    np.testing.assert_allclose(found, np.sqrt(expected), rtol=1e-7)
    assert (found > 0).all()


def deviation(g, v, r):
    """Standard deviation of one centre's energy."""
    y = g.transform @ v
    k = np.array(
        [
            (np.exp(-((y - y_s) @ (y - y_s)) / 2) - np.exp(-(y @ y + y_s @ y_s) / 2))
            * (np.exp(-(((r - r_s) / g.stretch_width) ** 2) / 2) if g.stretch_width else 1.0)
            for y_s, r_s in zip(g.representatives, g.rep_bond, strict=True)
        ]
    )
    own = 1.0 - np.exp(-(y @ y))
    return g.prior * np.sqrt(max(own - k @ g.variance @ k, 0.0))
