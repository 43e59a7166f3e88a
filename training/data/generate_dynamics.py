#!/usr/bin/env python3
"""Explore phases of molecular hydrogen by dynamics and label snapshots with Quantum ESPRESSO.

The seed set was drawn at random; this one has been where dynamics goes. The shipped potential runs
short trajectories of small cells, each of one phase at one pressure and temperature with a random
stream of its own, and snapshots at least 100 fs apart are labelled with the recipe of the other
sets, so that all share one energy zero. Families (``info["group"]``):

``phase-I``
    hexagonal close-packed molecules, rotating, at constant pressure: 5 to 200 GPa, 50 to 1000 K
    but not far above melting;
``phase-II``
    P2₁/c (two of 24 atoms, one of 8), P6₃/m, Pca2₁, Pa-3 and P6₁22: relaxed, and heated to 50 to
    600 K, at 20 to 200 GPa;
``fluid``
    5 to 200 GPa, 300 to 2500 K, melted by heating;
``large``
    cells of 96 to 128 atoms: solid, fluid, and half and half;
``strained``
    snapshots of the solids, strained at random by up to 8 %;
``random``
    random packings of 5 to 8 molecules, relaxed and heated;
``pair``
    two molecules in the H, X, T and L arrangements, at separations between those of the contacts
    set and in its box, and in a slipped-parallel one (S); and one molecule in the same box, for
    its energy depends on the box by a meV.

Whole trajectories are training or test (``info["split"]``), chosen beforehand on interleaved grid
points. A strained frame is a snapshot of a trajectory that gives nothing else. Frames whose
molecules are not intact, solids that melted and liquids that did not are dropped, and the reason
goes to ``<output stem>.explored/<trajectory>.dropped``.

Every frame carries ``partner``, the index of the atom each atom is bonded to, and in its ``info``
``group``, ``phase``, ``trajectory``, ``split``, ``pressure`` (GPa) and ``temperature`` (K), those
the trajectory was held at.

The plan (trajectories, their order, splits and random streams) is fixed. Snapshots are kept in
``<output stem>.explored``, for dynamics is chaotic: another processor leads to other frames of the
same ensemble. The order interleaves families and splits, so that what is finished at any moment is
a small whole set. Run the script again after a kill and it goes on with what is missing; elsewhere,
``--after`` the packed file goes on with the trajectories that are not in it. Frames that fail in
pw.x are listed in ``<output stem>.failed.jsonl``.

Example
-------
::

    nice python generate_dynamics.py --output dynamics.extxyz --workers 2
"""

import argparse
import io
import lzma
import signal
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import ase.io
import joblib
import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.constraints import FixAtoms
from ase.io.espresso import kspacing_to_grid
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.optimize import FIRE
from ase.spacegroup import crystal
from ase.stress import full_3x3_to_voigt_6_strain
from threadpoolctl import threadpool_limits

from ase_hmlp import HMLP
from ase_hmlp.errors import DomainWarning, HMLPError, NotConvergedError
from ase_hmlp.files import write_whole
from ase_hmlp.molecules import bond_shifts, find_molecules, molecules_of, partners
from ase_hmlp.simulate import structures
from ase_hmlp.simulate.build import supercell
from ase_hmlp.simulate.relax import relax
from ase_hmlp.training.append_only import split_frames
from ase_hmlp.training.data.generate_contacts import MEAN_BOND, PADDING, make_pair
from ase_hmlp.training.frames import iterate_structures, read_frames
from ase_hmlp.training.label import RunSection, extxyz_text, label_frames
from ase_hmlp.training.label_calculators import EspressoSection

SEED = 20200718
MODEL = "h2-pbe"

# The recipe and meshes of the seed set. From 96 atoms on the mesh is shifted, where it mostly is
# 2x2x2: half as many points.
CALCULATOR = {
    "kspacing": 0.08,
    "small_kspacing": 0.05,
    "small_cell": 8,
    "shifted_from": 96,
    "both_meshes": True,
}

INTACT = (0.55, 1.10)  # Å
VOLUMES = (1.4, 12.0)  # Å³/atom
#: Root-mean-square displacement of molecules from their sites, in nearest-neighbour distances:
#: a solid stays below the first, a liquid has passed the second.
STILL_SOLID, MELTED = 0.28, 0.35
THERMOSTAT, BAROSTAT = 50.0, 500.0  # fs

PHASES_II = ("P21c-24-a", "P21c-24-b", "P21c-8", "P63m-16", "P6122-36", "Pca21", "Pa3")
ARRANGEMENTS = "HXTLS"
# Between those of the contacts set, Å; S is in none.
SEPARATIONS = (1.57, 1.88, 2.25, 2.7, 3.2, 3.85, 4.6)
SEPARATIONS_S = (1.4, 1.7, 2.05, 2.45, 2.9, 3.5, 4.2, 6.0)

# Repeats of the hexagonal (4 atoms) or orthorhombic (8 atoms) cell of close-packed molecules. The
# cost of a frame goes with its atoms, and with how much finer the mesh is than it need be. No
# molecule has its own image for a nearest neighbour.
HCP_CELLS = {
    16: (("hex", 2, 2, 1), ("ortho", 2, 1, 1)),
    24: (("hex", 3, 2, 1), ("ortho", 3, 1, 1), ("hex", 2, 3, 1)),
}


@dataclass(frozen=True)
class Trajectory:
    """One phase at one pressure and temperature.

    Attributes
    ----------
    family : str
    phase : str
    pressure : float, GPa
    temperature : float, K
        0 if nothing moves.
    number : int
        Within the family: the rest of the random seed, and of the name.
    split : {"train", "test"}
    snapshots : int
        Frames wanted.
    size : tuple
        Cell to start from, where there is a choice.
    """

    family: str
    phase: str
    pressure: float
    temperature: float
    number: int
    split: str
    snapshots: int
    size: tuple = ()

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        return (
            f"{self.family}-{self.number:02d}-{self.phase}"
            f"-{self.pressure:g}GPa-{self.temperature:g}K"
        )

    @property
    def rng(self) -> np.random.Generator:
        """A random stream of its own, the same in every run."""
        return np.random.default_rng([SEED, list(FAMILIES).index(self.family), self.number])


class Dropped(Exception):
    """A trajectory that went where it should not."""


# --- The plan -------------------------------------------------------------------------------------


def melting_temperature(pressure):
    """Melting temperature (K) of hydrogen by Kechin's fit (Phys. Rev. B 65, 052102, 2002).

    With the parameters of Deemyad and Silvera (Phys. Rev. Lett. 100, 155701, 2008) or close to
    them: here it only says which points of a grid are worth a solid, and which a liquid.

    Parameters
    ----------
    pressure : float, GPa
    """
    return 14.025 * (1.0 + pressure / 0.0286) ** 0.589 * np.exp(-4.6e-3 * pressure)


def _knight(i, j):
    """Whether grid point (i, j) is a test point: one in five of every row and column."""
    return "test" if (i + 2 * j) % 5 == 3 else "train"


def cheapest(n_atoms, pressure):
    """Of the close-packed cells of so many atoms, the one with least to compute at a pressure."""

    def work(size):
        cell = close_packed(size, volume_at(pressure), np.random.default_rng(0)).cell
        return np.prod(kspacing_to_grid(Atoms(cell=cell, pbc=True), CALCULATOR["kspacing"]))

    return min(HCP_CELLS[n_atoms], key=work)


def _phase_i():
    pressures = (5, 15, 30, 50, 75, 100, 130, 165, 200)
    temperatures = (50, 150, 300, 500, 750, 1000)
    points = [
        (p, t, _knight(i, j))
        for i, p in enumerate(pressures)
        for j, t in enumerate(temperatures)
        if t <= 1.05 * melting_temperature(p)
    ]
    grid = [
        Trajectory("phase-I", "I", p, t, n, split, 5, cheapest((16, 24)[n % 2], p))
        for n, (p, t, split) in enumerate(points)
    ]
    # Dense and cold, where molecules begin to order: `hmlp reweight` found a potential that was
    # fitted to the grid alone too ordered there.
    pressures, temperatures = (110, 120, 135, 150, 160, 180), (75, 150, 250)
    cold = [
        (p, t, _knight(i, j)) for i, p in enumerate(pressures) for j, t in enumerate(temperatures)
    ]
    return grid + [
        Trajectory("phase-I", "I", p, t, n, split, 5, cheapest(24, p))
        for n, (p, t, split) in enumerate(cold, len(grid))
    ]


def _phase_ii():
    pressures = (20, 60, 100, 150, 200)
    temperatures = (50, 100, 200, 300, 450, 600)
    points = [
        (phase, p, temperatures[(i + j) % 6], _knight(i, j))
        for i, phase in enumerate(PHASES_II)
        for j, p in enumerate(pressures)
    ]
    return [
        Trajectory("phase-II", phase, p, t, n, split, 3 if phase == "P6122-36" else 6, (16,))
        for n, (phase, p, t, split) in enumerate(points)
    ]


def _fluid():
    pressures = (5, 12, 25, 45, 75, 110, 150, 200)
    temperatures = (300, 500, 800, 1200, 1800, 2500)
    points = [
        (p, t, _knight(i, j))
        for i, p in enumerate(pressures)
        for j, t in enumerate(temperatures)
        if t >= 0.8 * melting_temperature(p)
    ]
    return [
        Trajectory("fluid", "fluid", p, t, n, split, 7, cheapest(24, p))
        for n, (p, t, split) in enumerate(points)
    ]


def _large():
    points = [
        ("I", 10, 250, ("ortho", 3, 2, 2)),
        ("I", 25, 400, ("ortho", 3, 2, 2)),
        ("I", 45, 100, ("ortho", 3, 2, 2)),
        ("I", 85, 600, ("ortho", 4, 2, 2)),
        ("fluid", 8, 700, ("ortho", 3, 2, 2)),
        ("fluid", 25, 1000, ("ortho", 3, 2, 2)),
        ("fluid", 50, 1500, ("ortho", 3, 2, 2)),
        ("fluid", 100, 1200, ("ortho", 4, 2, 2)),
        # Well below melting: thin slabs would not wait.
        ("I+fluid", 10, 300, ("hex", 2, 2, 6)),
        # Wide rather than long: fewer k-points.
        ("I+fluid", 40, 500, ("hex", 3, 3, 3)),
        ("I+fluid", 90, 550, ("hex", 3, 3, 3)),
        ("I+fluid", 150, 500, ("hex", 3, 3, 3)),
    ]
    test = (0, 6, 10)  # one of each kind, at three pressures
    return [
        # Fewer of the most expensive: each takes as long as ten small frames, or forty.
        Trajectory(
            "large",
            phase,
            p,
            t,
            n,
            "test" if n in test else "train",
            2 if size in (("ortho", 4, 2, 2), ("hex", 2, 2, 6)) else 4,
            size,
        )
        for n, (phase, p, t, size) in enumerate(points)
    ]


def _strained():
    pressures = (5, 12, 25, 50, 90, 140, 190, 235)
    temperatures = (50, 200, 400)
    phases = ("I", *PHASES_II)
    return [
        Trajectory(
            "strained",
            phases[(3 * i + 2 * j) % 8],
            p,
            min(t, 50.0 * round(melting_temperature(p) / 100)),
            3 * i + j,
            _knight(i, j),
            4,
            cheapest(16, p) if (3 * i + 2 * j) % 8 == 0 else (16,),
        )
        for i, p in enumerate(pressures)
        for j, t in enumerate(temperatures)
    ]


def _random():
    pressures = (10, 25, 50, 80, 110, 150, 200)
    temperatures = (100, 200, 300, 450, 600)
    return [
        Trajectory("random", "random", p, t, 5 * i + j, _knight(i, j), 3, (5 + (5 * i + j) % 4,))
        for i, p in enumerate(pressures)
        for j, t in enumerate(temperatures)
    ]


def _pair():
    return [
        Trajectory(
            "pair",
            name,
            0,
            0,
            n,
            "test" if name == "S" else "train",
            9 if name == "S" else 7 + (name in "HL"),
        )
        for n, name in enumerate(ARRANGEMENTS)
    ]


# The order is part of the random seeds.
FAMILIES = {
    "phase-I": _phase_i,
    "phase-II": _phase_ii,
    "fluid": _fluid,
    "large": _large,
    "strained": _strained,
    "random": _random,
    "pair": _pair,
}
#: A frame of a large cell takes as long as ten others: they come in the last half of the order.
LARGE_FROM = 0.5


def plan() -> list[Trajectory]:
    """Every trajectory, in the order they are explored and labelled in.

    Families and splits are interleaved in proportion, each in a fixed random order.
    """
    shuffled = np.random.default_rng([SEED, 99])
    places = []
    for family, make in FAMILIES.items():
        everything = make()
        start = LARGE_FROM if family == "large" else 0.0
        for split in ("train", "test"):
            members = [t for t in everything if t.split == split]
            for rank, k in enumerate(shuffled.permutation(len(members))):
                place = start + (1.0 - start) * (rank + 0.5) / len(members)
                places.append((place, members[k]))
    return [t for _, t in sorted(places, key=lambda item: (item[0], item[1].name))]


# --- Starting structures --------------------------------------------------------------------------


def volume_at(pressure):
    """Volume per atom (Å³) of the static solid at a pressure (GPa), PBE, roughly."""
    pressures = (2.0, 5.0, 10.0, 20.0, 41.0, 60.0, 90.0, 143.0, 244.0)
    volumes = (8.3, 6.4, 5.1, 4.1, 3.2, 2.8, 2.4, 2.0, 1.6)
    return float(np.exp(np.interp(np.log(pressure), np.log(pressures), np.log(volumes))))


def random_directions(n, rng):
    """Draw `n` unit vectors (n, 3) uniformly from the sphere."""
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def put_molecules(centres, cell, rng):
    """Molecules in random directions at `centres` (m, 3)."""
    half = 0.5 * MEAN_BOND * random_directions(len(centres), rng)
    positions = np.stack([centres - half, centres + half], axis=1).reshape(-1, 3)
    return Atoms(f"H{len(positions)}", positions=positions, cell=cell, pbc=True)


def close_packed(size, volume, rng):
    """Hexagonal close-packed molecules in random directions.

    Parameters
    ----------
    size : tuple
        ``"hex"`` or ``"ortho"``, and three repeats.
    volume : float, Å³/atom
    rng : numpy.random.Generator
    """
    kind, *repeats = size
    # sqrt(2) a³ is the volume of two sites.
    a = (2.0 * volume * 2.0 / np.sqrt(2.0)) ** (1.0 / 3.0)
    sites = bulk("He", "hcp", a=a, c=a * np.sqrt(8.0 / 3.0))
    if kind == "ortho":
        sites = make_supercell(sites, [[1, 0, 0], [1, 2, 0], [0, 0, 1]])
    sites = sites.repeat(repeats)
    return put_molecules(sites.positions, sites.cell, rng)


def pca21(volume):
    """Pca2₁ on close-packed sites, stacked along c: tilted molecules to relax from.

    Parameters
    ----------
    volume : float, Å³/atom
    """
    a = (2.0 * volume * 2.0 / np.sqrt(2.0)) ** (1.0 / 3.0)
    cell = np.array([np.sqrt(3.0) * a, a, np.sqrt(8.0 / 3.0) * a])
    tilt, turn = np.radians((56.0, 45.0))
    axis = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
    # With these coordinates the four images of the centre are the sites of a close packing.
    centre = np.array([1.0 / 12.0, 0.25, 0.25])
    half = 0.5 * MEAN_BOND * axis / cell
    return crystal(
        ["H", "H"], [centre - half, centre + half], spacegroup=29, cellpar=[*cell, 90, 90, 90]
    )


def pa3(volume):
    """Pa-3: molecules on a face-centred cubic lattice, each along another cube diagonal.

    Parameters
    ----------
    volume : float, Å³/atom
    """
    a = (8.0 * volume) ** (1.0 / 3.0)
    x = 0.5 * MEAN_BOND / np.sqrt(3.0) / a
    return crystal(["H"], [(x, x, x)], spacegroup=205, cellpar=[a, a, a, 90, 90, 90])


def ordered(phase, pressure, min_atoms):
    """A supercell of an ordered phase, relaxed by the potential.

    Parameters
    ----------
    phase : str
        One of `PHASES_II`.
    pressure : float, GPa
    min_atoms : int
    """
    if phase in structures.NAMES:
        atoms = structures.load(phase)
        scale = (volume_at(pressure) * len(atoms) / atoms.get_volume()) ** (1.0 / 3.0)
        stretch_between(atoms, scale * np.eye(3))
    else:
        atoms = {"Pca21": pca21, "Pa3": pa3}[phase](volume_at(pressure))
    atoms = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    atoms.calc = HMLP(MODEL, threads=1)
    return supercell(relax(atoms, pressure, fmax=0.005, max_steps=600).atoms, min_atoms)


def random_packing(molecules, pressure, rng, tries=30):
    """A random packing relaxed at a pressure by the potential.

    Parameters
    ----------
    molecules : int
    pressure : float, GPa
    rng : numpy.random.Generator
    tries : int
        Packings drawn before it is given up.

    Raises
    ------
    Dropped
        If none relaxes.
    """
    for _ in range(tries):
        lengths = rng.uniform(0.7, 1.4, size=3)
        cell = np.array(Atoms(cell=[*lengths, *rng.uniform(65, 115, size=3)]).cell)
        volume = 1.25 * volume_at(pressure) * 2 * molecules
        cell *= (volume / abs(np.linalg.det(cell))) ** (1.0 / 3.0)
        apart = 0.85 * (np.sqrt(2.0) * 2.0 * volume_at(pressure)) ** (1.0 / 3.0)
        centres = _scattered(molecules, cell, apart, rng)
        if centres is None:
            continue
        atoms = put_molecules(centres, cell, rng)
        atoms.calc = HMLP(MODEL, threads=1)
        try:
            atoms = settled(atoms, fmax=1.0, steps=200)
            return relax(atoms, pressure, fmax=0.03, stress_tolerance=0.5, max_steps=400).atoms
        except (HMLPError, NotConvergedError):
            continue
    raise Dropped("no packing relaxed")


def _scattered(count, cell, apart, rng, tries=2000):
    """Random points in a periodic cell at least `apart` from each other and their images."""
    images = (np.indices((3, 3, 3)).reshape(3, -1).T - 1) @ cell
    if np.linalg.norm(images[np.any(images, axis=1)], axis=1).min() < apart:
        return None
    points = np.empty((0, 3))
    for _ in range(tries):
        new = rng.uniform(size=3) @ cell
        offsets = (points - new)[:, None] + images
        if np.linalg.norm(offsets, axis=-1).min(initial=np.inf) >= apart:
            points = np.vstack([points, new])
            if len(points) == count:
                return points
    return None


def arranged_pair(name, separation):
    """Two molecules in one of the named arrangements, in the box of the contacts set's.

    Parameters
    ----------
    name : {"H", "X", "T", "L", "S"}
        Parallel side by side, crossed, T-shaped, end to end; S is parallel and slipped: both
        axes at 45 degrees to the line of centres.
    separation : float, Å
        Of the centres.
    """
    x, y, z = np.eye(3)
    tilted = (x + z) / np.sqrt(2.0)
    axes = {"H": (x, x), "X": (x, y), "T": (x, z), "L": (z, z), "S": (tilted, tilted)}[name]
    molecules = (np.outer([-0.5, 0.5], MEAN_BOND * axis) for axis in axes)
    return make_pair(*molecules, separation, length=6.0 + PADDING)


# --- Dynamics -------------------------------------------------------------------------------------


def bonds_of(atoms, molecules):
    """Bond vectors (m, 3), Å, by the shortest images."""
    cell = atoms.cell.array
    shifts = bond_shifts(atoms.positions, cell, atoms.pbc, molecules)
    first, second = molecules.T
    return atoms.positions[second] + shifts @ cell - atoms.positions[first]


def stretch_between(atoms, deformation, molecules=None):
    """Deform the cell in place: centres of molecules follow, molecules keep shape and direction.

    Parameters
    ----------
    atoms : ase.Atoms
    deformation : (3, 3) array
        Row vectors are multiplied by it from the right.
    molecules : (m, 2) array, optional
    """
    if molecules is None:
        molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
    bonds = bonds_of(atoms, molecules)
    centres = (atoms.positions[molecules[:, 0]] + 0.5 * bonds) @ deformation
    atoms.set_cell(atoms.cell.array @ deformation)
    atoms.positions[molecules[:, 0]] = centres - 0.5 * bonds
    atoms.positions[molecules[:, 1]] = centres + 0.5 * bonds


def settled(atoms, fmax, steps):
    """Positions relaxed a little at fixed cell: enough to turn bad neighbours away."""
    optimizer = FIRE(atoms, logfile=None, maxstep=0.05)
    optimizer.run(fmax=fmax, steps=steps)
    return atoms


def timestep(temperature):
    """Time step, fs: a molecule vibrates once in 7.6 fs."""
    return 0.8 if temperature <= 600 else 0.7 if temperature <= 1500 else 0.6


def thermalise(atoms, temperature, duration, rng):
    """Langevin dynamics at constant volume.

    Parameters
    ----------
    atoms : ase.Atoms
    temperature : float, K
    duration : float, fs
    rng : numpy.random.Generator
    """
    step = timestep(temperature)
    dynamics = Langevin(
        atoms,
        step * units.fs,
        temperature_K=temperature,
        friction=1.0 / (THERMOSTAT * units.fs),
        fixcm=False,
        rng=rng,
    )
    dynamics.run(round(duration / step))


def hold(atoms, trajectory, rng, settle, apart, count):
    """Dynamics at constant pressure and temperature, and snapshots of it.

    Parameters
    ----------
    atoms : ase.Atoms
        Moves.
    trajectory : Trajectory
    rng : numpy.random.Generator
    settle, apart : float, fs
        Before the first snapshot, and between snapshots.
    count : int

    Returns
    -------
    list of ase.Atoms
    """
    if not atoms.has("momenta"):
        thermalize_momenta(atoms, temperature_K=trajectory.temperature, rng=rng)
    Stationary(atoms)
    step = timestep(trajectory.temperature)
    # A liquid has no shear modulus that would keep the angles of its cell.
    integrator = MTKNPT if trajectory.phase not in ("fluid", "I+fluid") else IsotropicMTKNPT
    dynamics = integrator(
        atoms,
        timestep=step * units.fs,
        temperature_K=trajectory.temperature,
        pressure_au=trajectory.pressure * units.GPa,
        tdamp=THERMOSTAT * units.fs,
        pdamp=BAROSTAT * units.fs,
    )
    dynamics.run(round(settle / step))
    frames = []
    for _ in range(count):
        try:
            dynamics.run(round(apart / step))
        except HMLPError:  # a molecule broke: what was before it is as good as any
            if not frames:
                raise
            break
        frames.append(atoms.copy())
    return frames


def wandering(atoms, reference, molecules):
    """Root-mean-square displacement of molecules, in nearest-neighbour distances.

    Parameters
    ----------
    atoms, reference : ase.Atoms
        Neither wrapped since one became the other; the cell may have changed.
    molecules : (m, 2) array
    """
    moved = atoms.cell.scaled_positions(atoms.positions)
    moved = (moved - reference.cell.scaled_positions(reference.positions)) @ atoms.cell.array
    moved = moved[molecules].mean(axis=1)
    moved -= moved.mean(axis=0)
    # Of a close packing.
    nearest = (np.sqrt(2.0) * atoms.get_volume() / len(molecules)) ** (1.0 / 3.0)
    return float(np.sqrt((moved**2).sum(axis=1).mean()) / nearest)


def _molecular(atoms):
    """Give it a fresh calculator, and return its molecules."""
    atoms.calc = HMLP(MODEL, threads=1)
    atoms.get_potential_energy()
    return atoms.calc.molecules


def _rotating_solid(trajectory, rng):
    atoms = close_packed(trajectory.size, 1.03 * volume_at(trajectory.pressure), rng)
    molecules = _molecular(atoms)
    settled(atoms, fmax=1.0, steps=60)
    return atoms, molecules


def explore_solid(trajectory, rng, settle=400.0, apart=110.0, count=None):
    """Snapshots of a solid; the first is the relaxed structure if the phase is an ordered one."""
    count = count or trajectory.snapshots
    still = []
    if trajectory.phase == "I":
        atoms, molecules = _rotating_solid(trajectory, rng)
    elif trajectory.phase == "random":
        atoms = random_packing(trajectory.size[0], trajectory.pressure, rng)
        molecules, still = _molecular(atoms), [atoms.copy()]
    else:
        atoms = ordered(trajectory.phase, trajectory.pressure, *trajectory.size)
        molecules, still = _molecular(atoms), [atoms.copy()]
    reference = atoms.copy()
    if still:  # half of the kinetic energy is about to become potential
        thermalize_momenta(atoms, temperature_K=2 * trajectory.temperature, rng=rng)
    frames = hold(atoms, trajectory, rng, settle, apart, count - len(still))
    # A random packing may well find a better one; any other solid keeps its sites.
    if trajectory.phase != "random":
        # Once in a while: layers of a small cell swing far, but they come back.
        moved = min(wandering(frame, reference, molecules) for frame in frames)
        if moved > STILL_SOLID:
            raise Dropped(f"melted: molecules are {moved:.2f} of a neighbour's distance away")
    for frame in still:
        frame.info["temperature"] = 0.0
    return still + frames


def explore_fluid(trajectory, rng, apart=100.0):
    """Snapshots of a liquid that was a crystal once."""
    pressure = trajectory.pressure
    hot = float(np.clip(2.0 * melting_temperature(pressure), trajectory.temperature, 2500.0))
    atoms = close_packed(trajectory.size, 1.12 * volume_at(pressure), rng)
    molecules = _molecular(atoms)
    settled(atoms, fmax=1.0, steps=60)
    reference = atoms.copy()
    thermalize_momenta(atoms, temperature_K=hot, rng=rng)
    for _ in range(6):
        thermalise(atoms, hot, 200.0, rng)
        if wandering(atoms, reference, molecules) > MELTED:
            break
    else:
        raise Dropped("did not melt")
    if hot > trajectory.temperature:
        thermalise(atoms, trajectory.temperature, 100.0, rng)
    return hold(atoms, trajectory, rng, 500.0, apart, trajectory.snapshots)


def explore_coexisting(trajectory, rng, apart=100.0):
    """Snapshots of a crystal whose upper half has been melted."""
    pressure = trajectory.pressure
    hot = float(min(2.2 * melting_temperature(pressure), 2500.0))
    atoms = close_packed(trajectory.size, 1.08 * volume_at(pressure), rng)
    molecules = _molecular(atoms)
    settled(atoms, fmax=1.0, steps=60)
    reference = atoms.copy()
    # Molecules do not cross the cell here: half of them by their sites. The middle of each half
    # tells what it is, for at the interfaces it is neither.
    height = atoms.cell.scaled_positions(atoms.positions)[molecules].mean(axis=1)[:, 2]
    ascending = molecules[np.argsort(height)]
    half = len(molecules) // 2
    lower, upper = ascending[:half], ascending[half:]
    middles = [part[half // 4 : half - half // 4] for part in (lower, upper)]
    atoms.set_constraint(FixAtoms(indices=lower.ravel()))
    thermalize_momenta(atoms, temperature_K=hot, rng=rng)
    for _ in range(6):
        thermalise(atoms, hot, 150.0, rng)
        if wandering(atoms, reference, middles[1]) > MELTED:
            break
    else:
        raise Dropped("did not melt")
    atoms.set_constraint()
    thermalize_momenta(atoms, temperature_K=trajectory.temperature, rng=rng)
    frames = hold(atoms, trajectory, rng, 250.0, apart, trajectory.snapshots)
    still, moved = (
        min(wandering(frame, reference, middle) for frame in frames) for middle in middles
    )
    if still > STILL_SOLID:
        raise Dropped(f"the solid half has melted ({still:.2f})")
    if moved < MELTED:
        raise Dropped(f"the liquid half has frozen ({moved:.2f})")
    return frames


def random_strain(rng, largest=0.08):
    """A symmetric strain tensor whose largest principal strain is 2 % to `largest`."""
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T
    return strain * rng.uniform(0.02, largest) / np.abs(np.linalg.eigvalsh(strain)).max()


def explore_strained(trajectory, rng):
    """Snapshots of a solid, each strained in a way of its own."""
    frames = explore_solid(trajectory, rng, count=trajectory.snapshots + (trajectory.phase != "I"))
    frames = frames[-trajectory.snapshots :]
    for atoms in frames:
        strain = random_strain(rng)
        stretch_between(atoms, np.eye(3) + strain)
        atoms.info["strain"] = full_3x3_to_voigt_6_strain(strain).round(6).tolist()
    return frames


def explore_pair(trajectory):
    """The curve of an arrangement, and one molecule of it alone in the same box: its zero."""
    name = trajectory.phase
    alone = arranged_pair(name, 0.0)[:2]
    frames = [arranged_pair(name, r) for r in (SEPARATIONS_S if name == "S" else SEPARATIONS)]
    # In X and T it points as in H: one direction, one frame.
    return frames + [alone] * (name in "HLS")


def explore(trajectory) -> tuple[list[Atoms], list[str]]:
    """Snapshots of a trajectory, ready to be labelled.

    Parameters
    ----------
    trajectory : Trajectory

    Returns
    -------
    frames : list of ase.Atoms
        With ``partner`` and ``info``; without calculator and momenta.
    reasons : list of str
        Why other snapshots were dropped.

    Raises
    ------
    Dropped
        If it left its phase or the domain.
    """
    rng = trajectory.rng
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        try:
            if trajectory.family == "pair":
                frames = explore_pair(trajectory)
            elif trajectory.family == "strained":
                frames = explore_strained(trajectory, rng)
            elif trajectory.phase == "fluid":
                frames = explore_fluid(trajectory, rng)
            elif trajectory.phase == "I+fluid":
                frames = explore_coexisting(trajectory, rng)
            elif trajectory.family == "large":
                frames = explore_solid(trajectory, rng, settle=450.0, apart=100.0)
            else:
                frames = explore_solid(trajectory, rng)
        except HMLPError as error:
            raise Dropped(f"{type(error).__name__}: {error}") from error
    kept, reasons = [], []
    for number, atoms in enumerate(frames):
        try:
            kept.append(finish(atoms, trajectory, number))
        except (Dropped, HMLPError) as reason:
            reasons.append(f"snapshot {number}: {reason}")
    return kept, reasons


def finish(atoms, trajectory, number):
    """Check a snapshot and fill in what it carries.

    Raises
    ------
    Dropped
        If a molecule is not intact, or the volume is out of range.
    """
    if atoms.has("partner"):
        partner = atoms.arrays["partner"]
    else:
        molecules = find_molecules(atoms.positions, atoms.cell.array, atoms.pbc)
        partner = partners(molecules)
    molecules = molecules_of(partner)
    bonds = bonds_of(atoms, molecules)
    lengths = np.linalg.norm(bonds, axis=1)
    if lengths.min() < INTACT[0] or lengths.max() > INTACT[1]:
        raise Dropped(f"bonds of {lengths.min():.3f} to {lengths.max():.3f} Å")
    volume = atoms.get_volume() / len(atoms)
    if trajectory.family != "pair" and not VOLUMES[0] < volume < VOLUMES[1]:
        raise Dropped(f"{volume:.2f} Å³/atom")
    # Molecules in one piece, their first atoms in the cell. Six digits, more than a label can
    # tell apart, so that the file holds exactly what was labelled.
    positions = atoms.positions.copy()
    positions[molecules[:, 0]] = atoms.get_positions(wrap=True)[molecules[:, 0]]
    positions[molecules[:, 1]] = positions[molecules[:, 0]] + bonds
    result = Atoms(
        atoms.symbols,
        positions=np.round(positions, 6),
        cell=np.round(atoms.cell.array, 6),
        pbc=True,
    )
    result.set_array("partner", partner)
    result.info = {
        "group": trajectory.family,
        "source": f"dynamics/{trajectory.name}/{number}",
        "trajectory": trajectory.name,
        "split": trajectory.split,
        "phase": trajectory.phase,
        "pressure": float(trajectory.pressure),
        "temperature": float(atoms.info.get("temperature", trajectory.temperature)),
    }
    if "strain" in atoms.info:
        result.info["strain"] = atoms.info["strain"]
    return result


# --- Running --------------------------------------------------------------------------------------


def explored(trajectory, folder):
    """Snapshots of a trajectory from its file, which is made unless it is there.

    Parameters
    ----------
    trajectory : Trajectory
    folder : pathlib.Path

    Returns
    -------
    list of ase.Atoms
        Empty if the trajectory was dropped.
    """
    path, dropped = folder / f"{trajectory.name}.extxyz", folder / f"{trajectory.name}.dropped"
    if not path.exists() and not dropped.exists():
        try:
            frames, reasons = explore(trajectory)
        except Dropped as reason:
            frames, reasons = [], [str(reason)]
        if frames:
            write_whole(path, "".join(map(extxyz_text, frames)))
        if reasons:
            dropped.write_text("".join(f"{reason}\n" for reason in reasons))
    return list(iterate_structures(path)) if path.exists() else []


def pack(output, trajectories, before=()) -> Path:
    """Write what is labelled, in the order of the plan, to ``<output>.xz``.

    The running file is only read: a labelling run may go on.

    Parameters
    ----------
    output : pathlib.Path
        Of `label_frames`.
    trajectories : list of Trajectory
        The plan.
    before : sequence of ase.Atoms
        Labelled frames of earlier runs, which come along.
    """
    order = {trajectory.name: n for n, trajectory in enumerate(trajectories)}
    finished = []
    for atoms in [*before, *read_labelled(output)]:
        number = int(atoms.info["source"].rsplit("/", 1)[1])
        finished.append((order[atoms.info["trajectory"]], number, atoms))
    finished.sort(key=lambda item: item[:2])
    packed = output.with_name(f"{output.name}.xz")
    write_packed([atoms for *_, atoms in finished], packed)
    return packed


def read_labelled(output):
    """Read the running file of `label_frames`, to which a run may be adding just now.

    Parameters
    ----------
    output : pathlib.Path

    Returns
    -------
    list of ase.Atoms
        Without what a kill, or that run, left half-written; none where there is no file.
    """
    if not output.exists():
        return []
    text = b"".join(split_frames(output.read_bytes())).decode()
    return ase.io.read(io.StringIO(text), ":", format="extxyz")


def write_packed(frames, path) -> None:
    """Write frames compressed, without what only the labelling run needs to know.

    Parameters
    ----------
    frames : list of ase.Atoms
    path : pathlib.Path
        There whole or not at all.
    """
    drop = ("label_id", "label_settings", "label_date", "label_seconds")
    for atoms in frames:
        atoms.info = {key: value for key, value in atoms.info.items() if key not in drop}
    text = "".join(map(extxyz_text, frames))
    write_whole(path, lzma.compress(text.encode(), preset=9))


def label_and_pack(frames, output, labeller, workers) -> list:
    """Label what is missing of a plan, and pack what is there, in the order of the plan.

    What the packed file holds already, with the same positions, is not labelled again.

    Parameters
    ----------
    frames : list of ase.Atoms
        The plan, with ``info["source"]``.
    output : pathlib.Path
        Of `label_frames`; the result is ``<output>.xz``.
    labeller : as for `label_frames`, or None
        Only packs if it is None.
    workers : int

    Returns
    -------
    list of ase.Atoms
        What is packed.
    """
    planned = {frame.info["source"]: frame for frame in frames}
    found = {}
    for atoms in labelled_before(output):
        frame = planned.get(atoms.info["source"])
        if frame is not None and np.abs(atoms.positions - frame.positions).max() < 2e-6:
            found[atoms.info["source"]] = atoms
    if labeller is not None:
        result = label_frames(
            [frame for frame in frames if frame.info["source"] not in found],
            output,
            labeller,
            RunSection(workers=workers),
            retry_failed=True,
            progress=lambda _, done, total: print(f"{done}/{total}", flush=True),
        )
        if result.failed:
            print(f"{result.failed} failed, see {result.failures}")
        found |= {atoms.info["source"]: atoms for atoms in read_labelled(output)}
    kept = [found[frame.info["source"]] for frame in frames if frame.info["source"] in found]
    packed = output.with_name(f"{output.name}.xz")
    write_packed(kept, packed)
    print(f"{len(kept)} of {len(frames)} frames in {packed}")
    return kept


def labelled_before(output):
    """What is labelled of a plan so far, packed or not.

    Parameters
    ----------
    output : pathlib.Path
        Of `label_and_pack`.

    Returns
    -------
    list of ase.Atoms
    """
    packed = output.with_name(f"{output.name}.xz")
    return [*(iterate_structures(packed) if packed.exists() else ()), *read_labelled(output)]


def print_ranges(path) -> None:
    """Print what each family of a labelled file spans.

    Parameters
    ----------
    path : pathlib.Path
    """
    families = defaultdict(list)
    for atoms, frame in zip(iterate_structures(path), read_frames(path), strict=True):
        families[frame.group].append((atoms.info["split"], frame))
    print(
        f"{'family':10s} train test {'atoms':>8s} {'Å³/atom':>11s} {'GPa':>13s} {'bond Å':>13s} "
        f"{'contact Å':>11s} {'force eV/Å, median, max':>24s}"
    )
    for family, members in sorted(families.items()):
        count = Counter(split for split, _ in members)
        frames = [frame for _, frame in members]
        sizes = [frame.n_atoms for frame in frames]
        volumes = [frame.volume / frame.n_atoms for frame in frames]
        pressures = [frame.pressure for frame in frames]
        bonds = np.linalg.norm(np.vstack([frame.bond_vectors() for frame in frames]), axis=1)
        contacts = [frame.shortest_contact for frame in frames]
        largest = [np.linalg.norm(frame.forces, axis=1).max() for frame in frames]
        print(
            f"{family:10s} {count['train']:5d} {count['test']:4d} {min(sizes):4d}-{max(sizes):3d} "
            f"{min(volumes):6.2f}-{max(volumes):5.1f} {min(pressures):6.1f}-{max(pressures):6.1f} "
            f"{min(bonds):6.3f}-{max(bonds):6.3f} {min(contacts):5.2f}-{max(contacts):5.2f} "
            f"{np.median(largest):17.2f} {max(largest):6.2f}"
        )


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("h2-pbe-dynamics.extxyz"),
        help="file to append to; the result is <output>.xz",
    )
    parser.add_argument("--workers", type=int, default=2, help="simultaneous processes")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--command", default="pw.x", help="how to start a serial pw.x")
    parser.add_argument("--limit", type=int, help="only the first N trajectories of the plan")
    parser.add_argument("--family", help="only the trajectories of one family")
    parser.add_argument("--block", type=int, default=6, help="trajectories between two stages")
    parser.add_argument("--pack", action="store_true", help="only pack what is labelled")
    parser.add_argument(
        "--after", type=Path, help="packed file of earlier runs: its trajectories are done"
    )
    arguments = parser.parse_args()

    output, trajectories = arguments.output, plan()
    before = list(iterate_structures(arguments.after)) if arguments.after else []
    done = {atoms.info["trajectory"] for atoms in before}
    folder = output.with_suffix(".explored")
    # As on Ctrl-C, so that the calculations in flight end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not arguments.pack:
        labeller = EspressoSection(
            command=arguments.command, pseudo_dir=str(arguments.pseudo_dir.resolve()), **CALCULATOR
        ).labeller()
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [t for t in trajectories[: arguments.limit] if t.name not in done]
        if arguments.family:
            wanted = [t for t in wanted if t.family == arguments.family]
        for start in range(0, len(wanted), arguments.block):
            block = wanted[start : start + arguments.block]
            found = joblib.Parallel(n_jobs=arguments.workers, batch_size=1)(
                joblib.delayed(explored)(trajectory, folder) for trajectory in block
            )
            frames = [atoms for frames in found for atoms in frames]
            print(f"{start} of {len(wanted)} trajectories; {len(frames)} frames next", flush=True)
            run = RunSection(workers=arguments.workers)
            label_frames(frames, output, labeller, run, retry_failed=True)
    print_ranges(pack(output, trajectories, before))
    failures = output.with_suffix(".failed.jsonl")
    if failures.exists():
        print(f"some failed, see {failures}")


if __name__ == "__main__":
    main()
