"""Energies, forces and virials of the three levels: the loops over centres.

Every centre gathers from its own full neighbour list and writes only its own row, so that
results do not depend on the number of threads.
"""

import numpy as np

from cython.parallel cimport parallel, prange

from ase_hmlp._core.geometry cimport List, Scratch, allocate, gather, release, view_list
from ase_hmlp._core.kernel cimport (
    MAX_ANGULAR,
    Axis,
    Neighbours,
    Value,
    bond_energy,
    orientation_fingerprints,
    orientation_forces,
    radial_fingerprints,
    radial_forces,
    regressor_energy,
    share_molecule,
)
from ase_hmlp._core.levels cimport BondCurve, Machine, Table


cdef Neighbours neighbours_of(const double* points, List* pairs, int i, double cutoff,
                              Scratch s) noexcept nogil:
    cdef Neighbours nb
    nb.n = gather(points, pairs, i, cutoff, s)
    nb.d = s.d
    nb.r = s.r
    nb.j = s.j
    return nb


def axes_of(const double[:, ::1] bonds):
    """Axis structs (unit vector and length, four doubles a molecule) from bond vectors (m, 3)."""
    lengths = np.linalg.norm(bonds, axis=1)
    return np.ascontiguousarray(np.column_stack([np.asarray(bonds) / lengths[:, None], lengths]))


def bond_terms(BondCurve curve, const double[:, ::1] axes):
    """Bond energies (m), slopes dU/dr (m) from axes (m, 4)."""
    energy_array, slope_array = np.empty(axes.shape[0]), np.empty(axes.shape[0])
    cdef double[::1] energy = energy_array, slope = slope_array
    cdef Py_ssize_t m
    cdef Value value
    for m in range(axes.shape[0]):
        value = bond_energy(curve.c, axes[m, 3])
        energy[m] = value.f
        slope[m] = value.df
    return energy_array, slope_array


def pair_fingerprints(Table table, const double[:, ::1] positions, first, index, shift_id,
                      const double[:, ::1] shifts, int n_threads):
    """Radial fingerprints of every atom (n, channels) and its shortest contact (n), in Å."""
    cdef int n = <int> positions.shape[0], i, k
    fingerprint_array = np.zeros((n, table.c.channels))
    contact_array = np.full(n, np.inf)
    cdef double[:, ::1] v = fingerprint_array
    cdef double[::1] contact = contact_array
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef Neighbours nb
    cdef Scratch scratch
    with nogil, parallel(num_threads=n_threads):
        scratch = allocate(pairs.longest)
        for i in prange(n, schedule="static"):
            nb = neighbours_of(&positions[0, 0], &pairs, i, table.c.cutoff, scratch)
            radial_fingerprints(table.c, nb, &v[i, 0])
            for k in range(nb.n):
                if nb.r[k] < contact[i]:
                    contact[i] = nb.r[k]
        release(scratch)
    return fingerprint_array, contact_array


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


def pair_forces(Table table, const double[:, ::1] positions, first, index, shift_id,
                const double[:, ::1] shifts, const double[:, ::1] gradient, int n_threads,
                double[:, ::1] forces, double[:, ::1] virials):
    """Add the pair level's forces (n, 3) and per-atom virials (n, 6)."""
    cdef int n = <int> positions.shape[0], i
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef Neighbours nb
    cdef Scratch scratch
    with nogil, parallel(num_threads=n_threads):
        scratch = allocate(pairs.longest)
        for i in prange(n, schedule="static"):
            nb = neighbours_of(&positions[0, 0], &pairs, i, table.c.cutoff, scratch)
            radial_forces(table.c, nb, &gradient[0, 0], i, &forces[i, 0], &virials[i, 0])
        release(scratch)


def molecule_fingerprints(Table table, const double[:, ::1] centres, const double[:, ::1] axes,
                          first, index, shift_id, const double[:, ::1] shifts, int n_threads):
    """Orientation fingerprints of every molecule (m, 8 channels)."""
    cdef int n = <int> centres.shape[0], i
    fingerprint_array = np.zeros((n, MAX_ANGULAR * table.c.channels))
    cdef double[:, ::1] w = fingerprint_array
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef const Axis* axis = <const Axis*> &axes[0, 0]
    cdef Neighbours nb
    cdef Scratch scratch
    with nogil, parallel(num_threads=n_threads):
        scratch = allocate(pairs.longest)
        for i in prange(n, schedule="static"):
            nb = neighbours_of(&centres[0, 0], &pairs, i, table.c.cutoff, scratch)
            orientation_fingerprints(table.c, nb, axis[i], axis, &w[i, 0])
        release(scratch)
    return fingerprint_array


def molecule_forces(Table table, const double[:, ::1] centres, const double[:, ::1] axes, first,
                    index, shift_id, const double[:, ::1] shifts,
                    const double[:, ::1] gradient, int n_threads):
    """Forces on centres (m, 3), de/d(bond vector) (m, 3) and virials without the bond's (m, 6)."""
    cdef int n = <int> centres.shape[0], i
    force_array, bond_array = np.zeros((n, 3)), np.zeros((n, 3))
    virial_array = np.zeros((n, 6))
    cdef double[:, ::1] force = force_array, bond = bond_array, virial = virial_array
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef const Axis* axis = <const Axis*> &axes[0, 0]
    cdef Neighbours nb
    cdef Scratch scratch
    with nogil, parallel(num_threads=n_threads):
        scratch = allocate(pairs.longest)
        for i in prange(n, schedule="static"):
            nb = neighbours_of(&centres[0, 0], &pairs, i, table.c.cutoff, scratch)
            orientation_forces(table.c, nb, i, axis, &gradient[0, 0], &force[i, 0], &bond[i, 0],
                               &virial[i, 0])
        release(scratch)
    return force_array, bond_array, virial_array


def molecules_to_atoms(const int[:, ::1] molecules, const double[:, ::1] bonds,
                       const double[:, ::1] centre_force, const double[:, ::1] de_dbond,
                       const double[:, ::1] molecule_virial, double[:, ::1] forces,
                       double[:, ::1] virials):
    """Share forces on centres and bonds, and virials (m, 6), out to the two atoms of each."""
    cdef Py_ssize_t m
    cdef int a, b
    for m in range(molecules.shape[0]):
        a = molecules[m, 0]
        b = molecules[m, 1]
        share_molecule(&bonds[m, 0], &centre_force[m, 0], &de_dbond[m, 0], &molecule_virial[m, 0],
                       &forces[a, 0], &forces[b, 0], &virials[a, 0], &virials[b, 0])
