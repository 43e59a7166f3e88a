# The one declaration of hmlp_kernel.h; every Cython module cimports from here.

cdef extern from "hmlp_kernel.h" namespace "hmlp" nogil:
    int MAX_RADIAL
    int MAX_ANGULAR
    int MAX_FINGERPRINTS
    int MAX_COMPONENTS
    int MAX_POLYNOMIAL
    int REP_BLOCK

    cdef struct Value:
        double f
        double df

    cdef struct RadialTable:
        const double* nodes
        int channels
        int n_nodes
        double spacing
        double cutoff

    cdef struct Hermite:
        pass

    cdef struct Axis:
        double u[3]
        double length

    cdef struct Separation:
        double r
        double unit[3]
        double ca
        double cb
        double c

    cdef struct Regressor:
        int n_fingerprints
        int n_components
        int n_representatives
        const double* transform
        const double* linear
        const double* linear_stretch
        const double* representatives
        const double* rep_norm
        const double* rep_bond
        const double* alpha
        double r0
        double stretch_width

    cdef struct Bond:
        int kind
        int n_parameters
        double parameters[12]
        double r0
        double lower
        double upper

    cdef struct Neighbours:
        int n
        const double* d
        const double* r
        const int* j

    Value radial_function(int kind, double a, double b, double r, double rc, double inner,
                          double outer) noexcept
    Hermite table_value(const RadialTable& table, double r) noexcept
    Hermite table_slope(const RadialTable& table, double r) noexcept
    void store_channels "hmlp::table_channels<false>"(const Hermite& h, int channels,
                                                      double* out) noexcept
    Separation separation(const double* d, const Axis& a, const Axis& b) noexcept
    void angular_values(double ca, double cb, double c, double* s) noexcept
    void angular_slopes(double ca, double cb, double c, double* s_ca, double* s_cb,
                        double* s_c) noexcept
    void chain_to_vectors(const Separation& s, const Axis& a, const Axis& b, double e_r,
                          double e_ca, double e_cb, double e_c, double* de_dd, double* de_dba,
                          double* de_dbb) noexcept
    Value bond_energy(const Bond& bond, double r) noexcept
    void add_virial(double scale, const double* d, const double* f, double* w) noexcept
    double regressor_energy(const Regressor& m, const double* v, double r, double* g,
                            double* de_dr) noexcept
    void regressor_columns(const Regressor& m, const double* v, double r, double* y,
                           double* near, double* isolated) noexcept
    void radial_fingerprints(const RadialTable& t, const Neighbours& nb, double* v) noexcept
    void radial_forces(const RadialTable& t, const Neighbours& nb, const double* g, int i,
                       double* force, double* virial) noexcept
    void orientation_fingerprints(const RadialTable& t, const Neighbours& nb, const Axis& a,
                                  const Axis* axes, double* w) noexcept
    void orientation_forces(const RadialTable& t, const Neighbours& nb, int a, const Axis* axes,
                            const double* g, double* force, double* de_dbond,
                            double* virial) noexcept
    void share_molecule(const double* bond, const double* centre_force, const double* de_dbond,
                        const double* virial, double* force_a, double* force_b,
                        double* virial_a, double* virial_b) noexcept
