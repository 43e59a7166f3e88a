"""Molecules pushed together meet a wall without a dip: alone, and in crystals and liquids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from toy_models import hcp, pa3, random_axes

from ase_hmlp.model_io import load_model
from ase_hmlp.molecules import find_molecules

MODEL = load_model("h2-pbe")

#: Energy above the outermost value from which on it may only rise, eV. PBE molecules attract each
#: other by a few meV, in a crystal neighbours on the far side pull as well.
FOOT = 0.05

#: Atoms that pass each other nearer than this (Å) end a wall: the energy may then fall again.
CLOSE = 0.9

#: What ends a wall, too, eV: more than it takes to break a molecule, which bonds that are kept
#: cannot tell.
TALL = 5.0

#: What counts as a dip, eV: below the model's own error on an atom of a pair.
DIP = 0.002


def energies(positions_of, parameters, cell, pbc, molecules):
    """Energy and shortest contact along a path; one tracker for all of it."""
    tracker = MODEL.potential.tracker()
    out = []
    for x in parameters:
        result = MODEL.potential.evaluate(tracker.update(positions_of(x), cell, pbc, molecules))
        out.append((result.energies.sum(), result.shortest_contact))
    return np.array(out).T


def check_wall(energy, contact, name):
    """Once risen by FOOT the energy rises by TALL, or until close contacts no longer shorten."""
    contact = np.minimum(contact, 99.0)  # beyond the cutoff it is infinite
    # The shortest contact may be one that is left behind; those of a wall are closer.
    passing = np.flatnonzero((np.diff(contact) > 0) & (contact[:-1] < CLOSE))
    inside = np.flatnonzero(contact < MODEL.domain.contact_limit)
    tall = np.flatnonzero(energy - energy[0] > TALL)
    end = min([len(energy), *(passing + 1), *(inside + 1), *(tall + 1)])
    energy, contact = energy[:end] - energy[0], contact[:end]
    risen = np.flatnonzero(energy > FOOT)
    assert len(risen), f"{name}: no wall down to a contact of {contact[-1]:.2f} Å"
    wall = energy[risen[0] :]
    fall = (np.maximum.accumulate(wall) - wall).max()
    assert fall < DIP, f"{name}: a dip of {1e3 * fall:.1f} meV"
    return energy, contact


def pair_path(seed, lengths):
    """Positions of two molecules against the separation of their centres."""
    rng = np.random.default_rng(seed)
    half = 0.5 * random_axes(2, rng) * np.asarray(lengths)[:, None]
    direction = random_axes(1, rng)[0]

    def positions(r):
        centre = r * direction
        return np.array([-half[0], half[0], centre - half[1], centre + half[1]])

    return positions


@settings(max_examples=60)
@given(seeds, st.floats(0.66, 0.84), st.floats(0.66, 0.84))
def test_two_molecules_in_any_orientation(seed, first, second):
    separations = np.arange(5.5, 0.3, -0.03)
    molecules = np.array([[0, 1], [2, 3]], dtype=np.intc)
    energy, contact = energies(
        pair_path(seed, (first, second)), separations, np.eye(3), (False,) * 3, molecules
    )
    energy, contact = check_wall(energy, contact, "pair")
    assert energy.min() > -0.05  # no bound state deeper than a van der Waals complex


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("H", (1, 0, 0), (1, 0, 0)),
        ("X", (1, 0, 0), (0, 1, 0)),
        ("T", (1, 0, 0), (0, 0, 1)),
        ("L", (0, 0, 1), (0, 0, 1)),
    ],
)
def test_named_orientations(name, a, b):
    """The dimers of the seed paper's Fig. 5b, separation along z."""
    half = 0.37 * np.array([a, b], dtype=float)

    def positions(r):
        shift = np.array([0, 0, r])
        return np.array([-half[0], half[0], shift - half[1], shift + half[1]])

    molecules = np.array([[0, 1], [2, 3]], dtype=np.intc)
    r = np.arange(5.5, 0.45, -0.02)
    energy, contact = energies(positions, r, np.eye(3), (False,) * 3, molecules)
    check_wall(energy, contact, name)


@settings(max_examples=25)
@given(seeds, st.floats(1.75, 5.0), st.booleans())
def test_a_molecule_pushed_into_another_in_a_crystal(seed, volume, ordered):
    rng = np.random.default_rng(seed)
    atoms = pa3(volume) * (2, 1, 1) if ordered else hcp(volume, (2, 2, 2), seed=seed)
    cell, pbc = atoms.cell.array, atoms.pbc
    try:
        molecules = find_molecules(atoms.positions, cell, pbc)
    except ValueError:
        return  # random orientations brought two atoms into bonding distance
    geometry = MODEL.potential.tracker().update(atoms.positions, cell, pbc, molecules)
    m = int(rng.integers(len(molecules)))
    centres = atoms.positions[molecules[:, 0]] + 0.5 * geometry.bonds
    # A half list: the molecule's own pairs and those it is the second of.
    pairs = geometry.pairs
    first = np.repeat(np.arange(len(molecules)), np.diff(pairs.first))
    vectors = centres[pairs.index] + pairs.shifts[pairs.shift_id] - centres[first]
    vectors = np.vstack([vectors[first == m], -vectors[pairs.index == m]])
    nearest = vectors[(vectors**2).sum(axis=1).argmin()]
    positions = atoms.positions.copy()
    if rng.integers(2):  # turned first, so that any orientation meets any other
        half = 0.37 * random_axes(1, rng)[0]
        positions[molecules[m]] = centres[m] + np.array([-half, half])

    def pushed(x):
        moved = positions.copy()
        moved[molecules[m]] += x * nearest
        return moved

    start = energies(pushed, [0.0], cell, pbc, molecules)
    if start[1, 0] < MODEL.domain.contact:
        return
    energy, contact = energies(pushed, np.linspace(0, 0.9, 60), cell, pbc, molecules)
    check_wall(energy, contact, f"crystal at {volume:.2f} Å³/atom")
