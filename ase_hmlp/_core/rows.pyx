"""Derivatives of fingerprints, for the rows of the training design matrix."""

import numpy as np

from ase_hmlp._core.kernel cimport (
    N_FINGERPRINTS,
    N_FORMS,
    N_MOMENTS,
    OVERLAP,
    Molecule,
    Neighbours,
    OverlapSpace,
    PairTerms,
    add_axis_slope,
    add_virial,
    find_cluster,
    fingerprint_gradient,
    fingerprint_pair,
    form_gradient,
    overlap_forms,
    separation,
)
from ase_hmlp._core.evaluate import surroundings
from ase_hmlp._core.levels cimport Interaction


def fingerprint_jacobian(Interaction interaction, const double[:, ::1] placed,
                         const int[:, ::1] molecules, const double[:, ::1] moments,
                         const int[::1] first, const int[::1] index, const int[::1] shift_id,
                         const double[:, ::1] shifts):
    """d(fingerprint)/d(positions and strain) of the environment level: (m, k, 6 m + 6)."""
    cdef int m = <int> placed.shape[0], n = 2 * m, a, b, k, p, x, side
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    jacobian_array = np.zeros((m, N_FINGERPRINTS, 3 * n + 6))
    cdef double[:, :, ::1] jac = jacobian_array
    gradient_array = np.zeros((m, N_FINGERPRINTS, N_MOMENTS))
    cdef double[:, :, ::1] gradient = gradient_array
    cdef double[::1] nothing = np.zeros(N_MOMENTS)
    cdef double by_bond[3]
    cdef double de_du[3]
    cdef double d[3]
    cdef double bond_a[3]
    cdef double bond_b[3]
    cdef Neighbours nb
    cdef PairTerms t
    cdef double* row
    nb.n = 1
    nb.shifts = &shifts[0, 0]
    with nogil:
        for a in range(m):
            for x in range(3):
                bond_a[x] = all[a].length * all[a].u[x]
            for k in range(N_FINGERPRINTS):
                if OVERLAP <= k < OVERLAP + N_FORMS:
                    continue
                fingerprint_gradient(all[a], &moments[a, 0], k, &gradient[a, k, 0], de_du)
                for x in range(3):
                    by_bond[x] = 0.0
                add_axis_slope(all[a], de_du, by_bond)
                row = &jac[a, k, 0]
                for x in range(3):
                    row[3 * molecules[a, 0] + x] -= by_bond[x]
                    row[3 * molecules[a, 1] + x] += by_bond[x]
                add_virial(1.0, bond_a, by_bond, row + 3 * n)
        for a in range(m):
            for x in range(3):
                bond_a[x] = all[a].length * all[a].u[x]
            for p in range(first[a], first[a + 1]):
                b = index[p]
                nb.index = &index[p]
                nb.shift_id = &shift_id[p]
                if separation(all[a], all[b], nb, 0, d) >= interaction.c.environment ** 2:
                    continue
                for x in range(3):
                    bond_b[x] = all[b].length * all[b].u[x]
                for side in range(2):
                    for k in range(N_FINGERPRINTS):
                        if OVERLAP <= k < OVERLAP + N_FORMS:
                            continue
                        if side == 0:
                            fingerprint_pair(interaction.c, all[a], all[b], d, &gradient[a, k, 0],
                                             &nothing[0], &t)
                            row = &jac[a, k, 0]
                        else:
                            fingerprint_pair(interaction.c, all[a], all[b], d, &nothing[0],
                                             &gradient[b, k, 0], &t)
                            row = &jac[b, k, 0]
                        for x in range(3):
                            row[3 * molecules[a, 0] + x] -= 0.5 * t.by_d[x] + t.by_a[x]
                            row[3 * molecules[a, 1] + x] -= 0.5 * t.by_d[x] - t.by_a[x]
                            row[3 * molecules[b, 0] + x] += 0.5 * t.by_d[x] - t.by_b[x]
                            row[3 * molecules[b, 1] + x] += 0.5 * t.by_d[x] + t.by_b[x]
                        add_virial(1.0, d, t.by_d, row + 3 * n)
                        add_virial(1.0, bond_a, t.by_a, row + 3 * n)
                        add_virial(1.0, bond_b, t.by_b, row + 3 * n)
    if interaction.c.overlap.reach > 0.0:
        add_forms(interaction, placed, molecules,
                  surroundings(interaction, placed, first, index, shift_id, shifts),
                  jacobian_array)
    return jacobian_array


cdef add_forms(Interaction interaction, const double[:, ::1] placed, const int[:, ::1] molecules,
               full, double[:, :, ::1] jac):
    """The rows of the forms."""
    cdef int[::1] first = full[0], index = full[1], shift_id = full[2]
    cdef double[:, ::1] shifts = full[3]
    cdef int m = <int> placed.shape[0], n = 2 * m, a, b, k, p, x
    cdef const Molecule* all = <const Molecule*> &placed[0, 0]
    cdef double[::1] g = np.zeros(N_FORMS)
    cdef double bond[3]
    cdef Neighbours nb
    cdef OverlapSpace space
    cdef const double* by_centre
    cdef const double* by_bond
    cdef double* row
    nb.shifts = &shifts[0, 0]
    for a in range(m):
        nb.n = first[a + 1] - first[a]
        nb.index = &index[first[a]] if nb.n else NULL
        nb.shift_id = &shift_id[first[a]] if nb.n else NULL
        find_cluster(interaction.c, all, a, nb, space)
        overlap_forms(interaction.c.overlap, space, &g[0])
        for k in range(N_FORMS):
            g[:] = 0.0
            g[k] = 1.0
            form_gradient(interaction.c.overlap, space, &g[0])
            row = &jac[a, OVERLAP + k, 0]
            for p in range(space.n):
                b = space.who[p]
                by_centre = space.by_centre + 3 * p
                by_bond = space.by_bond + 3 * p
                for x in range(3):
                    bond[x] = all[b].length * all[b].u[x]
                    row[3 * molecules[b, 0] + x] -= by_bond[x]
                    row[3 * molecules[b, 1] + x] += by_bond[x]
                add_virial(1.0, bond, by_bond, row + 3 * n)
                if p == 0:
                    continue
                for x in range(3):
                    row[3 * molecules[b, 0] + x] += 0.5 * by_centre[x]
                    row[3 * molecules[b, 1] + x] += 0.5 * by_centre[x]
                    row[3 * molecules[a, 0] + x] -= 0.5 * by_centre[x]
                    row[3 * molecules[a, 1] + x] -= 0.5 * by_centre[x]
                add_virial(1.0, &space.members[p].centre[0], by_centre, row + 3 * n)
