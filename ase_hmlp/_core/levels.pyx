"""Owners of the kernel's structs: tables, regressors and bond curves made from arrays."""

import numpy as np

from ase_hmlp._core.kernel cimport (
    ALL_ANGULAR,
    MAX_COMPONENTS,
    MAX_FINGERPRINTS,
    MAX_POLYNOMIAL,
    N_CHANNELS,
    N_STRETCH,
    REP_BLOCK,
    Table,
    Value,
    angular_slopes,
    angular_values,
    bond_energy,
    held_stretch,
    radial_function,
    smooth_cutoff,
)
from ase_hmlp._core.kernel cimport N_FINGERPRINTS as KERNEL_FINGERPRINTS
from ase_hmlp._core.kernel cimport N_FORMS as KERNEL_FORMS
from ase_hmlp._core.kernel cimport OVERLAP as KERNEL_OVERLAP

#: Fingerprints of the environment level, and most components that its Gaussian kernel sees.
N_FINGERPRINTS, MOST_COMPONENTS = KERNEL_FINGERPRINTS, MAX_COMPONENTS

#: Place of the first form of overlaps among them, and how many there are.
OVERLAP, N_FORMS = KERNEL_OVERLAP, KERNEL_FORMS

#: First and last bond length and spacing (Å) of the table of what an isolated molecule would get.
ISOLATED = (0.2, 1.7, 0.001)

#: Representatives in `Machine.record` come in blocks of this many.
BLOCK = REP_BLOCK


def evaluate_radial(int kind, double a, double b, const double[::1] r, double cutoff,
                    double inner, double outer):
    """Value and slope of one radial function at distances r (n) in Å: array (2, n)."""
    out = np.empty((2, r.shape[0]))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t n
    cdef Value value
    for n in range(r.shape[0]):
        value = radial_function(kind, a, b, r[n], cutoff, inner, outer)
        view[0, n] = value.f
        view[1, n] = value.df
    return out


def evaluate_cutoff(const double[::1] r, double cutoff):
    """Value and slope of the cutoff function at distances r (n) in Å: array (2, n)."""
    out = np.empty((2, r.shape[0]))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t n
    cdef Value value
    for n in range(r.shape[0]):
        value = smooth_cutoff(r[n], cutoff)
        view[0, n] = value.f
        view[1, n] = value.df
    return out


def evaluate_angular(const double[:, ::1] cosines):
    """The orientational invariants at rows of (ca, cb, c): array (n, 8)."""
    out = np.empty((cosines.shape[0], ALL_ANGULAR))
    cdef double[:, ::1] view = out
    cdef Py_ssize_t n
    for n in range(cosines.shape[0]):
        angular_values(cosines[n, 0], cosines[n, 1], cosines[n, 2], &view[n, 0])
    return out


def evaluate_angular_slopes(const double[:, ::1] cosines):
    """Derivatives of the invariants by ca, cb and c: array (3, n, 8)."""
    out = np.empty((3, cosines.shape[0], ALL_ANGULAR))
    cdef double[:, :, ::1] view = out
    cdef Py_ssize_t n
    for n in range(cosines.shape[0]):
        angular_slopes(cosines[n, 0], cosines[n, 1], cosines[n, 2], &view[0, n, 0],
                       &view[1, n, 0], &view[2, n, 0])
    return out


def cubic_intervals(values, slopes, double spacing):
    """Coefficients of cubics between nodes, as the kernel's tables hold them.

    Parameters
    ----------
    values, slopes : (nodes, channels) arrays; channels a multiple of 4
    spacing : float

    Returns
    -------
    (nodes - 1, channels / 4, 4 powers, 4) array
    """
    n = len(values) - 1
    f0, f1 = values[:n], values[1:]
    m0, m1 = spacing * slopes[:n], spacing * slopes[1:]
    powers = np.stack([f0, m0, 3.0 * (f1 - f0) - 2.0 * m0 - m1, 2.0 * (f0 - f1) + m0 + m1], axis=1)
    channels = powers.shape[2]
    return np.ascontiguousarray(powers.reshape(n, 4, channels // 4, 4).transpose(0, 2, 1, 3))


cdef Table view_table(object intervals, double spacing):
    cdef const double[:, :, :, ::1] view = intervals
    cdef Table out
    out.intervals = &view[0, 0, 0, 0]
    out.n_intervals = <int> view.shape[0]
    out.spacing = spacing
    return out


cdef class Interaction:
    """Tables of what two molecules do to each other, for the kernel.

    Parameters
    ----------
    atoms, centres : tuple of values, slopes and spacing
        Arrays (nodes, 4) and (nodes, 20) of the functions of distances between atoms and of the
        separation of centres, in the kernel's order; Å.
    cutoff, environment : float, Å
        Longest separations at which anything, and at which the environment level acts.
    stretch : tuple of float, Å
        r0, low, high and margin.
    overlap : tuple or None
        Values and slopes (2, nodes, 4) of g1, g2, g3 and s of distances between molecules, the same
        within a molecule, the spacing of the nodes, and support, freeze, outer, reach, inner (Å) and
        ridge.
    """

    def __init__(self, atoms, centres, double cutoff, double environment, stretch, overlap=None):
        self.atoms = cubic_intervals(*atoms)
        self.centres = cubic_intervals(*centres)
        if self.atoms.shape[1:] != (1, 4, 4) or 4 * self.centres.shape[1] != N_CHANNELS:
            raise ValueError("tables of another number of channels than the kernel's")
        if cutoff > (len(self.centres)) * centres[2] * (1.0 + 1e-12):
            raise ValueError("the table of separations ends before the cutoff")
        self.c.atoms = view_table(self.atoms, atoms[2])
        self.c.centres = view_table(self.centres, centres[2])
        self.c.cutoff = cutoff
        self.c.environment = environment
        self.c.r0, self.c.low, self.c.high, self.c.margin = stretch
        self.overlap = None
        self.c.overlap.reach = 0.0
        if overlap is not None:
            self._set_overlap(*overlap)

    def _set_overlap(self, between, within, double spacing, double support, double freeze,
                     double outer, double reach, double inner, double ridge):
        orbitals = cubic_intervals(*between, spacing)
        own = cubic_intervals(*within, spacing)
        if orbitals.shape[1:] != (1, 4, 4) or own.shape[1:] != (1, 4, 4):
            raise ValueError("tables of another number of channels than the kernel's")
        self.overlap = {"orbitals": orbitals, "own": own}
        self.c.overlap.support = support
        self.c.overlap.freeze, self.c.overlap.outer = freeze, outer
        self.c.overlap.orbitals = view_table(orbitals, spacing)
        self.c.overlap.own = view_table(own, spacing)
        self.c.overlap.reach, self.c.overlap.inner, self.c.overlap.ridge = reach, inner, ridge

    @property
    def cutoff(self):
        """Longest separation of centres (Å) at which two molecules act on each other."""
        return self.c.cutoff

    @property
    def record(self):
        """What the kernel's struct holds, by field."""
        return {
            "cutoff": self.c.cutoff,
            "environment": self.c.environment,
            "stretch": [self.c.r0, self.c.low, self.c.high, self.c.margin],
            "atoms.n_intervals": self.c.atoms.n_intervals,
            "atoms.spacing": self.c.atoms.spacing,
            "atoms.intervals": self.atoms,
            "centres.n_intervals": self.c.centres.n_intervals,
            "centres.spacing": self.c.centres.spacing,
            "centres.intervals": self.centres,
            "overlap": [
                self.c.overlap.support,
                self.c.overlap.freeze,
                self.c.overlap.outer,
                self.c.overlap.reach,
                self.c.overlap.inner,
                self.c.overlap.ridge,
            ],
        } | self._overlap_record()

    def _overlap_record(self):
        found = {}
        for name, intervals in (self.overlap or {}).items():
            found[f"overlap.{name}.n_intervals"] = len(intervals)
            found[f"overlap.{name}.spacing"] = self.c.overlap.own.spacing
            found[f"overlap.{name}.intervals"] = intervals
        return found

    def stretch(self, const double[::1] length):
        """Stretch (Å) and its slope at bond lengths (n) in Å: array (2, n)."""
        out = np.empty((2, length.shape[0]))
        cdef double[:, ::1] view = out
        cdef Py_ssize_t n
        cdef Value value
        for n in range(length.shape[0]):
            value = held_stretch(self.c, length[n])
            view[0, n] = value.f
            view[1, n] = value.df
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
        seen = np.flatnonzero(np.any(transform, axis=0))
        n_seen = int(seen.max(initial=-1)) + 1
        n = len(representatives)
        padded = (n + REP_BLOCK - 1) // REP_BLOCK * REP_BLOCK
        columns = np.zeros((padded, n_components + 1))
        mean = np.mean(representatives, axis=0) if n else np.zeros(n_components)
        columns[:n, :n_components] = representatives - mean
        if stretch_width > 0:
            columns[:n, n_components] = (np.asarray(rep_bond) - r0) / stretch_width
        blocks = columns.reshape(padded // REP_BLOCK, REP_BLOCK, n_components + 1).transpose(0, 2, 1)
        weights = np.zeros(padded)
        weights[:n] = alpha
        start, end, spacing = ISOLATED
        grid = np.linspace(start, end, int(round((end - start) / spacing)) + 1)
        isolated = np.zeros((len(grid), 2))
        alone = np.exp(-0.5 * (np.asarray(representatives) ** 2).sum(axis=1)) * alpha
        if stretch_width > 0:
            apart = (grid[:, None] - np.asarray(rep_bond)) / stretch_width
            near = np.exp(-0.5 * apart**2)
            isolated[:, 0] = near @ alone
            isolated[:, 1] = -(near * apart) @ alone / stretch_width * spacing
        else:
            isolated[:, 0] = alone.sum()
        self.arrays = [
            np.array(a, dtype=float, order="C")
            for a in (transform[:, :n_seen], linear, linear_stretch, mean, blocks, 0.5 * (columns**2).sum(axis=1),
                      weights, isolated)
        ]
        self.n_representatives = n
        pointers = [a.ctypes.data for a in self.arrays]
        self.c.n_fingerprints = n_fingerprints
        self.c.n_components = n_components
        self.c.n_seen = n_seen
        self.c.n_representatives = padded
        self.c.transform = <const double*> <size_t> pointers[0]
        self.c.linear = <const double*> <size_t> pointers[1]
        self.c.linear_stretch = <const double*> <size_t> pointers[2]
        self.c.mean = <const double*> <size_t> pointers[3]
        self.c.representatives = <const double*> <size_t> pointers[4]
        self.c.rep_norm = <const double*> <size_t> pointers[5]
        self.c.alpha = <const double*> <size_t> pointers[6]
        self.c.isolated = <const double*> <size_t> pointers[7]
        self.c.n_isolated = len(grid)
        self.c.isolated_start = start
        self.c.isolated_spacing = spacing
        self.c.r0 = r0
        self.c.stretch_width = stretch_width

    @property
    def record(self):
        """What the kernel's struct holds, by field; representatives padded and in blocks."""
        fields = ("transform", "linear", "linear_stretch", "mean", "representatives", "rep_norm",
                  "alpha", "isolated")
        return {
            "n_components": self.c.n_components,
            "n_seen": self.c.n_seen,
            "n_representatives": self.c.n_representatives,
            **dict(zip(fields, self.arrays)),
            "n_isolated": self.c.n_isolated,
            "isolated_start": self.c.isolated_start,
            "isolated_spacing": self.c.isolated_spacing,
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
