/* pair_style hmlp: the loops over molecules around the kernel header it shares with the Python
 * package. No function of a distance or an angle is defined here.
 *
 * A molecule belongs to the process that owns its atom of lower ID, its first atom. Of the two
 * places that LAMMPS's full list gives a pair of first atoms, one stands for the pair of molecules.
 * Sums over neighbours that belong to ghosts go home in a reverse communication, derivatives by the
 * sums come back in a forward one, and forces on ghosts go home in LAMMPS's own reverse
 * communication, which is why newton has to be on. All of a molecule's cluster is in its owner's
 * sight and in the full list: it takes no communication but that of the forces. */
#include "pair_hmlp.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "platform.h"
#include "update.h"
#include "utils.h"

#include "hmlp_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

using namespace LAMMPS_NS;

double PairHMLP::comm_asked = 0.0;

namespace {

double dist_sq(const double *a, const double *b)
{
  const double dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
  return dx * dx + dy * dy + dz * dz;
}

// Moments of a molecule without the padding.
constexpr int MESSAGE = hmlp::N_GATHERED;

}    // namespace

/* ---------------------------------------------------------------- construction, input ---- */

PairHMLP::PairHMLP(LAMMPS *lmp) : Pair(lmp), space(std::make_unique<hmlp::OverlapSpace>())
{
  single_enable = 0;    // energies are not sums over pairs
  restartinfo = 1;
  one_coeff = 1;
  manybody_flag = 1;
  unit_convert_flag = 0;
  no_virial_fdotr_compute = 1;    // the kernel gives the virial of each centre
  centroidstressflag = CENTROID_NOTAVAIL;
  // Pair style hybrid reads them when it has made its parts, before they have a model.
  comm_forward = comm_reverse = MESSAGE;
}

PairHMLP::~PairHMLP()
{
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairHMLP::settings(int narg, char ** /*arg*/)
{
  if (narg) error->all(FLERR, "pair_style hmlp takes no arguments");
}

/* pair_coeff * * FILE H, or one of H, D, T for each atom type */
void PairHMLP::coeff(int narg, char **arg)
{
  const int n = atom->ntypes;
  if (narg < 4 || strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR, "pair style hmlp needs: pair_coeff * * FILE H");
  if (narg != 4 && narg != 3 + n)
    error->all(FLERR, "pair_coeff of pair style hmlp needs one element, or one for each of {} types",
               n);
  for (int k = 3; k < narg; ++k)
    if (strcmp(arg[k], "H") != 0 && strcmp(arg[k], "D") != 0 && strcmp(arg[k], "T") != 0)
      error->all(FLERR, "Pair style hmlp knows the elements H, D and T only, not {}", arg[k]);
  load(arg[2]);
  if (!allocated) {
    allocated = 1;
    memory->create(setflag, n + 1, n + 1, "pair:setflag");
    memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
  }
  for (int i = 1; i <= n; ++i)
    for (int k = 1; k <= n; ++k) setflag[i][k] = 1;
}

/* Where the model file is; empty if it is nowhere. A folder opens as a file does. */
std::string PairHMLP::find(const std::string &path)
{
  const std::string found = utils::get_potential_file_path(path);
  return platform::path_is_directory(found) ? "" : found;
}

void PairHMLP::load(const std::string &path)
{
  // One process reads: thousands that open one file bring a file system down.
  std::string text;
  bigint size = -1;
  if (comm->me == 0) {
    // Here, or in the folders of $LAMMPS_POTENTIALS.
    std::ifstream in(find(path), std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    if (in && text.size() < MAXSMALLINT) size = text.size();
  }
  MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
  if (size < 0) error->all(FLERR, "Model file {} of pair style hmlp cannot be read", path);
  text.resize(size);
  MPI_Bcast(&text[0], static_cast<int>(size), MPI_CHAR, 0, world);
  try {
    model = std::make_unique<hmlp::Model>(text);
  } catch (std::exception &exc) {
    error->all(FLERR, "{} {}", path, exc.what());
  }
  model_file = path;
}

/* ---------------------------------------------------------------- set-up ---------------- */

/* First atoms of two molecules are at most two half bonds farther apart than their centres; so are
 * any other two, and from an owned first atom both atoms of a neighbour are within reach. */
double PairHMLP::list_cutoff() const
{
  return model->interaction.cutoff + model->bond_limits[1];
}

void PairHMLP::init_style()
{
  if (!model) error->all(FLERR, "Pair style hmlp has no model: pair_coeff is missing");
  if (strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "Pair style hmlp needs units metal, not {}", update->unit_style);
  if (!force->newton_pair)
    error->all(FLERR, "Pair style hmlp needs newton on: forces on ghost atoms have to go home");
  if (atom->molecular != Atom::MOLECULAR)
    error->all(FLERR, "Pair style hmlp needs an atom style with bonds, such as bond or full, not {}",
               atom->get_style());
  if (atom->map_style == Atom::MAP_NONE)
    error->all(FLERR, "Pair style hmlp needs an atom map to find bonded partners");
  if (comm->mode != Comm::SINGLE)
    error->all(FLERR, "Pair style hmlp needs comm_modify mode single");

  const double needed = list_cutoff() + neighbor->skin;
  const bool told = comm->cutghostuser > 0.0 && comm->cutghostuser != comm_asked;
  if (told && comm->cutghostuser < needed)
    error->all(FLERR,
               "Communication cutoff {} is shorter than the {:.4f} that pair style hmlp needs: "
               "comm_modify cutoff {:.2f}",
               comm->cutghostuser, needed, std::ceil(100.0 * needed) / 100.0);
  if (!told) comm->cutghostuser = comm_asked = needed;
  warn_of_settings();

  neighbor->add_request(this, NeighConst::REQ_FULL);
}

/* What other commands add to the energy or take from it, each said once. */
void PairHMLP::warn_of_settings()
{
  const auto of_no_energy = [](const std::string &style) {
    return style == "hybrid" || utils::strmatch(style, "^zero");
  };
  if (!warned_bond_style)
    for (const auto &known : *force->bond_map) {
      if (of_no_energy(known.first) || !force->bond_match(known.first)) continue;
      warned_bond_style = true;
      if (comm->me == 0)
        error->warning(FLERR,
                       "Bond style {} counts the energy of the bonds twice, which pair style hmlp has: "
                       "use bond_style zero",
                       known.first);
      break;
    }
  if (!warned_exclusions && neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0) {
    warned_exclusions = true;
    if (comm->me == 0)
      error->warning(FLERR,
                     "Pair style hmlp lacks what neigh_modify exclude takes away: pairs of molecules "
                     "and, in boxes smaller than the cutoff, a molecule's own images");
  }
}

double PairHMLP::init_one(int i, int j)
{
  if (!setflag[i][j]) error->all(FLERR, "Pair style hmlp has no model: pair_coeff is missing");
  return list_cutoff();
}

/* ---------------------------------------------------------------- restart --------------- */

void PairHMLP::write_restart(FILE *fp)
{
  const int length = static_cast<int>(model_file.size());
  fwrite(&length, sizeof(int), 1, fp);
  fwrite(model_file.data(), 1, length, fp);
  fwrite(&model->checksum, sizeof model->checksum, 1, fp);
  write_restart_settings(fp);
}

/* All that pair style hybrid keeps of its parts. */
void PairHMLP::write_restart_settings(FILE *fp)
{
  fwrite(&comm_asked, sizeof comm_asked, 1, fp);
}

void PairHMLP::read_restart_settings(FILE *fp)
{
  if (comm->me == 0) utils::sfread(FLERR, &comm_asked, sizeof comm_asked, 1, fp, nullptr, error);
  MPI_Bcast(&comm_asked, 1, MPI_DOUBLE, 0, world);
}

void PairHMLP::read_restart(FILE *fp)
{
  int length = 0;
  std::uint32_t checksum = 0;
  std::string path;
  if (comm->me == 0) {
    utils::sfread(FLERR, &length, sizeof(int), 1, fp, nullptr, error);
    path.resize(length);
    utils::sfread(FLERR, &path[0], 1, length, fp, nullptr, error);
    utils::sfread(FLERR, &checksum, sizeof checksum, 1, fp, nullptr, error);
  }
  read_restart_settings(fp);
  MPI_Bcast(&length, 1, MPI_INT, 0, world);
  MPI_Bcast(&checksum, sizeof checksum, MPI_BYTE, 0, world);
  path.resize(length);
  MPI_Bcast(&path[0], length, MPI_CHAR, 0, world);
  // A restart may be carried to where the model is elsewhere: then pair_coeff has to say where.
  int there = comm->me == 0 && !find(path).empty();
  MPI_Bcast(&there, 1, MPI_INT, 0, world);
  if (!there) {
    if (comm->me == 0)
      error->warning(FLERR, "Model file {} of the restart is not here: pair_coeff has to name it",
                     path);
    return;
  }
  char star[] = "*", element[] = "H";
  char *args[] = {star, star, &path[0], element};
  coeff(4, args);
  if (model->checksum != checksum)
    error->all(FLERR, "Model file {} is not the one that the restart was written with", path);
}

/* ---------------------------------------------------------------- one evaluation -------- */

void PairHMLP::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  if (neighbor->ago == 0 || partner.size() != static_cast<std::size_t>(atom->nlocal + atom->nghost))
    rebuild();
  update_molecules();

  const std::size_t n_molecules = molecules.size();
  const auto part = [](const std::vector<int> &first, const std::vector<int> &all, int m) {
    return hmlp::Neighbours{first[m + 1] - first[m], all.data() + first[m], nullptr, nullptr};
  };
  const auto neighbours = [&](int m) { return part(first_pair, pairs, m); };
  const bool environment = model->has_environment();
  terms.assign(n_molecules, hmlp::MoleculeTerms{});
  energies.assign(n_owned, 0.0);
  if (environment) {
    rows.assign(n_molecules * hmlp::N_MOMENTS, 0.0);
    for (int m = 0; m < n_owned; ++m)
      hmlp::gather_moments(model->interaction, molecules.data(), m, neighbours(m), rows.data());
    comm->reverse_comm(this);
    for (int m = 0; m < n_owned; ++m)
      energies[m] = hmlp::surroundings_energy(model->interaction, model->regressor,
                                              molecules.data(), m, part(first_around, around, m),
                                              &rows[std::size_t(m) * hmlp::N_MOMENTS], *space,
                                              terms.data());
    message = GRADIENTS;
    comm->forward_comm(this, MESSAGE);
  }
  hmlp::Contact contact{HUGE_VAL, 0, 0, 0};
  for (int m = 0; m < n_owned; ++m)
    hmlp::add_pairs(model->interaction, molecules.data(), m, neighbours(m),
                    environment ? rows.data() : nullptr, terms.data(), &contact);
  check_contact(contact);

  double **f = atom->f;
  for (std::size_t m = 0; m < n_molecules; ++m) {
    const int a = first_atom[m], b = second_atom[m];
    if (!met[m]) continue;
    hmlp::MoleculeTerms &t = terms[m];
    double energy = t.pair + t.orientation;
    if (static_cast<int>(m) < n_owned) {
      const hmlp::Value bond = hmlp::bond_energy(model->bond, molecules[m].length);
      energy += bond.f + energies[m] + 2.0 * model->e0;
      for (int c = 0; c < 3; ++c) t.by_bond[c] += bond.df * molecules[m].u[c];
    }
    double virial_a[6] = {}, virial_b[6] = {};
    hmlp::share_molecule(molecules[m], t, f[a], f[b], virial_a, virial_b);
    for (const int atom_of : {a, b}) tally_energy(atom_of, 0.5 * energy);
    tally_virial(a, virial_a);
    tally_virial(b, virial_b);
  }
}

/* Which atoms are bonded and which molecules are neighbours, after LAMMPS has made its lists. */
void PairHMLP::rebuild()
{
  if (list->iskip)
    error->all(FLERR, "Pair style hmlp needs the pairs of all atom types: no other style of pair "
                      "style hybrid can take some of them (hybrid/overlay adds)");
  find_partners();
  find_molecules();
  build_lists();
  check_volume();
}

void PairHMLP::check_volume()
{
  if (warned_volume || domain->nonperiodic || !model->has_volume()) return;
  const double volume = domain->xprd * domain->yprd * domain->zprd / atom->natoms;
  if (volume >= model->volume[0] && volume <= model->volume[1]) return;
  warned_volume = true;
  if (comm->me == 0)
    error->warning(FLERR,
                   "The volume is {:.3f} A^3 per atom; the training data of pair style hmlp have "
                   "{:.3f} to {:.3f} A^3",
                   volume, model->volume[0], model->volume[1]);
}

/* Several processes may find something wrong; the first of them speaks for all. */
void PairHMLP::stop_if(const std::string &problem)
{
  int mine = problem.empty() ? comm->nprocs : comm->me, first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  int length = static_cast<int>(problem.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  std::string text = problem;
  text.resize(length);
  MPI_Bcast(&text[0], length, MPI_CHAR, first, world);
  error->all(FLERR, text);
}

std::string PairHMLP::bond_problem(int a, int b) const
{
  return fmt::format("The bond between atoms {} and {} is {:.3f} A long; energies of pair style hmlp "
                     "mean something from {:.3f} to {:.3f} A",
                     atom->tag[a], atom->tag[b], std::sqrt(dist_sq(atom->x[a], atom->x[b])),
                     model->bond_limits[0], model->bond_limits[1]);
}

void PairHMLP::find_partners()
{
  const int nlocal = atom->nlocal, n = nlocal + atom->nghost;
  const tagint *tag = atom->tag;
  std::string problem;
  partner_tag.assign(n, 0);
  partner.assign(n, -1);
  for (int i = 0; i < nlocal && problem.empty(); ++i) {
    const int n_bonds = atom->nspecial[i][0];
    if (n_bonds == 1)
      partner_tag[i] = atom->special[i][0];
    else
      problem = fmt::format("Atom {} has {} bonds: pair style hmlp needs one", tag[i],
                            n_bonds ? std::to_string(n_bonds) : "no");
  }
  stop_if(problem);
  message = PARTNERS;
  comm->forward_comm(this, 1);

  // Positions of ghosts are images: of the partner's images the nearest is the bonded one.
  double **x = atom->x;
  const double limit = model->bond_limits[1] * model->bond_limits[1];
  for (int i = 0; i < n; ++i) {
    int k = atom->map(partner_tag[i]);
    if (k >= 0) k = domain->closest_image(i, k);
    if (k >= 0 && dist_sq(x[i], x[k]) < limit)
      partner[i] = k;
    else if (i < nlocal && problem.empty())
      problem = k >= 0 ? bond_problem(i, k)
                       : fmt::format("Atom {} is bonded to atom {}, which is missing or far away",
                                     tag[i], partner_tag[i]);
  }
  stop_if(problem);
}

/* Every atom of lower ID, owned or ghost, carries a molecule, even where its partner is out of sight:
 * sender and receiver of a gradient then agree on who carries one. */
void PairHMLP::find_molecules()
{
  const int nlocal = atom->nlocal, n = nlocal + atom->nghost;
  const tagint *tag = atom->tag;
  molecule.assign(n, -1);
  first_atom.clear();
  second_atom.clear();
  n_owned = 0;
  for (int i = 0; i < n; ++i) {
    if (tag[i] > partner_tag[i]) continue;
    const int k = partner[i];
    const bool whole = k >= 0 && partner[k] == i;
    molecule[i] = static_cast<int>(first_atom.size());
    if (whole) molecule[k] = molecule[i];
    first_atom.push_back(i);
    second_atom.push_back(whole ? k : -1);
    if (i < nlocal) ++n_owned;
  }
  std::string problem;
  for (int i = 0; i < nlocal && problem.empty(); ++i)
    if (molecule[i] < 0 || second_atom[molecule[i]] < 0)
      problem = fmt::format("Which image of atom {} is bonded to atom {} is ambiguous: the box is too "
                            "small for molecules", partner_tag[i], tag[i]);
  stop_if(problem);
}

void PairHMLP::build_lists()
{
  const std::size_t n_molecules = first_atom.size();
  molecules.resize(n_molecules);
  met.assign(n_molecules, 0);
  for (std::size_t m = 0; m < n_molecules; ++m) met[m] = second_atom[m] >= 0;
  update_molecules();
  std::fill(met.begin() + n_owned, met.end(), 0);
  const double skin = neighbor->skin, range = model->interaction.cutoff + skin;
  // Nothing is nearer than nowhere where there are no clusters.
  const double reach = model->interaction.overlap.reach;
  const double cluster = reach > 0.0 ? reach + skin : 0.0;
  first_pair.assign(1, 0);
  first_around.assign(1, 0);
  pairs.clear();
  around.clear();
  for (int m = 0; m < n_owned; ++m) {
    const int i = first_atom[m];
    for (int k = 0; k < list->numneigh[i]; ++k) {
      const int j = list->firstneigh[i][k] & NEIGHMASK;
      const int b = molecule[j];
      if (b < 0 || first_atom[b] != j || second_atom[b] < 0) continue;
      const double r2 = dist_sq(molecules[m].centre, molecules[b].centre);
      if (r2 < range * range && counts(i, j)) {
        pairs.push_back(b);
        met[b] = 1;
      }
      if (r2 < cluster * cluster) {
        around.push_back(b);
        met[b] = 1;
      }
    }
    first_pair.push_back(static_cast<int>(pairs.size()));
    first_around.push_back(static_cast<int>(around.size()));
  }
}

/* Whether a pair counts as seen from atom i. IDs, which all processes agree on, share pairs out
 * evenly: of halves, because most first atoms have odd ones. An atom's images come in opposite pairs,
 * whose shifts are exact where they are zero. */
bool PairHMLP::counts(int i, int j) const
{
  const tagint a = atom->tag[i], b = atom->tag[j];
  if (a != b) return (a < b) == ((a / 2 + b / 2) % 2 == 0);
  const double *x = atom->x[i], *y = atom->x[j];
  for (int c = 2; c > 0; --c)
    if (y[c] != x[c]) return y[c] > x[c];
  return y[0] > x[0];
}

void PairHMLP::update_molecules()
{
  double **x = atom->x;
  const tagint *tag = atom->tag;
  const double shortest = model->bond_limits[0], longest = model->bond_limits[1];
  for (std::size_t m = 0; m < first_atom.size(); ++m) {
    if (!met[m]) continue;
    const double *a = x[first_atom[m]], *b = x[second_atom[m]];
    const double bond[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]};
    hmlp::place_molecule(model->interaction, a, bond, &molecules[m]);
    const double length = molecules[m].length;
    if (static_cast<int>(m) >= n_owned) continue;
    // Written so that NaN fails as well.
    if (!(length >= shortest && length <= longest))
      error->one(FLERR, bond_problem(first_atom[m], second_atom[m]));
    if (!warned_bond &&
        (length < model->bond_length[0] || length > model->bond_length[1])) {
      warned_bond = true;
      error->warning(FLERR,
                     "The bond between atoms {} and {} is {:.3f} A long; the training data of pair "
                     "style hmlp have {:.3f} to {:.3f} A",
                     tag[first_atom[m]], tag[second_atom[m]], length, model->bond_length[0],
                     model->bond_length[1]);
    }
  }
}

void PairHMLP::check_contact(const hmlp::Contact &contact)
{
  const double r = std::sqrt(contact.r2);
  if (r >= model->contact) return;
  const int other = pairs[first_pair[contact.molecule] + contact.neighbour];
  const int i = contact.atoms / 2 ? second_atom[contact.molecule] : first_atom[contact.molecule];
  const int j = contact.atoms % 2 ? second_atom[other] : first_atom[other];
  const tagint a = atom->tag[i], b = atom->tag[j];
  if (r < model->contact_limit)
    error->one(FLERR,
               "Atoms {} and {} of different molecules are {:.3f} A apart; below {:.3f} A energies "
               "of pair style hmlp mean nothing",
               a, b, r, model->contact_limit);
  if (warned_contact) return;
  warned_contact = true;
  error->warning(FLERR,
                 "Atoms {} and {} of different molecules are {:.3f} A apart; the training data of "
                 "pair style hmlp have {:.3f} A and more",
                 a, b, r, model->contact);
}

/* ---------------------------------------------------------------- sums ------------------ */

void PairHMLP::tally_energy(int i, double energy)
{
  if (eflag_global) eng_vdwl += energy;
  if (eflag_atom) eatom[i] += energy;
}

/* The kernel's virial is dE/dstrain in the order xx yy zz yz xz xy; LAMMPS's has the other sign
 * and the order xx yy zz xy xz yz. */
void PairHMLP::tally_virial(int i, const double *w)
{
  if (!vflag_either) return;
  const double v[6] = {-w[0], -w[1], -w[2], -w[5], -w[4], -w[3]};
  for (int c = 0; c < 6; ++c) {
    if (vflag_global) virial[c] += v[c];
    if (vflag_atom) vatom[i][c] += v[c];
  }
}

/* ---------------------------------------------------------------- communication --------- */

int PairHMLP::pack_forward_comm(int n, int *atoms, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  if (message == PARTNERS) {
    for (int k = 0; k < n; ++k) buf[k] = ubuf(partner_tag[atoms[k]]).d;
    return n;
  }
  double *out = buf;
  for (int k = 0; k < n; ++k)
    if (carries(atoms[k]))
      out = std::copy_n(&rows[std::size_t(molecule[atoms[k]]) * hmlp::N_MOMENTS], MESSAGE, out);
  return static_cast<int>(out - buf);
}

void PairHMLP::unpack_forward_comm(int n, int first, double *buf)
{
  if (message == PARTNERS) {
    for (int k = 0; k < n; ++k) partner_tag[first + k] = static_cast<tagint>(ubuf(buf[k]).i);
    return;
  }
  for (int i = first; i < first + n; ++i) {
    if (!carries(i)) continue;
    std::copy_n(buf, MESSAGE, &rows[std::size_t(molecule[i]) * hmlp::N_MOMENTS]);
    buf += MESSAGE;
  }
}

/* Sums of ghost molecules, to be added to those of their owners. */
int PairHMLP::pack_reverse_comm(int n, int first, double *buf)
{
  double *out = buf;
  for (int i = first; i < first + n; ++i)
    if (carries(i))
      out = std::copy_n(&rows[std::size_t(molecule[i]) * hmlp::N_MOMENTS], MESSAGE, out);
  return static_cast<int>(out - buf);
}

void PairHMLP::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  for (int k = 0; k < n; ++k) {
    if (!carries(atoms[k])) continue;
    double *row = &rows[std::size_t(molecule[atoms[k]]) * hmlp::N_MOMENTS];
    for (int c = 0; c < MESSAGE; ++c) row[c] += buf[c];
    buf += MESSAGE;
  }
}

/* Whether atom i brings its molecule's row along. */
bool PairHMLP::carries(int i) const
{
  return atom->tag[i] < partner_tag[i];
}

double PairHMLP::memory_usage()
{
  const auto bytes = [](const auto &v) { return double(v.capacity() * sizeof(v[0])); };
  return Pair::memory_usage() + bytes(partner_tag) + bytes(partner) + bytes(molecule) +
      bytes(first_atom) + bytes(second_atom) + bytes(first_pair) + bytes(pairs) +
      bytes(first_around) + bytes(around) + bytes(molecules) + bytes(met) + bytes(rows) +
      bytes(terms) + bytes(energies) + bytes(space->members) + bytes(space->who) +
      bytes(space->numbers);
}
