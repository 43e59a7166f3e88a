#!/usr/bin/env python3
"""Label close contacts, isolated molecules and pairs with Quantum ESPRESSO.

Thermal frames never show a potential what happens when two molecules come closer than the
repulsive wall allows, nor what a lone molecule or a lone pair does. This script builds about
440 frames which do, in three groups (``info["group"]``):

``molecule``
    the isolated molecule, bond lengths from 0.50 to 1.15 Å in a cubic box of 8 Å;
``dimer``
    pairs of molecules, randomly oriented with a chosen shortest intermolecular contact
    (0.60 to 4.5 Å), and in the H, X, T and L arrangements at fixed centre separations;
``pushed``
    bulk frames of the seed set in which one molecule has been pushed along a random direction
    until its shortest contact to another molecule is between 0.72 and 1.25 Å; and the densest of
    them, pushed towards the nearest one, to between 0.60 and 0.90 Å (``contacts/headlong``):
    fits without them have a barrier of 4 to 5 eV there, in place of a wall.

Every frame carries the integer array ``partner``: the index of the atom each atom is bonded to.
Contacts can be shorter than bonds here, so no reader should guess that from distances.

Every frame has its own random stream, so that the geometries depend neither on the order nor on
the number of workers. They are labelled by `ase_hmlp.training.label`: finished frames are appended
to the output as they come; run the script again after a kill and it goes on with what is missing.
Frames which failed are listed with the reason in ``<output stem>.failed.jsonl``, never kept, and
tried again by the next run. Isolated molecules and pairs get the Gamma point alone, for their boxes
are empty enough. At the end everything in the output is written, in the order of the plan, to
``<output>.xz``.

Example
-------
::

    nice python generate_contacts.py --output contacts.extxyz --workers 2
"""

import argparse
import io
import lzma
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from ase_hmlp.training.label import RunSection, label_frames, structure_digest
from ase_hmlp.training.label_calculators import EspressoSection

PARENTS = Path(__file__).resolve().parent / "h2-pbe-qe.extxyz.xz"
SEED = 20200717

# The recipe and mesh of the seed set, so that both share one energy zero.
KSPACING = 0.08  # 1/Å, without 2 pi; unshifted mesh

MEAN_BOND = 0.745
BOX = 8.0  # cubic box of the isolated molecule, Å
TRANSVERSE = 7.0  # width of a pair's box across the separation, Å
PADDING = 6.5  # length of a pair's box beyond the centre separation, Å

# Stream numbers: part of every frame's random seed, so never renumber them.
STREAMS = {"molecule": 0, "dimer": 1, "pushed": 2, "headlong": 3}
BONDS = np.concatenate(
    [np.linspace(0.50, 0.66, 9), np.linspace(0.68, 0.84, 17), np.linspace(0.87, 1.15, 10)]
)
N_DIMER = 200
N_PUSHED = 130
N_HEADLONG = 32
DENSE = 2.0  # Å³/atom
ARRANGEMENTS = "HXTL"
# L is end to end: its contact is R minus a bond, hence the later start.
SEPARATIONS = {name: np.geomspace(1.4 if name == "L" else 1.2, 6.0, 10) for name in ARRANGEMENTS}


@dataclass(frozen=True)
class Job:
    """One frame to compute.

    Attributes
    ----------
    source : str
        Unique name of the frame, such as ``contacts/dimer/17``.
    atoms : ase.Atoms
        Geometry with the array ``partner`` and ``info`` filled in.
    """

    source: str
    atoms: Atoms


def van_der_corput(index):
    """Return element `index` of the base-2 van der Corput sequence.

    Its first n elements cover the unit interval evenly for every n, so a partial set already
    covers the whole range of whatever is drawn with it.

    Parameters
    ----------
    index : int
        Non-negative index.

    Returns
    -------
    float
        A number in [0, 1).
    """
    value, weight = 0.0, 0.5
    while index:
        value += weight * (index & 1)
        index >>= 1
        weight /= 2
    return value


def random_direction(rng):
    """Draw a unit vector uniformly from the sphere.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        Three components.
    """
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def make_molecule(bond):
    """Build an isolated molecule along z.

    Parameters
    ----------
    bond : float
        Bond length in Å.

    Returns
    -------
    ase.Atoms
        The molecule in its box. Box and orientation are the same for every bond length, so
        that the curve is as smooth as the plane-wave basis allows.
    """
    half = np.array([0.0, 0.0, bond / 2])
    atoms = Atoms("H2", positions=BOX / 2 + np.array([-half, half]), cell=3 * [BOX], pbc=True)
    atoms.set_array("partner", np.array([1, 0]))
    return atoms


def outermost_separation(first, second, contact):
    """Find how far along z `second` must go for its contact with `first` to be `contact`.

    Coming from infinity, each pair of atoms reaches the distance at the larger root of a
    quadratic equation. The largest of these roots is where the first pair does, with all the
    others still farther apart.

    Parameters
    ----------
    first, second : numpy.ndarray
        Positions of the atoms of each molecule, each about its own centre, in Å.
    contact : float
        Wanted shortest distance between the molecules in Å.

    Returns
    -------
    float
        Separation of the centres in Å.
    """
    offset = (second[None] - first[:, None]).reshape(-1, 3)
    square = contact**2 - offset[:, 0] ** 2 - offset[:, 1] ** 2
    passing = square >= 0
    return float(np.max(np.sqrt(square[passing]) - offset[passing, 2]))


def make_pair(first, second, separation, length=None):
    """Put two molecules into a box, one above the other along z.

    Parameters
    ----------
    first, second : numpy.ndarray
        Positions of the atoms of each molecule, each about its own centre, in Å.
    separation : float
        Separation of the centres in Å.
    length : float, optional
        Length of the box along z; `separation` and a margin if not given.

    Returns
    -------
    ase.Atoms
        Four atoms; 0 and 1 are bonded, and 2 and 3.
    """
    length = length or separation + PADDING
    cell = np.array([TRANSVERSE, TRANSVERSE, length])
    shift = np.array([0.0, 0.0, separation / 2])
    atoms = Atoms(
        "H4", positions=cell / 2 + np.vstack([first - shift, second + shift]), cell=cell, pbc=True
    )
    atoms.set_array("partner", np.array([1, 0, 3, 2]))
    return atoms


def make_random_dimer(index, rng):
    """Build a pair of randomly oriented molecules with a chosen contact.

    Parameters
    ----------
    index : int
        Number of the frame: decides the contact, low-discrepancy over the whole range.
    rng : numpy.random.Generator
        Source of everything else.

    Returns
    -------
    ase.Atoms
        The pair.
    """
    # Three fifths of the pairs in the first Å, where the wall is steep.
    quantile = (van_der_corput(index) + rng.uniform() / N_DIMER) % 1.0
    if quantile < 0.6:
        contact = 0.60 + quantile / 0.6 * (1.6 - 0.60)
    else:
        contact = 1.6 + (quantile - 0.6) / 0.4 * (4.5 - 1.6)
    while True:
        # Below 0.85 Å a contact may be shorter than a bond whatever is drawn; long bonds there
        # would be four atoms rather than two molecules. Elsewhere each atom must stay nearest
        # to its partner.
        if contact < 0.85:
            bonds = rng.uniform(0.70, 0.75, size=2)
            break
        bonds = np.clip(rng.normal(MEAN_BOND, 0.03, size=2), 0.62, 0.95)
        if max(bonds) < contact:
            break
    first, second = (np.outer([-0.5, 0.5], bond * random_direction(rng)) for bond in bonds)
    return make_pair(first, second, outermost_separation(first, second, contact))


def make_arranged_dimer(name, index):
    """Build a pair in one of the named arrangements.

    Parameters
    ----------
    name : {"H", "X", "T", "L"}
        Parallel side by side, crossed, T-shaped, or end to end.
    index : int
        Number of the separation.

    Returns
    -------
    ase.Atoms
        The pair. The box is the same for all of them, so that the curves share one basis.
    """
    axes = {"H": "xx", "X": "xy", "T": "xz", "L": "zz"}[name]
    first, second = (
        np.outer([-MEAN_BOND / 2, MEAN_BOND / 2], np.eye(3)["xyz".index(axis)]) for axis in axes
    )
    return make_pair(first, second, SEPARATIONS[name][index], length=6.0 + PADDING)


def bonded_partners(atoms):
    """Find each atom's partner in a fully molecular frame.

    Parameters
    ----------
    atoms : ase.Atoms
        The frame.

    Returns
    -------
    partner : numpy.ndarray
        Index of each atom's nearest neighbour.
    vectors : numpy.ndarray
        Vector from each atom to it, across the periodic boundary where needed, in Å.

    Raises
    ------
    ValueError
        If the nearest neighbours are not mutual.
    """
    first, second, distance, vector = neighbor_list("ijdD", atoms, 1.2)
    partner = np.full(len(atoms), -1)
    vectors = np.zeros((len(atoms), 3))
    for k in np.argsort(-distance):  # the nearest is written last
        partner[first[k]] = second[k]
        vectors[first[k]] = vector[k]
    if partner.min() < 0 or np.any(partner[partner] != np.arange(len(atoms))):
        raise ValueError("frame is not made of molecules")
    return partner, vectors


def lattice_images(atoms, reach):
    """List the lattice vectors which matter within a distance.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic frame.
    reach : float
        Distance in Å.

    Returns
    -------
    numpy.ndarray
        Lattice vectors, one per row, zero included.
    """
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    # One more for atoms which sit at opposite ends of the cell or a little outside it.
    counts = np.ceil(reach / heights).astype(int) + 1
    grid = np.indices(2 * counts + 1).reshape(3, -1).T - counts
    return grid @ np.asarray(atoms.cell)


def nearest_centre(parent, vectors, one, images):
    """Find the direction from a molecule's centre to the nearest other one's.

    Parameters
    ----------
    parent : ase.Atoms
        Periodic frame.
    vectors : numpy.ndarray
        Vector from each atom to its partner, in Å.
    one : int
        An atom of the molecule.
    images : numpy.ndarray
        Lattice vectors that may matter.

    Returns
    -------
    numpy.ndarray
        A unit vector.
    """
    centres = parent.positions + vectors / 2
    apart = (centres[:, None] + images[None] - centres[one]).reshape(-1, 3)
    lengths = np.linalg.norm(apart, axis=1)
    own = lengths < 1e-6  # of both of the molecule's atoms
    nearest = np.argmin(np.where(own, np.inf, lengths))
    return apart[nearest] / lengths[nearest]


def make_pushed(parents, index, rng, headlong=False, max_push=4.0):
    """Push one molecule of a bulk frame against another.

    Parameters
    ----------
    parents : list of ase.Atoms
        Frames to choose from, sorted by volume per atom.
    index : int
        Number of the frame: decides the volume and whether the molecule is re-oriented.
    rng : numpy.random.Generator
        Source of everything else.
    headlong : bool, optional
        Towards the nearest molecule, to shorter contacts; else in any direction.
    max_push : float, optional
        Longest displacement in Å; a direction with no contact until then is drawn again.

    Returns
    -------
    ase.Atoms
        The frame, with ``info["contact"]``, and the parent's name in ``info["parent"]``.
    """
    number = N_HEADLONG if headlong else N_PUSHED
    quantile = (van_der_corput(index) + rng.uniform() / number) % 1.0
    parent = parents[int(quantile * len(parents))]
    partner, vectors = bonded_partners(parent)
    images = lattice_images(parent, max_push + 3.0)
    while True:
        # Drawn again each time: in a dense parent every molecule may be closer than 1.25 Å.
        contact = rng.uniform(0.60, 0.90) if headlong else rng.uniform(0.72, 1.25)
        one = int(rng.integers(len(parent)))
        two = int(partner[one])
        atoms = parent.copy()
        axis = vectors[one]
        centre = atoms.positions[one] + axis / 2
        if index % 2:
            axis = np.linalg.norm(axis) * random_direction(rng)
        moved = np.array([centre - axis / 2, centre + axis / 2])
        push = nearest_centre(parent, vectors, one, images) if headlong else random_direction(rng)

        # The molecule's own images travel with it: their distance is fixed beforehand.
        own = (moved[None, :, None] + images[:, None, None]) - moved[None, None]
        own_distance = np.linalg.norm(own, axis=-1)[np.any(images != 0, axis=1)]
        others = np.delete(atoms.positions, [one, two], axis=0)
        offset = moved[:, None] - (others[None] + images[:, None]).reshape(-1, 3)[None]
        offset = offset.reshape(-1, 3)
        square = np.sum(offset**2, axis=1)
        if min(own_distance.min(), np.sqrt(square.min())) <= contact:
            continue  # already closer than wanted
        # |offset + s push| = contact: the smallest positive root of any pair comes first.
        along = offset @ push
        discriminant = along**2 - square + contact**2
        hit = (discriminant >= 0) & (along < 0)
        if not hit.any():
            continue
        distance = np.min(-along[hit] - np.sqrt(discriminant[hit]))
        if distance > max_push:
            continue
        break
    atoms.positions[[one, two]] = moved + distance * push
    atoms.calc = None
    atoms.info = {"parent": parent.info["source"], "contact": round(contact, 6)}
    atoms.set_array("partner", partner)
    return atoms


def read_parents(path):
    """Read the seed frames, sorted by volume per atom.

    Parameters
    ----------
    path : pathlib.Path
        An xz-compressed extended XYZ file.

    Returns
    -------
    list of ase.Atoms
        The frames without their labels.
    """
    # ASE's reader seeks, which is very slow on a compressed handle: decompress in memory.
    text = lzma.decompress(path.read_bytes()).decode()
    frames = []
    for frame in ase.io.read(io.StringIO(text), ":", format="extxyz"):
        clean = Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=True)
        clean.info["source"] = frame.info["source"]
        frames.append(clean)
    return sorted(frames, key=lambda atoms: atoms.get_volume() / len(atoms))


def build_jobs(parents):
    """Build every frame of the plan.

    Parameters
    ----------
    parents : list of ase.Atoms
        Bulk frames sorted by volume per atom.

    Returns
    -------
    list of Job
        The groups interleaved in proportion, so that a partial set is a small whole one.
    """

    def stream(group, index):
        return np.random.default_rng([SEED, STREAMS[group], index])

    dense = [atoms for atoms in parents if atoms.get_volume() / len(atoms) < DENSE]
    # A fixed shuffle, for the first few molecules should not all be the shortest.
    shuffled = np.random.default_rng([SEED, 99])
    kinds = {
        "molecule": [
            (f"contacts/molecule/{i}", "molecule", make_molecule(BONDS[i]))
            for i in shuffled.permutation(len(BONDS))
        ],
        "dimer": [
            (f"contacts/dimer/{i}", "dimer", make_random_dimer(i, stream("dimer", i)))
            for i in range(N_DIMER)
        ],
        "arranged": [
            (f"contacts/dimer-{name}/{i}", "dimer", make_arranged_dimer(name, i))
            for i in shuffled.permutation(len(SEPARATIONS["H"]))
            for name in ARRANGEMENTS
        ],
        "pushed": [
            (f"contacts/pushed/{i}", "pushed", make_pushed(parents, i, stream("pushed", i)))
            for i in range(N_PUSHED)
        ],
        "headlong": [
            (
                f"contacts/headlong/{i}",
                "pushed",
                make_pushed(dense, i, stream("headlong", i), headlong=True),
            )
            for i in range(N_HEADLONG)
        ],
    }
    jobs = []
    for members in kinds.values():
        for rank, (source, group, atoms) in enumerate(members):
            atoms.info = {"group": group, "source": source, **atoms.info}
            jobs.append(((rank + 0.5) / len(members), Job(source, atoms)))
    return [job for _, job in sorted(jobs, key=lambda item: item[0])]


def pack(path, jobs):
    """Collect what is labelled, in the order of the plan.

    Parameters
    ----------
    path : pathlib.Path
        Output of `label_frames`.
    jobs : list of Job
        The plan.

    Returns
    -------
    dict
        Text of each labelled frame by its source.
    """
    labelled = {}
    if path.exists():
        for atoms in ase.io.read(path, ":", format="extxyz"):
            labelled[atoms.info["label_id"]] = atoms
    finished = {}
    for job in jobs:
        atoms = labelled.get(structure_digest(job.atoms))
        if atoms is None:
            continue
        wanted = (*job.atoms.info, "label", "cpu_seconds", "pulay")
        atoms.info = {key: atoms.info[key] for key in wanted if key in atoms.info}
        stream = io.StringIO()
        ase.io.write(stream, atoms, format="extxyz")
        finished[job.source] = stream.getvalue()
    return finished


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("h2-pbe-contacts.extxyz"),
        help="file to append to; the result is <output>.xz",
    )
    parser.add_argument("--workers", type=int, default=2, help="simultaneous pw.x (serial each)")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--limit", type=int, help="only the first N frames of the plan")
    arguments = parser.parse_args()

    calculator = EspressoSection(
        command=arguments.command,
        pseudo_dir=str(arguments.pseudo_dir.resolve()),
        kspacing=KSPACING,
        small_kspacing=KSPACING,
    )
    jobs = build_jobs(read_parents(PARENTS))[: arguments.limit]
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = label_frames(
        [job.atoms for job in jobs],
        arguments.output,
        calculator.labeller(),
        RunSection(workers=arguments.workers),
        retry_failed=True,
        progress=lambda _, done, total: print(f"{done}/{total}", flush=True),
    )
    finished = pack(arguments.output, jobs)
    kept = [finished[job.source] for job in jobs if job.source in finished]
    packed = arguments.output.with_name(arguments.output.name + ".xz")
    packed.write_bytes(lzma.compress("".join(kept).encode(), preset=9))
    groups = Counter(job.atoms.info["group"] for job in jobs if job.source in finished)
    print(f"{len(kept)} of {len(jobs)} frames in {packed}: {dict(groups)}")
    if result.failed:
        print(f"{result.failed} failed, see {result.failures}")


if __name__ == "__main__":
    main()
