"""Neighbour vectors of one centre, from a list that may hold more than the cutoff needs."""

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc


cdef List view_list(const int[::1] first, const int[::1] index, const int[::1] shift_id,
                    const double[:, ::1] shifts) noexcept:
    """Pointers into the arrays of an `ase_hmlp.neighbors.NeighbourList`; they must outlive it."""
    cdef List out
    cdef Py_ssize_t i
    out.first = &first[0]
    # A list without any neighbour has no first element to point to.
    out.index = &index[0] if index.shape[0] else NULL
    out.shift_id = &shift_id[0] if shift_id.shape[0] else NULL
    out.shifts = &shifts[0, 0]
    out.n = <int> first.shape[0] - 1
    out.longest = 0
    for i in range(out.n):
        out.longest = max(out.longest, first[i + 1] - first[i])
    return out


cdef Scratch allocate(int longest) noexcept nogil:
    cdef Scratch s
    s.d = <double*> malloc((3 * longest + 1) * sizeof(double))
    s.r = <double*> malloc((longest + 1) * sizeof(double))
    s.j = <int*> malloc((longest + 1) * sizeof(int))
    return s


cdef void release(Scratch s) noexcept nogil:
    free(s.d)
    free(s.r)
    free(s.j)


cdef int gather(const double* points, List* neighbours, int i, double cutoff,
                Scratch s) noexcept nogil:
    """Fill d (n, 3), r (n) and j (n) with the neighbours inside the cutoff; return n."""
    cdef int n = 0, k
    cdef const double* shift
    cdef const double* a = points + 3 * <Py_ssize_t> i
    cdef const double* b
    cdef double x, y, z, r2, cutoff2 = cutoff * cutoff
    for k in range(neighbours.first[i], neighbours.first[i + 1]):
        b = points + 3 * <Py_ssize_t> neighbours.index[k]
        shift = neighbours.shifts + 3 * <Py_ssize_t> neighbours.shift_id[k]
        x = b[0] + shift[0] - a[0]
        y = b[1] + shift[1] - a[1]
        z = b[2] + shift[2] - a[2]
        r2 = x * x + y * y + z * z
        if r2 < cutoff2:
            s.d[3 * n] = x
            s.d[3 * n + 1] = y
            s.d[3 * n + 2] = z
            s.r[n] = sqrt(r2)
            s.j[n] = neighbours.index[k]
            n += 1
    return n
