/* The physics of one centre, shared by every host (the Cython core here, a LAMMPS pair style).
 *
 * No Python, no allocation, no neighbour search: the host hands over neighbour vectors and gets
 * fingerprints back, hands over dE/dfingerprint and gets forces and virials back.  Every cutoff,
 * radial and angular function of the potential is defined here and nowhere else.
 *
 * Units: Angstrom and eV.  Neighbour vectors point from the centre to the neighbour.
 * Virials are dE/dstrain in Voigt order xx yy zz yz xz xy (a stress times a volume, positive in
 * tension).
 */
#ifndef HMLP_KERNEL_H
#define HMLP_KERNEL_H

#include <cmath>
#include <cstdint>
#include <cstring>

/* Function multi-versioning: one portable binary that still uses AVX2 or AVX-512 where present. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && \
    !defined(HMLP_NO_CLONES)
#define HMLP_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define HMLP_CLONES
#endif

/* Inner functions have to be inlined into each version of the outer ones to profit from it. */
#if defined(__GNUC__)
#define HMLP_INLINE inline __attribute__((always_inline))
#else
#define HMLP_INLINE inline
#endif

/* One centre's worth of work. Static, because every host compiles its own copy. */
#define HMLP_KERNEL HMLP_CLONES [[maybe_unused]] static

namespace hmlp {

constexpr int MAX_RADIAL = 64;      /* radial channels of one basis, padded */
constexpr int MAX_ANGULAR = 8;      /* orientational invariants */
constexpr int MAX_FINGERPRINTS = MAX_RADIAL * MAX_ANGULAR;
constexpr int MAX_COMPONENTS = 128; /* compressed components a kernel sees */
constexpr int MAX_POLYNOMIAL = 12;  /* coefficients of a polynomial bond */
constexpr int REP_BLOCK = 16;       /* representatives are padded to a multiple of this */

/* ---------------------------------------------------------------- scalar functions ---- */

struct Value {
  double f;  /* value */
  double df; /* derivative with respect to r */
};

/* (1 - (r/rc)^2)^3: value, first and second derivative vanish at the cutoff. */
inline Value smooth_cutoff(double r, double rc) {
  if (r >= rc) return {0.0, 0.0};
  const double x = r / rc, t = 1.0 - x * x;
  return {t * t * t, -6.0 * x * t * t / rc};
}

/* The distance the fingerprints see: r itself beyond `outer`, frozen below `inner`.
 *
 * A regressor knows nothing of contacts shorter than any labelled.  Freezing its inputs there
 * leaves the repulsive baseline alone to act, so that molecules pushed together meet a wall.
 * Twice continuously differentiable (the slope is the quintic smoothstep). */
inline Value frozen_distance(double r, double inner, double outer) {
  if (r >= outer || outer <= inner) return {r, 1.0};
  const double width = outer - inner;
  if (r <= inner) return {inner + 0.5 * width, 0.0};
  const double t = (r - inner) / width, t3 = t * t * t;
  return {inner + width * (0.5 + t3 * t * (t * t - 3.0 * t + 2.5)),
          t3 * (6.0 * t * t - 15.0 * t + 10.0)};
}

enum RadialKind {
  GAUSSIAN = 0,    /* exp(-(r/a)^2)                 seed paper, equation 3 */
  DAMPED_SINE = 1, /* sin(a r) exp(-r/b)            seed paper, equation 4 */
  QUADRUPOLE = 2,  /* r^-5, the radial part of fp_EQQ; seed paper, equation 6 */
  BORN_MAYER = 3   /* exp(-r/a), the repulsive baseline: never frozen */
};

inline Value radial_function(int kind, double a, double b, double r, double rc, double inner,
                             double outer) {
  const Value rho = kind == BORN_MAYER ? Value{r, 1.0} : frozen_distance(r, inner, outer);
  const double s = rho.f;
  Value g{0.0, 0.0};
  switch (kind) {
    case GAUSSIAN: {
      const double e = std::exp(-(s / a) * (s / a));
      g = {e, -2.0 * s / (a * a) * e};
      break;
    }
    case DAMPED_SINE: {
      const double e = std::exp(-s / b);
      g = {std::sin(a * s) * e, (a * std::cos(a * s) - std::sin(a * s) / b) * e};
      break;
    }
    case QUADRUPOLE: {
      const double p = 1.0 / (s * s * s * s * s);
      g = {p, -5.0 * p / s};
      break;
    }
    case BORN_MAYER: {
      const double e = std::exp(-s / a);
      g = {e, -e / a};
      break;
    }
  }
  const Value c = smooth_cutoff(r, rc);
  return {g.f * c.f, g.df * rho.df * c.f + g.f * c.df};
}

/* exp(x) for x <= 0 in a form compilers vectorise; relative error below 1e-14, zero below -700,
 * where products with it would become denormal numbers, which are slow. */
HMLP_INLINE double vector_exp(double x) {
  const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
  const double nothing = x < -700.0 ? 0.0 : 1.0;
  x = x < -700.0 ? -700.0 : x;
  const double scaled = x * 1.4426950408889634074 + shift;
  const double n = scaled - shift;
  const double t = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 479001600.0;
  p = p * t + 1.0 / 39916800.0;
  p = p * t + 1.0 / 3628800.0;
  p = p * t + 1.0 / 362880.0;
  p = p * t + 1.0 / 40320.0;
  p = p * t + 1.0 / 5040.0;
  p = p * t + 1.0 / 720.0;
  p = p * t + 1.0 / 120.0;
  p = p * t + 1.0 / 24.0;
  p = p * t + 1.0 / 6.0;
  p = p * t + 0.5;
  p = p * t + 1.0;
  p = p * t + 1.0;
  std::int64_t bits;
  std::memcpy(&bits, &scaled, sizeof bits);
  bits = (bits + 1023) << 52; /* the low bits of `scaled` hold n */
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power * nothing;
}

/* ---------------------------------------------------------------- radial tables ------- */

/* All channels of a radial basis on a common grid, cubic Hermite between the nodes, so that the
 * slope is the exact derivative of the value.  Node n holds `channels` values followed by
 * `channels` slopes times the spacing. */
struct RadialTable {
  const double* nodes;
  int channels; /* padded to a multiple of 4; the padding is zero */
  int n_nodes;
  double spacing, cutoff;
};

struct Hermite {
  const double *left, *right;
  double v0, m0, v1, m1; /* weights of value and slope at the left and right node */
};

HMLP_INLINE const double* table_interval(const RadialTable& t, double r, double* x) {
  const double scaled = r / t.spacing;
  int n = static_cast<int>(scaled);
  if (n > t.n_nodes - 2) n = t.n_nodes - 2;
  *x = scaled - n;
  return t.nodes + static_cast<std::size_t>(n) * 2 * t.channels;
}

HMLP_INLINE Hermite table_value(const RadialTable& t, double r) {
  double x;
  const double* left = table_interval(t, r, &x);
  const double x2 = x * x, x3 = x2 * x;
  return {left, left + 2 * t.channels, 2 * x3 - 3 * x2 + 1, x3 - 2 * x2 + x, -2 * x3 + 3 * x2,
          x3 - x2};
}

HMLP_INLINE Hermite table_slope(const RadialTable& t, double r) {
  double x;
  const double* left = table_interval(t, r, &x);
  const double inv = 1.0 / t.spacing, x2 = x * x;
  return {left, left + 2 * t.channels, inv * (6 * x2 - 6 * x), inv * (3 * x2 - 4 * x + 1),
          inv * (6 * x - 6 * x2), inv * (3 * x2 - 2 * x)};
}

/* out[k] (+)= channel k */
template <bool ACCUMULATE>
HMLP_INLINE void table_channels(const Hermite& h, int channels, double* out) {
  const double *a = h.left, *b = h.right;
#pragma omp simd
  for (int k = 0; k < channels; ++k) {
    const double v = h.v0 * a[k] + h.m0 * a[k + channels] + h.v1 * b[k] + h.m1 * b[k + channels];
    out[k] = ACCUMULATE ? out[k] + v : v;
  }
}

/* sum_k (g[k] + q[k]) channel k */
HMLP_INLINE double table_contract(const Hermite& h, int channels, const double* g, const double* q) {
  const double *a = h.left, *b = h.right;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int k = 0; k < channels; ++k)
    sum += (g[k] + q[k]) *
           (h.v0 * a[k] + h.m0 * a[k + channels] + h.v1 * b[k] + h.m1 * b[k + channels]);
  return sum;
}

/* ---------------------------------------------------------------- orientation --------- */

/* The invariants of two axes a, b and the unit separation R^ (Stone's S functions, even in each
 * axis), by ca = a.R^, cb = b.R^, c = a.b: */
enum Angular { S000, S202, S022, S220, S222, S224, S404, S044 };

/* Which invariant each becomes when the two molecules change places. */
constexpr int ANGULAR_SWAP[MAX_ANGULAR] = {S000, S022, S202, S220, S222, S224, S044, S404};

HMLP_INLINE void angular_values(double ca, double cb, double c, double* s) {
  const double a2 = ca * ca, b2 = cb * cb, abc = ca * cb * c;
  s[S000] = 1.0;
  s[S202] = 1.5 * a2 - 0.5;
  s[S022] = 1.5 * b2 - 0.5;
  s[S220] = 1.5 * c * c - 0.5;
  s[S222] = 2.0 - 3.0 * (a2 + b2 + c * c) + 9.0 * abc;
  /* linear quadrupoles: seed paper, equation 7 */
  s[S224] = 35.0 * a2 * b2 - 5.0 * a2 - 5.0 * b2 + 2.0 * c * c - 20.0 * abc + 1.0;
  s[S404] = (35.0 * a2 * a2 - 30.0 * a2 + 3.0) / 8.0;
  s[S044] = (35.0 * b2 * b2 - 30.0 * b2 + 3.0) / 8.0;
}

HMLP_INLINE void angular_slopes(double ca, double cb, double c, double* s_ca, double* s_cb,
                           double* s_c) {
  s_ca[S000] = s_cb[S000] = s_c[S000] = 0.0;
  s_ca[S202] = 3.0 * ca, s_cb[S202] = s_c[S202] = 0.0;
  s_cb[S022] = 3.0 * cb, s_ca[S022] = s_c[S022] = 0.0;
  s_c[S220] = 3.0 * c, s_ca[S220] = s_cb[S220] = 0.0;
  s_ca[S222] = -6.0 * ca + 9.0 * cb * c;
  s_cb[S222] = -6.0 * cb + 9.0 * ca * c;
  s_c[S222] = -6.0 * c + 9.0 * ca * cb;
  s_ca[S224] = 70.0 * ca * cb * cb - 10.0 * ca - 20.0 * cb * c;
  s_cb[S224] = 70.0 * cb * ca * ca - 10.0 * cb - 20.0 * ca * c;
  s_c[S224] = 4.0 * c - 20.0 * ca * cb;
  s_ca[S404] = (35.0 * ca * ca * ca - 15.0 * ca) / 2.0, s_cb[S404] = s_c[S404] = 0.0;
  s_cb[S044] = (35.0 * cb * cb * cb - 15.0 * cb) / 2.0, s_ca[S044] = s_c[S044] = 0.0;
}

inline double dot3(const double* a, const double* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/* One molecule as its neighbours see it. */
struct Axis {
  double u[3];   /* unit vector along the bond */
  double length; /* bond length */
};

/* Separation of two molecules and the scalars between their axes. */
struct Separation {
  double r, unit[3], ca, cb, c;
};

HMLP_INLINE Separation separation(const double* d, const Axis& a, const Axis& b) {
  Separation s;
  s.r = std::sqrt(dot3(d, d));
  /* Centres that coincide have no direction; any will do, the kernel's slopes are finite. */
  const double inv = 1.0 / (s.r > 1e-12 ? s.r : 1e-12);
  for (int x = 0; x < 3; ++x) s.unit[x] = d[x] * inv;
  s.ca = dot3(a.u, s.unit);
  s.cb = dot3(b.u, s.unit);
  s.c = dot3(a.u, b.u);
  return s;
}

/* Derivative of a function e(R, ca, cb, c), given by its four slopes, with respect to the
 * separation vector and to the two bond vectors. */
HMLP_INLINE void chain_to_vectors(const Separation& s, const Axis& a, const Axis& b, double e_r,
                             double e_ca, double e_cb, double e_c, double* de_dd, double* de_dba,
                             double* de_dbb) {
  const double inv = 1.0 / (s.r > 1e-12 ? s.r : 1e-12);
  const double inv_a = 1.0 / a.length, inv_b = 1.0 / b.length;
  for (int x = 0; x < 3; ++x) {
    de_dd[x] = e_r * s.unit[x] +
               inv * (e_ca * (a.u[x] - s.ca * s.unit[x]) + e_cb * (b.u[x] - s.cb * s.unit[x]));
    de_dba[x] =
        inv_a * (e_ca * (s.unit[x] - s.ca * a.u[x]) + e_c * (b.u[x] - s.c * a.u[x]));
    de_dbb[x] =
        inv_b * (e_cb * (s.unit[x] - s.cb * b.u[x]) + e_c * (a.u[x] - s.c * b.u[x]));
  }
}

/* ---------------------------------------------------------------- regressor ----------- */

/* Kernel ridge regression on compressed fingerprints y = T v and, where `stretch_width` > 0, the
 * bond length r of the centre's molecule:
 *
 *   e = w.v + (r - r0) w'.v
 *       + sum_s alpha_s [exp(-|y - y_s|^2 / 2) - exp(-(|y|^2 + |y_s|^2) / 2)]
 *               exp(-((r - r_s) / l)^2 / 2)
 *
 * The bracket is the covariance of a Gaussian process that is known to be zero at y = 0: an
 * isolated molecule has its bond energy and nothing else. */
struct Regressor {
  int n_fingerprints, n_components, n_representatives; /* representatives padded to REP_BLOCK */
  const double* transform;       /* (n_components, n_fingerprints) */
  const double* linear;          /* (n_fingerprints) */
  const double* linear_stretch;  /* (n_fingerprints) */
  const double* representatives; /* (blocks, n_components, REP_BLOCK), in the order read */
  const double* rep_norm;        /* (n_representatives): |y_s|^2 / 2 */
  const double* rep_bond;        /* (n_representatives): r_s */
  const double* alpha;           /* (n_representatives); the padding is zero */
  double r0, stretch_width;
};

HMLP_INLINE void compress(const Regressor& m, const double* v, double* y) {
  for (int q = 0; q < m.n_components; ++q) {
    const double* row = m.transform + static_cast<std::size_t>(q) * m.n_fingerprints;
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int k = 0; k < m.n_fingerprints; ++k) sum += row[k] * v[k];
    y[q] = sum;
  }
}

inline const double* representative_block(const Regressor& m, int first) {
  return m.representatives + static_cast<std::size_t>(first) * m.n_components;
}

/* exponents of one block of representatives: isolated = -(|y|^2 + |y_s|^2 + stretch^2) / 2,
 * near = -(|y - y_s|^2 + stretch^2) / 2 */
HMLP_INLINE void block_exponents(const Regressor& m, int first, const double* y, double half_norm,
                            double r, double* near, double* isolated) {
  double dot[REP_BLOCK];
  for (int s = 0; s < REP_BLOCK; ++s) dot[s] = 0.0;
  const double* block = representative_block(m, first);
  for (int q = 0; q < m.n_components; ++q) {
    const double* row = block + q * REP_BLOCK;
    const double yq = y[q];
#pragma omp simd
    for (int s = 0; s < REP_BLOCK; ++s) dot[s] += yq * row[s];
  }
  const double inv = m.stretch_width > 0.0 ? 1.0 / m.stretch_width : 0.0;
#pragma omp simd
  for (int s = 0; s < REP_BLOCK; ++s) {
    const double stretch = (r - m.rep_bond[first + s]) * inv;
    isolated[s] = -half_norm - m.rep_norm[first + s] - 0.5 * stretch * stretch;
    near[s] = isolated[s] + dot[s];
  }
}

inline double half_square_norm(const double* y, int n) {
  double sum = 0.0;
  for (int q = 0; q < n; ++q) sum += y[q] * y[q];
  return 0.5 * sum;
}

/* Energy of one centre, its gradient g = de/dv (n_fingerprints) and de/dr. */
HMLP_KERNEL double regressor_energy(const Regressor& m, const double* v, double r,
                                           double* g, double* de_dr) {
  double y[MAX_COMPONENTS], de_dy[MAX_COMPONENTS];
  double partial[MAX_COMPONENTS * REP_BLOCK]; /* de_dy, not yet summed over a block's lanes */
  compress(m, v, y);
  const double half_norm = half_square_norm(y, m.n_components);
  const bool stretch = m.stretch_width > 0.0;
  const double inv2 = stretch ? 1.0 / (m.stretch_width * m.stretch_width) : 0.0;
  for (int k = 0; k < m.n_components * REP_BLOCK; ++k) partial[k] = 0.0;
  double energy = 0.0, weight = 0.0, slope = 0.0;
  for (int first = 0; first < m.n_representatives; first += REP_BLOCK) {
    double near[REP_BLOCK], isolated[REP_BLOCK];
    block_exponents(m, first, y, half_norm, r, near, isolated);
#pragma omp simd reduction(+ : energy, weight, slope)
    for (int s = 0; s < REP_BLOCK; ++s) {
      const double a = m.alpha[first + s];
      const double k = a * vector_exp(near[s]);
      const double difference = k - a * vector_exp(isolated[s]);
      near[s] = k;
      weight += difference;
      energy += difference;
      slope -= difference * (r - m.rep_bond[first + s]) * inv2;
    }
    const double* block = representative_block(m, first);
    for (int q = 0; q < m.n_components; ++q) {
      const double* row = block + q * REP_BLOCK;
      double* sum = partial + q * REP_BLOCK;
#pragma omp simd
      for (int s = 0; s < REP_BLOCK; ++s) sum[s] += near[s] * row[s];
    }
  }
  for (int q = 0; q < m.n_components; ++q) {
    de_dy[q] = -weight * y[q];
    for (int s = 0; s < REP_BLOCK; ++s) de_dy[q] += partial[q * REP_BLOCK + s];
  }
  const double dr = r - m.r0;
#pragma omp simd reduction(+ : energy, slope)
  for (int k = 0; k < m.n_fingerprints; ++k) {
    g[k] = m.linear[k] + dr * m.linear_stretch[k];
    energy += v[k] * g[k];
    slope += v[k] * m.linear_stretch[k];
  }
  for (int q = 0; q < m.n_components; ++q) {
    const double* row = m.transform + static_cast<std::size_t>(q) * m.n_fingerprints;
    const double f = de_dy[q];
#pragma omp simd
    for (int k = 0; k < m.n_fingerprints; ++k) g[k] += f * row[k];
  }
  *de_dr = slope;
  return energy;
}

/* The two parts of the kernel columns of one centre, whose difference the coefficients multiply;
 * y as well. */
HMLP_KERNEL void regressor_columns(const Regressor& m, const double* v, double r,
                                          double* y, double* near, double* isolated) {
  compress(m, v, y);
  const double half_norm = half_square_norm(y, m.n_components);
  for (int first = 0; first < m.n_representatives; first += REP_BLOCK) {
    block_exponents(m, first, y, half_norm, r, near + first, isolated + first);
    for (int s = first; s < first + REP_BLOCK; ++s) {
      near[s] = vector_exp(near[s]);
      isolated[s] = vector_exp(isolated[s]);
    }
  }
}

/* ---------------------------------------------------------------- bond level ---------- */

enum BondKind { POLYNOMIAL = 0, MORSE = 1 };

/* polynomial: sum_k p[k] (r - r0)^k inside [lower, upper], continued outside by the parabola with
 * the same value, slope and curvature; morse: p = {depth, a}, depth (1 - exp(-a (r - r0)))^2 */
struct Bond {
  int kind, n_parameters;
  double parameters[MAX_POLYNOMIAL], r0, lower, upper;
};

inline Value bond_energy(const Bond& b, double r) {
  if (b.kind == MORSE) {
    const double e = std::exp(-b.parameters[1] * (r - b.r0)), t = 1.0 - e;
    return {b.parameters[0] * t * t, 2.0 * b.parameters[0] * b.parameters[1] * t * e};
  }
  const double edge = r < b.lower ? b.lower : (r > b.upper ? b.upper : r);
  const double x = edge - b.r0, beyond = r - edge;
  double f = 0.0, df = 0.0, half_d2f = 0.0;
  for (int k = b.n_parameters - 1; k >= 0; --k) {
    half_d2f = half_d2f * x + df;
    df = df * x + f;
    f = f * x + b.parameters[k];
  }
  return {f + beyond * (df + beyond * half_d2f), df + 2.0 * beyond * half_d2f};
}

/* ---------------------------------------------------------------- one centre ---------- */

/* Neighbours of one centre inside the cutoff. */
struct Neighbours {
  int n;
  const double* d; /* (n, 3) */
  const double* r; /* (n) distances */
  const int* j;    /* (n) index of each neighbour's fingerprint gradient */
};

inline void add_virial(double scale, const double* d, const double* f, double* w) {
  w[0] += scale * d[0] * f[0];
  w[1] += scale * d[1] * f[1];
  w[2] += scale * d[2] * f[2];
  w[3] += 0.5 * scale * (d[1] * f[2] + d[2] * f[1]);
  w[4] += 0.5 * scale * (d[0] * f[2] + d[2] * f[0]);
  w[5] += 0.5 * scale * (d[0] * f[1] + d[1] * f[0]);
}

/* Radial fingerprints of an atom: v[k] = sum_j phi_k(r_ij). */
HMLP_KERNEL void radial_fingerprints(const RadialTable& t, const Neighbours& nb,
                                            double* v) {
  for (int k = 0; k < t.channels; ++k) v[k] = 0.0;
  for (int n = 0; n < nb.n; ++n)
    table_channels<true>(table_value(t, nb.r[n]), t.channels, v);
}

/* Force on an atom and its half of every pair virial, from the gradients g (atoms, channels) of
 * itself, g + channels * i, and of its neighbours. */
HMLP_KERNEL void radial_forces(const RadialTable& t, const Neighbours& nb, const double* g,
                                      int i, double* force, double* virial) {
  const double* gi = g + static_cast<std::size_t>(i) * t.channels;
  for (int n = 0; n < nb.n; ++n) {
    const double r = nb.r[n], *d = nb.d + 3 * n;
    const double slope =
        table_contract(table_slope(t, r), t.channels, gi,
                       g + static_cast<std::size_t>(nb.j[n]) * t.channels) / r;
    const double f[3] = {slope * d[0], slope * d[1], slope * d[2]};
    for (int x = 0; x < 3; ++x) force[x] += f[x];
    add_virial(0.5, d, f, virial);
  }
}

/* Orientation fingerprints of a molecule: w[l * channels + n] = sum_b f_n(R) S_l(ca, cb, c). */
HMLP_KERNEL void orientation_fingerprints(const RadialTable& t, const Neighbours& nb,
                                                 const Axis& a, const Axis* axes, double* w) {
  const int channels = t.channels;
  for (int k = 0; k < channels * MAX_ANGULAR; ++k) w[k] = 0.0;
  double f[MAX_RADIAL], s[MAX_ANGULAR];
  for (int n = 0; n < nb.n; ++n) {
    const Separation p = separation(nb.d + 3 * n, a, axes[nb.j[n]]);
    table_channels<false>(table_value(t, nb.r[n]), channels, f);
    angular_values(p.ca, p.cb, p.c, s);
    for (int l = 0; l < MAX_ANGULAR; ++l) {
      double* out = w + l * channels;
#pragma omp simd
      for (int k = 0; k < channels; ++k) out[k] += s[l] * f[k];
    }
  }
}

/* Force on the centre of molecule a, the derivative of the energy with respect to its bond
 * vector, and its half of every pair virial; g as in radial_forces, one row per molecule. */
HMLP_KERNEL void orientation_forces(const RadialTable& t, const Neighbours& nb, int a,
                                           const Axis* axes, const double* g, double* force,
                                           double* de_dbond, double* virial) {
  const int channels = t.channels, row = channels * MAX_ANGULAR;
  const double* ga = g + static_cast<std::size_t>(a) * row;
  double s[MAX_ANGULAR], s_ca[MAX_ANGULAR], s_cb[MAX_ANGULAR], s_c[MAX_ANGULAR];
  double f[MAX_RADIAL], df[MAX_RADIAL];
  for (int n = 0; n < nb.n; ++n) {
    const Axis &ua = axes[a], &ub = axes[nb.j[n]];
    const double *d = nb.d + 3 * n, *gb = g + static_cast<std::size_t>(nb.j[n]) * row;
    const Separation p = separation(d, ua, ub);
    table_channels<false>(table_value(t, nb.r[n]), channels, f);
    table_channels<false>(table_slope(t, nb.r[n]), channels, df);
    angular_values(p.ca, p.cb, p.c, s);
    angular_slopes(p.ca, p.cb, p.c, s_ca, s_cb, s_c);
    double e_r = 0.0, e_ca = 0.0, e_cb = 0.0, e_c = 0.0;
    for (int l = 0; l < MAX_ANGULAR; ++l) {
      const double *ga_l = ga + l * channels, *gb_l = gb + ANGULAR_SWAP[l] * channels;
      double value = 0.0, slope = 0.0;
#pragma omp simd reduction(+ : value, slope)
      for (int k = 0; k < channels; ++k) {
        const double gradient = ga_l[k] + gb_l[k];
        value += gradient * f[k];
        slope += gradient * df[k];
      }
      e_r += s[l] * slope;
      e_ca += s_ca[l] * value;
      e_cb += s_cb[l] * value;
      e_c += s_c[l] * value;
    }
    double de_dd[3], de_dba[3], de_dbb[3];
    chain_to_vectors(p, ua, ub, e_r, e_ca, e_cb, e_c, de_dd, de_dba, de_dbb);
    for (int x = 0; x < 3; ++x) {
      force[x] += de_dd[x];
      de_dbond[x] += de_dba[x];
    }
    add_virial(0.5, d, de_dd, virial);
  }
}

/* Share what acts on a molecule's centre and bond vector out to its two atoms: adds to the forces
 * and virials of both. `virial` is that of the centre's pairs. */
inline void share_molecule(const double* bond, const double* centre_force, const double* de_dbond,
                           const double* virial, double* force_a, double* force_b,
                           double* virial_a, double* virial_b) {
  double w[6];
  std::memcpy(w, virial, sizeof w);
  add_virial(1.0, bond, de_dbond, w);
  for (int x = 0; x < 3; ++x) {
    force_a[x] += 0.5 * centre_force[x] + de_dbond[x];
    force_b[x] += 0.5 * centre_force[x] - de_dbond[x];
  }
  for (int x = 0; x < 6; ++x) {
    virial_a[x] += 0.5 * w[x];
    virial_b[x] += 0.5 * w[x];
  }
}

} /* namespace hmlp */

#endif
