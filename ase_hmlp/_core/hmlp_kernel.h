/* The physics of the potential, shared by every host (the Cython core here, a LAMMPS pair style).
 *
 * No Python, no neighbour search: the host hands over molecules and half a list of their pairs (a
 * full one for clusters) and gets energies, forces on centres, derivatives with respect to bond
 * vectors and virials back.  Every radial and angular function of the potential is defined here and
 * nowhere else.  Three passes, with whatever communication the host needs between them:
 *
 *   gather_moments      every pair: sums over the neighbours of a molecule
 *   surroundings_energy every molecule: energy of its surroundings, and in place of its sums the
 *                       derivatives with respect to them; forces of what its cluster's orbitals do
 *   add_pairs           every pair: the pair and orientation levels and all other forces
 *
 * Units: Angstrom and eV.  Separations point from the first molecule to the second.
 * Virials are dE/dstrain in Voigt order xx yy zz yz xz xy (a stress times a volume, positive in
 * tension).
 */
#ifndef HMLP_KERNEL_H
#define HMLP_KERNEL_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

/* One portable binary that still uses AVX2 where it is: what follows the structs is compiled once
 * for any processor and once for those that have it, and chosen from when the program starts. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(HMLP_NO_AVX2)
#define HMLP_AVX2 1
#else
#define HMLP_AVX2 0
#endif

/* Inner functions are inlined; then nothing is ever passed in the registers that the warning is
 * about. */
#if defined(__GNUC__)
#define HMLP_INLINE inline __attribute__((always_inline))
#pragma GCC diagnostic ignored "-Wpsabi"
#else
#define HMLP_INLINE inline
#endif

/* One molecule's worth of work. Static, because every host compiles its own copy. */
#define HMLP_KERNEL [[maybe_unused]] static

namespace hmlp {

constexpr int N_DENSITIES = 4;       /* radial functions of the environment */
constexpr int N_SHELLS = 8;          /* and more of them, finer, without directions */
constexpr int N_STRETCH = 4;         /* 1, s + s', s s', s^2 + s'^2 of a pair of molecules */
constexpr int N_ANGULAR = 6;         /* orientational invariants, those that swap added up */
constexpr int N_CHANNELS = 20;       /* functions of the separation of centres, see Table */
constexpr int N_KINDS = 3;           /* of vectors and of tensors, see Family */
constexpr int N_DIRECTED = 1 + 9 * N_KINDS; /* moments of each density: scalar, vectors, tensors */
constexpr int N_ALIGNED = 5;         /* sums of invariants with the neighbours' axes */
constexpr int FIRST_SHELL = N_DIRECTED * N_DENSITIES;
constexpr int FIRST_STRETCHED = FIRST_SHELL + N_SHELLS;
constexpr int FIRST_ALIGNED = FIRST_STRETCHED + N_DENSITIES;
constexpr int N_GATHERED = FIRST_ALIGNED + N_ALIGNED;
constexpr int N_MOMENTS = 132;       /* N_GATHERED, padded */
constexpr int N_PRODUCTS = 10;       /* products of two of four densities */
constexpr int N_OF_A_RANK = N_KINDS * N_DENSITIES;                  /* vectors, or tensors */
constexpr int N_CONTRACTIONS = N_OF_A_RANK * (N_OF_A_RANK + 1) / 2; /* of two of them */
constexpr int N_ORBITALS = 16;       /* vectors of overlaps with orbitals, see hmlp_overlap.h: */
constexpr int FIRST_ODD = 4, FIRST_POLAR = 7;
constexpr int N_POWERS = 2;          /* of the inverse overlap matrix */
constexpr int N_FORMS = 28 * N_POWERS; /* quadratic forms of them */
constexpr int FIRST_ALONG = 22;
constexpr int PAIR_RECORD = 5;       /* numbers kept of a pair in a cluster, */
constexpr int SIGHT_RECORD = 12;     /* and of two atoms, one of them the first molecule's */
constexpr int N_FINGERPRINTS = 2 * N_DENSITIES + N_OF_A_RANK + N_ALIGNED + 2 * N_CONTRACTIONS +
                               2 * N_PRODUCTS + N_SHELLS + N_FORMS;
constexpr int MAX_FINGERPRINTS = 268; /* of a regressor */
constexpr int MAX_COMPONENTS = 64;   /* compressed components a kernel sees */
constexpr int MAX_POLYNOMIAL = 12;   /* coefficients of a polynomial bond */
constexpr int REP_BLOCK = 32;        /* representatives are padded to a multiple of this */

/* Four numbers that are worked on together. */
typedef double v4 __attribute__((vector_size(32)));
typedef std::int64_t i4 __attribute__((vector_size(32)));
typedef double v4_anywhere __attribute__((vector_size(32), aligned(8)));

struct Value {
  double f;  /* value */
  double df; /* derivative with respect to r */
};

/* Cubics between equidistant nodes, with the value and slope of the function at both: the slope is
 * the exact derivative of the value.  An interval holds the four coefficients of four channels,
 * the lowest power first; of the separation of centres there are five such blocks:
 *
 *   h1 h2 h3 h4                          densities of the environment
 *   S000, S202+S022, S220, S222          orientation level
 *   S224, S404+S044, aligned, cutoff     orientation level; weight of the aligned sums; cutoff
 *                                        function of the pair level
 *   k1 k2 k3 k4                          shells of the environment
 *   k5 k6 k7 k8
 */
struct Table {
  const double* intervals;
  int n_intervals;
  double spacing;
};

/* Of the Cholesky factor of an overlap matrix; only molecules that coincide come near. */
constexpr double SMALLEST_PIVOT = 1e-3;

constexpr int BLOCK = 16;                            /* numbers of one block of an interval */
constexpr int ATOM_INTERVAL = BLOCK;                 /* of a table of distances between atoms */
constexpr int CENTRE_INTERVAL = N_CHANNELS / 4 * BLOCK;

/* How molecules overlap, see hmlp_overlap.h. Distances between molecules are frozen where they are
 * short, the length of a bond is not: two tables of the functions. */
struct Overlap {
  Table orbitals;       /* g1 g2 g3 s  of two molecules' atoms; s is not read, it is computed */
  Table own;            /* g1 g2 g3 s  of one molecule's, from distance zero on */
  double support;       /* of s, Angstrom */
  double freeze, outer; /* distances between molecules stop changing from `outer` to `freeze` */
  double reach, inner;  /* of a cluster, between centres; no clusters where it is zero */
  double ridge;
};

/* A cutoff that is none. */
constexpr double NEVER = 1e150;

/* Everything that is a function of one pair of molecules, coefficients included, and what the
 * environment sees of it.
 *
 * Pair level: cutoff(R) sum over atoms i of one, j of the other molecule and k of q_k phi_k(r_ij)
 * with q = (1, s + s', s s', s^2 + s'^2); the stretch s of a bond is its length less `r0`, smoothly
 * held at the ends of [low, high] within `margin`: beyond, where hardly a bond of a solid or liquid
 * was labelled, the bond level alone acts along it, and pulls it back.  Orientation level: sum over
 * l of psi_l(R) S_l. */
struct Interaction {
  Table atoms, centres;
  double cutoff;      /* the longest separation at which anything acts */
  double environment; /* the longest one at which the environment's moments do */
  double r0, low, high, margin;
  Overlap overlap;
};

enum RadialKind {
  GAUSSIAN = 0,    /* exp(-(r/a)^2)                 seed paper, equation 3 */
  DAMPED_SINE = 1, /* sin(a r) exp(-r/b)            seed paper, equation 4 */
  QUADRUPOLE = 2,  /* r^-5, the radial part of fp_EQQ; seed paper, equation 6 */
  BORN_MAYER = 3,  /* exp(-r/a), the repulsive baseline: never frozen */
  SHELL = 4,       /* exp(-((r - a)/b)^2) */
  WENDLAND = 5     /* (1 - x)^4 (1 + 4 x), x = r/a, 0 beyond x = 1: see hmlp_overlap.h */
};

/* The invariants of two axes a, b and the unit separation R^ (Stone's S functions, even in each
 * axis), by ca = a.R^, cb = b.R^, c = a.b: */
enum Angular { S000, S202, S022, S220, S222, S224, S404, S044, ALL_ANGULAR };

/* One molecule as its neighbours see it: ten numbers. */
struct Molecule {
  double centre[3];
  double u[3];      /* unit vector along the bond */
  double length;    /* of the bond */
  double s, ds;     /* stretch as the pair level sees it, and its derivative by the length */
  double unused;
};

constexpr int MOLECULE_SIZE = 10;

/* Half a list of one molecule's pairs: molecule index[n] moved by shifts[shift_id[n]], or where it
 * is if there are no shifts. */
struct Neighbours {
  int n;
  const int* index;
  const int* shift_id;
  const double* shifts;
};

/* Of a molecule with axis u, from its moments. Vectors V and tensors Q (traceless parts) are of three
 * kinds each, by the separation R^ and the axis b of a neighbour, c = b.R^:
 *
 *   V_n = sum h_n R^, sum h_n c^2 R^, sum h_n c b        (the same for -b, as all that follows)
 *   Q_n = sum h_n R^R^, sum h_n bb, sum h_n c (R^b + bR^) / 2
 *
 * To lowest order that is what the charges of neighbours polarise a molecule with; products of two
 * of them see two neighbours at once, and which way both point. For n <= n' of all twelve:
 *
 *   0      density   sum h_n
 *   4      axial     3/2 u.Q_n.u; of the first kind sum h_n P2(u.R^)
 *   16     aligned   sum aligned S_l
 *   21     shell     sum k_n
 *   29     stretched sum h_n s, s the neighbours' stretches
 *   33     overlap   quadratic forms, see hmlp_overlap.h
 *   89     vector    V_n . V_n'
 *   167    tensor    Q_n : Q_n'
 *   245    vector along the axis   (V_n . u) (V_n' . u), first kind
 *   255    tensor along the axis   (Q_n u) . (Q_n' u), first kind
 */
enum Family { DENSITY = 0, AXIAL = 4, ALIGNED = 16, SHELLS = 21, STRETCHED = 29, OVERLAP = 33,
              VECTOR = OVERLAP + N_FORMS, TENSOR = VECTOR + N_CONTRACTIONS,
              VECTOR_AXIS = TENSOR + N_CONTRACTIONS, TENSOR_AXIS = VECTOR_AXIS + N_PRODUCTS };

/* Kernel ridge regression on compressed fingerprints y = T v and, where `stretch_width` > 0, the
 * bond length r of the molecule:
 *
 *   e = w.v + (r - r0) w'.v
 *       + sum_s alpha_s [exp(-|y - y_s|^2 / 2) - exp(-(|y|^2 + |y_s|^2) / 2)]
 *               exp(-((r - r_s) / l)^2 / 2)
 *
 * The bracket is the covariance of a Gaussian process that is known to be zero at y = 0: an
 * isolated molecule has its bond energy and nothing else.  The bond length is one more component
 * of y here, (r - r0) / l.  Components are counted from the representatives' mean, so that nothing
 * large cancels in distances: coefficients are large and digits dear.  What the second exponential
 * adds up to is exp(-|y|^2 / 2) times a function of the bond length alone, which is tabulated. */
struct Regressor {
  int n_fingerprints, n_components; /* components without the bond length */
  int n_seen;                       /* fingerprints the Gaussian sees are among so many first */
  int n_representatives;            /* padded to REP_BLOCK */
  const double* transform;          /* (n_components, n_seen) */
  const double* linear;             /* (n_fingerprints) */
  const double* linear_stretch;     /* (n_fingerprints) */
  const double* mean;               /* (n_components) */
  const double* representatives;    /* (blocks, n_components + 1, REP_BLOCK), less the mean */
  const double* rep_norm;           /* (n_representatives): half their squared norms */
  const double* alpha;              /* (n_representatives); the padding is zero */
  const double* isolated;           /* (n_isolated, 2): value and slope times the spacing */
  int n_isolated;
  double isolated_start, isolated_spacing;
  double r0, stretch_width;
};

enum BondKind { POLYNOMIAL = 0, MORSE = 1 };

/* Bonds do not break here: outside the range of a polynomial their curvature rises by 6 BOND_WALL
 * per Å, in 0.06 Å by that of a free molecule at rest. eV/Å^3. */
constexpr double BOND_WALL = 100.0;

/* polynomial: sum_k p[k] (r - r0)^k inside [lower, upper], continued outside by the parabola with
 * the same value, slope and curvature and BOND_WALL |x|^3, x from the edge; morse: p = {depth, a},
 * depth (1 - exp(-a (r - r0)))^2 */
struct Bond {
  int kind, n_parameters;
  double parameters[MAX_POLYNOMIAL], r0, lower, upper;
};

/* What pairs do to a molecule: the derivatives by its centre and bond vector (the force on the
 * centre has the other sign), half the virial of the separations, and half the energies. */
struct MoleculeTerms {
  double by_centre[3], by_bond[3], virial[6], pair, orientation;
  double unused[2];
};

constexpr int TERMS_SIZE = 16;

/* The shortest distance between atoms of different molecules: its square, and of which. */
struct Contact {
  double r2;
  int molecule, neighbour, atoms; /* atoms: 2 times the first's atom plus the second's, each 0, 1 */
};

/* What clusters are worked on in, one for each thread; it grows to what the largest needs. */
struct OverlapSpace {
  int n = 0;      /* members, the molecule itself first */
  int stride = 0; /* of the matrix: n filled up to whole four-vectors */
  std::vector<Molecule> members;
  std::vector<int> who;
  std::vector<double> numbers;
  /* Parts of it: (n, stride); of pairs; of atoms; (n, N_ORBITALS) each; (2 n, 3), (n, 3), (n) each. */
  double *matrix, *pairs, *sights, *vectors, *solved, *again, *mixed, *mixed_again;
  double *sides, *by_entry; /* (2 N_ORBITALS, stride), (stride) */
  double *spread, *pull;    /* (n, 12): by direction, atoms as they meet those of another molecule */
  double *atoms, *gradient, *by_centre, *by_bond, *weight, *weight_slope, *by_weight, *norm_slope;
  double* bond; /* (n): lengths of bonds, those of members being held */
  double products[N_POWERS][N_ORBITALS][N_ORBITALS];

  void make_room(int most) {
    const std::size_t k = most;
    if (k <= members.size()) return;
    members.resize(k);
    who.resize(k);
    numbers.resize(k * (k + 3) + k * (k - 1) / 2 * PAIR_RECORD +
                   k * (4 * SIGHT_RECORD + 5 * N_ORBITALS + 47) +
                   (k + 3) * (2 * N_ORBITALS + 1));
    double* next = numbers.data();
    const auto take = [&next](std::size_t size) {
      double* part = next;
      next += size;
      return part;
    };
    matrix = take(k * (k + 3));
    pairs = take(k * (k - 1) / 2 * PAIR_RECORD);
    sights = take(4 * k * SIGHT_RECORD);
    sides = take((k + 3) * 2 * N_ORBITALS);
    by_entry = take(k + 3);
    for (double** part : {&vectors, &solved, &again, &mixed, &mixed_again})
      *part = take(k * N_ORBITALS);
    for (double** part : {&spread, &pull}) *part = take(12 * k);
    for (double** part : {&atoms, &gradient}) *part = take(6 * k);
    for (double** part : {&by_centre, &by_bond}) *part = take(3 * k);
    for (double** part : {&weight, &weight_slope, &by_weight, &norm_slope, &bond}) *part = take(k);
  }
};

/* One pair: energies, and derivatives by the separation and both bond vectors. */
struct PairTerms {
  double by_d[3], by_a[3], by_b[3], pair, orientation, r2;
  int atoms;
};

} /* namespace hmlp */

#define HMLP_VARIANT any_processor
#include "hmlp_passes.h"
#include "hmlp_overlap.h"
#undef HMLP_VARIANT

#if HMLP_AVX2
#pragma GCC push_options
#pragma GCC target("arch=haswell")
#define HMLP_VARIANT avx2
#include "hmlp_passes.h"
#include "hmlp_overlap.h"
#undef HMLP_VARIANT
#pragma GCC pop_options
#endif

namespace hmlp {

using any_processor::add_axis_slope;
using any_processor::add_virial;
using any_processor::angular_slopes;
using any_processor::angular_values;
using any_processor::bond_energy;
using any_processor::environment_fingerprints;
using any_processor::fingerprint_gradient;
using any_processor::find_cluster;
using any_processor::fingerprint_pair;
using any_processor::held_stretch;
using any_processor::place_molecule;
using any_processor::radial_function;
using any_processor::separation;
using any_processor::share_molecule;
using any_processor::smooth_cutoff;

/* The passes, where the time goes. */
struct Passes {
  decltype(&any_processor::gather_moments) gather_moments;
  decltype(&any_processor::surroundings_energy) surroundings_energy;
  decltype(&any_processor::regressor_energy) regressor_energy;
  decltype(&any_processor::overlap_forms) overlap_forms;
  decltype(&any_processor::form_gradient) form_gradient;
  decltype(&any_processor::add_pairs) add_pairs;
};

HMLP_KERNEL Passes choose_passes() {
#if HMLP_AVX2
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {avx2::gather_moments, avx2::surroundings_energy, avx2::regressor_energy,
            avx2::overlap_forms,  avx2::form_gradient,       avx2::add_pairs};
#endif
  return {any_processor::gather_moments,   any_processor::surroundings_energy,
          any_processor::regressor_energy, any_processor::overlap_forms,
          any_processor::form_gradient,    any_processor::add_pairs};
}

[[maybe_unused]] static const Passes PASSES = choose_passes();

HMLP_KERNEL void gather_moments(const Interaction& m, const Molecule* all, int a,
                                const Neighbours& nb, double* rows) {
  PASSES.gather_moments(m, all, a, nb, rows);
}

HMLP_KERNEL double surroundings_energy(const Interaction& i, const Regressor& m, const Molecule* all,
                                       int a, const Neighbours& around, double* row,
                                       OverlapSpace& space, MoleculeTerms* terms) {
  return PASSES.surroundings_energy(i, m, all, a, around, row, space, terms);
}

HMLP_KERNEL void overlap_forms(const Overlap& m, OverlapSpace& space, double* forms) {
  PASSES.overlap_forms(m, space, forms);
}

HMLP_KERNEL void form_gradient(const Overlap& m, OverlapSpace& space, const double* g) {
  PASSES.form_gradient(m, space, g);
}

HMLP_KERNEL double regressor_energy(const Regressor& m, const double* v, double r, double* g,
                                    double* de_dr) {
  return PASSES.regressor_energy(m, v, r, g, de_dr);
}

HMLP_KERNEL void add_pairs(const Interaction& m, const Molecule* all, int a, const Neighbours& nb,
                           const double* rows, MoleculeTerms* terms, Contact* contact) {
  PASSES.add_pairs(m, all, a, nb, rows, terms, contact);
}

} /* namespace hmlp */

#endif
