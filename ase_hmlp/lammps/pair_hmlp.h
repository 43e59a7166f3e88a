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
struct Contact;
struct Molecule;
struct MoleculeTerms;
struct OverlapSpace;
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
  void write_restart_settings(FILE *) override;
  void read_restart_settings(FILE *) override;
  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  double memory_usage() override;

 private:
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
  std::vector<int> first_pair, pairs;     // neighbours of owned molecule m: from first_pair[m] on
  std::vector<int> first_around, around;  // those its cluster may have, pairs from either side

  std::vector<char> met;                  // molecules that are owned or an owned one's neighbour

  // Of the current step.
  std::vector<hmlp::Molecule> molecules;
  std::vector<double> rows;               // moments, then derivatives by them (molecules, 132)
  std::vector<hmlp::MoleculeTerms> terms;
  std::vector<double> energies;           // of the surroundings of owned molecules
  std::unique_ptr<hmlp::OverlapSpace> space;

  enum { PARTNERS, GRADIENTS } message = PARTNERS;
  bool warned_bond = false, warned_contact = false, warned_volume = false;
  bool warned_bond_style = false, warned_exclusions = false;

  static std::string find(const std::string &);
  void load(const std::string &);
  double list_cutoff() const;
  void warn_of_settings();
  void stop_if(const std::string &);
  std::string bond_problem(int, int) const;
  void rebuild();
  void check_volume();
  void find_partners();
  void find_molecules();
  void build_lists();
  bool counts(int, int) const;
  void update_molecules();
  void check_contact(const hmlp::Contact &);
  bool carries(int) const;
  void tally_energy(int, double);
  void tally_virial(int, const double *);
};

}    // namespace LAMMPS_NS

#endif
#endif
