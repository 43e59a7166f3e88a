/* The functions of hmlp_kernel.h, which includes this file once for each kind of processor. */
namespace hmlp {
namespace HMLP_VARIANT {

HMLP_INLINE v4 load(const double* p) { return *reinterpret_cast<const v4_anywhere*>(p); }
HMLP_INLINE void store(double* p, v4 v) { *reinterpret_cast<v4_anywhere*>(p) = v; }
HMLP_INLINE double sum(v4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

/* ---------------------------------------------------------------- scalar functions ---- */

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
    case SHELL: {
      const double x = (s - a) / b, e = std::exp(-x * x);
      g = {e, -2.0 * x / b * e};
      break;
    }
    case WENDLAND: {
      const double x = s / a, t = x < 1.0 ? 1.0 - x : 0.0, t3 = t * t * t;
      g = {t * t3 * (1.0 + 4.0 * x), -20.0 / a * x * t3};
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

/* exp(x) for four x <= 0; relative error below 1e-14, zero below -700, where products with it would
 * become denormal numbers, which are slow. */
HMLP_INLINE v4 vector_exp(v4 x) {
  const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
  const v4 lowest = v4{} - 700.0;
  const i4 nothing = x < lowest;
  x = nothing ? lowest : x;
  const v4 scaled = x * 1.4426950408889634074 + shift;
  const v4 n = scaled - shift;
  const v4 t = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  v4 p = t * (1.0 / 479001600.0) + 1.0 / 39916800.0;
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
  /* The low bits of `scaled` hold n. */
  const v4 power = reinterpret_cast<v4>((reinterpret_cast<i4>(scaled) + 1023) << 52);
  return nothing ? v4{} : p * power;
}

/* ---------------------------------------------------------------- tables -------------- */

HMLP_INLINE const double* interval(const Table& t, int size, double r, double inverse, double* x) {
  const double scaled = r * inverse;
  int n = static_cast<int>(scaled);
  n = n < t.n_intervals ? n : t.n_intervals - 1;
  *x = scaled - n;
  return t.intervals + static_cast<std::size_t>(n) * size;
}

HMLP_INLINE v4 block_value(const double* c, double x) {
  return load(c) + x * (load(c + 4) + x * (load(c + 8) + x * load(c + 12)));
}

/* Slope times the spacing. */
HMLP_INLINE v4 block_slope(const double* c, double x) {
  return load(c + 4) + x * (2.0 * load(c + 8) + (3.0 * x) * load(c + 12));
}

/* ---------------------------------------------------------------- orientation --------- */

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

/* Written out: the invariants then never leave the registers. */
HMLP_INLINE double dot_angular(const double* w, const double* s) {
  return ((w[0] * s[0] + w[1] * s[1]) + (w[2] * s[2] + w[3] * s[3])) +
         ((w[4] * s[4] + w[5] * s[5]) + (w[6] * s[6] + w[7] * s[7]));
}

HMLP_INLINE double dot3(const double* a, const double* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

HMLP_INLINE Value held_stretch(const Interaction& m, double length) {
  const Value low = frozen_distance(length, m.low, m.low + m.margin);
  const Value high = frozen_distance(-low.f, -m.high, -(m.high - m.margin));
  return {-high.f - m.r0, low.df * high.df};
}

/* From the position of its first atom and its bond vector. */
inline void place_molecule(const Interaction& m, const double* first, const double* bond,
                           Molecule* out) {
  out->length = std::sqrt(dot3(bond, bond));
  for (int x = 0; x < 3; ++x) {
    out->centre[x] = first[x] + 0.5 * bond[x];
    out->u[x] = bond[x] / out->length;
  }
  const Value s = held_stretch(m, out->length);
  out->s = s.f;
  out->ds = s.df;
  out->unused = 0.0;
}

HMLP_INLINE double separation(const Molecule& a, const Molecule& b, const Neighbours& nb, int n,
                              double* d) {
  for (int x = 0; x < 3; ++x) d[x] = b.centre[x] - a.centre[x];
  if (nb.shift_id) {
    const double* shift = nb.shifts + 3 * static_cast<std::size_t>(nb.shift_id[n]);
    for (int x = 0; x < 3; ++x) d[x] += shift[x];
  }
  return dot3(d, d);
}

/* Centres that coincide have no direction; any will do, the kernel's slopes are finite. */
constexpr double NOWHERE = 1e-12;

/* ---------------------------------------------------------------- moments ------------- */

/* Sums over neighbours, a row of N_MOMENTS numbers for each molecule; see Family for the letters:
 *
 *   row[n]                       = sum_b h_n(R)
 *   row[4 (1 + 3 kind + x) + n]  = sum_b h_n(R) (R^, c^2 R^, c b)_x
 *   row[4 (10 + 6 kind + t) + n] = sum_b h_n(R) (R^R^, bb, c (R^b + bR^) / 2)_t,
 *                                  t = xx, yy, zz, yz, xz, xy
 *   row[112 + n] = sum_b k_n(R)
 *   row[120 + n] = sum_b h_n(R) s_b
 *   row[124 + l] = sum_b aligned(R) S_l,  S = S022, S220, S222, S224, S044
 */
constexpr int FIRST_VECTOR = 1, FIRST_TENSOR = 1 + 3 * N_KINDS;

/* The second of a pair as the first sees it, all but the density; the other way round R^ and with
 * it c turn, and so do vectors. */
HMLP_INLINE void look(v4 h, const double* u, const double* b, double c, v4* vectors, v4* tensors) {
  const v4 hc = h * c;
  for (int x = 0; x < 3; ++x) {
    vectors[x] = h * u[x];
    vectors[3 + x] = hc * (c * u[x]);
    vectors[6 + x] = hc * b[x];
  }
  constexpr int first[6] = {0, 1, 2, 1, 0, 0}, second[6] = {0, 1, 2, 2, 2, 1};
  for (int t = 0; t < 6; ++t) {
    const int x = first[t], y = second[t];
    tensors[t] = h * (u[x] * u[y]);
    tensors[6 + t] = h * (b[x] * b[y]);
    tensors[12 + t] = hc * (0.5 * (u[x] * b[y] + u[y] * b[x]));
  }
}

/* Adds the pairs of molecule a to the rows of all molecules. */
HMLP_KERNEL void gather_moments(const Interaction& m, const Molecule* all, int a,
                                const Neighbours& nb, double* rows) {
  const Molecule& A = all[a];
  const double inverse = 1.0 / m.centres.spacing, cutoff2 = m.environment * m.environment;
  v4 own[N_DIRECTED], near{}, far{}, stretched{};
  double aligned[N_ALIGNED] = {};
  for (int t = 0; t < N_DIRECTED; ++t) own[t] = v4{};
  for (int n = 0; n < nb.n; ++n) {
    const Molecule& B = all[nb.index[n]];
    double d[3], x;
    const double r2 = separation(A, B, nb, n, d);
    if (r2 >= cutoff2) continue;
    const double r = std::sqrt(r2), inv = 1.0 / (r > NOWHERE ? r : NOWHERE);
    const double u[3] = {d[0] * inv, d[1] * inv, d[2] * inv};
    const double* c = interval(m.centres, CENTRE_INTERVAL, r, inverse, &x);
    const v4 h = block_value(c, x);
    const double g = block_value(c + 2 * BLOCK, x)[2];
    const double ca = dot3(A.u, u), cb = dot3(B.u, u);
    double s[ALL_ANGULAR];
    angular_values(ca, cb, dot3(A.u, B.u), s);
    double* row = rows + static_cast<std::size_t>(nb.index[n]) * N_MOMENTS;
    v4 vectors[3 * N_KINDS], tensors[6 * N_KINDS];
    look(h, u, B.u, cb, vectors, tensors);
    own[0] += h;
    for (int t = 0; t < 3 * N_KINDS; ++t) own[FIRST_VECTOR + t] += vectors[t];
    for (int t = 0; t < 6 * N_KINDS; ++t) own[FIRST_TENSOR + t] += tensors[t];
    look(h, u, A.u, ca, vectors, tensors);
    store(row, load(row) + h);
    for (int t = 0; t < 3 * N_KINDS; ++t) {
      double* p = row + 4 * (FIRST_VECTOR + t);
      store(p, load(p) - vectors[t]);
    }
    for (int t = 0; t < 6 * N_KINDS; ++t) {
      double* p = row + 4 * (FIRST_TENSOR + t);
      store(p, load(p) + tensors[t]);
    }
    const v4 k1 = block_value(c + 3 * BLOCK, x), k5 = block_value(c + 4 * BLOCK, x);
    near += k1;
    far += k5;
    store(row + FIRST_SHELL, load(row + FIRST_SHELL) + k1);
    store(row + FIRST_SHELL + 4, load(row + FIRST_SHELL + 4) + k5);
    stretched += h * B.s;
    store(row + FIRST_STRETCHED, load(row + FIRST_STRETCHED) + h * A.s);
    const double both[3] = {g * s[S220], g * s[S222], g * s[S224]};
    double* w = row + FIRST_ALIGNED;
    aligned[0] += g * s[S022];
    w[0] += g * s[S202];
    for (int i = 0; i < 3; ++i) {
      aligned[1 + i] += both[i];
      w[1 + i] += both[i];
    }
    aligned[4] += g * s[S044];
    w[4] += g * s[S404];
  }
  double* row = rows + static_cast<std::size_t>(a) * N_MOMENTS;
  for (int t = 0; t < N_DIRECTED; ++t) store(row + 4 * t, load(row + 4 * t) + own[t]);
  store(row + FIRST_SHELL, load(row + FIRST_SHELL) + near);
  store(row + FIRST_SHELL + 4, load(row + FIRST_SHELL + 4) + far);
  store(row + FIRST_STRETCHED, load(row + FIRST_STRETCHED) + stretched);
  for (int i = 0; i < N_ALIGNED; ++i) row[FIRST_ALIGNED + i] += aligned[i];
}

/* ---------------------------------------------------------------- fingerprints -------- */

/* What the fingerprints and their derivatives share; number 4 kind + n of the twelve. */
struct Shape {
  double vector[3][N_OF_A_RANK];
  double tensor[6][N_OF_A_RANK]; /* xx yy zz yz xz xy, traceless */
  double turned[3][N_OF_A_RANK]; /* Q u */
  double along[N_DENSITIES];     /* V.u, first kind */
};

/* Rows of a symmetric matrix in the order above. */
constexpr int SYMMETRIC[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};

HMLP_INLINE void shape_of(const double* row, const double* u, Shape& f) {
  for (int kind = 0; kind < N_KINDS; ++kind)
    for (int n = 0; n < N_DENSITIES; ++n) {
      const int w = N_DENSITIES * kind + n;
      const double* vector = row + 4 * (FIRST_VECTOR + 3 * kind) + n;
      const double* tensor = row + 4 * (FIRST_TENSOR + 6 * kind) + n;
      const double third = (tensor[0] + tensor[4] + tensor[8]) / 3.0;
      for (int x = 0; x < 3; ++x) f.vector[x][w] = vector[4 * x];
      for (int t = 0; t < 6; ++t) f.tensor[t][w] = tensor[4 * t] - (t < 3 ? third : 0.0);
      for (int x = 0; x < 3; ++x) {
        f.turned[x][w] = 0.0;
        for (int y = 0; y < 3; ++y) f.turned[x][w] += u[y] * f.tensor[SYMMETRIC[x][y]][w];
      }
    }
  for (int n = 0; n < N_DENSITIES; ++n) {
    f.along[n] = 0.0;
    for (int x = 0; x < 3; ++x) f.along[n] += u[x] * f.vector[x][n];
  }
}

HMLP_INLINE void fingerprints_of(const double* row, const double* u, const Shape& f, double* v) {
  for (int n = 0; n < N_DENSITIES; ++n) v[DENSITY + n] = row[n];
  for (int w = 0; w < N_OF_A_RANK; ++w)
    v[AXIAL + w] =
        1.5 * (u[0] * f.turned[0][w] + u[1] * f.turned[1][w] + u[2] * f.turned[2][w]);
  for (int l = 0; l < N_ALIGNED; ++l) v[ALIGNED + l] = row[FIRST_ALIGNED + l];
  for (int n = 0; n < N_SHELLS; ++n) v[SHELLS + n] = row[FIRST_SHELL + n];
  for (int n = 0; n < N_DENSITIES; ++n) v[STRETCHED + n] = row[FIRST_STRETCHED + n];
  int k = 0;
  for (int w = 0; w < N_OF_A_RANK; ++w)
    for (int o = w; o < N_OF_A_RANK; ++o, ++k) {
      double vector = 0.0, tensor = 0.0;
      for (int x = 0; x < 3; ++x) {
        vector += f.vector[x][w] * f.vector[x][o];
        tensor += f.tensor[x][w] * f.tensor[x][o] + 2.0 * f.tensor[3 + x][w] * f.tensor[3 + x][o];
      }
      v[VECTOR + k] = vector;
      v[TENSOR + k] = tensor;
    }
  k = 0;
  for (int n = 0; n < N_DENSITIES; ++n)
    for (int o = n; o < N_DENSITIES; ++o, ++k) {
      double turned = 0.0;
      for (int x = 0; x < 3; ++x) turned += f.turned[x][n] * f.turned[x][o];
      v[VECTOR_AXIS + k] = f.along[n] * f.along[o];
      v[TENSOR_AXIS + k] = turned;
    }
}

/* From the gradient g with respect to the fingerprints to that with respect to the moments, and to
 * the axis (added to de_du). */
HMLP_INLINE void gradient_of_moments(const Shape& f, const double* u, const double* g, double* row,
                                     double* de_du) {
  double by_vector[3][N_OF_A_RANK] = {}, by_tensor[6][N_OF_A_RANK] = {};
  double by_turned[3][N_OF_A_RANK] = {};
  int k = 0;
  for (int w = 0; w < N_OF_A_RANK; ++w)
    for (int o = w; o < N_OF_A_RANK; ++o, ++k) {
      /* The square of one gets both of its halves. */
      const double vector = g[VECTOR + k], tensor = g[TENSOR + k];
      for (int x = 0; x < 3; ++x) {
        by_vector[x][w] += vector * f.vector[x][o];
        by_vector[x][o] += vector * f.vector[x][w];
      }
      for (int t = 0; t < 6; ++t) {
        by_tensor[t][w] += tensor * f.tensor[t][o];
        by_tensor[t][o] += tensor * f.tensor[t][w];
      }
    }
  k = 0;
  for (int n = 0; n < N_DENSITIES; ++n)
    for (int o = n; o < N_DENSITIES; ++o, ++k) {
      const double along = g[VECTOR_AXIS + k], turned = g[TENSOR_AXIS + k];
      for (int x = 0; x < 3; ++x) {
        by_vector[x][n] += along * f.along[o] * u[x];
        by_vector[x][o] += along * f.along[n] * u[x];
        de_du[x] += along * (f.along[o] * f.vector[x][n] + f.along[n] * f.vector[x][o]);
        by_turned[x][n] += turned * f.turned[x][o];
        by_turned[x][o] += turned * f.turned[x][n];
      }
    }
  for (int n = 0; n < N_DENSITIES; ++n) row[n] = g[DENSITY + n];
  for (int kind = 0; kind < N_KINDS; ++kind)
    for (int n = 0; n < N_DENSITIES; ++n) {
      const int w = N_DENSITIES * kind + n;
      const double axial = 1.5 * g[AXIAL + w];
      double turned[3], tensor[6];
      for (int x = 0; x < 3; ++x) {
        de_du[x] += axial * f.turned[x][w];
        turned[x] = by_turned[x][w] + axial * u[x];
      }
      /* Q u depends on Q and on u. */
      for (int x = 0; x < 3; ++x) {
        for (int y = 0; y < 3; ++y) de_du[x] += f.tensor[SYMMETRIC[x][y]][w] * turned[y];
        tensor[x] = by_tensor[x][w] + turned[x] * u[x];
      }
      tensor[3] = by_tensor[3][w] + 0.5 * (turned[1] * u[2] + turned[2] * u[1]);
      tensor[4] = by_tensor[4][w] + 0.5 * (turned[0] * u[2] + turned[2] * u[0]);
      tensor[5] = by_tensor[5][w] + 0.5 * (turned[0] * u[1] + turned[1] * u[0]);
      const double third = (tensor[0] + tensor[1] + tensor[2]) / 3.0;
      double* of_vector = row + 4 * (FIRST_VECTOR + 3 * kind) + n;
      double* of_tensor = row + 4 * (FIRST_TENSOR + 6 * kind) + n;
      for (int x = 0; x < 3; ++x) {
        of_vector[4 * x] = by_vector[x][w];
        of_tensor[4 * x] = tensor[x] - third;
        of_tensor[4 * (3 + x)] = 2.0 * tensor[3 + x];
      }
    }
  for (int l = 0; l < N_ALIGNED; ++l) row[FIRST_ALIGNED + l] = g[ALIGNED + l];
  for (int n = 0; n < N_SHELLS; ++n) row[FIRST_SHELL + n] = g[SHELLS + n];
  for (int n = 0; n < N_DENSITIES; ++n) row[FIRST_STRETCHED + n] = g[STRETCHED + n];
}

/* ---------------------------------------------------------------- regressor ----------- */

HMLP_INLINE void compress(const Regressor& m, const double* v, double* y) {
  for (int q = 0; q < m.n_components; ++q) {
    const double* row = m.transform + static_cast<std::size_t>(q) * m.n_seen;
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int k = 0; k < m.n_seen; ++k) sum += row[k] * v[k];
    y[q] = sum;
  }
}

/* What the representatives would say of an isolated molecule with a bond of length r. */
HMLP_INLINE Value isolated_value(const Regressor& m, double r) {
  const double inverse = 1.0 / m.isolated_spacing;
  double x = (r - m.isolated_start) * inverse;
  const double end = m.n_isolated - 1;
  x = x < 0.0 ? 0.0 : (x > end ? end : x);
  int n = static_cast<int>(x);
  n = n < m.n_isolated - 2 ? n : m.n_isolated - 2;
  x -= n;
  const double *a = m.isolated + 2 * static_cast<std::size_t>(n), *b = a + 2;
  const double c2 = 3.0 * (b[0] - a[0]) - 2.0 * a[1] - b[1];
  const double c3 = 2.0 * (a[0] - b[0]) + a[1] + b[1];
  return {a[0] + x * (a[1] + x * (c2 + x * c3)), (a[1] + x * (2.0 * c2 + 3.0 * x * c3)) * inverse};
}

/* Energy of one molecule, its gradient g = de/dv (n_fingerprints) and de/dr. */
HMLP_KERNEL double regressor_energy(const Regressor& m, const double* v, double r, double* g,
                                    double* de_dr) {
  double y[MAX_COMPONENTS + 1], de_dy[MAX_COMPONENTS + 1];
  v4 partial[MAX_COMPONENTS + 1]; /* de_dy, not yet summed over lanes */
  compress(m, v, y);
  double square = 0.0, half_norm = 0.0;
  for (int q = 0; q < m.n_components; ++q) {
    square += y[q] * y[q];
    y[q] -= m.mean[q];
    half_norm += 0.5 * y[q] * y[q];
  }
  const int n = m.n_components + 1;
  const double inv = m.stretch_width > 0.0 ? 1.0 / m.stretch_width : 0.0;
  const double dr = r - m.r0;
  y[n - 1] = dr * inv;
  half_norm += 0.5 * y[n - 1] * y[n - 1];
  for (int q = 0; q < n; ++q) partial[q] = v4{};
  v4 total{};
  for (int first = 0; first < m.n_representatives; first += REP_BLOCK) {
    const double* block = m.representatives + static_cast<std::size_t>(first) * n;
    const double *norm = m.rep_norm + first, *alpha = m.alpha + first;
    /* Eight sums, for each has to wait for its last term. */
    v4 e[REP_BLOCK / 4];
    for (int k = 0; k < REP_BLOCK / 4; ++k) e[k] = -half_norm - load(norm + 4 * k);
    for (int q = 0; q < n; ++q) {
      const double* row = block + q * REP_BLOCK;
      for (int k = 0; k < REP_BLOCK / 4; ++k) e[k] += y[q] * load(row + 4 * k);
    }
    for (int k = 0; k < REP_BLOCK / 4; ++k) {
      e[k] = load(alpha + 4 * k) * vector_exp(e[k]);
      total += e[k];
    }
    for (int q = 0; q < n; ++q) {
      const double* row = block + q * REP_BLOCK;
      v4 even{}, odd{};
      for (int k = 0; k < REP_BLOCK / 4; k += 2) {
        even += e[k] * load(row + 4 * k);
        odd += e[k + 1] * load(row + 4 * k + 4);
      }
      partial[q] += even + odd;
    }
  }
  double energy = sum(total);
  for (int q = 0; q < n; ++q) de_dy[q] = sum(partial[q]) - energy * y[q];
  const Value alone = isolated_value(m, r);
  const double decay = std::exp(-0.5 * square);
  double slope = de_dy[n - 1] * inv - decay * alone.df;
  energy -= decay * alone.f;
  for (int q = 0; q < m.n_components; ++q) 
    de_dy[q] += decay * alone.f * (y[q] + m.mean[q]);
#pragma omp simd reduction(+ : energy, slope)
  for (int k = 0; k < m.n_fingerprints; ++k) {
    g[k] = m.linear[k] + dr * m.linear_stretch[k];
    energy += v[k] * g[k];
    slope += v[k] * m.linear_stretch[k];
  }
  for (int q = 0; q < m.n_components; ++q) {
    const double* row = m.transform + static_cast<std::size_t>(q) * m.n_seen;
    const double f = de_dy[q];
#pragma omp simd
    for (int k = 0; k < m.n_seen; ++k) g[k] += f * row[k];
  }
  *de_dr = slope;
  return energy;
}

/* ---------------------------------------------------------------- environment level --- */

/* Fingerprints of a molecule, N_FINGERPRINTS numbers, from its row of moments and its forms. */
HMLP_KERNEL void environment_fingerprints(const Molecule& a, const double* row, const double* forms,
                                          double* v) {
  Shape f;
  shape_of(row, a.u, f);
  fingerprints_of(row, a.u, f, v);
  for (int k = 0; k < N_FORMS; ++k) v[OVERLAP + k] = forms[k];
}

/* The derivatives of fingerprint k, none of the forms, by the moments and the axis of the
 * molecule. */
HMLP_KERNEL void fingerprint_gradient(const Molecule& a, const double* row, int k, double* gradient,
                                      double* de_du) {
  Shape f;
  double g[N_FINGERPRINTS] = {};
  g[k] = 1.0;
  shape_of(row, a.u, f);
  for (int x = 0; x < 3; ++x) de_du[x] = 0.0;
  gradient_of_moments(f, a.u, g, gradient, de_du);
}

/* Derivative by the axis u as one by the bond vector, added. */
HMLP_INLINE void add_axis_slope(const Molecule& a, const double* de_du, double* de_dbond) {
  const double along = dot3(de_du, a.u), inv = 1.0 / a.length;
  for (int x = 0; x < 3; ++x) de_dbond[x] += inv * (de_du[x] - along * a.u[x]);
}

/* Energy of a molecule's surroundings, with the bond as long as the stretch says. Its row of
 * moments and its forms become the derivatives by them; the derivative by its own bond vector is
 * added to de_dbond. */
HMLP_KERNEL double environment_energy(const Interaction& i, const Regressor& m, const Molecule& a,
                                      double* row, double* forms, double* de_dbond) {
  Shape f;
  double v[MAX_FINGERPRINTS], g[MAX_FINGERPRINTS], de_du[3] = {}, slope;
  for (int k = N_FINGERPRINTS; k < m.n_fingerprints; ++k) v[k] = 0.0; /* padding */
  shape_of(row, a.u, f);
  fingerprints_of(row, a.u, f, v);
  for (int k = 0; k < N_FORMS; ++k) v[OVERLAP + k] = forms[k];
  const double energy = regressor_energy(m, v, i.r0 + a.s, g, &slope);
  for (int k = 0; k < N_FORMS; ++k) forms[k] = g[OVERLAP + k];
  gradient_of_moments(f, a.u, g, row, de_du);
  add_axis_slope(a, de_du, de_dbond);
  for (int x = 0; x < 3; ++x) de_dbond[x] += slope * a.ds * a.u[x];
  return energy;
}

/* ---------------------------------------------------------------- bond level ---------- */

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
  const double wall = BOND_WALL * std::fabs(beyond);
  return {f + beyond * (df + beyond * (half_d2f + wall)),
          df + beyond * (2.0 * half_d2f + 3.0 * wall)};
}

/* ---------------------------------------------------------------- pairs --------------- */

inline void add_virial(double scale, const double* d, const double* f, double* w) {
  w[0] += scale * d[0] * f[0];
  w[1] += scale * d[1] * f[1];
  w[2] += scale * d[2] * f[2];
  w[3] += 0.5 * scale * (d[1] * f[2] + d[2] * f[1]);
  w[4] += 0.5 * scale * (d[0] * f[2] + d[2] * f[0]);
  w[5] += 0.5 * scale * (d[0] * f[1] + d[1] * f[0]);
}

/* What the moments of a molecule with the row of derivatives g see of a neighbour with axis b, one
 * number for each density, without the densities' own; see `look`. Derivatives of it by the unit
 * separation are added to of_unit, times h and summed those by the axis to by_axis. */
HMLP_INLINE v4 add_sight(const double* g, double sign, v4 h, const double* u, const double* b,
                         double c, v4* of_unit, double* by_axis) {
  const double *gv = g + 4 * FIRST_VECTOR, *gt = g + 4 * FIRST_TENSOR;
  v4 v[9], m[3][6], m1[3], m2[3], p[3], q[3];
  for (int k = 0; k < 9; ++k) v[k] = sign * load(gv + 4 * k);
  for (int kind = 0; kind < N_KINDS; ++kind)
    for (int t = 0; t < 6; ++t)
      m[kind][t] = (t < 3 ? 1.0 : 0.5) * load(gt + 4 * (6 * kind + t));
  const v4 a2 = v[3] * u[0] + v[4] * u[1] + v[5] * u[2];
  const v4 a3 = v[6] * b[0] + v[7] * b[1] + v[8] * b[2];
  v4 sight = v[0] * u[0] + v[1] * u[1] + v[2] * u[2] + (c * c) * a2 + c * a3, b3{};
  for (int x = 0; x < 3; ++x) {
    const int* row = SYMMETRIC[x];
    m1[x] = m[0][row[0]] * u[0] + m[0][row[1]] * u[1] + m[0][row[2]] * u[2];
    m2[x] = m[1][row[0]] * b[0] + m[1][row[1]] * b[1] + m[1][row[2]] * b[2];
    p[x] = m[2][row[0]] * b[0] + m[2][row[1]] * b[1] + m[2][row[2]] * b[2];
    q[x] = m[2][row[0]] * u[0] + m[2][row[1]] * u[1] + m[2][row[2]] * u[2];
    sight += m1[x] * u[x] + m2[x] * b[x];
    b3 += p[x] * u[x];
  }
  sight += c * b3;
  const v4 common = (2.0 * c) * a2 + a3 + b3;
  for (int x = 0; x < 3; ++x) {
    of_unit[x] += v[x] + (c * c) * v[3 + x] + common * b[x] + 2.0 * m1[x] + c * p[x];
    by_axis[x] += sum(h * (common * u[x] + c * v[6 + x] + 2.0 * m2[x] + c * q[x]));
  }
  return sight;
}

/* `ga`, `gb`: rows of derivatives by the moments of both molecules, where ENVIRONMENT. */
template <bool ENVIRONMENT>
HMLP_INLINE void pair_terms(const Interaction& m, const Molecule& A, const Molecule& B,
                            const double* d, double r2, const double* ga, const double* gb,
                            PairTerms& out) {
  const double inv_atoms = 1.0 / m.atoms.spacing, inv_centres = 1.0 / m.centres.spacing;
  const double r = std::sqrt(r2), inv = 1.0 / (r > NOWHERE ? r : NOWHERE);
  const double u[3] = {d[0] * inv, d[1] * inv, d[2] * inv};
  double x;
  const double* c = interval(m.centres, CENTRE_INTERVAL, r, inv_centres, &x);
  const v4 p = block_value(c + BLOCK, x), dp = block_slope(c + BLOCK, x) * inv_centres;
  const v4 q = block_value(c + 2 * BLOCK, x), dq = block_slope(c + 2 * BLOCK, x) * inv_centres;
  const double cutoff = q[3];

  /* Atom by atom, the four distances together: first atom of A with both of B, then the second. */
  const v4 of_a = {-0.5, -0.5, 0.5, 0.5}, of_b = {-0.5, 0.5, -0.5, 0.5};
  v4 atom[3];
  for (int k = 0; k < 3; ++k)
    atom[k] = d[k] + of_b * (B.length * B.u[k]) - of_a * (A.length * A.u[k]);
  const v4 square = atom[0] * atom[0] + atom[1] * atom[1] + atom[2] * atom[2];
  double distance[4], over[4];
  for (int k = 0; k < 4; ++k) {
    distance[k] = std::sqrt(square[k]);
    over[k] = 1.0 / (distance[k] > NOWHERE ? distance[k] : NOWHERE);
  }
  const v4 stretch = {1.0, A.s + B.s, A.s * B.s, A.s * A.s + B.s * B.s};
  v4 value = {}, slope;
  for (int k = 0; k < 4; ++k) {
    double y;
    const double* f = interval(m.atoms, ATOM_INTERVAL, distance[k], inv_atoms, &y);
    value += block_value(f, y);
    slope[k] = sum(block_slope(f, y) * stretch) * over[k];
  }
  const double bare = sum(value * stretch);
  slope *= cutoff * inv_atoms;
  out.pair = cutoff * bare;
  const double stretch_a = cutoff * (value[1] + B.s * value[2] + 2.0 * A.s * value[3]) * A.ds;
  const double stretch_b = cutoff * (value[1] + A.s * value[2] + 2.0 * B.s * value[3]) * B.ds;
  for (int k = 0; k < 3; ++k) {
    const v4 f = slope * atom[k];
    const double first = f[0] + f[1], second = f[2] + f[3];
    out.by_d[k] = first + second;
    out.by_a[k] = stretch_a * A.u[k] - 0.5 * (second - first);
    out.by_b[k] = stretch_b * B.u[k] + 0.5 * ((f[1] - f[0]) + (f[3] - f[2]));
  }
  out.r2 = square[0];
  out.atoms = 0;
  for (int k = 1; k < 4; ++k)
    if (square[k] < out.r2) {
      out.r2 = square[k];
      out.atoms = k;
    }

  /* Axes: coefficient and its slope of every invariant. */
  const double ca = dot3(A.u, u), cb = dot3(B.u, u), cc = dot3(A.u, B.u);
  double s[ALL_ANGULAR], s_ca[ALL_ANGULAR], s_cb[ALL_ANGULAR], s_c[ALL_ANGULAR];
  angular_values(ca, cb, cc, s);
  angular_slopes(ca, cb, cc, s_ca, s_cb, s_c);
  double w[ALL_ANGULAR] = {p[0], p[1], p[1], p[2], p[3], q[0], q[1], q[1]};
  double dw[ALL_ANGULAR] = {dp[0], dp[1], dp[1], dp[2], dp[3], dq[0], dq[1], dq[1]};
  out.orientation = dot_angular(w, s);
  double e_r = dq[3] * bare;
  double by_unit[3] = {}, by_axis_a[3] = {}, by_axis_b[3] = {};
  if (ENVIRONMENT) {
    const double *wa = ga + FIRST_ALIGNED, *wb = gb + FIRST_ALIGNED;
    const double g[ALL_ANGULAR] = {0.0,           wb[0],         wa[0], wa[1] + wb[1],
                                   wa[2] + wb[2], wa[3] + wb[3], wb[4], wa[4]};
    for (int l = 1; l < ALL_ANGULAR; ++l) {
      w[l] += q[2] * g[l];
      dw[l] += dq[2] * g[l];
    }
    const v4 h = block_value(c, x), dh = block_slope(c, x) * inv_centres;
    v4 angular = load(ga) + load(gb), of_unit[3] = {};
    angular += add_sight(ga, 1.0, h, u, B.u, cb, of_unit, by_axis_b);
    angular += add_sight(gb, -1.0, h, u, A.u, ca, of_unit, by_axis_a);
    for (int k = 0; k < 3; ++k) by_unit[k] = sum(h * of_unit[k]);
    const v4 dk1 = block_slope(c + 3 * BLOCK, x), dk5 = block_slope(c + 4 * BLOCK, x);
    const v4 by_shell = dk1 * (load(ga + FIRST_SHELL) + load(gb + FIRST_SHELL)) +
                        dk5 * (load(ga + FIRST_SHELL + 4) + load(gb + FIRST_SHELL + 4));
    const v4 sa = load(ga + FIRST_STRETCHED), sb = load(gb + FIRST_STRETCHED);
    e_r += sum(dh * (angular + sa * B.s + sb * A.s) + by_shell * inv_centres);
    const double longer_a = A.ds * sum(h * sb), longer_b = B.ds * sum(h * sa);
    for (int k = 0; k < 3; ++k) {
      out.by_a[k] += longer_a * A.u[k];
      out.by_b[k] += longer_b * B.u[k];
    }
  }
  e_r += dot_angular(dw, s);
  const double e_ca = dot_angular(w, s_ca), e_cb = dot_angular(w, s_cb);
  const double e_c = dot_angular(w, s_c);
  for (int k = 0; k < 3; ++k) by_unit[k] += e_ca * A.u[k] + e_cb * B.u[k];
  for (int k = 0; k < 3; ++k) {
    by_axis_a[k] += e_ca * u[k] + e_c * B.u[k];
    by_axis_b[k] += e_cb * u[k] + e_c * A.u[k];
  }
  const double along = dot3(by_unit, u), inv_a = 1.0 / A.length, inv_b = 1.0 / B.length;
  const double along_a = dot3(by_axis_a, A.u), along_b = dot3(by_axis_b, B.u);
  for (int k = 0; k < 3; ++k) {
    out.by_d[k] += e_r * u[k] + inv * (by_unit[k] - along * u[k]);
    out.by_a[k] += inv_a * (by_axis_a[k] - along_a * A.u[k]);
    out.by_b[k] += inv_b * (by_axis_b[k] - along_b * B.u[k]);
  }
}

/* Adds the pairs of molecule a to the terms of all molecules and keeps the shortest contact; rows
 * as environment_energy leaves them, or null without an environment level. */
HMLP_KERNEL void add_pairs(const Interaction& m, const Molecule* all, int a, const Neighbours& nb,
                           const double* rows, MoleculeTerms* terms, Contact* contact) {
  const Molecule& A = all[a];
  const double cutoff2 = m.cutoff * m.cutoff;
  const double environment2 = rows ? m.environment * m.environment : 0.0;
  MoleculeTerms own{};
  for (int n = 0; n < nb.n; ++n) {
    const int b = nb.index[n];
    const Molecule& B = all[b];
    double d[3];
    const double r2 = separation(A, B, nb, n, d);
    if (r2 >= cutoff2) continue;
    PairTerms p;
    if (r2 < environment2)
      pair_terms<true>(m, A, B, d, r2, rows + static_cast<std::size_t>(a) * N_MOMENTS,
                       rows + static_cast<std::size_t>(b) * N_MOMENTS, p);
    else
      pair_terms<false>(m, A, B, d, r2, nullptr, nullptr, p);
    MoleculeTerms& other = terms[b];
    double w[6] = {};
    add_virial(0.5, d, p.by_d, w);
    for (int x = 0; x < 3; ++x) {
      own.by_centre[x] -= p.by_d[x];
      own.by_bond[x] += p.by_a[x];
      other.by_centre[x] += p.by_d[x];
      other.by_bond[x] += p.by_b[x];
    }
    for (int x = 0; x < 6; ++x) {
      own.virial[x] += w[x];
      other.virial[x] += w[x];
    }
    own.pair += 0.5 * p.pair;
    own.orientation += 0.5 * p.orientation;
    other.pair += 0.5 * p.pair;
    other.orientation += 0.5 * p.orientation;
    if (p.r2 < contact->r2) *contact = {p.r2, a, n, p.atoms};
  }
  MoleculeTerms& mine = terms[a];
  for (int x = 0; x < 3; ++x) {
    mine.by_centre[x] += own.by_centre[x];
    mine.by_bond[x] += own.by_bond[x];
  }
  for (int x = 0; x < 6; ++x) mine.virial[x] += own.virial[x];
  mine.pair += own.pair;
  mine.orientation += own.orientation;
}

/* Derivatives of one fingerprint of A, given by its row `ga`, by the separation and the bonds. */
HMLP_KERNEL void fingerprint_pair(const Interaction& m, const Molecule& A, const Molecule& B,
                                  const double* d, const double* ga, const double* gb,
                                  PairTerms* out) {
  pair_terms<true>(m, A, B, d, dot3(d, d), ga, gb, *out);
}

/* Share what acts on a molecule out to its two atoms: adds to the forces of both and to their
 * virials, half of the molecule's to each. `by_bond` has to hold all derivatives by the bond. */
HMLP_INLINE void share_molecule(const Molecule& a, const MoleculeTerms& t, double* force_a,
                                double* force_b, double* virial_a, double* virial_b) {
  const double bond[3] = {a.length * a.u[0], a.length * a.u[1], a.length * a.u[2]};
  double w[6];
  std::memcpy(w, t.virial, sizeof w);
  add_virial(1.0, bond, t.by_bond, w);
  for (int x = 0; x < 3; ++x) {
    force_a[x] += t.by_bond[x] - 0.5 * t.by_centre[x];
    force_b[x] -= t.by_bond[x] + 0.5 * t.by_centre[x];
  }
  for (int x = 0; x < 6; ++x) {
    virial_a[x] += 0.5 * w[x];
    virial_b[x] += 0.5 * w[x];
  }
}

} /* namespace HMLP_VARIANT */
} /* namespace hmlp */
