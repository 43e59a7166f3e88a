"""Which atoms are bonded, and the vectors along the bonds."""

from __future__ import annotations

from itertools import product

import numpy as np

from ase_hmlp.errors import (
    BondingError,
    NoPartnerError,
    OddAtomError,
    PartnerMismatchError,
    TwoPartnersError,
)
from ase_hmlp.neighbors import neighbour_list

#: No two hydrogen atoms farther apart than this (Å) are taken for a molecule.
LONGEST_BOND = 1.15

#: A bond that was stated, rather than found, may be this long (Å) for a moment, as among hot
#: molecules: as long as the shipped model lets it get.
BROKEN_BOND = 1.75

#: Arrays of molecules' numbers: a column of LAMMPS dumps and of extended XYZ, and as ASE calls it
#: in LAMMPS data files.
NUMBERS = ("mol", "mol-id")

#: Two candidates whose distances differ by less than this (Å) cannot be told apart.
TIE = 0.01


def find_molecules(positions, cell, pbc, longest: float = LONGEST_BOND) -> np.ndarray:
    """Pair every atom with its mutual nearest neighbour.

    Parameters
    ----------
    positions : (n, 3) array, Å
    cell : (3, 3) array, Å; non-singular (see `ase_hmlp.neighbors.complete_cell`)
    pbc : three booleans
    longest : float
        Longest distance taken for a bond, Å.

    Returns
    -------
    (n / 2, 2) intc array
        Indices of the two atoms of each molecule, the lower first, molecules in order of it.

    Raises
    ------
    OddAtomError, NoPartnerError, TwoPartnersError, PartnerMismatchError
    """
    n = len(positions)
    if n % 2:
        raise OddAtomError(
            f"{n} atoms cannot all be in molecules: the potential needs an even number."
        )
    first, index, shift = neighbour_list(positions, cell, pbc, longest)
    owner = np.repeat(np.arange(n), np.diff(first))
    vectors = positions[index] + shift @ cell - positions[owner]
    lengths = np.linalg.norm(vectors, axis=1)
    partner = np.empty(n, dtype=np.intc)
    nearest = np.empty(n)
    for i in range(n):
        mine = slice(first[i], first[i + 1])
        if first[i] == first[i + 1]:
            raise NoPartnerError(f"Atom {i} has no partner: no other atom within {longest:.2f} Å.")
        order = np.argsort(lengths[mine])
        distances, who = lengths[mine][order], index[mine][order]
        # First: an atom's own images come in pairs, which would look like two partners.
        if who[0] == i:
            raise PartnerMismatchError(
                f"Atom {i} is nearest to its own periodic image ({distances[0]:.3f} Å): "
                "the cell is too small for molecules."
            )
        if len(who) > 1 and distances[1] - distances[0] < TIE:
            raise TwoPartnersError(
                f"Atom {i} has two partners: atoms {who[0]} and {who[1]} are both "
                f"{distances[0]:.3f} Å away (to {TIE} Å)."
            )
        partner[i], nearest[i] = who[0], distances[0]
    for i in range(n):
        j = partner[i]
        if partner[j] != i:
            raise PartnerMismatchError(
                f"Atom {i} has no mutual partner: its nearest is atom {j} ({nearest[i]:.3f} Å), "
                f"which prefers atom {partner[j]} ({nearest[j]:.3f} Å)."
            )
    lower = np.flatnonzero(partner > np.arange(n))
    return np.column_stack([lower, partner[lower]]).astype(np.intc)


def check_molecules(molecules, n_atoms: int) -> np.ndarray:
    """Validate user-given bonds: every atom in exactly one pair.

    Parameters
    ----------
    molecules : (n / 2, 2) integers
    n_atoms : int

    Returns
    -------
    (n / 2, 2) intc array
    """
    pairs = np.asarray(molecules)
    if pairs.shape != (n_atoms // 2, 2) or n_atoms % 2 or pairs.dtype.kind not in "iu":
        raise BondingError(
            f"bonds must be {n_atoms / 2:g} pairs of atom indices for {n_atoms} atoms, "
            f"not an array of shape {pairs.shape} and type {pairs.dtype}."
        )
    outside = pairs[(pairs < 0) | (pairs >= n_atoms)]
    if len(outside):
        raise BondingError(
            f"bonds name atoms {outside[:5].tolist()}, but atoms are numbered 0 to {n_atoms - 1}."
        )
    counts = np.bincount(pairs.ravel(), minlength=n_atoms)
    if (counts != 1).any():
        wrong = np.flatnonzero(counts != 1)
        raise BondingError(
            f"bonds must name each atom once; atoms {wrong[:5].tolist()} are named "
            f"{counts[wrong[:5]].tolist()} times."
        )
    return np.ascontiguousarray(pairs, dtype=np.intc)


def partners(molecules: np.ndarray) -> np.ndarray:
    """Bonded partner of each atom (n), from pairs (n / 2, 2); what ``arrays["partner"]`` holds."""
    partner = np.empty(2 * len(molecules), dtype=int)
    partner[molecules] = molecules[:, ::-1]
    return partner


def molecules_of(partner) -> np.ndarray:
    """Inverse of `partners`: pairs (n / 2, 2), the lower atom first, in order of it.

    Raises
    ------
    BondingError
        If they are not the partners of each other.
    """
    partner = np.asarray(partner).astype(int)
    lower = np.flatnonzero(np.arange(len(partner)) < partner)
    return check_molecules(np.column_stack([lower, partner[lower]]), len(partner))


def numbered_molecules(numbers) -> np.ndarray | None:
    """Bonds by the number of the molecule that each atom (n) is in.

    Returns
    -------
    (n / 2, 2) intc array or None
        The lower atom first, in order of it; None unless every molecule has two atoms.
    """
    numbers = np.asarray(numbers)
    counts = np.unique(numbers, return_counts=True)[1]
    if not len(counts) or (counts != 2).any():
        return None
    pairs = np.argsort(numbers, kind="stable").reshape(-1, 2)
    return pairs[pairs[:, 0].argsort()].astype(np.intc)


def stated_molecules(arrays) -> tuple[np.ndarray, str] | None:
    """Bonds that the arrays of a structure state.

    Parameters
    ----------
    arrays : dict
        ``partner`` counts before the numbers of molecules, which are bonds where each is that of
        two atoms.

    Returns
    -------
    molecules : (n / 2, 2) intc array
    where : str
        Name of the array. Instead of both None, where there is none.

    Raises
    ------
    BondingError
    """
    if "partner" in arrays:
        return molecules_of(arrays["partner"]), "partner"
    for name in NUMBERS:
        pairs = numbered_molecules(arrays[name]) if name in arrays else None
        if pairs is not None:
            return pairs, name
    return None


def bond_shifts(positions, cell, pbc, molecules, longest: float = BROKEN_BOND) -> np.ndarray:
    """Integer cell shifts S that make ``positions[j] + S @ cell - positions[i]`` shortest.

    Rounding fractional coordinates is exact for vectors shorter than half the distance between
    cell faces; in directions thinner than that, nearby images are tried as well. So bonds longer
    than `longest` (Å) may be those to another image, where there is a nearer one.

    Returns
    -------
    (m, 3) integer array
    """
    pbc = np.asarray(pbc, dtype=bool)
    raw = positions[molecules[:, 1]] - positions[molecules[:, 0]]
    fractional = raw @ np.linalg.inv(cell)
    base = -np.round(fractional) * pbc
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = [
        int(np.ceil(longest / h)) if periodic and h < 2.0 * longest else 0
        for h, periodic in zip(heights, pbc, strict=True)
    ]
    trials = np.array(list(product(*(range(-k, k + 1) for k in reach))), dtype=float)
    vectors = (raw + base @ cell)[:, None, :] + trials @ cell
    best = np.argmin((vectors**2).sum(axis=2), axis=1)
    return (base + trials[best]).astype(np.intc)
