"""Frames with long and short bonds: how they are made, and the committed file."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from ase_hmlp.errors import DomainWarning
from ase_hmlp.molecules import molecules_of
from ase_hmlp.training.data import generate_contacts
from ase_hmlp.training.data import generate_stretched as generator
from ase_hmlp.training.data.generate_dynamics import bonds_of
from ase_hmlp.training.frames import iterate_structures

COMMITTED = Path(generator.__file__).with_name("h2-pbe-stretched.extxyz.xz")


def lengths_of(atoms):
    return np.linalg.norm(bonds_of(atoms, molecules_of(atoms.arrays["partner"])), axis=1)


@pytest.fixture(scope="module")
def parents():
    return {atoms.info["source"]: atoms for atoms in generator.parents()}


@pytest.fixture(scope="module")
def committed():
    return list(iterate_structures(COMMITTED))


def test_chosen_molecules_are_held_and_the_others_move(parents):
    parent = list(parents.values())[len(parents) // 2]
    before = lengths_of(parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        one, two = (generator.stretched(parent, n, generator.widened()) for n in (10, 11))
        short = generator.stretched(parent, generator.COUNT, generator.widened())
        wide = max(parents.values(), key=lambda atoms: atoms.get_volume() / len(atoms))
        longer = generator.stretched(
            wide, generator.COUNT + generator.COUNT_SHORT, generator.widened()
        )
    assert generator.LONGER[0] - 1e-5 < lengths_of(longer).max() < generator.LONGER[1] + 1e-5
    assert generator.SHORT[0] - 1e-5 < lengths_of(short).min() < generator.SHORT[1] + 1e-5
    for frame, count in ((one, 1), (two, 2)):
        wanted = np.random.default_rng([generator.SEED, 9 + count])
        chosen = wanted.choice(len(before), count, replace=False)
        held = [wanted.uniform(*generator.LENGTHS) for _ in chosen]
        # RATTLE's own tolerance is 1e-13; positions are rounded to 1e-6 Å.
        np.testing.assert_allclose(lengths_of(frame)[chosen], held, atol=3e-6)
        np.testing.assert_allclose(frame.cell.array, parent.cell.array, atol=1e-6)
        others = np.delete(np.arange(len(before)), chosen)
        assert (np.abs(lengths_of(frame) - before)[others] > 1e-3).all()
        assert frame.info["parent"] == parent.info["source"]


def test_committed_frames_have_the_bonds_that_were_asked_for(committed, parents):
    bulk = [atoms for atoms in committed if atoms.info["group"] == "stretched"]
    assert len(bulk) == generator.COUNT + generator.COUNT_SHORT + generator.COUNT_LONGER
    low, high = generator.LENGTHS
    longest, shortest, longer = [], [], []
    for atoms in bulk:
        number = int(atoms.info["source"].rsplit("/", 1)[1])
        parent = parents[atoms.info["parent"]]
        # Test trajectories stay test trajectories.
        assert atoms.info.get("split") == parent.info.get("split")
        np.testing.assert_allclose(atoms.cell.array, parent.cell.array, atol=1e-6)
        lengths = np.sort(lengths_of(atoms))[::-1]
        if number < generator.COUNT:
            assert (lengths[: 1 + number % 2] >= low - 1e-5).all()
            longest.append(lengths[0])
        elif number < generator.COUNT + generator.COUNT_SHORT:
            shortest.append(lengths[-1])
        else:
            longer.append(lengths[0])
            assert atoms.get_volume() / len(atoms) > generator.LEAST_VOLUME
        assert "Quantum ESPRESSO" in atoms.info["label"] and "mesh_error" in atoms.info
    # Uniform between the limits: something in every tenth of the range.
    assert (np.histogram(longest, 10, (low, high))[0] > 0).all()
    assert max(longest) <= high + 0.05
    low, high = generator.LONGER
    assert (np.histogram(longer, 6, (low, high))[0] > 0).all() and max(longer) <= high + 1e-5
    assert min(shortest) < 0.5 and max(shortest) > 0.54
    assert sum(atoms.info.get("split") == "test" for atoms in bulk) >= 5


def test_committed_molecules_go_on_where_the_contacts_end(committed):
    alone = [atoms for atoms in committed if atoms.info["group"] == "molecule"]
    bonds = np.array([lengths_of(atoms)[0] for atoms in alone])
    np.testing.assert_allclose(np.sort(bonds), generator.ALONE, atol=1e-6)
    known = generate_contacts.BONDS
    assert ((bonds > known.max()) | (bonds < known.min())).all()
    # Energies rise away from the bond length.
    energies = np.array([atoms.get_potential_energy() for atoms in alone])
    order = np.argsort(np.abs(bonds - 0.75))
    for side in (bonds[order] < 0.75, bonds[order] > 0.75):
        assert (np.diff(energies[order][side]) > 0).all()
