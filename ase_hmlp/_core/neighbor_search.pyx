"""Linked-cell neighbour search for any cell: triclinic, mixed periodicity, smaller than the cutoff.

Works on fractional coordinates of a non-singular cell; directions without periodicity are
binned over the extent of the points.  Returns lists in compressed rows.
"""

import numpy as np

from cython.parallel cimport prange
from libc.math cimport ceil, floor
from libc.stdlib cimport free, malloc, realloc


cdef struct Growing:
    int* j
    int* shift  # three integers per neighbour
    Py_ssize_t n
    Py_ssize_t capacity


# Points in bins, as every thread reads them; `first` it writes, each its own part.
cdef struct Room:
    const double* wrapped
    const double* cell
    const int* wrap
    const int* bin_index
    const int* order
    const int* starts
    int* first
    int[3] m
    int[3] nb
    int[3] periodic
    double cutoff2
    bint half


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
           const double[::1] heights, pbc, double cutoff, bint half=False,
           int n_threads=1):
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
    n_threads : int

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
    cdef Py_ssize_t i, t
    cdef int failed = 0
    cdef Room room
    cdef Growing* found = <Growing*> malloc(n_threads * sizeof(Growing))
    cdef Py_ssize_t[::1] bounds = np.linspace(0, n, n_threads + 1).astype(np.intp)
    if found == NULL:
        raise MemoryError("the neighbour list does not fit in memory")
    if n:
        room.wrapped, room.cell = &wrapped[0, 0], &cell[0, 0]
        room.wrap, room.bin_index = &wrap[0, 0], &bin_index[0, 0]
        room.order, room.starts, room.first = &order[0], &starts[0], &first[0]
    for t in range(3):
        room.m[t], room.nb[t], room.periodic[t] = m[t], nb[t], p[t]
    room.cutoff2 = cutoff * cutoff
    room.half = half
    for t in range(n_threads):
        found[t].n = 0
        found[t].capacity = max(64, (32 if half else 64) * (bounds[t + 1] - bounds[t]))
        found[t].j = <int*> malloc(found[t].capacity * sizeof(int))
        found[t].shift = <int*> malloc(3 * found[t].capacity * sizeof(int))
        if found[t].j == NULL or found[t].shift == NULL:
            failed = 1
    try:
        if not failed:
            with nogil:
                for t in prange(n_threads, schedule="static", num_threads=n_threads):
                    failed += look(&room, &found[t], bounds[t], bounds[t + 1])
        if failed:
            raise MemoryError("the neighbour list does not fit in memory")
        # Each thread counted its own: what the ones before it found comes on top.
        total = 0
        for t in range(n_threads):
            for i in range(bounds[t], bounds[t + 1]):
                first[i + 1] += total
            total += found[t].n
        index = np.empty(total, dtype=np.intc)
        shift = np.empty((total, 3), dtype=np.intc)
        total = 0
        for t in range(n_threads):
            if found[t].n:
                index[total : total + found[t].n] = <int[:found[t].n]> found[t].j
                shift.reshape(-1)[3 * total : 3 * (total + found[t].n)] = (
                    <int[:3 * found[t].n]> found[t].shift
                )
            total += found[t].n
    finally:
        for t in range(n_threads):
            free(found[t].j)
            free(found[t].shift)
        free(found)
    return first_array, index, shift


cdef int look(const Room* room, Growing* found, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    """Neighbours of points from start to end - 1; 1 if memory ran out."""
    cdef Py_ssize_t i, j, k, b
    cdef int ax, ay, az, bx, by, bz, sx, sy, sz
    cdef double dx, dy, dz, tx, ty, tz
    cdef const double* own
    cdef const double* other
    cdef const double* cell = room.cell
    cdef const int* at
    cdef const int* wrap
    for i in range(start, end):
        own = room.wrapped + 3 * i
        at = room.bin_index + 3 * i
        wrap = room.wrap + 3 * i
        for ax in range(at[0] - room.m[0], at[0] + room.m[0] + 1):
            sx = <int> floor(<double> ax / room.nb[0])
            if sx != 0 and not room.periodic[0]:
                continue
            bx = ax - sx * room.nb[0]
            for ay in range(at[1] - room.m[1], at[1] + room.m[1] + 1):
                sy = <int> floor(<double> ay / room.nb[1])
                if sy != 0 and not room.periodic[1]:
                    continue
                by = ay - sy * room.nb[1]
                for az in range(at[2] - room.m[2], at[2] + room.m[2] + 1):
                    sz = <int> floor(<double> az / room.nb[2])
                    if sz != 0 and not room.periodic[2]:
                        continue
                    bz = az - sz * room.nb[2]
                    tx = sx * cell[0] + sy * cell[3] + sz * cell[6] - own[0]
                    ty = sx * cell[1] + sy * cell[4] + sz * cell[7] - own[1]
                    tz = sx * cell[2] + sy * cell[5] + sz * cell[8] - own[2]
                    b = (<Py_ssize_t> bx * room.nb[1] + by) * room.nb[2] + bz
                    for k in range(room.starts[b], room.starts[b + 1]):
                        j = room.order[k]
                        if room.half and j != i and ((i + j) & 1) == (j > i):
                            continue
                        if i == j:
                            if sx == 0 and sy == 0 and sz == 0:
                                continue
                            if room.half and (sx < 0 or (sx == 0 and (sy < 0 or (sy == 0
                                                                                 and sz < 0)))):
                                continue
                        other = room.wrapped + 3 * j
                        dx = other[0] + tx
                        dy = other[1] + ty
                        dz = other[2] + tz
                        if dx * dx + dy * dy + dz * dz < room.cutoff2:
                            if push(found, <int> j, sx + wrap[0] - room.wrap[3 * j],
                                    sy + wrap[1] - room.wrap[3 * j + 1],
                                    sz + wrap[2] - room.wrap[3 * j + 2]) != 0:
                                return 1
        room.first[i + 1] = <int> found.n
    return 0


def shift_range(const int[:, ::1] shift):
    """Least and greatest of each component of shifts (p, 3), p > 0: two (3,) arrays."""
    low_array, high_array = np.array(shift[0], dtype=np.int64), np.array(shift[0], dtype=np.int64)
    cdef long long[::1] low = low_array, high = high_array
    cdef Py_ssize_t k
    cdef int c
    with nogil:
        for k in range(shift.shape[0]):
            for c in range(3):
                if shift[k, c] < low[c]:
                    low[c] = shift[k, c]
                if shift[k, c] > high[c]:
                    high[c] = shift[k, c]
    return low_array, high_array


def number_shifts(const int[:, ::1] shift, const long long[::1] low, const long long[::1] span):
    """Place (p,) of each shift among all from `low` on, the last component fastest."""
    out = np.empty(shift.shape[0], dtype=np.intc)
    cdef int[::1] number = out
    cdef Py_ssize_t k
    with nogil:
        for k in range(shift.shape[0]):
            number[k] = <int> (((shift[k, 0] - low[0]) * span[1] + shift[k, 1] - low[1]) * span[2]
                               + shift[k, 2] - low[2])
    return out
