from ase_hmlp._core.kernel cimport Bond, RadialTable, Regressor


cdef class Table:
    cdef RadialTable c
    cdef readonly object nodes


cdef class Machine:
    cdef Regressor c
    cdef object arrays
    cdef readonly int n_representatives


cdef class BondCurve:
    cdef Bond c
