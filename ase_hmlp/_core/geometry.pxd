# A full neighbour list, as the loops over centres read it.
cdef struct List:
    const int* first
    const int* index
    const int* shift_id
    const double* shifts
    int n
    int longest

# Room for the neighbours of one centre.
cdef struct Scratch:
    double* d
    double* r
    int* j

cdef List view_list(const int[::1] first, const int[::1] index, const int[::1] shift_id,
                    const double[:, ::1] shifts) noexcept
cdef Scratch allocate(int longest) noexcept nogil
cdef void release(Scratch s) noexcept nogil
cdef int gather(const double* points, List* neighbours, int i, double cutoff,
                Scratch s) noexcept nogil
