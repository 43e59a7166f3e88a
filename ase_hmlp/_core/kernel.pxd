# The one declaration of hmlp_kernel.h; every Cython module cimports from here.

from libcpp.vector cimport vector

cdef extern from "hmlp_kernel.h" namespace "hmlp" nogil:
    int N_DENSITIES
    int N_STRETCH
    int N_CHANNELS
    int N_MOMENTS
    int N_FINGERPRINTS
    int N_FORMS
    int OVERLAP
    int MAX_FINGERPRINTS
    int MAX_COMPONENTS
    int MAX_POLYNOMIAL
    int MOLECULE_SIZE
    int TERMS_SIZE
    int REP_BLOCK
    int ALL_ANGULAR

    cdef struct Value:
        double f
        double df

    cdef struct Table:
        const double* intervals
        int n_intervals
        double spacing

    cdef struct Overlap:
        Table orbitals
        Table own
        double support
        double freeze
        double outer
        double reach
        double inner
        double ridge

    cdef struct InteractionStruct "hmlp::Interaction":
        Table atoms
        Table centres
        double cutoff
        double environment
        double r0
        double low
        double high
        double margin
        Overlap overlap

    cdef struct Molecule:
        double centre[3]
        double u[3]
        double length
        double s
        double ds

    cdef struct Neighbours:
        int n
        const int* index
        const int* shift_id
        const double* shifts

    cdef struct MoleculeTerms:
        double by_centre[3]
        double by_bond[3]
        double virial[6]
        double pair
        double orientation

    cdef cppclass OverlapSpace:
        OverlapSpace() except +
        int n
        vector[Molecule] members
        vector[int] who
        double* by_centre
        double* by_bond

    cdef struct PairTerms:
        double by_d[3]
        double by_a[3]
        double by_b[3]

    cdef struct Contact:
        double r2
        int molecule
        int neighbour
        int atoms

    cdef struct Regressor:
        int n_fingerprints
        int n_components
        int n_seen
        int n_representatives
        const double* transform
        const double* linear
        const double* linear_stretch
        const double* mean
        const double* representatives
        const double* rep_norm
        const double* alpha
        const double* isolated
        int n_isolated
        double isolated_start
        double isolated_spacing
        double r0
        double stretch_width

    cdef struct Bond:
        int kind
        int n_parameters
        double parameters[12]
        double r0
        double lower
        double upper

    Value smooth_cutoff(double r, double rc) noexcept
    Value radial_function(int kind, double a, double b, double r, double rc, double inner,
                          double outer) noexcept
    void angular_values(double ca, double cb, double c, double* s) noexcept
    void angular_slopes(double ca, double cb, double c, double* s_ca, double* s_cb,
                        double* s_c) noexcept
    Value held_stretch(const InteractionStruct& m, double length) noexcept
    void place_molecule(const InteractionStruct& m, const double* first, const double* bond,
                        Molecule* out) noexcept
    double separation(const Molecule& a, const Molecule& b, const Neighbours& nb, int n,
                      double* d) noexcept
    void gather_moments(const InteractionStruct& m, const Molecule* all, int a,
                        const Neighbours& nb, double* rows) noexcept
    void environment_fingerprints(const Molecule& a, const double* row, const double* forms,
                                  double* v) noexcept
    void find_cluster(const InteractionStruct& m, const Molecule* all, int a, const Neighbours& around,
                      OverlapSpace& space) noexcept
    void overlap_forms(const Overlap& m, OverlapSpace& space, double* forms) noexcept
    void form_gradient(const Overlap& m, OverlapSpace& space, const double* g) noexcept
    void fingerprint_gradient(const Molecule& a, const double* row, int k, double* gradient,
                              double* de_du) noexcept
    void add_axis_slope(const Molecule& a, const double* de_du, double* de_dbond) noexcept
    double surroundings_energy(const InteractionStruct& i, const Regressor& m,
                               const Molecule* all, int a, const Neighbours& around, double* row,
                               OverlapSpace& space, MoleculeTerms* terms) noexcept
    void add_pairs(const InteractionStruct& m, const Molecule* all, int a, const Neighbours& nb,
                   const double* rows, MoleculeTerms* terms, Contact* contact) noexcept
    void fingerprint_pair(const InteractionStruct& m, const Molecule& a, const Molecule& b,
                          const double* d, const double* ga, const double* gb,
                          PairTerms* out) noexcept
    Value bond_energy(const Bond& bond, double r) noexcept
    void add_virial(double scale, const double* d, const double* f, double* w) noexcept
    double regressor_energy(const Regressor& m, const double* v, double r, double* g,
                            double* de_dr) noexcept
    void share_molecule(const Molecule& a, const MoleculeTerms& t, double* force_a,
                        double* force_b, double* virial_a, double* virial_b) noexcept
