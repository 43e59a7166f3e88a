"""Energies, forces and virials: the kernel's three passes over molecules and their pairs.

Every thread adds to sums of its own, which are added up in the order of the threads: results are
the same from run to run, and the same for any number of threads but for round-off.
"""

import numpy as np

from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libcpp.vector cimport vector

from ase_hmlp._core.kernel cimport (
    N_FINGERPRINTS,
    N_FORMS,
    N_MOMENTS,
    MOLECULE_SIZE,
    TERMS_SIZE,
    Contact,
    InteractionStruct,
    Molecule,
    MoleculeTerms,
    Neighbours,
    OverlapSpace,
    Regressor,
    Value,
    add_pairs,
    bond_energy,
    environment_fingerprints,
    find_cluster,
    gather_moments,
    overlap_forms,
    place_molecule,
    regressor_energy,
    separation,
    share_molecule,
    surroundings_energy,
)
from ase_hmlp._core.levels cimport BondCurve, Interaction, Machine


cdef struct Pairs:
    const int* first
    const int* index
    const int* shift_id
    const double* shifts


cdef Pairs view_pairs(const int[::1] first, const int[::1] index, const int[::1] shift_id,
                      const double[:, ::1] shifts) noexcept:
    """Pointers into the arrays of an `ase_hmlp.neighbors.NeighbourList`; they must outlive it."""
    cdef Pairs out
    out.first = &first[0]
    # A list without any neighbour has no first element to point to.
    out.index = &index[0] if index.shape[0] else NULL
    out.shift_id = &shift_id[0] if shift_id.shape[0] else NULL
    out.shifts = &shifts[0, 0]
    return out


cdef Neighbours neighbours_of(Pairs* pairs, int a) noexcept nogil:
    cdef Neighbours nb
    cdef int first = pairs.first[a]
    nb.n = pairs.first[a + 1] - first
    nb.index = pairs.index + first
    nb.shift_id = pairs.shift_id + first
    nb.shifts = pairs.shifts
    return nb


def place(Interaction interaction, const double[:, ::1] positions, const int[:, ::1] molecules,
          const double[:, ::1] bonds):
    """The kernel's molecules (m, 10) from positions (n, 3) and bond vectors (m, 3)."""
    out = np.empty((bonds.shape[0], MOLECULE_SIZE))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t m
    for m in range(bonds.shape[0]):
        place_molecule(interaction.c, &positions[molecules[m, 0], 0], &bonds[m, 0],
                       <Molecule*> &view[m, 0])
    return out


def surroundings(Interaction interaction, const double[:, ::1] placed, first, index, shift_id,
                 const double[:, ::1] shifts):
    """A full list of the pairs within the reach of clusters, from half of one.

    Returns
    -------
    first, index, shift_id, shifts
        As a half list's; shifts twice as many, for either way of looking at a pair.
    """
    cdef Pairs pairs = view_pairs(first, index, shift_id, shifts)
    cdef int m = <int> placed.shape[0], n_shifts = <int> shifts.shape[0], a, b, n, place
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    cdef double reach2 = interaction.c.overlap.reach ** 2
    cdef double d[3]
    cdef Neighbours nb
    near_array = np.zeros(len(index), dtype=np.uint8)
    start_array = np.zeros(m + 1, dtype=np.intc)
    cdef unsigned char[::1] near = near_array
    cdef int[::1] start = start_array
    if reach2 > 0.0:
        with nogil:
            for a in range(m):
                nb = neighbours_of(&pairs, a)
                for n in range(nb.n):
                    if separation(all[a], all[nb.index[n]], nb, n, d) < reach2:
                        near[pairs.first[a] + n] = 1
                        start[a + 1] += 1
                        start[nb.index[n] + 1] += 1
    np.cumsum(start_array, out=start_array)
    both_index = np.empty(start_array[m], dtype=np.intc)
    both_shift = np.empty(start_array[m], dtype=np.intc)
    cdef int[::1] other = both_index, shift = both_shift
    cdef int[::1] next_place = start_array[:m].copy()
    if reach2 > 0.0:
        with nogil:
            for a in range(m):
                for n in range(pairs.first[a], pairs.first[a + 1]):
                    if not near[n]:
                        continue
                    b = pairs.index[n]
                    place = next_place[a]
                    next_place[a] += 1
                    other[place] = b
                    shift[place] = pairs.shift_id[n]
                    place = next_place[b]
                    next_place[b] += 1
                    other[place] = a
                    shift[place] = pairs.shift_id[n] + n_shifts
    return start_array, both_index, both_shift, np.concatenate([shifts, np.negative(shifts)])


cdef gather(Interaction interaction, const double[:, ::1] placed, Pairs* pairs, int n_threads):
    """Moments, not yet added up over threads: (threads, m, 132)."""
    cdef int m = <int> placed.shape[0], a
    rows_array = np.zeros((n_threads, m, N_MOMENTS))
    cdef double[:, :, ::1] rows = rows_array
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    with nogil:
        for a in prange(m, schedule="static", num_threads=n_threads):
            gather_moments(interaction.c, all, a, neighbours_of(pairs, a), &rows[threadid(), 0, 0])
    return rows_array


def fingerprints(Interaction interaction, const double[:, ::1] placed, first, index, shift_id,
                 const double[:, ::1] shifts, int n_threads):
    """Fingerprints (m, k) of the surroundings of every molecule and their moments (m, 132)."""
    cdef Pairs pairs = view_pairs(first, index, shift_id, shifts)
    full = surroundings(interaction, placed, first, index, shift_id, shifts)
    cdef Pairs around = view_pairs(full[0], full[1], full[2], full[3])
    cdef OverlapSpace space
    cdef double[::1] forms = np.zeros(N_FORMS)
    moments = gather(interaction, placed, &pairs, n_threads).sum(axis=0)
    cdef double[:, ::1] rows = moments
    out = np.empty((placed.shape[0], N_FINGERPRINTS))
    cdef double[:, ::1] v = out
    cdef Py_ssize_t m
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    for m in range(placed.shape[0]):
        if interaction.c.overlap.reach > 0.0:
            find_cluster(interaction.c, all, <int> m, neighbours_of(&around, <int> m),
                         space)
            overlap_forms(interaction.c.overlap, space, &forms[0])
        environment_fingerprints(all[m], &rows[m, 0], &forms[0], &v[m, 0])
    return out, moments


def regress(Machine machine, const double[:, ::1] v, const double[::1] bond_length,
            int n_threads):
    """Energies (c), gradients de/dv (c, fingerprints) and de/dr (c) of every centre."""
    cdef int n = <int> v.shape[0], i
    if v.shape[1] != machine.c.n_fingerprints:
        raise ValueError("fingerprints do not match the regressor")
    energy_array, slope_array = np.empty(n), np.empty(n)
    gradient_array = np.empty((n, v.shape[1]))
    cdef double[::1] energy = energy_array, slope = slope_array
    cdef double[:, ::1] gradient = gradient_array
    with nogil:
        for i in prange(n, schedule="static", num_threads=n_threads):
            energy[i] = regressor_energy(machine.c, &v[i, 0], bond_length[i], &gradient[i, 0],
                                         &slope[i])
    return energy_array, gradient_array, slope_array


def evaluate(Interaction interaction, Machine machine, BondCurve curve,
             const double[:, ::1] placed, const int[:, ::1] molecules, first, index, shift_id,
             const double[:, ::1] shifts, int n_threads, double e0):
    """One evaluation.

    Parameters
    ----------
    interaction : Interaction
    machine : Machine or None
        The environment level's; without it there is none.
    curve : BondCurve or None
    placed : (m, 10), see `place`
    molecules : (m, 2) atom indices
    first, index, shift_id, shifts : half list of pairs of molecules
    n_threads : int
    e0 : float, eV/atom

    Returns
    -------
    energies (2 m), forces (2 m, 3), virials (2 m, 6) of the atoms; sums of the energies of the bond,
    pair, orientation and environment levels; and the shortest contact: its distance (inf without
    any), the place of the pair in the list, its first molecule and which atoms.
    """
    cdef int m = <int> placed.shape[0], a, t, x, i, j
    cdef Pairs pairs = view_pairs(first, index, shift_id, shifts)
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    cdef double[:, :, ::1] rows
    cdef double* row
    cdef double* term
    cdef const double* other
    cdef const double* gradients = NULL
    cdef bint environment = machine is not None, bond = curve is not None
    cdef Value value
    terms_array = np.zeros((n_threads, m, TERMS_SIZE))
    level_array = np.zeros((m, 4))
    cdef double[:, :, ::1] terms = terms_array
    cdef double[:, ::1] level = level_array
    energy_array, force_array = np.empty(2 * m), np.zeros((2 * m, 3))
    virial_array = np.zeros((2 * m, 6))
    cdef double[::1] energy = energy_array
    cdef double[:, ::1] force = force_array, virial = virial_array
    cdef Contact[64] nearest
    cdef Pairs around
    cdef vector[OverlapSpace] spaces
    if n_threads > 64:
        raise ValueError("at most 64 threads")
    for t in range(n_threads):
        nearest[t].r2 = np.inf
        nearest[t].molecule = nearest[t].neighbour = nearest[t].atoms = 0
    if environment:
        rows_array = gather(interaction, placed, &pairs, n_threads)
        rows = rows_array
        full = surroundings(interaction, placed, first, index, shift_id, shifts)
        around = view_pairs(full[0], full[1], full[2], full[3])
        spaces.resize(n_threads)
        with nogil:
            for a in prange(m, schedule="static", num_threads=n_threads):
                row = &rows[0, a, 0]
                for t in range(1, n_threads):
                    other = &rows[t, a, 0]
                    for x in range(N_MOMENTS):
                        row[x] += other[x]
                t = threadid()
                level[a, 3] = surroundings_energy(
                    interaction.c, machine.c, all, a, neighbours_of(&around, a), row, spaces[t],
                    <MoleculeTerms*> &terms[t, 0, 0])
        gradients = &rows[0, 0, 0]
    with nogil:
        for a in prange(m, schedule="static", num_threads=n_threads):
            t = threadid()
            add_pairs(interaction.c, all, a, neighbours_of(&pairs, a), gradients,
                      <MoleculeTerms*> &terms[t, 0, 0], &nearest[t])
        for a in prange(m, schedule="static", num_threads=n_threads):
            term = &terms[0, a, 0]
            for t in range(1, n_threads):
                other = &terms[t, a, 0]
                for x in range(TERMS_SIZE):
                    term[x] += other[x]
            if bond:
                value = bond_energy(curve.c, all[a].length)
                level[a, 0] = value.f
                for x in range(3):
                    term[3 + x] += value.df * all[a].u[x]
            level[a, 1] = term[12]
            level[a, 2] = term[13]
            i = molecules[a, 0]
            j = molecules[a, 1]
            energy[i] = 0.5 * (level[a, 0] + level[a, 1] + level[a, 2] + level[a, 3]) + e0
            energy[j] = energy[i]
            share_molecule(all[a], (<MoleculeTerms*> term)[0], &force[i, 0], &force[j, 0],
                           &virial[i, 0], &virial[j, 0])
    for t in range(1, n_threads):
        if nearest[t].r2 < nearest[0].r2:
            nearest[0] = nearest[t]
    found = (sqrt(nearest[0].r2), pairs.first[nearest[0].molecule] + nearest[0].neighbour,
             nearest[0].molecule, nearest[0].atoms)
    return energy_array, force_array, virial_array, level_array.sum(axis=0), found
