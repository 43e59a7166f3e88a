/* -*- c++ -*- pair_style hmlp: the hierarchical potential of molecular hydrogen. */
#ifdef PAIR_CLASS
// clang-format off
PairStyle(hmlp,PairHMLP);
// clang-format on
#else

#ifndef LMP_PAIR_HMLP_H
#define LMP_PAIR_HMLP_H

#include "pair.h"

#include <memory>
#include <string>
#include <vector>

namespace hmlp {
class Model;
struct Axis;
struct Neighbours;
struct RadialTable;
}    // namespace hmlp

namespace LAMMPS_NS {

class PairHMLP : public Pair {
 public:
  explicit PairHMLP(class LAMMPS *);
  ~PairHMLP() override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  void write_restart(FILE *) override;
  void read_restart(FILE *) override;
  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  double memory_usage() override;

 private:
  /* Compact neighbour list: neighbours of centre i are index[first[i]] to index[first[i + 1]]. */
  struct CompactList {
    std::vector<int> first, index;
    int longest = 0;
    void clear();
    void close();    // ends the current centre's row
  };

  std::unique_ptr<hmlp::Model> model;
  std::string model_file;

  // LAMMPS keeps one communication cutoff, the user's or ours, and its restart files keep it too:
  // this one is ours. Shared, because a later pair_style is another object.
  static double comm_asked;

  // Made anew whenever LAMMPS makes neighbour lists; indices of owned and ghost atoms.
  std::vector<tagint> partner_tag;        // ID of each atom's bonded partner
  std::vector<int> partner;               // its nearest image, -1 if not within reach
  std::vector<int> molecule;              // each atom's molecule, -1 if that is out of sight
  std::vector<int> first_atom;            // of each molecule, the atom of lower ID
  std::vector<int> second_atom;           // -1 if out of sight
  int n_owned = 0;                        // molecules whose first atom is owned come first
  CompactList pairs, centre_pairs;

  // Of the current step.
  std::vector<double> bonds, centres;     // (molecules, 3)
  std::vector<hmlp::Axis> axes;           // (molecules)
  std::vector<double> pair_gradient;      // (atoms, channels)
  std::vector<double> pair_slope;         // (atoms) derivative with respect to the bond length
  std::vector<double> gradient;           // (molecules, 8 channels)
  std::vector<double> molecule_slope;     // (owned molecules), the bond's own slope included
  std::vector<double> d, r;               // of the neighbours of one centre
  std::vector<int> j;

  enum { PARTNERS, GRADIENTS } message = PARTNERS;
  bool warned_bond = false, warned_contact = false;

  void load(const std::string &);
  double list_cutoff() const;
  double reach() const;
  void stop_if(const std::string &);
  std::string bond_problem(int, int) const;
  void rebuild();
  void find_partners();
  void find_molecules();
  void build_lists();
  void update_molecules();
  hmlp::Neighbours gather(const double *, const CompactList &, int, double);
  void check_contact(int, const hmlp::Neighbours &);
  void pair_energies();
  void molecule_energies();
  void pair_forces();
  void molecule_forces();
  bool carries(int) const;
  std::size_t molecule_row() const;
  void tally_energy(int, double);
  void tally_virial(int, const double *);
};

}    // namespace LAMMPS_NS

#endif
#endif
