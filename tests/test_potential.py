"""Energies, forces and virials of every level and of their sum: derivatives and symmetries."""

import copy
import pickle
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
    multiples,
    permutations,
    rotations,
    structures,
    translations,
    wrappings,
)
from toy_models import (
    ENVIRONMENT_BASIS,
    ORIENTATION_BASIS,
    OVERLAP_BASIS,
    PAIR_BASIS,
    dimer,
    from_molecules,
    hcp,
    pa3,
    toy_potential,
    toy_regressor,
    toy_structures,
)

from ase_hmlp import levels
from ase_hmlp.fingerprints import gaussians
from ase_hmlp.levels import BondLevel, EnvironmentLevel
from ase_hmlp.model_io import load_model
from ase_hmlp.molecules import find_molecules
from ase_hmlp.potential import Potential

NO_BOND = BondLevel("polynomial", (0.0,), 0.74, 0.3, 1.5)


def only_forms(level):
    """An environment level that sees nothing but the overlap of orbitals, and that well."""
    g = level.regressor
    forms = np.zeros(g.linear.shape)
    forms[33:89] = 5.0
    g = replace(
        g,
        transform=forms * g.transform,
        linear=forms * g.linear,
        linear_stretch=forms * g.linear_stretch,
    )
    return replace(level, regressor=g)


# Without the energy zero, whose 30 eV a molecule only cost digits in differences.
FULL = toy_potential(e0=0.0)
ONLY_BOND = toy_potential(e0=0.0, pair=False, orientation=False, environment=False)
NOTHING = replace(ONLY_BOND, bond=NO_BOND)
LEVELS = {
    "bond": ONLY_BOND,
    "morse": replace(ONLY_BOND, bond=toy_potential(bond="morse").bond),
    "pair": replace(NOTHING, pair=FULL.pair),
    "orientation": replace(NOTHING, orientation=FULL.orientation),
    "environment": replace(NOTHING, environment=FULL.environment),
    "overlap": replace(NOTHING, environment=only_forms(FULL.environment)),
    "rigid kernel": replace(NOTHING, environment=toy_potential(stretch_width=0.0).environment),
    "sum": FULL,
}
FINGERPRINTS = ("pair", "orientation", "environment")

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
    expected = oracle.energies(potential, structure)
    # Table errors: 2e-12 Å^4 (h^4/384) times 130 eV/Å^4 for each close pair; 1e-8 is generous.
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["hcp", "pa3", "dimer"])
def test_crystals_match_oracle(name):
    potential, structure = toy_potential(), Structure.of(toy_structures()[name])
    energies = structure.evaluate(potential).energies
    expected = oracle.energies(potential, structure)
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("longest", [*FINGERPRINTS, "overlap"])
@settings(max_examples=6)
@given(structure=structures(max_molecules=4))
def test_any_level_may_reach_farthest(longest, structure):
    """Pairs of molecules within one level's cutoff and outside another's."""
    bases = {"pair": PAIR_BASIS, "orientation": ORIENTATION_BASIS, "environment": ENVIRONMENT_BASIS}
    cutoffs = dict.fromkeys(FINGERPRINTS, 2.9) | {longest: 4.3}
    bases = {f"{k}_basis": replace(b, cutoff=cutoffs[k]) for k, b in bases.items()}
    overlap = replace(OVERLAP_BASIS, reach=cutoffs.get("overlap", OVERLAP_BASIS.reach))
    potential = toy_potential(e0=0.0, overlap=overlap, **bases)
    assert potential.cutoff == 4.3
    evaluation = check_derivatives(potential, structure, atoms=(0,))
    expected = oracle.energies(potential, structure)
    np.testing.assert_allclose(evaluation.energies, expected, rtol=0, atol=1e-8)


@given(structures())
def test_levels_add_up(structure):
    potential = toy_potential()
    whole = structure.evaluate(potential)
    assert set(whole.levels) == {"zero", "bond", *FINGERPRINTS}
    assert sum(whole.levels.values()) == pytest.approx(whole.energies.sum(), abs=ROUND_OFF)
    parts = {n: structure.evaluate(LEVELS[n]) for n in ("bond", *FINGERPRINTS)}
    for name in ("energies", "forces", "virials"):
        total = sum(getattr(p, name) for p in parts.values())
        if name == "energies":
            total = total + potential.e0
        np.testing.assert_allclose(getattr(whole, name), total, rtol=0, atol=ROUND_OFF)
    for name, part in parts.items():
        assert whole.levels[name] == pytest.approx(part.energies.sum(), abs=ROUND_OFF)


def test_isolated_molecules_have_their_bond_energy():
    """Farther apart than any cutoff: nothing is added, exactly by the levels that are sums of
    pairs; the kernel's table of what it would say of a lone molecule is good to 1e-8 eV."""
    centres = 20.0 * np.arange(3)[:, None] * np.ones(3)
    lengths = np.array([0.70, 0.74, 0.80])
    structure = Structure.of(from_molecules(centres, np.eye(3), lengths))
    evaluation = structure.evaluate(FULL)
    assert evaluation.levels["pair"] == 0.0
    assert evaluation.levels["orientation"] == 0.0
    assert evaluation.levels["environment"] == pytest.approx(0.0, abs=1e-8)
    assert evaluation.shortest_contact == np.inf
    bonds_only = structure.evaluate(LEVELS["bond"])
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(
            getattr(evaluation, name), getattr(bonds_only, name), rtol=0, atol=1e-6
        )
    without = structure.evaluate(replace(FULL, environment=None))
    for name in ("energies", "forces", "virials"):
        np.testing.assert_array_equal(getattr(without, name), getattr(bonds_only, name))


@given(structures())
def test_shortest_contact(structure):
    """Between atoms of two molecules whose centres are within the cutoff."""
    evaluation = structure.evaluate(FULL)
    s = structure
    centres, axes, lengths = oracle.molecules_of(s)
    expected, who = np.inf, set()
    for i, j, _, d in oracle.neighbours(centres, s.cell, s.pbc, FULL.cutoff):
        for a, b in np.ndindex(2, 2):
            ends = d + (b - 0.5) * lengths[j] * axes[j] - (a - 0.5) * lengths[i] * axes[i]
            r, pair = np.linalg.norm(ends), frozenset((s.molecules[i, a], s.molecules[j, b]))
            if r < expected + 1e-12:
                who = {pair} | (who if abs(r - expected) < 1e-12 else set())
                expected = min(expected, r)
    assert evaluation.shortest_contact == pytest.approx(expected, abs=1e-12)
    assert not who or frozenset(evaluation.contact_atoms) in who


def test_centres_may_coincide():
    """Two crossed molecules: no direction, but finite energies and forces, with every level."""
    atoms = from_molecules(np.zeros((2, 3)), np.array([[1.0, 0, 0], [0, 1.0, 0]]), 1.0)
    molecules = np.array([[0, 1], [2, 3]], dtype=np.intc)
    structure = Structure(atoms.positions, np.eye(3), VACUUM, molecules)
    evaluation = structure.evaluate(FULL)
    for name in ("energies", "forces", "virials"):
        assert np.isfinite(getattr(evaluation, name)).all()
    assert evaluation.shortest_contact == pytest.approx(np.sqrt(0.5))


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
    expected = oracle.energies(LEVELS[level], structure)
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-8)


def without_stretch(name):
    """A level that sees no bond length."""
    level = getattr(LEVELS[name], name)
    if name == "pair":
        unstretched = np.zeros_like(level.coefficients)
        unstretched[0] = level.coefficients[0]
        level = replace(level, coefficients=unstretched)
    else:
        regressor = replace(
            level.regressor,
            stretch_width=0.0,
            linear_stretch=np.zeros_like(level.regressor.linear_stretch),
        )
        level = replace(level, regressor=regressor)
    return replace(LEVELS[name], **{name: level})


@pytest.mark.parametrize("level", ["pair", "environment"])
def test_stretched_bonds_pull(level):
    """Two levels see the bond length: their forces along the bond are derivatives as well."""
    structure = Structure.of(hcp(2.6, (1, 1, 1), seed=7, bond_spread=0.05))
    with_stretch = check_derivatives(LEVELS[level], structure)
    rigid = check_derivatives(without_stretch(level), structure)
    assert np.abs(with_stretch.forces - rigid.forces).max() > 1e-3


def test_orientation_level_turns_molecules_but_does_not_stretch_them():
    """The axes' derivatives have no component along the bond but through the centres."""
    structure = Structure.of(toy_structures()["hcp-warm"])
    evaluation = structure.evaluate(LEVELS["orientation"])
    geometry = structure.geometry(FULL)
    of_atoms = evaluation.forces[geometry.molecules]
    along = ((of_atoms[:, 1] - of_atoms[:, 0]) * geometry.axes).sum(axis=1)
    np.testing.assert_allclose(along, 0.0, atol=ROUND_OFF)
    assert np.abs(of_atoms[:, 1] - of_atoms[:, 0]).max() > 1e-2


# ---------------------------------------------------------------- the held stretch


def test_held_stretch_matches_oracle():
    held = FULL.stretch
    r = np.linspace(0.4, 1.2, 801)
    value, slope = FULL.interaction.stretch(r)
    np.testing.assert_allclose(value, oracle.held_stretch(held, r), rtol=0, atol=1e-14)
    expected = oracle.derivative(lambda h: oracle.held_stretch(held, r + h), 1e-5)
    # At the four joints the third derivative jumps by 60 / margin^2 = 4e4: times step^2 / 12.
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6)
    # The bond's own stretch in between, and nothing moves beyond the ends.
    inside = (r > held.low + held.margin) & (r < held.high - held.margin)
    np.testing.assert_allclose(value[inside], r[inside] - held.r0, rtol=0, atol=1e-15)
    assert (slope[inside] == 1.0).all()
    for beyond, end in (
        (r <= held.low, held.low + 0.5 * held.margin),
        (r >= held.high, held.high - 0.5 * held.margin),
    ):
        assert (slope[beyond] == 0.0).all()
        np.testing.assert_allclose(value[beyond], end - held.r0, rtol=0, atol=1e-15)
    assert ((slope >= 0) & (slope <= 1)).all()


def test_held_stretch_is_twice_differentiable():
    """Its slope leaves 0 and 1 with the third power of the distance to where it does."""
    held = FULL.stretch
    delta = np.array([4e-3, 2e-3, 1e-3])
    for joint, sign, limit in (
        (held.low, 1, 0.0),
        (held.low + held.margin, -1, 1.0),
        (held.high - held.margin, 1, 1.0),
        (held.high, -1, 0.0),
    ):
        slope = FULL.interaction.stretch(joint + sign * delta)[1]
        # 10 t^3 with t = delta / margin, the next term 15 t^4.
        t = delta / held.margin
        away = np.abs(slope - limit)
        assert (away <= 10 * t**3).all()
        assert (away >= 10 * t**3 - 15 * t**4 - 1e-12).all()


def bonds_of(length, spread=0.02):
    """A crystal whose bonds all differ by up to `spread` from `length`, outwards."""
    atoms = hcp(2.8, (2, 1, 1), seed=3)
    ends = atoms.positions.reshape(-1, 2, 3)
    axes = np.diff(ends, axis=1)[:, 0] / 0.74
    spread *= np.sign(length - 0.74)
    lengths = length + spread * np.arange(len(ends)) / len(ends)
    return Structure.of(from_molecules(ends.mean(axis=1), axes, lengths, atoms.cell))


@pytest.mark.parametrize("length, sign", [(0.60, -1), (0.95, 1)])
def test_no_stretch_matters_beyond_the_ends(length, sign):
    """There the pair level is that of molecules of one stretch: its terms are constants."""
    pair, held = FULL.pair, FULL.stretch
    s = (held.high - 0.5 * held.margin if sign > 0 else held.low + 0.5 * held.margin) - held.r0
    folded = np.zeros_like(pair.coefficients)
    folded[0] = np.array([1.0, 2 * s, s * s, 2 * s * s]) @ pair.coefficients
    rigid = replace(LEVELS["pair"], pair=replace(pair, coefficients=folded))
    structure = bonds_of(length)
    found, expected = (structure.evaluate(p) for p in (LEVELS["pair"], rigid))
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=ROUND_OFF
        )
    # Inside the ends the same bonds do pull.
    wide = replace(LEVELS["pair"], stretch=replace(held, low=0.4, high=1.2))
    assert np.abs(structure.evaluate(wide).forces - found.forces).max() > 1e-2


@pytest.mark.parametrize("length", [0.60, 0.95])
def test_the_environment_does_not_pull_bonds_beyond_the_ends(length):
    """Nothing of it is left along the bonds; its energy is that of bonds at the end."""
    structure, potential = bonds_of(length), LEVELS["environment"]
    evaluation = structure.evaluate(potential)
    geometry = structure.geometry(potential)
    ends = evaluation.forces[geometry.molecules]
    pull = ((ends[:, 1] - ends[:, 0]) * geometry.axes).sum(axis=1)
    np.testing.assert_allclose(pull, 0.0, atol=ROUND_OFF)
    # The same bonds, farther out.
    other = bonds_of(length + np.sign(length - 0.74) * 0.02).evaluate(potential)
    np.testing.assert_allclose(other.energies, evaluation.energies, rtol=0, atol=ROUND_OFF)
    wide = replace(potential, stretch=replace(FULL.stretch, low=0.4, high=1.2))
    ends = structure.evaluate(wide).forces[geometry.molecules]
    assert np.abs((ends[:, 1] - ends[:, 0]) * geometry.axes).max() > 1e-3


@pytest.mark.parametrize("length", [0.672, 0.83])
@pytest.mark.parametrize("level", ["pair", "environment", "rigid kernel", "sum"])
def test_derivatives_where_stretches_are_brought_to_their_ends(level, length):
    check_derivatives(LEVELS[level], bonds_of(length, spread=0.01), atoms=(0, 3))


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


def approaching(separation):
    """Two molecules side by side, their centres so far apart along z."""
    axes = np.array([[1.0, 0.2, 0.0], [0.9, -0.3, 0.0]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    centres = np.array([[0.0, 0, 0], [0.0, 0, separation]])
    return Structure.of(from_molecules(centres, axes))


@pytest.mark.parametrize("level", FINGERPRINTS)
def test_smooth_as_a_pair_crosses_the_cutoff(level):
    """Energy vanishes with the cube of the distance to the cutoff, force with its square."""
    potential = LEVELS[level]
    rc = getattr(potential, level).basis.cutoff
    alone = approaching(10.0).evaluate(potential)
    energies, forces = [], []
    for delta in (0.02, 0.01, 0.005, -1e-9, -0.01):
        evaluation = approaching(rc - delta).evaluate(potential)
        energies.append(abs((evaluation.energies - alone.energies).sum()))
        # The force between the two.
        forces.append(abs(evaluation.forces[:2, 2].sum()))
    # Exactly nothing beyond; the next order changes the powers of two by delta over a length of the
    # radial functions, some 10 % here.
    assert energies[3:] == [0.0, 0.0]
    assert forces[3:] == [0.0, 0.0]
    for k in (0, 1):
        assert energies[k] / energies[k + 1] == pytest.approx(8.0, rel=0.2)
        assert forces[k] / forces[k + 1] == pytest.approx(4.0, rel=0.2)
    assert forces[2] > 0


def test_forces_are_continuous_along_a_scan():
    """Twice as fine a scan has half the largest step in any force: no jump anywhere."""

    def largest_step(n):
        z = np.linspace(1.6, 5.2, n)
        forces = [approaching(x).evaluate(FULL).forces for x in z]
        return np.abs(np.diff(forces, axis=0)).max()

    coarse, fine = largest_step(201), largest_step(401)
    assert fine == pytest.approx(coarse / 2, rel=0.1)


# ---------------------------------------------------------------- tables


SHIPPED = load_model("h2-pbe").potential

SPACINGS = "ATOM_SPACING", "CENTRE_SPACING", "ORBITAL_SPACING"

#: Tables are made once: these are, before any test changes the spacing.
USUAL_TABLES = {name: copy.copy(potential) for name, potential in LEVELS.items()}
assert all(potential.interaction for potential in USUAL_TABLES.values())


@pytest.fixture
def fine_tables(monkeypatch):
    """Tables with a tenth of the spacing: their errors are 1e-3 of those in forces."""
    for name in SPACINGS:
        monkeypatch.setattr(levels, name, getattr(levels, name) / 10)


def check_tables(potential, fine, structure):
    """Forces within 1e-6 of those of the exact functions, relative to the typical one."""
    coarse, exact = (structure.evaluate(p) for p in (potential, fine))
    typical = np.sqrt((exact.forces**2).mean())
    error = np.abs(coarse.forces - exact.forces).max()
    assert 0 < error < 1e-6 * typical
    # Parts of virials may cancel: they are forces times some Å.
    size = max(np.abs(exact.virials).max(), typical)
    assert np.abs(coarse.virials - exact.virials).max() < 1e-6 * size
    np.testing.assert_allclose(coarse.energies, exact.energies, rtol=0, atol=3e-8)


@pytest.mark.parametrize("name", ["hcp", "hcp-warm", "dense", "dimer"])
@pytest.mark.parametrize("level", [*FINGERPRINTS, "sum"])
def test_tables_are_as_good_as_the_functions(level, name, fine_tables):
    # Centres anywhere but on nodes.
    others = {
        "dense": hcp(1.7, (2, 2, 1), seed=2, bond_spread=0.02),
        "dimer": dimer(2.6337, seed=2),
    }
    structure = Structure.of((toy_structures() | others)[name])
    check_tables(USUAL_TABLES[level], copy.copy(LEVELS[level]), structure)


@pytest.mark.parametrize("volume", [1.7, 2.4, 4.0])
def test_tables_of_the_shipped_model_are_as_good_as_its_functions(volume, fine_tables):
    """Large coefficients that cancel make larger errors than the toy's."""
    usual = Potential.from_dict(SHIPPED.to_dict())
    with pytest.MonkeyPatch.context() as patch:
        for name in SPACINGS:
            patch.setattr(levels, name, getattr(levels, name) * 10)
        usual.interaction  # noqa: B018
    atoms = hcp(volume, (3, 3, 2), seed=2, bond_spread=0.03)
    atoms.rattle(0.04, seed=5)
    check_tables(usual, copy.copy(SHIPPED), Structure.of(atoms))


def test_fine_tables_are_exact(fine_tables):
    """What the test above compares with, against the functions themselves: the oracle's forces."""
    potential, structure = copy.copy(FULL), Structure.of(toy_structures()["dimer"])
    spacing = potential.interaction.record["centres.spacing"]
    assert spacing == pytest.approx(0.0008)
    forces = structure.evaluate(potential).forces
    for i in range(len(structure)):
        for x in range(3):
            exact = -oracle.position_derivative(
                lambda s: oracle.energies(potential, s).sum(), structure, i, x, 5e-4
            )
            # Round-off 1e-15 / 5e-4 and truncation 2e-15 times fifth derivatives of some 1e4.
            assert forces[i, x] == pytest.approx(exact, abs=1e-9)


# ---------------------------------------------------------------- threads, plain data, variances


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("name", ["hcp-warm", "pa3", "molecule"])
def test_threads_change_nothing_but_round_off(threads, name):
    """Each has sums of its own; there may be more of them than molecules."""
    structure = Structure.of(toy_structures()[name])
    one, many, again = (structure.evaluate(FULL, threads=t) for t in (1, threads, threads))
    for field in ("energies", "forces", "virials"):
        np.testing.assert_allclose(
            getattr(one, field), getattr(many, field), rtol=1e-13, atol=1e-12
        )
        # Which thread does what is fixed: a second run gives the same bits.
        np.testing.assert_array_equal(getattr(many, field), getattr(again, field))
    assert one.levels == pytest.approx(many.levels, rel=1e-13, abs=1e-12)
    assert one.shortest_contact == many.shortest_contact
    geometry = [structure.geometry(FULL, threads=t) for t in (1, threads)]
    v, w = (FULL.fingerprints(g) for g in geometry)
    np.testing.assert_allclose(v, w, rtol=1e-13, atol=1e-13)


def test_too_many_threads_are_refused():
    with pytest.raises(ValueError, match="at most 64 threads"):
        Structure.of(toy_structures()["pa3"]).evaluate(FULL, threads=65)


def test_evaluations_do_not_pile_up():
    geometry = Structure.of(toy_structures()["hcp-warm"]).geometry(FULL)
    first, second = FULL.evaluate(geometry), FULL.evaluate(geometry)
    np.testing.assert_array_equal(first.forces, second.forces)
    np.testing.assert_array_equal(first.virials, second.virials)


def test_potential_survives_plain_data():
    structure = Structure.of(toy_structures()["hcp-warm"])
    potential = toy_potential(seed=3)
    again = Potential.from_dict(potential.to_dict())
    check_same_potential(potential, again, structure)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_potential_survives_copies(duplicate):
    """Its tables have pointers: a copy makes its own."""
    structure = Structure.of(toy_structures()["hcp-warm"])
    potential = toy_potential(seed=3)
    structure.evaluate(potential)
    again = duplicate(potential)
    assert again.interaction is not potential.interaction
    check_same_potential(potential, again, structure)


def check_same_potential(potential, again, structure):
    a, b = structure.evaluate(potential), structure.evaluate(again)
    np.testing.assert_array_equal(a.energies, b.energies)
    np.testing.assert_array_equal(a.forces, b.forces)
    np.testing.assert_array_equal(
        potential.deviations(structure.geometry(potential)),
        again.deviations(structure.geometry(again)),
    )


def test_cutoff_covers_every_level():
    cutoffs = [getattr(FULL, name).basis.cutoff for name in FINGERPRINTS]
    assert len(set(cutoffs)) == 3
    assert FULL.cutoff == max(cutoffs)


@pytest.mark.parametrize("n", [5, 12, 14])
def test_environment_has_thirteen_radial_functions(n):
    with pytest.raises(ValueError, match="the environment has 13 radial functions"):
        EnvironmentLevel(
            replace(ENVIRONMENT_BASIS, functions=gaussians(np.linspace(1, 2, n))),
            toy_regressor(265),
        )


def test_deviations_match_the_formula():
    """Prior times sqrt(k(x, x) - k V k) from the oracle's fingerprints; half of it for an atom."""
    # Bonds that are held, and bonds that are not.
    structure = Structure.of(hcp(2.8, (2, 1, 1), seed=3, bond_spread=0.06))
    _, _, lengths = oracle.molecules_of(structure)
    seen = FULL.stretch.r0 + oracle.held_stretch(FULL.stretch, lengths)
    assert np.abs(seen - lengths).max() > 0.005
    level = FULL.environment
    v, _ = oracle.environment_fingerprints(level.basis, FULL.stretch, structure, level.overlap)
    expected = np.zeros(len(structure))
    for m, atoms in enumerate(structure.molecules):
        expected[atoms] = deviation(level.regressor, v[m], seen[m]) / 2
    found = FULL.deviations(structure.geometry(FULL))
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    np.testing.assert_allclose(FULL.held_length(structure.geometry(FULL)), seen, rtol=1e-14)
    assert (found > 0).all()
    assert (replace(FULL, environment=None).deviations(structure.geometry(FULL)) == 0).all()


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
    return g.prior * np.sqrt(max(own - k @ g.variance @ k, 0.0)) ** g.exponent
