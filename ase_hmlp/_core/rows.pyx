"""Rows of the training design matrix: fingerprints and their derivatives, kernel columns."""

import numpy as np

from ase_hmlp._core.geometry cimport List, Scratch, allocate, gather, release, view_list
from ase_hmlp._core.kernel cimport (
    MAX_ANGULAR,
    MAX_RADIAL,
    Axis,
    Separation,
    add_virial,
    angular_slopes,
    angular_values,
    chain_to_vectors,
    regressor_columns,
    separation,
    store_channels,
    table_slope,
    table_value,
)
from ase_hmlp._core.levels cimport Machine, Table


def kernel_columns(Machine machine, const double[:, ::1] v, const double[::1] bond_length):
    """Compressed fingerprints y (c, q), k(y, y_s) and k(y, 0) k(0, y_s), (c, s) each."""
    cdef Py_ssize_t n = v.shape[0], i
    if v.shape[1] != machine.c.n_fingerprints:
        raise ValueError("fingerprints do not match the regressor")
    # The kernel writes whole blocks of representatives.
    y_array = np.zeros((n, max(machine.c.n_components, 1)))
    near_array = np.zeros((n, max(machine.c.n_representatives, 1)))
    isolated_array = np.zeros_like(near_array)
    cdef double[:, ::1] y = y_array, near = near_array, isolated = isolated_array
    with nogil:
        for i in range(n):
            regressor_columns(machine.c, &v[i, 0], bond_length[i], &y[i, 0], &near[i, 0],
                              &isolated[i, 0])
    s = machine.n_representatives
    return y_array[:, :machine.c.n_components], near_array[:, :s], isolated_array[:, :s]


def radial_jacobian(Table table, const double[:, ::1] positions, const int[::1] first,
                    const int[::1] index, const int[::1] shift_id,
                    const double[:, ::1] shifts):
    """d(radial fingerprint)/d(positions and strain): array (n, channels, 3 n + 6)."""
    cdef int n = <int> positions.shape[0], i, k, x, c, channels = table.c.channels, found
    jacobian_array = np.zeros((n, channels, 3 * n + 6))
    cdef double[:, :, ::1] jac = jacobian_array
    cdef double slope[64]
    cdef double w[6]
    cdef double unit[3]
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef Scratch found_at = allocate(pairs.longest)
    cdef double* d = found_at.d
    cdef double* r = found_at.r
    cdef int* j = found_at.j
    with nogil:
        for i in range(n):
            found = gather(&positions[0, 0], &pairs, i, table.c.cutoff, found_at)
            for k in range(found):
                store_channels(table_slope(table.c, r[k]), channels, slope)
                for x in range(6):
                    w[x] = 0.0
                for x in range(3):
                    unit[x] = d[3 * k + x] / r[k]
                add_virial(1.0, d + 3 * k, unit, w)
                for c in range(channels):
                    for x in range(3):
                        jac[i, c, 3 * j[k] + x] += slope[c] * unit[x]
                        jac[i, c, 3 * i + x] -= slope[c] * unit[x]
                    for x in range(6):
                        jac[i, c, 3 * n + x] += slope[c] * w[x]
    release(found_at)
    return jacobian_array


def orientation_jacobian(Table table, const double[:, ::1] centres, const double[:, ::1] axes,
                         const int[:, ::1] molecules, const int[::1] first,
                         const int[::1] index, const int[::1] shift_id,
                         const double[:, ::1] shifts):
    """d(orientation fingerprint)/d(positions and strain): array (m, 8 channels, 3 n + 6)."""
    cdef int m = <int> centres.shape[0], i, k, x, c, l, b, channels = table.c.channels, column
    cdef int n = 2 * m, found
    jacobian_array = np.zeros((m, MAX_ANGULAR * channels, 3 * n + 6))
    cdef double[:, :, ::1] jac = jacobian_array
    cdef double value[64]
    cdef double slope[64]
    cdef double s[8]
    cdef double s_ca[8]
    cdef double s_cb[8]
    cdef double s_c[8]
    cdef double de_dd[3]
    cdef double de_dba[3]
    cdef double de_dbb[3]
    cdef double bond_a[3]
    cdef double bond_b[3]
    cdef double w[6]
    cdef const Axis* axis = <const Axis*> &axes[0, 0]
    cdef Separation p
    cdef List pairs = view_list(first, index, shift_id, shifts)
    cdef Scratch found_at = allocate(pairs.longest)
    cdef double* d = found_at.d
    cdef double* r = found_at.r
    cdef int* j = found_at.j
    with nogil:
        for i in range(m):
            found = gather(&centres[0, 0], &pairs, i, table.c.cutoff, found_at)
            for k in range(found):
                b = j[k]
                p = separation(d + 3 * k, axis[i], axis[b])
                store_channels(table_value(table.c, r[k]), channels, value)
                store_channels(table_slope(table.c, r[k]), channels, slope)
                angular_values(p.ca, p.cb, p.c, s)
                angular_slopes(p.ca, p.cb, p.c, s_ca, s_cb, s_c)
                for x in range(3):
                    bond_a[x] = axis[i].u[x] * axis[i].length
                    bond_b[x] = axis[b].u[x] * axis[b].length
                for l in range(8):
                    for c in range(channels):
                        chain_to_vectors(p, axis[i], axis[b], slope[c] * s[l],
                                         value[c] * s_ca[l], value[c] * s_cb[l],
                                         value[c] * s_c[l], de_dd, de_dba, de_dbb)
                        column = l * channels + c
                        for x in range(3):
                            jac[i, column, 3 * molecules[b, 0] + x] += 0.5 * de_dd[x] - de_dbb[x]
                            jac[i, column, 3 * molecules[b, 1] + x] += 0.5 * de_dd[x] + de_dbb[x]
                            jac[i, column, 3 * molecules[i, 0] + x] -= 0.5 * de_dd[x] + de_dba[x]
                            jac[i, column, 3 * molecules[i, 1] + x] -= 0.5 * de_dd[x] - de_dba[x]
                        for x in range(6):
                            w[x] = 0.0
                        add_virial(1.0, d + 3 * k, de_dd, w)
                        add_virial(1.0, bond_a, de_dba, w)
                        add_virial(1.0, bond_b, de_dbb, w)
                        for x in range(6):
                            jac[i, column, 3 * n + x] += w[x]
    release(found_at)
    return jacobian_array
