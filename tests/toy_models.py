"""Small deterministic potentials and structures for tests; no data files."""

import numpy as np
from ase import Atoms

from ase_hmlp._core.levels import N_FINGERPRINTS
from ase_hmlp.fingerprints import (
    ORIENTATION_NAMES,
    STRETCH_NAMES,
    OverlapBasis,
    RadialBasis,
    born_mayer,
    damped_sines,
    gaussians,
    quadrupole,
    shells,
)
from ase_hmlp.levels import (
    BondLevel,
    EnvironmentLevel,
    KernelRegressor,
    OrientationLevel,
    PairLevel,
    Stretch,
)
from ase_hmlp.potential import Potential

BOND_LENGTH = 0.74

PAIR_BASIS = RadialBasis(
    gaussians([0.9, 1.4, 2.2, 3.0]) + damped_sines([1.5, 3.0], [1.2, 2.0]) + born_mayer(0.3),
    cutoff=4.5,
    inner=0.9,
    outer=1.2,
)
ORIENTATION_BASIS = RadialBasis(
    gaussians([1.6, 2.5, 3.2]) + quadrupole(), cutoff=4.0, inner=1.1, outer=1.5
)
ENVIRONMENT_BASIS = RadialBasis(
    gaussians([1.4, 2.0, 2.6])
    + damped_sines([2.0], [2.0])
    + gaussians([2.4])
    + shells([1.3, 1.6, 1.9, 2.2, 2.5, 2.8, 3.1, 3.4], 0.45),
    cutoff=4.2,
    inner=1.1,
    outer=1.5,
)
OVERLAP_BASIS = OverlapBasis(
    support=3.4, widths=(0.8, 1.2, 1.8), reach=3.2, inner=2.4, ridge=0.05, freeze=(0.88, 1.2)
)


def toy_bond(form="polynomial"):
    """A bond of H2's stiffness: about 36 eV/Å², minimum at 0.74 Å."""
    if form == "morse":
        return BondLevel("morse", (4.5, 2.0), BOND_LENGTH, 0.5, 1.1)
    return BondLevel("polynomial", (0.0, 0.0, 18.0, -30.0, 40.0), BOND_LENGTH, 0.6, 0.95)


def toy_regressor(
    n_fingerprints, seed=0, components=5, representatives=20, stretch_width=0.05, scale=0.02
):
    """Random regressor of smooth, moderate energies (tens of meV per centre)."""
    rng = np.random.default_rng(seed)
    transform = 0.3 * rng.normal(size=(components, n_fingerprints)) / np.sqrt(n_fingerprints)
    y_s = rng.normal(size=(representatives, components))
    r_s = BOND_LENGTH + 0.03 * rng.normal(size=representatives)
    gram = np.exp(-0.5 * ((y_s[:, None] - y_s[None]) ** 2).sum(axis=2))
    # Products of two sums, after the first 89, are many and large.
    quiet = np.where(np.arange(n_fingerprints) < 89, 1.0, 0.1)
    return KernelRegressor(
        transform=transform,
        linear=0.1 * scale * quiet * rng.normal(size=n_fingerprints),
        linear_stretch=scale * quiet * rng.normal(size=n_fingerprints),
        representatives=y_s,
        rep_bond=r_s,
        alpha=scale * rng.normal(size=representatives),
        r0=BOND_LENGTH,
        stretch_width=stretch_width,
        variance=0.2 * np.linalg.inv(gram + np.eye(representatives)),
        prior=0.05,
        exponent=1.2,
    )


def toy_potential(
    seed=0,
    pair=True,
    orientation=True,
    environment=True,
    bond="polynomial",
    stretch_width=0.05,
    e0=-15.8,
    pair_basis=PAIR_BASIS,
    orientation_basis=ORIENTATION_BASIS,
    environment_basis=ENVIRONMENT_BASIS,
    overlap=OVERLAP_BASIS,
    repulsion=15.0,
):
    """Random but smooth potential with a repulsive baseline that holds crystals apart.

    Parameters
    ----------
    seed : int
    pair, orientation, environment : bool
        Whether it has these levels.
    bond : {"polynomial", "morse"}
    stretch_width : float, Å; 0 takes the bond length away from the kernel.
    e0 : float, eV/atom
    pair_basis, orientation_basis, environment_basis : RadialBasis
    overlap : OverlapBasis or None
        Of the environment level.
    repulsion : float, eV; coefficient of the ``born_mayer`` functions of the pair level.
    """
    rng = np.random.default_rng(seed)
    levels = {}
    if pair:
        scale = 0.02 * np.array([0.1, 1.0, 5.0, 5.0])[:, None]
        coefficients = scale * rng.normal(size=(len(STRETCH_NAMES), len(pair_basis.functions)))
        for k, name in enumerate(pair_basis.names):
            if name.startswith("born_mayer"):
                coefficients[:, k] = repulsion, 0.0, 0.0, 0.0
        levels["pair"] = PairLevel(pair_basis, coefficients)
    if orientation:
        shape = len(ORIENTATION_NAMES), len(orientation_basis.functions)
        levels["orientation"] = OrientationLevel(orientation_basis, 0.01 * rng.normal(size=shape))
    if environment:
        regressor = toy_regressor(N_FINGERPRINTS, seed + 1, stretch_width=stretch_width)
        levels["environment"] = EnvironmentLevel(environment_basis, regressor, overlap)
    return Potential(e0, toy_bond(bond), Stretch(BOND_LENGTH, 0.66, 0.85, 0.04), **levels)


def random_axes(n, rng):
    """n unit vectors, uniform on the sphere."""
    axes = rng.normal(size=(n, 3))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def from_molecules(centres, axes, lengths=BOND_LENGTH, cell=None, pbc=True):
    """ASE atoms of H2 molecules with the given centres and axes; atoms of a molecule adjacent."""
    half = 0.5 * np.asarray(axes) * np.broadcast_to(lengths, len(centres))[:, None]
    positions = np.stack([centres - half, centres + half], axis=1).reshape(-1, 3)
    if cell is None:
        return Atoms(f"H{len(positions)}", positions)
    return Atoms(f"H{len(positions)}", positions, cell=cell, pbc=pbc)


def hcp(volume=3.2, size=(2, 2, 1), seed=0, bond_spread=0.0):
    """Hexagonal close-packed molecules, random orientations; volume in Å³/atom."""
    rng = np.random.default_rng(seed)
    a = (2.0 * volume * np.sqrt(2.0)) ** (1 / 3)
    cell = a * np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])
    sites = np.array([[0, 0, 0], [1 / 3, 2 / 3, 0.5]])
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    centres = (grid + sites).reshape(-1, 3) @ cell
    lengths = BOND_LENGTH + bond_spread * rng.normal(size=len(centres))
    return from_molecules(centres, random_axes(len(centres), rng), lengths, np.diag(size) @ cell)


def pa3(volume=3.2):
    """Four molecules on a face-centred lattice, along the body diagonals (alpha-N2)."""
    a = (8.0 * volume) ** (1 / 3)
    centres = a * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    axes = np.array([[1, 1, 1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]]) / np.sqrt(3.0)
    return from_molecules(centres, axes, BOND_LENGTH, a * np.eye(3))


def dimer(separation=3.0, seed=0):
    """Two molecules at a centre separation (Å) in vacuum, random orientations."""
    rng = np.random.default_rng(seed)
    centres = separation * np.outer([0.0, 1.0], random_axes(1, rng)[0])
    return from_molecules(centres, random_axes(2, rng))


def molecule(length=BOND_LENGTH):
    """One molecule in vacuum."""
    return from_molecules(np.zeros((1, 3)), np.array([[0.0, 0.6, 0.8]]), length)


def toy_structures():
    """Realistic structures by name, as ASE atoms without a calculator."""
    warm = hcp(2.8, (2, 2, 2), seed=3, bond_spread=0.02)
    warm.rattle(0.03, seed=4)
    return {
        "hcp": hcp(3.2, (2, 2, 1), seed=1, bond_spread=0.01),
        "hcp-warm": warm,
        "pa3": pa3(3.2),
        "pa3-dense": pa3(2.4),
        "dimer": dimer(2.6, seed=2),
        "molecule": molecule(),
    }
