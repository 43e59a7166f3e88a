/* How the orbitals of molecules overlap; hmlp_kernel.h includes this file once for each kind of
 * processor.
 *
 * Molecules in a dense solid or liquid overlap, and the electrons of each have to stay orthogonal to
 * those of all others. What that costs is no sum over pairs or triples: the inverse of the overlap
 * matrix expands into terms of alternating sign that hardly get smaller. So the matrix is inverted,
 * that of a molecule b and its neighbours, with one bonding orbital each,
 *
 *   S_aa = (1 + ridge) (2 + 2 s(r_a)),   S_ac = w_a w_c sum over their atoms i, j of s(r_ij)
 *
 * where w = (1 - x^3)^3, x = (R^2 - inner^2) / (reach^2 - inner^2), from 1 up to `inner` falls to 0 at
 * `reach`, so that neighbours come and go smoothly. Bonds are as long as the stretch says. With s the
 * overlap of two 1s orbitals nothing makes it singular but distances that are frozen. Fingerprints
 * of b are quadratic forms v . S^-1 . v' of vectors over the molecules a: how orbitals of b overlap
 * with the bonding orbitals of all,
 *
 *   0      bonding   1 at b, 0 elsewhere
 *   1-3    even      w_a sum_ij g_k(r_ij)
 *   4-6    odd       w_a sum_ij (-1 for the first, 1 for the second atom j of b) g_k(r_ij): the
 *                    antibonding orbital of b, into which electrons of the others can go
 *   7-15   polar     w_a sum_ij g_k(r_ij) r^_ij, a vector: p orbitals of b
 *
 * The forms, for each pair of radial functions k <= k':
 *
 *   0      even      10 of the first four vectors
 *   10     odd       6
 *   16     polar     6, summed over directions
 *   22     along     6, the polar ones along the axis of b
 *
 * and from 28 on the same with S^-2 for S^-1; less what the molecule has alone. */
namespace hmlp {
namespace HMLP_VARIANT {

/* All n members of a cluster with molecule `a`, which is the first; centres relative to its own. */
HMLP_INLINE void find_cluster(const Interaction& m, const Molecule* all, int a,
                              const Neighbours& around, OverlapSpace& s) {
  const double reach2 = m.overlap.reach * m.overlap.reach;
  const auto put = [&](int who, const double* d) {
    Molecule& member = s.members[s.n];
    member = all[who];
    member.length = m.r0 + member.s;
    for (int x = 0; x < 3; ++x) member.centre[x] = d[x];
    s.bond[s.n] = all[who].length;
    s.who[s.n++] = who;
  };
  const double here[3] = {};
  s.make_room(around.n + 1);
  s.n = 0;
  put(a, here);
  for (int n = 0; n < around.n; ++n) {
    double d[3];
    if (separation(all[a], all[around.index[n]], around, n, d) < reach2) put(around.index[n], d);
  }
}

/* s of four distances, none of them frozen, given their squares; its slopes over the distances. */
HMLP_INLINE v4 four_overlaps(const Overlap& m, v4 r2, v4* slopes) {
  double square[4], root[4];
  store(square, r2);
#pragma omp simd
  for (int k = 0; k < 4; ++k) root[k] = std::sqrt(square[k]);
  const v4 x = m.exponent * load(root), e = vector_exp(-x);
  *slopes = (e + e * x) * (m.exponent * m.exponent * (-1.0 / 3.0));
  return e + e * x * (1.0 + x * (1.0 / 3.0));
}

/* The same of any distances. */
HMLP_INLINE v4 four_frozen(const Overlap& m, v4 r2, v4* slopes) {
  v4 f;
  for (int k = 0; k < 4; ++k) {
    const double r = std::sqrt(r2[k]);
    const Value s = radial_function(SLATER, m.exponent, 0.0, r, NEVER, m.freeze, m.outer);
    f[k] = s.f;
    (*slopes)[k] = s.df / (r > NOWHERE ? r : NOWHERE);
  }
  return f;
}

/* Coefficients of the forms with one power as a matrix of the vectors. */
HMLP_INLINE void form_matrix(const double* g, const double* u, double C[][N_ORBITALS]) {
  int form = 0;
  for (int i = 0; i < N_ORBITALS; ++i)
    for (int j = 0; j < N_ORBITALS; ++j) C[i][j] = 0.0;
  const auto put = [C](int i, int j, double value) {
    C[i][j] += 0.5 * value;
    C[j][i] += 0.5 * value;
  };
  for (int i = 0; i < 4; ++i)
    for (int j = i; j < 4; ++j) put(i, j, g[form++]);
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j) put(FIRST_ODD + i, FIRST_ODD + j, g[form++]);
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j, ++form)
      for (int x = 0; x < 3; ++x) put(FIRST_POLAR + 3 * i + x, FIRST_POLAR + 3 * j + x, g[form]);
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j, ++form)
      for (int x = 0; x < 3; ++x)
        for (int y = 0; y < 3; ++y)
          put(FIRST_POLAR + 3 * i + x, FIRST_POLAR + 3 * j + y, g[form] * u[x] * u[y]);
}

/* From the products P_ij of two vectors with one power between them. */
HMLP_INLINE void forms_of(const double P[][N_ORBITALS], const double* u, double* f) {
  for (int i = 0; i < 4; ++i)
    for (int j = i; j < 4; ++j) *f++ = P[i][j];
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j) *f++ = P[FIRST_ODD + i][FIRST_ODD + j];
  for (int along = 0; along < 2; ++along)
    for (int i = 0; i < 3; ++i)
      for (int j = i; j < 3; ++j) {
        double sum = 0.0;
        for (int x = 0; x < 3; ++x)
          for (int y = 0; y < 3; ++y)
            sum += (along ? u[x] * u[y] : (x == y ? 1.0 : 0.0)) *
                   P[FIRST_POLAR + 3 * i + x][FIRST_POLAR + 3 * j + y];
        *f++ = sum;
      }
}

/* (n, N_ORBITALS): S^-1 times others, by its Cholesky factor. */
HMLP_INLINE void solve_cluster(const OverlapSpace& s, const double* right, double* left) {
  const int n = s.n;
  v4 z[N_ORBITALS / 4];
  for (int a = 0; a < n; ++a) {
    const double* row = s.matrix + static_cast<std::size_t>(a) * n;
    for (int q = 0; q < N_ORBITALS / 4; ++q) z[q] = load(right + N_ORBITALS * a + 4 * q);
    for (int c = 0; c < a; ++c)
      for (int q = 0; q < N_ORBITALS / 4; ++q) z[q] -= row[c] * load(left + N_ORBITALS * c + 4 * q);
    for (int q = 0; q < N_ORBITALS / 4; ++q) store(left + N_ORBITALS * a + 4 * q, z[q] * row[a]);
  }
  for (int a = n - 1; a >= 0; --a) {
    const double* row = s.matrix + static_cast<std::size_t>(a) * n;
    for (int q = 0; q < N_ORBITALS / 4; ++q) {
      z[q] = load(left + N_ORBITALS * a + 4 * q) * row[a];
      store(left + N_ORBITALS * a + 4 * q, z[q]);
    }
    for (int c = 0; c < a; ++c)
      for (int q = 0; q < N_ORBITALS / 4; ++q) {
        double* p = left + N_ORBITALS * c + 4 * q;
        store(p, load(p) - row[c] * z[q]);
      }
  }
}

/* P_ij = sum over members of two vectors' entries. */
HMLP_INLINE void add_products(const OverlapSpace& s, const double* first, const double* second,
                              double P[][N_ORBITALS]) {
  v4 products[N_ORBITALS][N_ORBITALS / 4] = {}, z[N_ORBITALS / 4];
  for (int a = 0; a < s.n; ++a) {
    const double* v = first + N_ORBITALS * a;
    for (int q = 0; q < N_ORBITALS / 4; ++q) z[q] = load(second + N_ORBITALS * a + 4 * q);
    for (int i = 0; i < N_ORBITALS; ++i)
      for (int q = 0; q < N_ORBITALS / 4; ++q) products[i][q] += v[i] * z[q];
  }
  for (int i = 0; i < N_ORBITALS; ++i)
    for (int q = 0; q < N_ORBITALS / 4; ++q) store(&P[i][4 * q], products[i][q]);
}

/* Each row y of (n, N_ORBITALS) times C. */
HMLP_INLINE void times_matrix(int n, const double* y, const double C[][N_ORBITALS], double* out) {
  for (int a = 0; a < n; ++a, y += N_ORBITALS, out += N_ORBITALS) {
    v4 t[N_ORBITALS / 4] = {};
    for (int i = 0; i < N_ORBITALS; ++i)
      for (int q = 0; q < N_ORBITALS / 4; ++q) t[q] += y[i] * load(&C[i][4 * q]);
    for (int q = 0; q < N_ORBITALS / 4; ++q) store(out + 4 * q, t[q]);
  }
}

/* The N_FORMS forms of the molecule whose cluster `s` holds; keeps there what `form_gradient` needs. */
HMLP_KERNEL void overlap_forms(const Overlap& m, OverlapSpace& s, double* forms) {
  const int n = s.n;
  if (n == 1) { /* exactly nothing */
    for (int k = 0; k < N_FORMS; ++k) forms[k] = 0.0;
    return;
  }
  const double inverse_g = 1.0 / m.orbitals.spacing, inverse_own = 1.0 / m.own.spacing;
  const double width = 1.0 / (m.reach * m.reach - m.inner * m.inner);
  const Molecule& B = s.members[0];
  for (int a = 0; a < n; ++a) {
    const Molecule& A = s.members[a];
    const double x = (dot3(A.centre, A.centre) - m.inner * m.inner) * width;
    const double t = x > 0.0 ? 1.0 - x * x * x : 1.0;
    s.weight[a] = t * t * t;
    s.weight_slope[a] = x > 0.0 ? -18.0 * t * t * x * x * width : 0.0; /* times the separation */
    for (int k = 0; k < 3; ++k) {
      const double half = 0.5 * A.length * A.u[k];
      s.atoms[6 * a + k] = A.centre[k] - half;
      s.atoms[6 * a + 3 + k] = A.centre[k] + half;
      const double *p = s.atoms + 6 * a + k;
      store(s.spread + 12 * a + 4 * k, v4{p[0], p[3], p[0], p[3]});
    }
  }
  /* The lower triangle of the matrix; of every pair its sum and four slopes over distances. */
  double* pair = s.pairs;
  for (int a = 0; a < n; ++a) {
    double x, *row = s.matrix + static_cast<std::size_t>(a) * n;
    const double* own = interval(m.own, BLOCK, s.members[a].length, inverse_own, &x);
    row[a] = (1.0 + m.ridge) * (2.0 + 2.0 * block_value(own, x)[3]);
    s.norm_slope[a] = (1.0 + m.ridge) * 2.0 * block_slope(own, x)[3] * inverse_own;
    const double* p = s.atoms + 6 * a;
    const v4 px = {p[0], p[0], p[3], p[3]}, py = {p[1], p[1], p[4], p[4]};
    const v4 pz = {p[2], p[2], p[5], p[5]};
    v4 nearest = v4{} + NEVER;
    const auto squares = [&](int c) {
      const double* q = s.spread + 12 * c;
      const v4 dx = load(q) - px, dy = load(q + 4) - py, dz = load(q + 8) - pz;
      return dx * dx + dy * dy + dz * dz;
    };
    for (int c = 0; c < a; ++c) {
      const v4 r2 = squares(c);
      v4 slopes;
      nearest = r2 < nearest ? r2 : nearest;
      pair[PAIR_RECORD * c] = sum(four_overlaps(m, r2, &slopes));
      store(pair + PAIR_RECORD * c + 1, slopes);
    }
    const double shortest = m.outer * m.outer;
    for (int k = 0; k < 4; ++k)
      if (nearest[k] < shortest) { /* hardly ever */
        for (int c = 0; c < a; ++c) {
          v4 slopes;
          pair[PAIR_RECORD * c] = sum(four_frozen(m, squares(c), &slopes));
          store(pair + PAIR_RECORD * c + 1, slopes);
        }
        break;
      }
    for (int c = 0; c < a; ++c, pair += PAIR_RECORD) row[c] = s.weight[a] * s.weight[c] * pair[0];
  }
  /* The vectors, at b and at every other. */
  double* v = s.vectors;
  for (int k = 0; k < N_ORBITALS; ++k) v[k] = 0.0;
  double x;
  const double* own = interval(m.own, BLOCK, B.length, inverse_own, &x);
  const v4 g0 = load(m.own.intervals), g1 = block_value(own, x);
  const double norm = (1.0 + m.ridge) * (2.0 + 2.0 * g1[3]);
  v[0] = 1.0;
  for (int k = 0; k < 3; ++k) v[1 + k] = 2.0 * (g0[k] + g1[k]);
  for (int a = 1; a < n; ++a) {
    v += N_ORBITALS;
    v[0] = 0.0;
    double* record = s.sights + static_cast<std::size_t>(a) * 4 * SIGHT_RECORD;
    v4 even{}, odd{}, polar[3] = {};
    for (int q = 0; q < 4; ++q, record += SIGHT_RECORD) {
      const double *p = s.atoms + 6 * a + 3 * (q / 2), *o = s.atoms + 3 * (q % 2);
      const double d[3] = {o[0] - p[0], o[1] - p[1], o[2] - p[2]};
      const double r = std::sqrt(dot3(d, d)), over = 1.0 / (r > NOWHERE ? r : NOWHERE);
      const double* c = interval(m.orbitals, BLOCK, r, inverse_g, &x);
      const v4 g = block_value(c, x);
      even += g;
      odd += q % 2 ? g : -g;
      for (int y = 0; y < 3; ++y) {
        record[8 + y] = d[y] * over;
        polar[y] += g * record[8 + y];
      }
      store(record, g);
      store(record + 4, block_slope(c, x) * inverse_g);
      record[11] = over;
    }
    for (int k = 0; k < 3; ++k) {
      v[1 + k] = s.weight[a] * even[k];
      v[FIRST_ODD + k] = s.weight[a] * odd[k];
      for (int y = 0; y < 3; ++y) v[FIRST_POLAR + 3 * k + y] = s.weight[a] * polar[y][k];
    }
  }
  /* S = L L^T, with the inverses of its diagonal in L's; solved = S^-1 v. */
  double* column = s.by_weight; /* free until the gradient */
  for (int k = 0; k < n; ++k) {
    const double pivot = s.matrix[static_cast<std::size_t>(k) * n + k];
    const double over = 1.0 / std::sqrt(pivot > SMALLEST_PIVOT ? pivot : SMALLEST_PIVOT);
    s.matrix[static_cast<std::size_t>(k) * n + k] = over;
    for (int a = k + 1; a < n; ++a) {
      double* row = s.matrix + static_cast<std::size_t>(a) * n;
      const double l = row[k] * over;
      row[k] = column[a] = l;
#pragma omp simd
      for (int c = k + 1; c <= a; ++c) row[c] -= l * column[c];
    }
  }
  solve_cluster(s, s.vectors, s.solved);
  solve_cluster(s, s.solved, s.again);
  /* What the molecule has alone: of each power 1 / norm. */
  double alone = 1.0;
  for (int power = 0; power < N_POWERS; ++power) {
    add_products(s, s.vectors, power ? s.again : s.solved, s.products[power]);
    double* f = forms + N_FORMS / N_POWERS * power;
    forms_of(s.products[power], B.u, f);
    alone /= norm;
    for (int i = 0; i < 4; ++i)
      for (int j = i; j < 4; ++j) *f++ -= s.vectors[i] * s.vectors[j] * alone;
  }
}

/* With the derivatives g by the forms: those by the centres of all members relative to the first
 * (s.by_centre) and by their bond vectors (s.by_bond). */
HMLP_KERNEL void form_gradient(const Overlap& m, OverlapSpace& s, const double* g) {
  const int n = s.n;
  if (n == 1) {
    for (int k = 0; k < 3; ++k) s.by_bond[k] = s.by_centre[k] = 0.0;
    return;
  }
  const double inverse_own = 1.0 / m.own.spacing;
  const Molecule& B = s.members[0];
  /* With y = S^-1 v, z = S^-2 v and t = y C + z D, by the vectors: 2 t; by an entry of the matrix,
   * of either of its triangles: -(t_a . y_c + (y D)_a . z_c). */
  double C[N_ORBITALS][N_ORBITALS], D[N_ORBITALS][N_ORBITALS];
  form_matrix(g, B.u, C);
  form_matrix(g + N_FORMS / N_POWERS, B.u, D);
  times_matrix(n, s.solved, C, s.mixed);
  times_matrix(n, s.again, D, s.mixed_again);
  for (int k = 0; k < n * N_ORBITALS; k += 4)
    store(s.mixed + k, load(s.mixed + k) + load(s.mixed_again + k));
  times_matrix(n, s.solved, D, s.mixed_again);
  for (int a = 0; a < n; ++a) {
    s.by_weight[a] = 0.0;
    for (int k = 0; k < 6; ++k) s.gradient[6 * a + k] = 0.0;
    for (int k = 0; k < 12; ++k) s.pull[12 * a + k] = 0.0;
    for (int k = 0; k < 3; ++k) s.by_bond[3 * a + k] = 0.0;
  }
  /* By the axis and the length of the first: its forms along the axis; its own entries of the
   * vectors; what it has alone. */
  double de_du[3] = {};
  for (int power = 0; power < N_POWERS; ++power) {
    const double* by_form = g + N_FORMS / N_POWERS * power + FIRST_ALONG;
    for (int i = 0; i < 3; ++i)
      for (int j = i; j < 3; ++j, ++by_form)
        for (int x = 0; x < 3; ++x)
          for (int y = 0; y < 3; ++y) {
            const double p = s.products[power][FIRST_POLAR + 3 * i + x][FIRST_POLAR + 3 * j + y];
            de_du[x] += *by_form * p * B.u[y];
            de_du[y] += *by_form * p * B.u[x];
          }
  }
  double x;
  const double* own = interval(m.own, BLOCK, B.length, inverse_own, &x);
  const v4 dg = block_slope(own, x) * inverse_own;
  const double norm = (1.0 + m.ridge) * (2.0 + 2.0 * block_value(own, x)[3]);
  double by_norm_alone = 0.0, by_length = 0.0;
  for (int i = 0; i < 4; ++i) {
    double by_own = 0.0;
    for (int j = 0; j < 4; ++j) {
      const double once = C[i][j] * s.vectors[j] / norm;
      const double twice = D[i][j] * s.vectors[j] / (norm * norm);
      by_own += once + twice;
      by_norm_alone += s.vectors[i] * (once + 2.0 * twice) / norm;
    }
    if (i) by_length += 4.0 * dg[i - 1] * (s.mixed[i] - by_own);
  }
  by_length += by_norm_alone * s.norm_slope[0];
  const double* pair = s.pairs;
  for (int a = 0; a < n; ++a) {
    const double* t = s.mixed + N_ORBITALS * a;
    v4 ta[N_ORBITALS / 4], da[N_ORBITALS / 4];
    for (int q = 0; q < N_ORBITALS / 4; ++q) {
      ta[q] = load(t + 4 * q);
      da[q] = load(s.mixed_again + N_ORBITALS * a + 4 * q);
    }
    const auto by_entry = [&](int c) {
      const double *y = s.solved + N_ORBITALS * c, *z = s.again + N_ORBITALS * c;
      v4 total{};
      for (int q = 0; q < N_ORBITALS / 4; ++q)
        total += ta[q] * load(y + 4 * q) + da[q] * load(z + 4 * q);
      return -sum(total);
    };
    const double by_norm = by_entry(a) * s.norm_slope[a];
    if (a)
      for (int k = 0; k < 3; ++k) s.by_bond[3 * a + k] += by_norm * s.members[a].u[k];
    else
      by_length += by_norm;
    const double* p = s.atoms + 6 * a;
    const v4 px = {p[0], p[0], p[3], p[3]}, py = {p[1], p[1], p[4], p[4]};
    const v4 pz = {p[2], p[2], p[5], p[5]};
    v4 mine[3] = {};
    for (int c = 0; c < a; ++c, pair += PAIR_RECORD) {
      const double e = 2.0 * by_entry(c); /* both triangles */
      s.by_weight[a] += e * pair[0] * s.weight[c];
      s.by_weight[c] += e * pair[0] * s.weight[a];
      const double* q = s.spread + 12 * c;
      double* pull = s.pull + 12 * c;
      const v4 f = (e * s.weight[a] * s.weight[c]) * load(pair + 1);
      const v4 fx = f * (load(q) - px), fy = f * (load(q + 4) - py), fz = f * (load(q + 8) - pz);
      mine[0] += fx;
      mine[1] += fy;
      mine[2] += fz;
      store(pull, load(pull) + fx);
      store(pull + 4, load(pull + 4) + fy);
      store(pull + 8, load(pull + 8) + fz);
    }
    double* ga = s.gradient + 6 * a;
    for (int k = 0; k < 3; ++k) {
      ga[k] -= mine[k][0] + mine[k][1];
      ga[3 + k] -= mine[k][2] + mine[k][3];
    }
    if (!a) continue;
    const double* record = s.sights + static_cast<std::size_t>(a) * 4 * SIGHT_RECORD;
    for (int q = 0; q < 4; ++q, record += SIGHT_RECORD) {
      const double *f = record, *df = record + 4, *unit = record + 8, over = record[11];
      double value = 0.0, radial = 0.0, polar[3] = {};
      for (int k = 0; k < 3; ++k) {
        const double* tp = t + FIRST_POLAR + 3 * k;
        const double along = t[1 + k] + (q % 2 ? t[FIRST_ODD + k] : -t[FIRST_ODD + k]) +
                             dot3(tp, unit);
        value += f[k] * along;
        radial += df[k] * along;
        for (int y = 0; y < 3; ++y) polar[y] += f[k] * tp[y];
      }
      s.by_weight[a] += 2.0 * value;
      const double parallel = dot3(polar, unit);
      double *gj = s.gradient + 3 * (q % 2), *gi = ga + 3 * (q / 2);
      for (int y = 0; y < 3; ++y) {
        const double force = 2.0 * s.weight[a] *
                             (radial * unit[y] + over * (polar[y] - parallel * unit[y]));
        gj[y] += force;
        gi[y] -= force;
      }
    }
  }
  for (int k = 0; k < 3; ++k) s.by_bond[k] += by_length * B.u[k];
  add_axis_slope(B, de_du, s.by_bond);
  for (int a = 0; a < n; ++a) {
    double* ga = s.gradient + 6 * a;
    for (int k = 0; k < 3; ++k) {
      const v4 pull = load(s.pull + 12 * a + 4 * k);
      ga[k] += pull[0] + pull[2];
      ga[3 + k] += pull[1] + pull[3];
    }
    const double by_separation = s.by_weight[a] * s.weight_slope[a];
    double* by_bond = s.by_bond + 3 * a;
    for (int k = 0; k < 3; ++k) by_bond[k] += 0.5 * (ga[3 + k] - ga[k]);
    /* From the vector as long as the stretch says to that of the bond itself. */
    const Molecule& A = s.members[a];
    const double along = dot3(by_bond, A.u), turn = A.length / s.bond[a];
    for (int k = 0; k < 3; ++k) {
      by_bond[k] = turn * by_bond[k] + (A.ds - turn) * along * A.u[k];
      s.by_centre[3 * a + k] = ga[k] + ga[3 + k] + by_separation * s.members[a].centre[k];
    }
  }
}

/* Energy of molecule a's surroundings; its row of moments becomes that of the derivatives by them,
 * all other derivatives are added to the terms of all molecules. `around`: its neighbours up to the
 * reach of clusters, each once, in a full list. */
HMLP_KERNEL double surroundings_energy(const Interaction& i, const Regressor& m, const Molecule* all,
                                       int a, const Neighbours& around, double* row,
                                       OverlapSpace& s, MoleculeTerms* terms) {
  double forms[N_FORMS] = {};
  const bool overlap = i.overlap.reach > 0.0;
  if (overlap) {
    find_cluster(i, all, a, around, s);
    overlap_forms(i.overlap, s, forms);
  }
  const double energy = environment_energy(i, m, all[a], row, forms, terms[a].by_bond);
  if (!overlap) return energy;
  form_gradient(i.overlap, s, forms);
  MoleculeTerms& mine = terms[a];
  for (int n = 0; n < s.n; ++n) {
    MoleculeTerms& t = terms[s.who[n]];
    const double *by_centre = s.by_centre + 3 * n, *by_bond = s.by_bond + 3 * n;
    for (int x = 0; x < 3; ++x) t.by_bond[x] += by_bond[x];
    if (!n) continue;
    double w[6] = {};
    add_virial(0.5, s.members[n].centre, by_centre, w);
    for (int x = 0; x < 3; ++x) {
      t.by_centre[x] += by_centre[x];
      mine.by_centre[x] -= by_centre[x];
    }
    for (int x = 0; x < 6; ++x) {
      t.virial[x] += w[x];
      mine.virial[x] += w[x];
    }
  }
  return energy;
}

} /* namespace HMLP_VARIANT */
} /* namespace hmlp */
