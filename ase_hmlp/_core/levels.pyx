"""Owners of the kernel's structs: radial tables, regressors and bond curves made from arrays."""

import numpy as np

from ase_hmlp._core.kernel cimport (
    MAX_ANGULAR,
    MAX_COMPONENTS,
    MAX_FINGERPRINTS,
    MAX_POLYNOMIAL,
    MAX_RADIAL,
    REP_BLOCK,
    Value,
    angular_values,
    bond_energy,
    radial_function,
    store_channels,
    table_slope,
    table_value,
)

N_ANGULAR = MAX_ANGULAR

#: Representatives in `Machine.record` come in blocks of this many.
BLOCK = REP_BLOCK


def evaluate_radial(int kind, double a, double b, const double[::1] r, double cutoff,
                    double inner, double outer):
    """Value and slope of one radial function, without a table, at distances r (n) in Å."""
    out = np.empty((2, r.shape[0]))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t n
    cdef Value value
    for n in range(r.shape[0]):
        value = radial_function(kind, a, b, r[n], cutoff, inner, outer)
        view[0, n] = value.f
        view[1, n] = value.df
    return out


def evaluate_angular(const double[:, ::1] cosines):
    """The orientational invariants at rows of (ca, cb, c): array (n, 8)."""
    out = np.empty((cosines.shape[0], MAX_ANGULAR))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t n
    for n in range(cosines.shape[0]):
        angular_values(cosines[n, 0], cosines[n, 1], cosines[n, 2], &view[n, 0])
    return out


cdef class Table:
    """Radial functions on a grid, for the kernel.

    Parameters
    ----------
    functions : sequence of (kind, a, b)
    cutoff, inner, outer, spacing : float, Å
    """

    def __init__(self, functions, double cutoff, double inner, double outer, double spacing):
        # C division truncates: round up without a negative operand.
        channels = (len(functions) + 3) // 4 * 4
        if not 0 < channels <= MAX_RADIAL:
            raise ValueError(f"a radial basis holds 1 to {MAX_RADIAL} functions")
        n_nodes = int(np.ceil(cutoff / spacing)) + 1
        r = spacing * np.arange(n_nodes)
        self.nodes = np.zeros((n_nodes, 2, channels))
        for k, (kind, a, b) in enumerate(functions):
            value, slope = evaluate_radial(kind, a, b, r, cutoff, inner, outer)
            self.nodes[:, 0, k] = value
            self.nodes[:, 1, k] = slope * spacing
        cdef const double[:, :, ::1] view = self.nodes
        self.c.nodes = &view[0, 0, 0]
        self.c.channels = channels
        self.c.n_nodes = n_nodes
        self.c.spacing = spacing
        self.c.cutoff = cutoff

    @property
    def channels(self):
        """Number of functions, padded to a multiple of four."""
        return self.c.channels

    @property
    def cutoff(self):
        """Cutoff in Å."""
        return self.c.cutoff

    @property
    def record(self):
        """What the kernel's struct holds, by field."""
        return {
            "channels": self.c.channels,
            "n_nodes": self.c.n_nodes,
            "spacing": self.c.spacing,
            "cutoff": self.c.cutoff,
            "nodes": self.nodes,
        }

    def evaluate(self, const double[::1] r):
        """Interpolated values and slopes: array (2, n, channels)."""
        out = np.empty((2, r.shape[0], self.c.channels))
        cdef double[:, :, ::1] view = out
        cdef Py_ssize_t n
        for n in range(r.shape[0]):
            store_channels(table_value(self.c, r[n]), self.c.channels, &view[0, n, 0])
            store_channels(table_slope(self.c, r[n]), self.c.channels, &view[1, n, 0])
        return out


cdef class Machine:
    """A kernel ridge regressor for the kernel; arrays as in `ase_hmlp.levels.KernelRegressor`."""

    def __init__(self, transform, linear, linear_stretch, representatives, rep_bond, alpha,
                 double r0, double stretch_width):
        n_components, n_fingerprints = transform.shape
        if n_components > MAX_COMPONENTS or n_fingerprints > MAX_FINGERPRINTS:
            raise ValueError(
                f"a regressor takes at most {MAX_FINGERPRINTS} fingerprints and "
                f"{MAX_COMPONENTS} components, not {n_fingerprints} and {n_components}"
            )
        n = len(representatives)
        padded = (n + REP_BLOCK - 1) // REP_BLOCK * REP_BLOCK
        columns = np.zeros((padded, n_components))
        columns[:n] = representatives
        blocks = columns.reshape(padded // REP_BLOCK, REP_BLOCK, n_components).transpose(0, 2, 1)
        norms, bonds, weights = np.zeros((3, padded))
        norms[:n] = 0.5 * (np.asarray(representatives) ** 2).sum(axis=1)
        bonds[:] = r0
        bonds[:n] = rep_bond
        weights[:n] = alpha
        self.arrays = [
            np.array(a, dtype=float, order="C")
            for a in (transform, linear, linear_stretch, blocks, norms, bonds, weights)
        ]
        self.n_representatives = n
        pointers = [a.ctypes.data for a in self.arrays]
        self.c.n_fingerprints = n_fingerprints
        self.c.n_components = n_components
        self.c.n_representatives = padded
        self.c.transform = <const double*> <size_t> pointers[0]
        self.c.linear = <const double*> <size_t> pointers[1]
        self.c.linear_stretch = <const double*> <size_t> pointers[2]
        self.c.representatives = <const double*> <size_t> pointers[3]
        self.c.rep_norm = <const double*> <size_t> pointers[4]
        self.c.rep_bond = <const double*> <size_t> pointers[5]
        self.c.alpha = <const double*> <size_t> pointers[6]
        self.c.r0 = r0
        self.c.stretch_width = stretch_width

    @property
    def record(self):
        """What the kernel's struct holds, by field; representatives padded and in blocks."""
        fields = ("transform", "linear", "linear_stretch", "representatives", "rep_norm",
                  "rep_bond", "alpha")
        return {
            "n_components": self.c.n_components,
            "n_representatives": self.c.n_representatives,
            **dict(zip(fields, self.arrays)),
            "r0": self.c.r0,
            "stretch_width": self.c.stretch_width,
        }


cdef class BondCurve:
    """The energy of a bond against its length; fields as in `ase_hmlp.levels.BondLevel`."""

    def __init__(self, int kind, parameters, double r0, double lower, double upper):
        if len(parameters) > MAX_POLYNOMIAL:
            raise ValueError(f"a bond polynomial has at most {MAX_POLYNOMIAL} coefficients")
        self.c.kind = kind
        self.c.n_parameters = len(parameters)
        for k, value in enumerate(parameters):
            self.c.parameters[k] = value
        self.c.r0 = r0
        self.c.lower = lower
        self.c.upper = upper

    @property
    def record(self):
        """What the kernel's struct holds, by field."""
        return {
            "kind": self.c.kind,
            "n_parameters": self.c.n_parameters,
            "parameters": [self.c.parameters[k] for k in range(self.c.n_parameters)],
            "r0": self.c.r0,
            "lower": self.c.lower,
            "upper": self.c.upper,
        }

    def evaluate(self, const double[::1] r):
        """Energy (eV) and slope (eV/Å) at bond lengths r (n) in Å: array (2, n)."""
        out = np.empty((2, r.shape[0]))
        cdef double[:, ::1] view = out
        cdef Py_ssize_t n
        cdef Value value
        for n in range(r.shape[0]):
            value = bond_energy(self.c, r[n])
            view[0, n] = value.f
            view[1, n] = value.df
        return out
