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
 * `reach`, so that neighbours come and go smoothly. Bonds are as long as the stretch says. For s the
 * overlap of two 1s orbitals would do, but it has no end: s is Wendland's (1 - x)^4 (1 + 4 x) with
 * x = r/support (Adv. Comput. Math. 4, 389, 1995), nearly as large where molecules meet, and positive
 * definite as well, so that nothing makes the matrix singular but distances that are frozen.
 * Fingerprints of b are quadratic forms v . S^-1 . v' of vectors over the molecules a: how orbitals
 * of b overlap with the bonding orbitals of all,
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
  s.stride = (s.n + 3) / 4 * 4;
}

/* s of four distances, none of them frozen, given their squares; its slopes over the distances. */
HMLP_INLINE v4 four_overlaps(const Overlap& m, v4 r2, v4* slopes) {
  double square[4], root[4];
  store(square, r2);
#pragma omp simd
  for (int k = 0; k < 4; ++k) root[k] = std::sqrt(square[k]);
  const double inverse = 1.0 / m.support;
  const v4 x = inverse * load(root), rest = 1.0 - x, t = rest > v4{} ? rest : v4{}, t3 = t * t * t;
  *slopes = t3 * (-20.0 * inverse * inverse);
  return t * t3 * (1.0 + 4.0 * x);
}

/* The same of any distances. */
HMLP_INLINE v4 four_frozen(const Overlap& m, v4 r2, v4* slopes) {
  v4 f;
  for (int k = 0; k < 4; ++k) {
    const double r = std::sqrt(r2[k]);
    const Value s = radial_function(WENDLAND, m.support, 0.0, r, NEVER, m.freeze, m.outer);
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

/* S = U^T U with U the upper triangle, in place, inverses on its diagonal; four rows at a time, so
 * that those below are read and written once for four. Entries below the diagonal mean nothing, nor
 * do those from n on that fill rows up to whole four-vectors. */
HMLP_INLINE void factorise(OverlapSpace& s) {
  const int n = s.n, stride = s.stride;
  const auto row = [&s, stride](int a) { return s.matrix + static_cast<std::size_t>(a) * stride; };
  for (int first = 0; first < n; first += 4) {
    const int last = first + 4 < n ? first + 4 : n;
    for (int k = first; k < last; ++k) {
      double* mine = row(k);
      for (int p = first; p < k; ++p) {
        const double *above = row(p), l = above[k];
        for (int c = first; c < stride; c += 4) store(mine + c, load(mine + c) - l * load(above + c));
      }
      const double pivot = mine[k] > SMALLEST_PIVOT ? mine[k] : SMALLEST_PIVOT;
      const double over = 1.0 / std::sqrt(pivot);
      for (int c = first; c < stride; c += 4) store(mine + c, load(mine + c) * over);
      mine[k] = over;
    }
    const double *u = row(first), *v = u + stride, *w = v + stride, *x = w + stride;
    for (int a = last; a < n; ++a) {
      double* mine = row(a);
      const double la = u[a], lb = v[a], lc = w[a], ld = x[a];
      for (int c = a & ~3; c < stride; c += 4)
        store(mine + c, load(mine + c) - (la * load(u + c) + lb * load(v + c)) -
                            (lc * load(w + c) + ld * load(x + c)));
    }
  }
}

/* (n, N_ORBITALS): S^-1 times others, by its factor. */
HMLP_INLINE void solve_cluster(const OverlapSpace& s, const double* right, double* left) {
  constexpr int Q = N_ORBITALS / 4;
  const int n = s.n, stride = s.stride;
  const double* u = s.matrix;
  v4 z[2][Q];
  /* Two rows at a time, less two of `left` by two columns of the factor. */
  const auto begin = [&z](const double* from) {
    for (int q = 0; q < 2 * Q; ++q) z[q / Q][q % Q] = load(from + 4 * q);
  };
  const auto subtract = [&z, left](int c, double first, double second) {
    for (int q = 0; q < Q; ++q) {
      const v4 known = load(left + N_ORBITALS * c + 4 * q);
      z[0][q] -= first * known;
      z[1][q] -= second * known;
    }
  };
  const auto finish = [&z, left](int a, int which, double over) {
    for (int q = 0; q < Q; ++q) {
      z[which][q] *= over;
      store(left + N_ORBITALS * a + 4 * q, z[which][q]);
    }
  };
  for (int a = 0; a + 1 < n; a += 2) {
    begin(right + N_ORBITALS * a);
    const double* column = u + a;
    for (int c = 0; c < a; ++c, column += stride) subtract(c, column[0], column[1]);
    finish(a, 0, column[0]);
    for (int q = 0; q < Q; ++q) z[1][q] -= column[1] * z[0][q];
    finish(a + 1, 1, column[stride + 1]);
  }
  if (n % 2) {
    const int a = n - 1;
    for (int q = 0; q < Q; ++q) z[0][q] = load(right + N_ORBITALS * a + 4 * q);
    const double* column = u + a;
    for (int c = 0; c < a; ++c, column += stride)
      for (int q = 0; q < Q; ++q) z[0][q] -= column[0] * load(left + N_ORBITALS * c + 4 * q);
    finish(a, 0, column[0]);
    for (int q = 0; q < Q; ++q) z[0][q] = load(left + N_ORBITALS * a + 4 * q);
    finish(a, 0, column[0]);
  }
  for (int a = n - n % 2 - 2; a >= 0; a -= 2) {
    begin(left + N_ORBITALS * a);
    const double *row = u + static_cast<std::size_t>(a) * stride, *next = row + stride;
    for (int c = a + 2; c < n; ++c) subtract(c, row[c], next[c]);
    finish(a + 1, 1, next[a + 1]);
    for (int q = 0; q < Q; ++q) z[0][q] -= row[a + 1] * z[1][q];
    finish(a, 0, row[a]);
  }
}

/* Orbitals in four-vectors: the first is even, forms mix no orbital of it with one of another, and
 * none before FIRST_POLAR with one of the last two. */
HMLP_INLINE constexpr int first_quarter(int orbital) { return orbital < FIRST_ODD ? 0 : 1; }
HMLP_INLINE constexpr int end_of_quarters(int orbital) {
  return orbital < FIRST_ODD ? 1 : orbital < FIRST_POLAR ? 2 : N_ORBITALS / 4;
}

/* P_ij = sum over members of two vectors' entries, where a form needs it. */
HMLP_INLINE void add_products(const OverlapSpace& s, const double* first, const double* second,
                              double P[][N_ORBITALS]) {
  v4 products[N_ORBITALS][N_ORBITALS / 4] = {}, z[N_ORBITALS / 4];
  for (int a = 0; a < s.n; ++a) {
    const double* v = first + N_ORBITALS * a;
    for (int q = 0; q < N_ORBITALS / 4; ++q) z[q] = load(second + N_ORBITALS * a + 4 * q);
#pragma GCC unroll 16
    for (int i = 0; i < N_ORBITALS; ++i)
      for (int q = first_quarter(i); q < end_of_quarters(i); ++q) products[i][q] += v[i] * z[q];
  }
  for (int i = 0; i < N_ORBITALS; ++i)
    for (int q = 0; q < N_ORBITALS / 4; ++q) store(&P[i][4 * q], products[i][q]);
}

/* Each row y of (n, N_ORBITALS) times C, added to out. */
HMLP_INLINE void add_times_matrix(int n, const double* y, const double C[][N_ORBITALS],
                                  double* out) {
  for (int a = 0; a < n; ++a, y += N_ORBITALS, out += N_ORBITALS) {
    v4 t[N_ORBITALS / 4];
    for (int q = 0; q < N_ORBITALS / 4; ++q) t[q] = load(out + 4 * q);
#pragma GCC unroll 16
    for (int i = 0; i < N_ORBITALS; ++i)
      for (int q = first_quarter(i); q < end_of_quarters(i); ++q) t[q] += y[i] * load(&C[i][4 * q]);
    for (int q = 0; q < N_ORBITALS / 4; ++q) store(out + 4 * q, t[q]);
  }
}

/* (2 N_ORBITALS, stride) from two of (n, N_ORBITALS): entries of members side by side. */
HMLP_INLINE void put_side_by_side(const OverlapSpace& s, const double* first, const double* second,
                                  double* out) {
  for (int a = 0; a < s.stride; ++a)
    for (int k = 0; k < N_ORBITALS; ++k) {
      const std::size_t to = static_cast<std::size_t>(k) * s.stride + a;
      const std::size_t from = static_cast<std::size_t>(N_ORBITALS) * a + k;
      out[to] = a < s.n ? first[from] : 0.0;
      out[to + static_cast<std::size_t>(N_ORBITALS) * s.stride] = a < s.n ? second[from] : 0.0;
    }
}

/* out[c] = first . y_c + second . z_c for members 0 to a, with `sides` from `put_side_by_side`. */
HMLP_INLINE void dot_with_members(const OverlapSpace& s, int a, const double* first,
                                  const double* second, const double* sides, double* out) {
  for (int c = 0; c <= a; c += 8) {
    const double* side = sides + c;
    const int next = c + 4 < s.stride ? 4 : 0; /* the last four twice, if they are alone */
    const std::size_t rest = static_cast<std::size_t>(N_ORBITALS) * s.stride;
    v4 low[4] = {}, high[4] = {}; /* several sums at a time, for each waits for its last term */
    for (int k = 0; k < N_ORBITALS; k += 2)
      for (int j = 0; j < 2; ++j, side += s.stride) {
        low[j] += first[k + j] * load(side);
        high[j] += first[k + j] * load(side + next);
        low[2 + j] += second[k + j] * load(side + rest);
        high[2 + j] += second[k + j] * load(side + rest + next);
      }
    store(out + c, (low[0] + low[1]) + (low[2] + low[3]));
    store(out + c + next, (high[0] + high[1]) + (high[2] + high[3]));
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
  /* The upper triangle of the matrix; of every pair its sum and four slopes over distances. */
  double* pair = s.pairs;
  for (int a = 0; a < n; ++a) {
    double x, *column = s.matrix + a;
    const double* own = interval(m.own, BLOCK, s.members[a].length, inverse_own, &x);
    column[static_cast<std::size_t>(a) * s.stride] =
        (1.0 + m.ridge) * (2.0 + 2.0 * block_value(own, x)[3]);
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
    for (int c = 0; c < a; ++c, pair += PAIR_RECORD, column += s.stride)
      *column = s.weight[a] * s.weight[c] * pair[0];
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
  factorise(s);
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
  for (int k = 0; k < n * N_ORBITALS; ++k) s.mixed[k] = s.mixed_again[k] = 0.0;
  add_times_matrix(n, s.solved, C, s.mixed);
  add_times_matrix(n, s.again, D, s.mixed);
  add_times_matrix(n, s.solved, D, s.mixed_again);
  put_side_by_side(s, s.solved, s.again, s.sides);
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
  const double *pair = s.pairs, *weight = s.weight, *by_entry = s.by_entry;
  double* by_weight = s.by_weight;
  for (int a = 0; a < n; ++a) {
    const double* t = s.mixed + N_ORBITALS * a;
    dot_with_members(s, a, t, s.mixed_again + N_ORBITALS * a, s.sides, s.by_entry);
    const double by_norm = -by_entry[a] * s.norm_slope[a];
    if (a)
      for (int k = 0; k < 3; ++k) s.by_bond[3 * a + k] += by_norm * s.members[a].u[k];
    else
      by_length += by_norm;
    const double* p = s.atoms + 6 * a;
    const v4 px = {p[0], p[0], p[3], p[3]}, py = {p[1], p[1], p[4], p[4]};
    const v4 pz = {p[2], p[2], p[5], p[5]};
    v4 mine[3] = {};
    double by_my_weight = 0.0;
    const double my_weight = weight[a], *q = s.spread;
    double* pull = s.pull;
    for (int c = 0; c < a; ++c, pair += PAIR_RECORD, q += 12, pull += 12) {
      const double e = -2.0 * by_entry[c]; /* both triangles */
      by_my_weight += e * pair[0] * weight[c];
      by_weight[c] += e * pair[0] * my_weight;
      const v4 f = (e * my_weight * weight[c]) * load(pair + 1);
      const v4 fx = f * (load(q) - px), fy = f * (load(q + 4) - py), fz = f * (load(q + 8) - pz);
      mine[0] += fx;
      mine[1] += fy;
      mine[2] += fz;
      store(pull, load(pull) + fx);
      store(pull + 4, load(pull + 4) + fy);
      store(pull + 8, load(pull + 8) + fz);
    }
    by_weight[a] += by_my_weight;
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
