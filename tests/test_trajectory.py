"""Streaming over trajectories: sources, molecules kept, unwrapping, time, and every refusal."""

import hashlib

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.io import Trajectory as ASETrajectory
from ase.io import read, write
from ase.io.vasp import read_vasp_xdatcar
from ase.md.verlet import VelocityVerlet
from hypothesis import given
from strategies import structures
from toy_models import from_molecules, hcp, pa3
from trajectories import drifting

from ase_hmlp.analysis import source as sources
from ase_hmlp.analysis.molecular_fraction import MolecularFraction
from ase_hmlp.analysis.streaming import analyse
from ase_hmlp.analysis.trajectory import Trajectory
from ase_hmlp.errors import (
    BrokenBondError,
    FrameMismatchError,
    HMLPError,
    MissingResultsError,
    MissingVelocitiesError,
    NonFinitePositionsError,
    OddAtomError,
    TimestepError,
    TooFewFramesError,
    TrajectoryError,
    UnsupportedElementError,
)
from ase_hmlp.stated_bonds import read_structure


def rattled(frames=5, seed=0):
    atoms = hcp(3.0, (2, 2, 1), seed=1)
    out = []
    for k in range(frames):
        out.append(atoms.copy())
        out[-1].rattle(0.01, seed=seed + k)
        out[-1].info["time_fs"] = 2.5 * k
    return out


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "xyz"])
def test_files_lists_and_iterators_give_the_same_frames(tmp_path, suffix):
    frames = rattled(7)
    path = tmp_path / f"run@300K.{suffix}"
    write(path, frames, format="traj" if suffix == "traj" else "extxyz")
    slices = [(0, None, 1), (2, None, 1), (1, 6, 2), (0, 2, 5), (1, 2, 1), (0, 7, 3), (6, None, 2)]
    for start, stop, step in slices:
        expected = list(range(len(frames)))[start:stop:step]
        for source in (path, str(path), frames, tuple(frames), iter(frames), (f for f in frames)):
            found = list(Trajectory(source, start=start, stop=stop, step=step))
            assert [s.index for s in found] == expected, source
            for snapshot in found:
                wanted = frames[snapshot.index].positions
                # Text keeps eight decimals.
                assert snapshot.positions == pytest.approx(wanted, abs=1e-8)


def test_a_file_and_a_list_can_be_streamed_twice_and_an_iterator_once(tmp_path):
    frames = rattled(3)
    write(tmp_path / "run.traj", frames)
    for source in (tmp_path / "run.traj", frames):
        trajectory = Trajectory(source)
        assert len(list(trajectory)) == len(list(trajectory)) == 3
    once = Trajectory(iter(frames))
    assert len(list(once)) == 3
    with pytest.raises(TrajectoryError, match=r"was an iterator and has been used: give a list\."):
        list(once)


def write_dump(path, frames, spacing=10, element="H"):
    """A LAMMPS dump of orthogonal cells, wrapped, atoms in no order, units metal.

    Without `element` molecules of even number are of type 1, the others of type 2.
    """
    with path.open("w") as stream:
        for k, atoms in enumerate(frames):
            n, box = len(atoms), "\n".join(f"0.0 {x}" for x in atoms.cell.lengths())
            stream.write(f"ITEM: TIMESTEP\n{spacing * k}\nITEM: NUMBER OF ATOMS\n{n}\n")
            stream.write(f"ITEM: BOX BOUNDS pp pp pp\n{box}\n")
            named = "element " if element else ""
            stream.write(f"ITEM: ATOMS id type {named}x y z vx vy vz\n")
            velocities = 1000.0 * units.fs * atoms.get_velocities()  # Å/ps
            for i in np.random.default_rng(k).permutation(n):
                x = " ".join(
                    f"{c:.10g}" for c in (*atoms.get_positions(wrap=True)[i], *velocities[i])
                )
                kind = f"1 {element}" if element else f"{1 + i // 2 % 2}"
                stream.write(f"{i + 1} {kind} {x}\n")


def test_lammps_dumps_are_streamed_in_order_unwrapped_with_velocities(tmp_path):
    velocity = np.array([0.03, -0.02, 0.01])
    frames = list(drifting(pa3(), velocity, 12, 10.0))
    write_dump(tmp_path / "dump.lammpstrj", frames)
    trajectory = Trajectory(tmp_path / "dump.lammpstrj", timestep=10.0, start=2, step=3)
    found = list(trajectory)
    assert [s.index for s in found] == [2, 5, 8, 11] and trajectory.timestep == 30.0
    for snapshot in found:
        assert snapshot.velocities == pytest.approx(np.tile(velocity, (8, 1)), abs=1e-8)
        moved = snapshot.unwrapped - found[0].unwrapped
        elapsed = 10.0 * (snapshot.index - 2)
        assert moved == pytest.approx(np.tile(elapsed * velocity, (8, 1)), abs=1e-7)


@pytest.mark.parametrize("breathing", [False, True])
def test_an_xdatcar_is_streamed(tmp_path, breathing, monkeypatch):
    """With one header, or one for each frame, as where the cell changes; blank lines at the end."""
    frames = rattled(7)
    for k, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell * (1.0 + 0.01 * k * breathing), scale_atoms=True)
    path = tmp_path / "XDATCAR"
    write(path, frames, format="vasp-xdatcar")
    path.write_text(path.read_text() + "\n\n")
    lengths = []

    def one_frame(stream):
        lengths.append(len(stream.getvalue().splitlines()))
        return read_vasp_xdatcar(stream)

    monkeypatch.setattr(sources, "read_vasp_xdatcar", one_frame)
    found = list(Trajectory(path, timestep=2.5, start=1, step=2))
    assert [s.index for s in found] == [1, 3, 5]
    for snapshot in found:
        wanted = frames[snapshot.index]
        # Text keeps eight decimals of fractions.
        assert snapshot.positions == pytest.approx(wanted.positions, abs=1e-6)
        assert snapshot.cell == pytest.approx(wanted.cell.array, abs=1e-6)
    assert set(lengths) == {8 + 16}
    path.write_text("\n".join(path.read_text().splitlines()[:-5]))
    with pytest.raises(TrajectoryError, match=r"XDATCAR: frame 6 cannot be read"):
        list(Trajectory(path, timestep=2.5))


def test_types_of_a_dump_without_elements_are_isotopes(tmp_path):
    """ASE would take type 2 for helium."""
    velocity = np.array([0.03, -0.02, 0.01])
    write_dump(tmp_path / "run.dump", list(drifting(pa3(), velocity, 2, 10.0)), element="")
    with pytest.raises(TrajectoryError, match=r"of type 2 .* give the masses of all types"):
        Trajectory(tmp_path / "run.dump")
    with pytest.raises(TrajectoryError, match="of type 2 "):
        Trajectory(tmp_path / "run.dump", type_masses=[1.008])
    for snapshot in Trajectory(tmp_path / "run.dump", type_masses=[1.008, 2.014]):
        assert set(snapshot.atoms.symbols) == {"H"}
        assert snapshot.masses.tolist() == [1.008, 1.008, 2.014, 2.014] * 2
        assert snapshot.velocities == pytest.approx(np.tile(velocity, (8, 1)), abs=1e-8)


def test_one_frame_is_in_memory_at_a_time():
    """What the consumer has seen is never more than two frames behind the source."""
    frames, given_out = rattled(3), []

    def source():
        for k in range(50):
            given_out.append(k)
            yield frames[k % 3]

    for k, _ in enumerate(Trajectory(source())):
        assert len(given_out) <= max(2, k + 1)


def test_the_record_identifies_what_was_read(tmp_path):
    frames = rattled(4)
    path = tmp_path / "run.extxyz"
    write(path, frames)
    trajectory = Trajectory(path, start=1, step=2)
    list(trajectory)
    record = trajectory.describe()
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["frames"] == 2 and record["timestep_fs"] == 5.0
    assert record["atoms"] == 16 and record["molecules"] == 8

    def digest(frames):
        trajectory = Trajectory(frames)
        list(trajectory)
        return trajectory.describe()["sha256"]

    assert digest(frames) == digest(iter(frames))
    changed = [f.copy() for f in frames]
    changed[3].positions[0, 0] += 1e-12
    assert digest(changed) != digest(frames)


# ---------------------------------------------------------------- molecules


@given(structures())
def test_bonds_are_the_shortest_images_wherever_atoms_are(structure):
    atoms = Atoms(f"H{len(structure)}", structure.positions, cell=structure.cell, pbc=structure.pbc)
    (snapshot,) = Trajectory(atoms)
    assert np.array_equal(snapshot.molecules, structure.molecules)
    # The strategy's bonds are 0.68 to 0.82 Å.
    assert snapshot.bond_lengths.min() > 0.68 - 1e-9
    assert snapshot.bond_lengths.max() < 0.82 + 1e-9
    lattice = np.linalg.solve(
        structure.cell.T,
        (
            snapshot.unwrapped[snapshot.molecules[:, 0]]
            + snapshot.bonds
            - snapshot.positions[snapshot.molecules[:, 1]]
        ).T,
    )
    assert lattice == pytest.approx(np.round(lattice), abs=1e-9)


def test_bonds_are_kept_where_neighbours_come_closer():
    """Found afresh, the second frame's bonds would be others."""
    first = from_molecules(np.array([[0, 0, 0], [3.0, 0, 0]]), np.array([[1, 0, 0], [1, 0, 0]]))
    second = first.copy()
    second.positions[:, 0] = [-0.37, 0.60, 1.30, 2.30]
    bonds = [s.bonds[:, 0] for s in Trajectory([first, second])]
    assert bonds[1] == pytest.approx([0.97, 1.0])


def test_molecules_may_be_given_by_the_caller_or_the_file(tmp_path):
    atoms = from_molecules(np.array([[0, 0, 0], [0.9, 0, 0]]), np.array([[0, 1, 0], [0, 1, 0]]))
    swapped = [[0, 2], [1, 3]]
    (snapshot,) = Trajectory(atoms, molecules=swapped)
    assert snapshot.bond_lengths == pytest.approx([0.9, 0.9])
    atoms.set_array("partner", np.array([2, 3, 0, 1]))
    write(tmp_path / "partner.extxyz", atoms)
    (snapshot,) = Trajectory(tmp_path / "partner.extxyz")
    assert snapshot.molecules.tolist() == swapped


def write_numbered_dump(path, frames, numbers):
    """A LAMMPS dump with a column mol, atoms in no order."""
    with path.open("w") as stream:
        for k, atoms in enumerate(frames):
            n, box = len(atoms), "\n".join(f"0.0 {x}" for x in atoms.cell.lengths())
            stream.write(f"ITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n{n}\n")
            stream.write(f"ITEM: BOX BOUNDS pp pp pp\n{box}\nITEM: ATOMS mol id type x y z\n")
            for i in np.random.default_rng(k).permutation(n):
                x = " ".join(f"{c:.10g}" for c in atoms.get_positions(wrap=True)[i])
                stream.write(f"{numbers[i]} {i + 1} 1 {x}\n")


def close_molecules():
    """Two that are nearer to each other (0.7 Å) than their bonds are long (0.9 Å)."""
    centres, axes = np.array([[1.0, 3, 3], [1.7, 3, 3]]), np.array([[0, 1, 0], [0, 1, 0]])
    atoms = from_molecules(centres, axes, 0.9, 6.0 * np.eye(3))
    return atoms[[0, 2, 1, 3]], [[0, 2], [1, 3]]


@pytest.mark.parametrize("suffix", ["dump", "extxyz"])
def test_numbers_of_molecules_say_what_is_bonded(tmp_path, suffix):
    """Unless they are of other things than pairs; a column of partners counts before them."""
    atoms, stated = close_molecules()
    path = tmp_path / f"run.{suffix}"

    def read_with(numbers):
        if suffix == "dump":
            write_numbered_dump(path, [atoms, atoms], numbers)
        else:
            atoms.set_array("mol", np.array(numbers))
            write(path, [atoms, atoms])
        trajectory = Trajectory(path, timestep=1.0)
        assert len(list(trajectory)) == 2
        return trajectory.molecules.tolist(), trajectory.describe()["bonds_from"]

    assert read_with([7, 3, 7, 3]) == (stated, "mol")
    assert read_with([1, 0, 1, 0]) == (stated, "mol")
    for other in ([0, 0, 0, 0], [1, 1, 1, 2], [1, 2, 3, 4]):
        assert read_with(other) == ([[0, 1], [2, 3]], "distances")
    assert read_structure(path).arrays.get("partner") is None
    read_with([7, 3, 7, 3])
    assert read_structure(path).arrays["partner"].tolist() == [2, 3, 0, 1]
    if suffix == "extxyz":
        atoms.set_array("partner", np.array([3, 2, 1, 0]))
        assert read_with([7, 3, 7, 3]) == ([[0, 3], [1, 2]], "partner")


def test_a_dump_cut_off_in_its_first_frame(tmp_path):
    atoms, _ = close_molecules()
    write_numbered_dump(tmp_path / "run.dump", [atoms], [1, 2, 1, 2])
    text = (tmp_path / "run.dump").read_text().splitlines()
    (tmp_path / "run.dump").write_text("\n".join([*text[:-2], "1"]))
    with pytest.raises(TrajectoryError, match="cannot be read"):
        Trajectory(tmp_path / "run.dump")


def test_deuterium_and_hd():
    atoms = pa3()
    atoms.set_masses([1.008, 2.014] * 4)
    (snapshot,) = Trajectory(atoms)
    share = 2.014 / 3.022 - 0.5
    assert snapshot.centres_of_mass - snapshot.centres == pytest.approx(share * snapshot.bonds)


# ---------------------------------------------------------------- unwrapping and velocities


@pytest.mark.parametrize("wrap", [False, True])
def test_positions_are_continued_across_the_cell(wrap):
    atoms = pa3()
    velocity = np.array([0.09, -0.07, 0.11])
    first = None
    for k, snapshot in enumerate(Trajectory(drifting(atoms, velocity, 60, 10.0, wrap))):
        first = snapshot if first is None else first
        expected = k * 10.0 * velocity
        assert snapshot.unwrapped - first.unwrapped == pytest.approx(
            np.tile(expected, (8, 1)), abs=1e-9
        )
        assert snapshot.centres - first.centres == pytest.approx(
            np.tile(expected, (4, 1)), abs=1e-9
        )
        assert snapshot.velocities == pytest.approx(np.tile(velocity, (8, 1)))
        assert snapshot.bond_velocities == pytest.approx(np.zeros((4, 3)), abs=1e-15)


def test_unwrapping_follows_a_breathing_cell():
    """An atom at rest in fractional coordinates, outside the cell, does not jump as it breathes."""
    atoms = pa3()
    atoms.positions += 3 * atoms.cell[0]
    frames = []
    for k in range(20):
        frames.append(atoms.copy())
        frames[-1].set_cell(atoms.cell * (1 + 0.1 * np.sin(k)), scale_atoms=True)
    for snapshot in Trajectory(frames):
        assert snapshot.unwrapped == pytest.approx(snapshot.positions)


def test_frames_too_sparse_to_follow_are_refused_where_paths_matter():
    """1.5 Å between frames: half of the cell is 1.47."""
    frames = list(drifting(pa3(), np.array([0.15, 0.0, 0.0]), 5, 10.0))
    (first, *_) = list(Trajectory(frames))
    trajectory = Trajectory(frames)
    trajectory.require_paths("diffusion")
    with pytest.raises(
        TrajectoryError, match=r"Frame 1 .* atom \d moved .* diffusion needs its path"
    ):
        list(trajectory)
    continuous = Trajectory(frames, continuous=True)
    continuous.require_paths("diffusion")
    *_, last = continuous
    assert last.unwrapped - first.unwrapped == pytest.approx(np.tile([6.0, 0, 0], (8, 1)))
    assert last.bond_lengths == pytest.approx(first.bond_lengths)


# ---------------------------------------------------------------- time


def test_time_between_frames_comes_from_the_frames_the_header_or_the_caller(tmp_path):
    frames = rattled(4)
    assert Trajectory(frames).timestep == pytest.approx(2.5)
    assert Trajectory(frames, step=2).timestep == pytest.approx(5.0)
    assert Trajectory(frames, timestep=2.5, step=3).timestep == pytest.approx(7.5)
    picoseconds = [f.copy() for f in frames]
    for f in picoseconds:
        f.info["time_ps"] = f.info.pop("time_fs") / 1000.0
    write(tmp_path / "ps.extxyz", picoseconds)
    assert Trajectory(tmp_path / "ps.extxyz").timestep == pytest.approx(2.5)
    silent = [f.copy() for f in frames]
    for f in silent:
        del f.info["time_fs"]
    assert Trajectory(iter(silent), timestep=4.0, step=2).timestep == pytest.approx(8.0)


def test_frames_left_out_do_not_change_the_time():
    trajectory = Trajectory(rattled(7), start=1, step=2)
    assert trajectory.require_timestep("a spectrum") == pytest.approx(5.0)
    assert [s.time for s in trajectory] == pytest.approx([2.5, 7.5, 12.5])
    late = rattled(4)
    for f in late:
        f.info["time_fs"] += 100.0
    assert [s.time for s in Trajectory(late, start=1)] == pytest.approx([102.5, 105.0, 107.5])
    silent = [f.copy() for f in rattled(3)]
    for f in silent:
        del f.info["time_fs"]
    assert [s.time for s in Trajectory(silent)] == [None] * 3
    told = Trajectory(silent, timestep=4.0, start=1)
    assert [s.time for s in told] == pytest.approx([4.0, 8.0])


def test_time_between_frames_of_a_run_of_ase(tmp_path):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]], calculator=LennardJones())
    path = tmp_path / "md.traj"
    with VelocityVerlet(atoms, 0.7 * units.fs, trajectory=str(path), loginterval=4) as dynamics:
        dynamics.run(20)
    trajectory = Trajectory(path, molecular=False, step=3)
    assert trajectory.timestep == pytest.approx(3 * 4 * 0.7)
    assert len(list(trajectory)) == 2
    with pytest.raises(TimestepError, match=r"are 2\.8 fs apart, not 0\.7 fs\."):
        _ = Trajectory(path, molecular=False, timestep=0.7).timestep


def test_the_frame_that_a_continued_run_of_ase_begins_with_is_left_out(tmp_path):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]], calculator=LennardJones())
    atoms.set_velocities([[0.0, 0.0, 0.01], [0.0, 0.0, -0.01]])
    path = tmp_path / "md.traj"
    for append in (False, True):
        options = {"trajectory": str(path), "loginterval": 4, "append_trajectory": append}
        with VelocityVerlet(atoms, 0.7 * units.fs, **options) as dynamics:
            dynamics.run(12)
    assert len(read(path, ":")) == 8
    trajectory = Trajectory(path, molecular=False)
    found = list(trajectory)
    assert [s.index for s in found] == [0, 1, 2, 3, 5, 6, 7]
    assert [s.time for s in found] == pytest.approx(2.8 * np.arange(7))
    assert trajectory.describe()["frames"] == 7
    (result,) = analyse(Trajectory(path, molecular=False), [MolecularFraction()])
    assert result.notes[-1] == "Frames left out, for they are the one before again: 1."
    # Frames that say another time, or that do not move, are no doubles.
    frames = read(path, ":")
    for k, frame in enumerate(frames):
        frame.info["time_fs"] = 2.8 * k
    assert len(list(Trajectory(frames, molecular=False))) == 8
    at_rest = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]], momenta=np.zeros((2, 3)))
    assert len(list(Trajectory([at_rest, at_rest], molecular=False))) == 2


# ---------------------------------------------------------------- refusals


def lose_an_atom(frames):
    del frames[3][-1]


def another_element(frames):
    frames[3].symbols[2] = "He"


def another_periodicity(frames):
    frames[3].pbc = (True, True, False)


def stretch(frames):
    frames[3].positions[4] += 0.6 * (frames[3].positions[4] - frames[3].positions[5]) / 0.74


def not_finite(frames):
    frames[3].positions[2, 1] = np.nan


def helium(frames):
    for f in frames:
        f.symbols[0] = "He"


def one_atom_more(frames):
    for f in frames:
        f += Atoms("H")


def not_frames(frames):
    frames[3] = "frame 3"


REFUSALS = {
    "atom lost": (lose_an_atom, FrameMismatchError, "has 15 atoms, the first frame 16"),
    "other element": (another_element, FrameMismatchError, "atom 2 is He, but H in the first"),
    "other pbc": (another_periodicity, FrameMismatchError, "periodic along"),
    "bond breaks": (stretch, BrokenBondError, "between atoms 4 and 5 is 1.3.* Å long"),
    "nan": (not_finite, NonFinitePositionsError, "not finite"),
    "helium": (helium, UnsupportedElementError, "atom 0 is He"),
    "odd": (one_atom_more, OddAtomError, "17 atoms cannot all be in molecules"),
    "not frames": (not_frames, TrajectoryError, "holds a str where ase.Atoms"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_trajectory_is_refused(name):
    spoil, error, sentence = REFUSALS[name]
    frames = rattled()
    spoil(frames)
    with pytest.raises(error, match=sentence) as caught:
        list(Trajectory(frames))
    assert type(caught.value) is error and isinstance(caught.value, HMLPError)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    if name not in ("not frames",):
        assert message.startswith(("Frame 3 of", "Frame 0 of"))


def test_missing_velocities():
    trajectory = Trajectory(rattled())
    with pytest.raises(MissingVelocitiesError, match=r"Frame 0 .* no velocities, which a spectrum"):
        trajectory.require_velocities("a spectrum")
    with pytest.raises(MissingVelocitiesError, match=r"Frame 0 .* has no velocities"):
        _ = next(iter(trajectory)).velocities
    zeros = rattled()
    for atoms in zeros:
        atoms.set_momenta(np.zeros((16, 3)))
    with pytest.raises(MissingVelocitiesError, match="only zeros for velocities"):
        Trajectory(zeros).require_velocities("a spectrum")


def test_missing_results():
    (snapshot,) = Trajectory(pa3())
    with pytest.raises(MissingResultsError, match=r"was stored without its energy\."):
        snapshot.stored("energy")


def test_a_cluster_has_no_volume():
    (snapshot,) = Trajectory(from_molecules(np.zeros((1, 3)), np.array([[0, 0, 1.0]])))
    with pytest.raises(TrajectoryError, match="has no volume"):
        _ = snapshot.volume


def test_unknown_contradicting_and_uneven_times():
    silent = rattled()
    for atoms in silent:
        del atoms.info["time_fs"]
    with pytest.raises(TimestepError, match=r"is unknown: give it, in fs\. It is needed by a spec"):
        Trajectory(silent).require_timestep("a spectrum")
    with pytest.raises(TimestepError, match=r"are 2\.5 fs apart, not 1 fs"):
        Trajectory(rattled(), timestep=1.0).require_timestep("a spectrum")
    backwards = rattled()[::-1]
    with pytest.raises(TimestepError, match=r"second frame used is 2\.5 fs before the first"):
        Trajectory(backwards).require_timestep("a spectrum")
    uneven = rattled()
    uneven[3].info["time_fs"] += 1.0
    trajectory = Trajectory(uneven)
    list(trajectory)  # nobody asked for the time
    trajectory.require_timestep("a spectrum")
    with pytest.raises(TimestepError, match=r"Frame 3 .* 8\.5 fs after the first, not 7\.5"):
        list(trajectory)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(TimestepError, match="must be positive"):
            Trajectory(rattled(), timestep=wrong)


def test_frames_that_are_not_there(tmp_path):
    with pytest.raises(TooFewFramesError, match="holds no frame"):
        Trajectory([])
    with pytest.raises(TooFewFramesError, match="has no frame 5: it is shorter"):
        Trajectory(rattled(5), start=5)
    for start, stop, step in ((-1, None, 1), (0, None, 0), (2, 2, 1)):
        with pytest.raises(TrajectoryError, match="are none: start must not"):
            Trajectory(rattled(), start=start, stop=stop, step=step)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TrajectoryError, match=r"There is no trajectory .*nowhere\.traj"):
        Trajectory(tmp_path / "nowhere.traj")
    with pytest.raises(TrajectoryError, match="is a path or frames, not int"):
        Trajectory(3)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TrajectoryError, match=r"thesis\.txt is of no format that ASE knows"):
        Trajectory(tmp_path / "thesis.txt")
    path = tmp_path / "cut.extxyz"
    write(path, rattled(4))
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))
    with pytest.raises(TrajectoryError, match=r"cut\.extxyz: frame \d cannot be read"):
        list(Trajectory(path))


def test_atoms_that_form_no_molecules():
    atoms = Atoms("Ar3", [[0, 0, 0], [3, 0, 0], [0, 3, 0]], cell=[9, 9, 9], pbc=True)
    (snapshot,) = Trajectory(atoms, molecular=False)
    assert snapshot.molecules.shape == (0, 2) and snapshot.bonds.shape == (0, 3)
    assert snapshot.volume == pytest.approx(729.0)


def test_an_ase_trajectory_object_is_a_source(tmp_path):
    write(tmp_path / "run.traj", rattled(3))
    with ASETrajectory(tmp_path / "run.traj") as frames:
        assert len(list(Trajectory(frames))) == 3
    assert len(read(tmp_path / "run.traj", ":")) == 3
