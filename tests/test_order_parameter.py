"""Order parameter O: 1 in a perfect crystal, 0 without order, and a slow sum between."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from ase.io import write
from hypothesis import given, settings
from strategies import rotations, seeds, translations
from toy_models import from_molecules, hcp, pa3, random_axes

from ase_hmlp.analysis.order_parameter import OrderParameter
from ase_hmlp.analysis.reference_lattice import match_reference
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import ReferenceMismatchError, TrajectoryError
from ase_hmlp.simulate import structures as crystals
from ase_hmlp.simulate.build import orthogonal


def order_of(frames, reference, repeat=None):
    return analyse(Trajectory(frames), [OrderParameter(reference, repeat)])[0]


def shuffled(atoms, seed):
    return atoms[np.random.default_rng(seed).permutation(len(atoms))]


def turned(atoms, rotation, shift):
    out = atoms.copy()
    out.set_cell(atoms.cell.array @ rotation)
    out.positions = atoms.positions @ rotation + shift
    return out


@given(rotations(improper=False), translations(), seeds)
def test_a_perfect_crystal_has_order_one(rotation, shift, seed):
    """However it lies in space, whichever its atoms' order, wrapped or not."""
    names = sorted(crystals.NAMES)
    name = names[seed % len(names)]
    reference = crystals.load(name)
    repeat = [(2, 2, 2), (3, 1, 2), (1, 3, 1)][seed % 3]
    crystal = shuffled(turned(reference.repeat(repeat), rotation, shift), seed)
    crystal.wrap()
    result = order_of(crystal, reference)
    for quantity in ("O", "O (headless)", "alignment"):
        assert result[quantity].value == pytest.approx(1.0, abs=1e-9), (name, repeat)


def test_a_strained_crystal_keeps_its_order():
    reference = crystals.load("P21c-24-a")
    strained = reference.repeat((3, 3, 1))
    (snapshot,) = Trajectory(strained)
    deformation = 0.9 * (np.eye(3) + 0.03 * np.array([[1, 1, 0], [0, -1, 1], [0, 0, 0.5]]))
    crystal = from_molecules(
        snapshot.centres @ deformation, snapshot.axes, cell=snapshot.cell @ deformation
    )
    result = order_of(crystal, reference)
    assert result["O"].value == pytest.approx(1.0)
    assert result["alignment"].value > 0.99


@pytest.mark.parametrize(
    "matrix", [[[1, 1, 0], [-1, 1, 0], [0, 0, 3]], [[3, 0, 0], [1, 1, 0], [0, 0, 2]]]
)
def test_supercells_that_are_no_multiples(matrix):
    reference = crystals.load("P21c-8")
    crystal = shuffled(make_supercell(reference, matrix), 0)
    for repeat in (matrix, None):
        result = order_of(crystal, reference, repeat)
        assert result["O"].value == pytest.approx(1.0)
        assert result["alignment"].value == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["P63m-16", "P6122-36", "P21c-24-b", "P21c-8"])
@given(rotations(improper=False), seeds)
@settings(max_examples=3)
def test_the_supercell_of_a_run_with_an_orthogonal_cell_is_found(name, rotation, seed):
    """Warm, strained and turned; hexagonal lattices have symmetries that the basis has not."""
    reference, rng = crystals.load(name), np.random.default_rng(seed)
    crystal = orthogonal(reference).repeat((2, 1, 2))
    (snapshot,) = Trajectory(crystal)
    deformation = 0.95 * (np.eye(3) + 0.01 * rng.normal(size=(3, 3))) @ rotation
    axes = snapshot.axes @ rotation + 0.1 * rng.normal(size=snapshot.axes.shape)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    centres = snapshot.centres @ deformation + 0.05 * rng.normal(size=axes.shape)
    warm = from_molecules(centres, axes, cell=snapshot.cell @ deformation)
    result = order_of(shuffled(warm, seed), reference)
    cells = abs(np.linalg.det(result.inputs["settings"]["repeat"]))
    assert round(cells) == len(crystal) // len(reference)
    # Components of 0.1 across the axis: <P2> = 1 - 3 (0.1)^2 = 0.97, O = 1 - 2 (0.1)^2 = 0.98.
    assert result["alignment"].value > 0.94 and result["O"].value > 0.95


def test_of_equal_lattices_the_one_that_fits_the_axes():
    """A cubic lattice has rotations by 90 degrees, which Pa3 has not."""
    reference = crystals.load("Pa3-8")
    crystal = reference.repeat((2, 2, 2))
    a, b, c = crystal.cell.array
    crystal.set_cell([b, -a, c])
    assert order_of(crystal, reference, (2, 2, 2))["alignment"].value < 0.2
    assert order_of(crystal, reference)["alignment"].value == pytest.approx(1.0)


def slow_order(frame, reference, repeat):
    """Equation 5 by loops, atoms in the order of ase.Atoms.repeat."""
    (snapshot,) = Trajectory(frame)
    images = np.array(np.meshgrid(*[range(-2, 3)] * 3)).T.reshape(-1, 3) @ snapshot.cell
    basis, cells = len(reference) // 2, int(np.prod(repeat))
    order = {tuple(m): k for k, m in enumerate(snapshot.molecules)}
    (unit,) = Trajectory(reference)
    top = bottom = 0.0
    for b in range(basis):
        who = [order[tuple(unit.molecules[b] + 2 * basis * i)] for i in range(cells)]
        for i in range(cells):
            for j in range(cells):
                if i == j:
                    continue
                r = snapshot.centres[who[j]] - snapshot.centres[who[i]] + images
                distance = np.linalg.norm(r, axis=1).min()
                top += snapshot.axes[who[i]] @ snapshot.axes[who[j]] * distance
                bottom += distance
    return top / bottom


@pytest.mark.parametrize("sheared", [0, 1])
def test_a_warm_crystal_against_a_slow_sum(sheared):
    """In a skewed cell of the same lattice too, where the nearest image is not the rounded one.

    Odd repeats: no two images are equally near, so that the nearest ones are the lattice's.
    """
    reference, repeat = crystals.load("P21c-8"), (3, 3, 3)
    cell = reference.cell.array
    cell[1] += sheared * cell[0]
    reference.set_cell(cell)
    crystal = reference.repeat(repeat)
    frame = crystal.copy()
    (snapshot,) = Trajectory(frame)
    rng = np.random.default_rng(4)
    axes = snapshot.axes + 0.4 * rng.normal(size=snapshot.axes.shape)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    centres = snapshot.centres + 0.08 * rng.normal(size=snapshot.centres.shape)
    positions = np.empty((len(frame), 3))
    positions[snapshot.molecules[:, 0]] = centres - 0.37 * axes
    positions[snapshot.molecules[:, 1]] = centres + 0.37 * axes
    frame.positions = positions
    expected = slow_order(frame, reference, repeat)
    assert 0.3 < expected < 0.9
    # The perfect crystal comes first and gives the signs.
    for seed in (None, 1):
        frames = [f if seed is None else shuffled(f, seed) for f in (crystal, frame)]
        if seed is not None:
            frames[1].wrap()
        found = order_of(frames, reference).table("order")["O"]
        assert found == pytest.approx([1.0, expected], abs=1e-6)


def test_free_rotors_have_no_order():
    """After the first frame, whose axes define the signs. Spread of one frame: see `scatter`."""
    reference = crystals.load("P21c-8")
    crystal = reference.repeat((4, 4, 3))
    (snapshot,) = Trajectory(crystal)
    rng = np.random.default_rng(3)

    def frames():
        yield crystal
        for _ in range(60):
            axes = random_axes(len(snapshot.centres), rng)
            frame = crystal.copy()
            frame.positions[snapshot.molecules[:, 0]] = snapshot.centres - 0.37 * axes
            frame.positions[snapshot.molecules[:, 1]] = snapshot.centres + 0.37 * axes
            yield frame

    series = order_of(frames(), reference).table("order")
    # Of 48 cells, four sites: sum of about 4 * 48^2 / 2 products of variance 1/3 (headless 1/5)
    # over twice as many pairs; the weights add some.
    scatter = {
        "O": 1.3 * np.sqrt(2 / 3 / (4 * 48**2)),
        "O_headless": 1.3 * np.sqrt(2 / 5 / (4 * 48**2)),
    }
    for name, expected in scatter.items():
        values = series[name][1:]
        assert values.std() < expected
        assert abs(values.mean()) < 4 * expected / np.sqrt(60)
        assert series[name][0] == pytest.approx(1.0)


def disordered(crystal, seed=3):
    (snapshot,) = Trajectory(crystal)
    axes = random_axes(len(snapshot.centres), np.random.default_rng(seed))
    frame = crystal.copy()
    frame.positions[snapshot.molecules[:, 0]] = snapshot.centres - 0.37 * axes
    frame.positions[snapshot.molecules[:, 1]] = snapshot.centres + 0.37 * axes
    return frame


@pytest.mark.parametrize("step", [1, 2, 4])
def test_signs_are_those_of_the_first_frame_whichever_are_used(step, tmp_path):
    """Chosen in the first frame used, they would give a crystal without order O = 0.25.

    Drifting and wrapped: centres have to be followed through the frames left out. Of 32 molecules
    for each of four sites, O scatters by 0.03 (see below).
    """
    reference = crystals.load("P21c-8")
    crystal = reference.repeat((4, 4, 2))
    frames = [crystal] * 3 + [disordered(crystal)] * 6
    frames = [frame.copy() for frame in frames]
    for k, frame in enumerate(frames):
        frame.translate([0.3 * k, 0.0, 0.2 * k])
        frame.wrap()
    write(tmp_path / "run.extxyz", frames)
    whole = order_of(frames, reference).table("order")
    for source in (frames, tmp_path / "run.extxyz"):
        trajectory = Trajectory(source, start=5, step=step)
        (result,) = analyse(trajectory, [OrderParameter(reference)])
        found = result.table("order")
        assert found["frame"].tolist() == list(range(5, 9, step))
        assert result.inputs["trajectory"]["frames"] == len(found["frame"])
        for name in ("O", "O_headless", "alignment"):
            assert found[name] == pytest.approx(whole[name][5::step], abs=1e-6)
        assert abs(result["O"].value) < 0.1
        assert not any("In the first frame" in note for note in result.notes)


def test_a_run_that_begins_disordered_is_noted():
    reference = crystals.load("P21c-8")
    result = order_of(disordered(reference.repeat((4, 4, 2))), reference)
    assert result["O"].value == pytest.approx(0.25, abs=0.05)
    assert any("molecules are not aligned with the reference" in note for note in result.notes)


def test_the_frames_of_an_iterator_that_were_left_out_are_gone():
    reference = crystals.load("P21c-8")
    frames = iter([reference.repeat((2, 2, 2))] * 4)
    with pytest.raises(TrajectoryError, match=r"frames before 2 are gone.*: give a list\."):
        analyse(Trajectory(frames, start=2), [OrderParameter(reference)])


def test_molecules_turned_end_over_end():
    """Equation 5 sees them, the headless form does not."""
    reference = crystals.load("P21c-8")
    first = reference.repeat((2, 2, 2))
    (snapshot,) = Trajectory(first)
    second = first.copy()
    flipped = snapshot.molecules[np.random.default_rng(0).permutation(32)[:16]]
    second.positions[flipped] = first.positions[flipped[:, ::-1]]
    # Bonds are whole in the published cell: no atom has to go around it.
    series = order_of([first, second], reference).table("order")
    assert series["O_headless"] == pytest.approx([1.0, 1.0])
    assert series["O"][0] == pytest.approx(1.0) and series["O"][1] < 0.9


def test_another_structure_of_the_same_lattice():
    """All molecules parallel: order between cells, but not the reference's."""
    reference = pa3()
    (snapshot,) = Trajectory(reference.repeat((2, 2, 2)))
    parallel = from_molecules(snapshot.centres, np.tile([0, 0, 1.0], (32, 1)), cell=snapshot.cell)
    result = order_of(parallel, reference)
    assert result["O"].value == pytest.approx(1.0)
    assert result["alignment"].value == pytest.approx(0.0, abs=1e-9)  # magic angle


def test_drift_and_wrapping_do_not_matter():
    reference = crystals.load("P21c-8")
    crystal = reference.repeat((2, 2, 2))
    frames = []
    for k in range(12):
        frames.append(crystal.copy())
        frames[-1].translate([0.2 * k, -0.3 * k, 0.25 * k])
        frames[-1].wrap()
    assert order_of(frames, reference).table("order")["O"] == pytest.approx(np.ones(12))


# ---------------------------------------------------------------- refusals


def refused(frames, reference, sentence, repeat=None):
    with pytest.raises(ReferenceMismatchError, match=sentence) as caught:
        order_of(frames, reference, repeat)
    assert str(caught.value).endswith(".")


def test_references_that_do_not_match():
    p21c, hexagonal = crystals.load("P21c-8"), hcp(3.0, (3, 3, 2))
    crystal = p21c.repeat((2, 2, 2))
    refused(crystal, crystals.load("P21c-24-a"), "32 molecules, which is no multiple of .* 12")
    refused(hexagonal, crystals.load("Pa3-8"), r"is no . x . x . supercell .* off by \d+ %")
    refused(crystal, p21c, r"1 x 2 x 2 reference cells are 4, but .* has 8 times", (1, 2, 2))
    refused(crystal, p21c, "all whole numbers", (2.0, 2.0, 2.0))
    refused(crystal, p21c, "three multiples or a 3 x 3 matrix", (2, 4))
    refused(p21c, p21c, "is a single reference cell")
    gas = from_molecules(np.array([[0, 0, 0], [3.0, 0, 0]]), np.eye(3)[:2])
    refused(crystal, gas, "must be periodic in all directions")
    refused(
        crystal,
        Atoms("H3", cell=[5, 5, 5], pbc=True),
        "The reference cell cannot be used: .* 3 atoms",
    )
    # The shape and number of molecules are right, the sites are not.
    (snapshot,) = Trajectory(crystal)
    centres = snapshot.centres.copy()
    centres[5] = centres[4] + 1.0
    moved = from_molecules(centres, snapshot.axes, cell=snapshot.cell)
    refused(moved, p21c, "supercell of the reference: (a molecule is .* Å|two molecules are)")


def test_what_matching_returns():
    reference = crystals.load("P63m-16")
    crystal = shuffled(reference.repeat((3, 2, 1)), 2)
    (snapshot,) = Trajectory(crystal)
    lattice = match_reference(snapshot, reference)
    assert lattice.matrix.tolist() == np.diag([3, 2, 1]).tolist()
    assert sorted(lattice.molecules.ravel().tolist()) == list(range(48))
    assert lattice.displacements(snapshot) == pytest.approx(
        np.broadcast_to(lattice.displacements(snapshot)[0, 0], (6, 8, 3)), abs=1e-9
    )
