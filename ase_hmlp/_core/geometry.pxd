from ase_hmlp._core.kernel cimport Axis


cdef int gather(const double* points, const int* first, const int* index, const int* shift_id,
                const double* shifts, int i, double cutoff, double* d, double* r,
                int* j) noexcept nogil
