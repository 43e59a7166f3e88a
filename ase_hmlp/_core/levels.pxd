from ase_hmlp._core.kernel cimport Bond, InteractionStruct, Regressor


cdef class Interaction:
    cdef InteractionStruct c
    cdef readonly object atoms
    cdef readonly object centres
    cdef readonly object overlap


cdef class Machine:
    cdef Regressor c
    cdef object arrays
    cdef readonly int n_representatives


cdef class BondCurve:
    cdef Bond c
