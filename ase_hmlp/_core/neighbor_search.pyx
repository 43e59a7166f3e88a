"""Linked-cell neighbour search for any cell: triclinic, mixed periodicity, smaller than the cutoff.

Works on fractional coordinates of a non-singular cell; directions without periodicity are
binned over the extent of the points.  Returns lists in compressed rows.
"""

import numpy as np

from libc.math cimport ceil, floor
from libc.stdlib cimport free, malloc, realloc


cdef struct Growing:
    int* j
    int* shift  # three integers per neighbour
    Py_ssize_t n
    Py_ssize_t capacity


cdef int push(Growing* g, int j, int sx, int sy, int sz) noexcept nogil:
    cdef void* p
    if g.n == g.capacity:
        p = realloc(g.j, 2 * g.capacity * sizeof(int))
        if p == NULL:
            return -1
        g.j = <int*> p
        p = realloc(g.shift, 6 * g.capacity * sizeof(int))
        if p == NULL:
            return -1
        g.shift = <int*> p
        g.capacity = 2 * g.capacity  # only now: after a failure nothing is written
    g.j[g.n] = j
    g.shift[3 * g.n] = sx
    g.shift[3 * g.n + 1] = sy
    g.shift[3 * g.n + 2] = sz
    g.n += 1
    return 0


def search(const double[:, ::1] points, const double[:, ::1] cell, const double[:, ::1] inverse,
           const double[::1] heights, pbc, double cutoff, bint half=False):
    """All ordered pairs of points and periodic images closer than `cutoff`.

    Parameters
    ----------
    points : (n, 3) Cartesian positions in Å, anywhere.
    cell, inverse : (3, 3) non-singular cell (rows are vectors, Å) and its inverse.
    heights : (3,) distances between opposite cell faces, Å.
    pbc : three booleans.
    cutoff : Å.
    half : bool
        One of each pair and its reverse: the one from the lower index if both indices are even or
        both odd, else the one from the higher, so that all points have about equally many; of
        images of the point itself those with a shift whose first component that is not zero is
        positive.

    Returns
    -------
    first : (n + 1,) intc; neighbours of i are entries first[i] to first[i + 1].
    index : (p,) intc; the neighbour.
    shift : (p, 3) intc; r_ij = points[j] + shift @ cell - points[i].
    """
    cdef Py_ssize_t n = points.shape[0]
    fractional = np.asarray(points) @ np.asarray(inverse)
    wrap_array = np.zeros((n, 3), dtype=np.intc)
    bins = np.ones(3, dtype=np.intc)
    reach = np.ones(3, dtype=np.intc)
    bin_of = np.zeros((n, 3), dtype=np.intc)
    periodic = np.asarray(pbc, dtype=np.intc)
    # More bins than points only cost memory.
    limit = max(1, 4 * int(np.ceil(float(n) ** (1.0 / 3.0))))
    for c in range(3):
        s = fractional[:, c]
        if periodic[c]:
            wraps = np.floor(s)
            wrap_array[:, c] = wraps
            s = s - wraps
            extent, start = 1.0, 0.0
        else:
            start = s.min() if n else 0.0
            extent = max((s.max() - start) if n else 0.0, 1e-9)
        length = extent * heights[c]
        bins[c] = min(max(1, int(floor(length / cutoff))), limit)
        reach[c] = max(1, int(ceil(cutoff * bins[c] / length))) if periodic[c] else 1
        bin_of[:, c] = np.clip(((s - start) / extent * bins[c]).astype(np.intc), 0, bins[c] - 1)
    wrapped_array = np.ascontiguousarray(np.asarray(points) - wrap_array @ np.asarray(cell))
    flat = (bin_of[:, 0] * bins[1] + bin_of[:, 1]) * bins[2] + bin_of[:, 2]
    order_array = np.argsort(flat, kind="stable").astype(np.intc)
    start_array = np.searchsorted(
        flat[order_array], np.arange(int(bins[0]) * int(bins[1]) * int(bins[2]) + 1)
    ).astype(np.intc)
    first_array = np.zeros(n + 1, dtype=np.intc)

    cdef const double[:, ::1] wrapped = wrapped_array
    cdef const int[:, ::1] wrap = wrap_array, bin_index = bin_of
    cdef const int[::1] order = order_array, starts = start_array, m = reach, nb = bins
    cdef const int[::1] p = periodic
    cdef int[::1] first = first_array
    cdef Growing found
    cdef Py_ssize_t i, j, k, b
    cdef int failed = 0, ax, ay, az, bx, by, bz, sx, sy, sz
    cdef double dx, dy, dz, tx, ty, tz, cutoff2 = cutoff * cutoff
    found.n = 0
    found.capacity = max(64, (32 if half else 64) * n)
    found.j = <int*> malloc(found.capacity * sizeof(int))
    found.shift = <int*> malloc(3 * found.capacity * sizeof(int))
    if found.j == NULL or found.shift == NULL:
        failed = 1
    with nogil:
        for i in range(n):
            if failed:
                break
            for ax in range(bin_index[i, 0] - m[0], bin_index[i, 0] + m[0] + 1):
                sx = <int> floor(<double> ax / nb[0])
                if sx != 0 and not p[0]:
                    continue
                bx = ax - sx * nb[0]
                for ay in range(bin_index[i, 1] - m[1], bin_index[i, 1] + m[1] + 1):
                    sy = <int> floor(<double> ay / nb[1])
                    if sy != 0 and not p[1]:
                        continue
                    by = ay - sy * nb[1]
                    for az in range(bin_index[i, 2] - m[2], bin_index[i, 2] + m[2] + 1):
                        sz = <int> floor(<double> az / nb[2])
                        if sz != 0 and not p[2]:
                            continue
                        bz = az - sz * nb[2]
                        tx = sx * cell[0, 0] + sy * cell[1, 0] + sz * cell[2, 0] - wrapped[i, 0]
                        ty = sx * cell[0, 1] + sy * cell[1, 1] + sz * cell[2, 1] - wrapped[i, 1]
                        tz = sx * cell[0, 2] + sy * cell[1, 2] + sz * cell[2, 2] - wrapped[i, 2]
                        b = (<Py_ssize_t> bx * nb[1] + by) * nb[2] + bz
                        for k in range(starts[b], starts[b + 1]):
                            j = order[k]
                            if half and j != i and ((i + j) & 1) == (j > i):
                                continue
                            if i == j:
                                if sx == 0 and sy == 0 and sz == 0:
                                    continue
                                if half and (sx < 0 or (sx == 0 and (sy < 0 or (sy == 0
                                                                                and sz < 0)))):
                                    continue
                            dx = wrapped[j, 0] + tx
                            dy = wrapped[j, 1] + ty
                            dz = wrapped[j, 2] + tz
                            if dx * dx + dy * dy + dz * dz < cutoff2:
                                if push(&found, <int> j, sx + wrap[i, 0] - wrap[j, 0],
                                        sy + wrap[i, 1] - wrap[j, 1],
                                        sz + wrap[i, 2] - wrap[j, 2]) != 0:
                                    failed = 1
            first[i + 1] = <int> found.n
    try:
        if failed:
            raise MemoryError("the neighbour list does not fit in memory")
        index = np.empty(found.n, dtype=np.intc)
        shift = np.empty((found.n, 3), dtype=np.intc)
        if found.n:
            index[:] = <int[:found.n]> found.j
            shift.reshape(-1)[:] = <int[:3 * found.n]> found.shift
    finally:
        free(found.j)
        free(found.shift)
    return first_array, index, shift
