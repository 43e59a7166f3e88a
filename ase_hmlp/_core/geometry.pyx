"""Neighbour vectors of one centre, from a list that may hold more than the cutoff needs."""

from libc.math cimport sqrt


cdef int gather(const double* points, const int* first, const int* index, const int* shift_id,
                const double* shifts, int i, double cutoff, double* d, double* r,
                int* j) noexcept nogil:
    """Fill d (n, 3), r (n) and j (n) with the neighbours inside the cutoff; return n."""
    cdef int n = 0, k
    cdef const double* s
    cdef const double* a = points + 3 * <Py_ssize_t> i
    cdef const double* b
    cdef double x, y, z, r2, cutoff2 = cutoff * cutoff
    for k in range(first[i], first[i + 1]):
        b = points + 3 * <Py_ssize_t> index[k]
        s = shifts + 3 * <Py_ssize_t> shift_id[k]
        x = b[0] + s[0] - a[0]
        y = b[1] + s[1] - a[1]
        z = b[2] + s[2] - a[2]
        r2 = x * x + y * y + z * z
        if r2 < cutoff2:
            d[3 * n] = x
            d[3 * n + 1] = y
            d[3 * n + 2] = z
            r[n] = sqrt(r2)
            j[n] = index[k]
            n += 1
    return n
