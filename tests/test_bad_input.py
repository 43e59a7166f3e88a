"""Structures without an answer: a named error and one sentence that says which atom and why."""

import numpy as np
import pytest
from ase import Atoms
from toy_calculator import toy_calculator
from toy_models import hcp, molecule, pa3

from ase_hmlp import HMLP
from ase_hmlp.errors import (
    BondingError,
    BondStretchError,
    CellError,
    ContactError,
    DomainError,
    HMLPError,
    ModelNotFoundError,
    NonFinitePositionsError,
    NoPartnerError,
    OddAtomError,
    PartnerMismatchError,
    StructureError,
    TwoPartnersError,
    UnsupportedElementError,
)


def line(*x):
    """Atoms along x, Å."""
    return Atoms(f"H{len(x)}", [[value, 0.0, 0.0] for value in x])


def crystal(**changes):
    atoms = hcp(3.0, (2, 2, 1), seed=1)
    for name, change in changes.items():
        array = getattr(atoms, name).copy()
        change(array)
        setattr(atoms, name, array)
    return atoms


def put(index, value):
    def change(array):
        array[index] = value

    return change


def other_element(symbol):
    atoms = crystal()
    atoms.symbols[5] = symbol
    return atoms


def with_cell(cell, pbc=True, atoms=None):
    atoms = crystal() if atoms is None else atoms
    atoms.set_cell(cell)
    atoms.pbc = pbc
    return atoms


def infinite_cell():
    cell = crystal().cell.array
    cell[1, 1] = np.inf
    return with_cell(cell)


def overlapping():
    atoms = crystal()
    molecules = toy_calculator()
    molecules.get_property("energy", atoms)
    i, j = molecules.molecules[[0, 3], 0]
    atoms.positions[i] = atoms.positions[j] + atoms.cell[0] + [0, 0, 1e-6]
    return atoms


CASES = {
    "helium": (lambda: other_element("He"), UnsupportedElementError, "Atom 5 is He"),
    "placeholder": (lambda: other_element("X"), UnsupportedElementError, "Atom 5 is X"),
    "no atoms": (Atoms, StructureError, "has no atoms"),
    "odd": (lambda: crystal()[:-1], OddAtomError, "15 atoms"),
    "one": (lambda: line(0), OddAtomError, "1 atoms"),
    "nan": (
        lambda: crystal(positions=put((7, 1), np.nan)),
        NonFinitePositionsError,
        r"Atom 7 is at \[.*nan",
    ),
    "infinite": (
        lambda: crystal(positions=put((2, 0), -np.inf)),
        NonFinitePositionsError,
        r"Atom 2 is at \[-inf",
    ),
    "opposite infinities": (
        lambda: crystal(positions=put(([2, 3], 0), [np.inf, -np.inf])),
        NonFinitePositionsError,
        r"Atom 2 is at \[inf",
    ),
    "infinite cell": (infinite_cell, NonFinitePositionsError, "cell is not finite"),
    "far away": (
        lambda: crystal(positions=put(4, 1e12)),
        StructureError,
        "Atom 4 is at .* lost their digits",
    ),
    "zero cell": (lambda: with_cell(np.zeros((3, 3))), CellError, "no volume"),
    "one zero vector": (lambda: with_cell([6, 6, 0]), CellError, "no volume"),
    "flat cell": (lambda: with_cell([[6, 0, 0], [0, 6, 0], [6, 6, 0]]), CellError, "no volume"),
    "zero periodic vector of a slab": (
        lambda: with_cell([6, 0, 20], (True, True, False)),
        CellError,
        r"directions \[0, 1\]",
    ),
    "tiny cell": (
        lambda: with_cell([0.01, 0.01, 0.01], atoms=molecule()),
        DomainError,
        "5e-07 Å³/atom",
    ),
    "no partner": (lambda: line(0, 0.75, 3.0, 5.0), NoPartnerError, "Atom 2 has no partner"),
    "two partners": (
        lambda: line(0, 0.8, 1.6, 2.5),
        TwoPartnersError,
        "Atom 1 has two partners: atoms (0 and 2|2 and 0)",
    ),
    "partner prefers another": (
        lambda: line(0, 0.75, 1.6, 2.7),
        PartnerMismatchError,
        "Atom 2 has no mutual partner: its nearest is atom 1 .* prefers atom 0",
    ),
    "own image": (
        lambda: with_cell([9, 9, 0.7], atoms=line(0, 0.74)),
        PartnerMismatchError,
        "Atom 0 is nearest to its own periodic image",
    ),
    "stretched": (
        lambda: line(5.0, 6.12),
        BondStretchError,
        r"between atoms 0 and 1 is 1\.120 Å long; .* 0\.500 to 1\.100",
    ),
    "compressed": (
        lambda: line(0, 0.74, 5.0, 5.45),
        BondStretchError,
        r"between atoms 2 and 3 is 0\.450 Å",
    ),
    "one molecule on another": (
        lambda: line(0, 0.74, 0, 0.74),
        ContactError,
        r"Atoms 0 and 2 are on top of each other, 0\.000 Å",
    ),
    "one atom on another": (
        overlapping,
        ContactError,
        r"Atoms \d+ and \d+ are on top of each other, 0\.000 Å",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_has_a_name_and_says_where(name):
    make, error, sentence = CASES[name]
    atoms = make()
    atoms.calc = calc = toy_calculator()
    with pytest.raises(error, match=sentence) as caught:
        atoms.get_potential_energy()
    assert type(caught.value) is error
    assert isinstance(caught.value, HMLPError) and isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    assert not calc.results


@pytest.mark.parametrize("name", CASES)
def test_what_is_known_is_of_the_last_structure_that_had_an_energy(name):
    make, error, _ = CASES[name]
    calc = toy_calculator()
    calc.get_property("energy", crystal())
    before = calc.molecules, calc.bond_lengths, calc.shortest_contact, calc.levels
    with pytest.raises(error):
        calc.get_property("energy", make())
    np.testing.assert_array_equal(calc.molecules, before[0])
    np.testing.assert_array_equal(calc.bond_lengths, before[1])
    assert (calc.shortest_contact, calc.levels) == before[2:]


def test_advice_on_hot_molecules_is_given_where_it_helps():
    """No choice of bonds makes molecules of an odd number of atoms."""
    odd, loose = line(0, 0.74, 3.0), line(0, 0.74, 5.0, 6.3)
    for atoms, helps in ((odd, False), (loose, True)):
        with pytest.raises(BondingError) as raised:
            toy_calculator().get_property("energy", atoms)
        assert ("HMLP(bonds=pairs)" in str(raised.value)) == helps


@pytest.mark.parametrize("name", CASES)
def test_the_calculator_survives(name):
    """The same error after a good structure, and the good structure's energy after that."""
    make, error, sentence = CASES[name]
    good = crystal()
    calc = toy_calculator()
    energy = calc.get_property("energy", good)
    with pytest.raises(error, match=sentence):
        calc.get_property("forces", make())
    assert calc.get_property("energy", good) == pytest.approx(energy, abs=1e-11)


def test_contact_below_the_limit():
    """Where bonds are known: found from distances, so near an atom would be taken for a partner."""
    atoms = line(0, 0.74, 1.32, 2.06)
    atoms.calc = toy_calculator(bonds=[[0, 1], [2, 3]])
    with pytest.raises(
        ContactError,
        match=r"Atoms 1 and 2 of different molecules are 0\.580 Å apart; below 0\.600 Å",
    ):
        atoms.get_potential_energy()


def test_own_image_closer_than_a_contact():
    """Images count as other molecules, also where bonds are given."""
    atoms = molecule()
    atoms.set_cell([0.55, 9, 9])
    atoms.pbc = (True, False, False)
    atoms.calc = toy_calculator(bonds=[[0, 1]])
    with pytest.raises(ContactError, match=r"Atoms \d and \d \(its own image\) .* 0\.550 Å"):
        atoms.get_potential_energy()


def test_bond_given_across_the_limit_names_both_atoms():
    atoms = pa3(3.0)
    atoms.calc = toy_calculator(bonds=[[0, 3], [1, 2], [4, 5], [6, 7]])
    with pytest.raises(BondStretchError, match=r"between atoms (0 and 3|1 and 2)"):
        atoms.get_forces()


def test_no_such_model():
    with pytest.raises(ModelNotFoundError, match="no model 'h3-pbe'"):
        HMLP("h3-pbe")
