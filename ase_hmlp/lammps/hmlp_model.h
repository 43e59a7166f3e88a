/* The model file of pair_style hmlp, written by `hmlp export lammps`; no LAMMPS in here.
 *
 * Two lines of header, then one record a line:
 *
 *     hmlp-lammps <schema>
 *     bytes <length of the rest> crc32 <of the rest, hexadecimal>
 *     <key> <count> <count numbers, exact to the last bit>
 *
 * The arrays are those of the kernel's structs, element by element, so that reading is copying.
 * The last record is "volume", which older files of this schema lack.
 */
#ifndef HMLP_MODEL_H
#define HMLP_MODEL_H

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hmlp_kernel.h"

namespace hmlp {

class Model {
 public:
  static constexpr int SCHEMA = 5;

  double e0 = 0.0;
  Bond bond{};
  Interaction interaction{};
  Regressor regressor{}; /* of the environment level; without fingerprints if there is none */
  double bond_limits[2], bond_length[2]; /* refused outside the first, warned outside the second */
  double contact, contact_limit;         /* warned below the first, refused below the second */
  double volume[2] = {0.0, 0.0};         /* per atom, warned outside; zeros if not known */
  std::uint32_t checksum = 0;            /* of all records but "volume", which changes no energy */

  Model(const Model&) = delete; /* the structs point into this object's own arrays */
  Model& operator=(const Model&) = delete;

  /* Throws std::runtime_error with the end of a sentence that begins with the file's name. */
  explicit Model(const std::string& text) {
    read_records(text);
    e0 = numbers("e0", 1)[0];
    read_pair_of("bond_limits", bond_limits);
    read_pair_of("bond_length", bond_length);
    if (records.count("volume")) read_pair_of("volume", volume);
    contact = numbers("contact", 1)[0];
    contact_limit = numbers("contact_limit", 1)[0];
    if (integer("rep_block", 1, 1024) != REP_BLOCK ||
        integer("fingerprints", 1, 1024) != N_FINGERPRINTS)
      fail("was written for another version of the kernel: export it again");
    bond.kind = integer("bond.kind", POLYNOMIAL, MORSE);
    bond.n_parameters = integer("bond.n_parameters", 1, MAX_POLYNOMIAL);
    const auto& p = numbers("bond.parameters", bond.n_parameters);
    for (int k = 0; k < bond.n_parameters; ++k) bond.parameters[k] = p[k];
    bond.r0 = numbers("bond.r0", 1)[0];
    bond.lower = numbers("bond.lower", 1)[0];
    bond.upper = numbers("bond.upper", 1)[0];
    read_interaction();
    read_regressor();
  }

  bool has_environment() const { return regressor.n_fingerprints > 0; }
  bool has_volume() const { return volume[1] > 0.0; }

 private:
  std::map<std::string, std::vector<double>> records;

  [[noreturn]] static void fail(const std::string& why) { throw std::runtime_error(why); }

  static std::uint32_t crc32(const char* data, std::size_t n) {
    std::uint32_t table[256];
    for (std::uint32_t i = 0; i < 256; ++i) {
      table[i] = i;
      for (int k = 0; k < 8; ++k) table[i] = (table[i] >> 1) ^ ((table[i] & 1) * 0xEDB88320u);
    }
    std::uint32_t crc = 0xFFFFFFFFu;
    for (std::size_t i = 0; i < n; ++i)
      crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(data[i])) & 0xFF];
    return ~crc;
  }

  void read_records(const std::string& text) {
    int schema = 0;
    unsigned long long bytes = 0;
    const auto first = text.find('\n');
    if (text.compare(0, 12, "hmlp-lammps ") != 0 || first == std::string::npos ||
        std::sscanf(text.c_str() + 12, "%d", &schema) != 1)
      fail("is not a model file of pair style hmlp (write one with: hmlp export lammps)");
    if (schema != SCHEMA)
      fail("has schema " + std::to_string(schema) + " but this pair style reads schema " +
           std::to_string(SCHEMA) + ": export it again");
    const auto second = text.find('\n', first + 1);
    if (second == std::string::npos ||
        std::sscanf(text.c_str() + first, " bytes %llu crc32 %x", &bytes, &checksum) != 2 ||
        text.size() - second - 1 < bytes)
      fail("is truncated");
    if (text.size() - second - 1 != bytes || crc32(text.c_str() + second + 1, bytes) != checksum)
      fail("is damaged: its checksum does not match");
    const auto last = text.rfind("\nvolume ");
    if (last != std::string::npos && text.find('\n', last + 1) == text.size() - 1)
      checksum = crc32(text.c_str() + second + 1, last - second);
    const char* c = text.c_str() + second + 1;
    const char* const end = text.c_str() + text.size();
    while (c < end) {
      std::string key;
      while (c < end && *c != ' ' && *c != '\n') key += *c++;
      char* next;
      const unsigned long long count = std::strtoull(c, &next, 10);
      c = next;
      if (count > bytes) fail("has an impossible record " + key);
      auto& values = records[key];
      values.resize(count);
      for (auto& value : values) {
        value = std::strtod(c, &next);
        if (next == c || !std::isfinite(value)) fail("has a record " + key + " without numbers");
        c = next;
      }
      if (c >= end || *c != '\n') fail("has a record " + key + " of another length than it says");
      ++c;
    }
  }

  const std::vector<double>& numbers(const std::string& key, std::size_t count) const {
    const auto found = records.find(key);
    if (found == records.end()) fail("lacks the record " + key);
    if (found->second.size() != count)
      fail("has " + std::to_string(found->second.size()) + " numbers in the record " + key +
           " instead of " + std::to_string(count));
    return found->second;
  }

  int integer(const std::string& key, int low, int high) const {
    const double value = numbers(key, 1)[0];
    if (!(value >= low && value <= high) || value != std::floor(value))
      fail("has an impossible value of " + key);
    return static_cast<int>(value);
  }

  void read_pair_of(const std::string& key, double* out) const {
    const auto& values = numbers(key, 2);
    out[0] = values[0];
    out[1] = values[1];
    if (out[0] > out[1]) fail("has an impossible value of " + key);
  }

  void read_table(const std::string& name, Table& t, int size, double reach) {
    t.n_intervals = integer(name + ".n_intervals", 1, 1 << 24);
    t.spacing = numbers(name + ".spacing", 1)[0];
    t.intervals = numbers(name + ".intervals", std::size_t(t.n_intervals) * size).data();
    /* The kernel looks intervals up by r / spacing. */
    if (!(t.spacing > 0.0) || reach > t.spacing * t.n_intervals * (1.0 + 1e-12))
      fail("has an impossible table of " + name);
  }

  void read_interaction() {
    Interaction& m = interaction;
    m.cutoff = numbers("interaction.cutoff", 1)[0];
    m.environment = numbers("interaction.environment", 1)[0];
    if (!(m.cutoff > 0.0) || !(m.environment <= m.cutoff))
      fail("has an impossible value of interaction.cutoff");
    const auto& stretch = numbers("interaction.stretch", 4);
    m.r0 = stretch[0];
    m.low = stretch[1];
    m.high = stretch[2];
    m.margin = stretch[3];
    read_table("interaction.atoms", m.atoms, ATOM_INTERVAL, m.cutoff + bond_limits[1]);
    read_table("interaction.centres", m.centres, CENTRE_INTERVAL, m.cutoff);
    const auto& cluster = numbers("interaction.overlap", 6);
    Overlap& o = m.overlap;
    o.support = cluster[0];
    o.freeze = cluster[1];
    o.outer = cluster[2];
    o.reach = cluster[3];
    o.inner = cluster[4];
    o.ridge = cluster[5];
    if (!(o.reach > 0.0)) return;
    if (!(o.inner >= 0.0 && o.inner < o.reach && o.reach <= m.cutoff) || !(o.ridge >= 0.0) ||
        !(o.support > 0.0))
      fail("has an impossible value of interaction.overlap");
    read_table("interaction.overlap.orbitals", o.orbitals, BLOCK, o.reach + bond_limits[1]);
    read_table("interaction.overlap.own", o.own, BLOCK, bond_limits[1]);
  }

  void read_regressor() {
    Regressor& m = regressor;
    m.n_fingerprints = integer("environment.n_fingerprints", 0, N_FINGERPRINTS);
    if (!m.n_fingerprints) return;
    m.n_components = integer("environment.n_components", 0, MAX_COMPONENTS);
    m.n_seen = integer("environment.n_seen", 0, N_FINGERPRINTS);
    m.n_representatives = integer("environment.n_representatives", 0, 1 << 24);
    if (m.n_fingerprints != N_FINGERPRINTS || m.n_representatives % REP_BLOCK)
      fail("has an impossible regressor");
    const std::size_t k = m.n_fingerprints, q = m.n_components, s = m.n_representatives;
    m.transform = numbers("environment.transform", q * m.n_seen).data();
    m.linear = numbers("environment.linear", k).data();
    m.linear_stretch = numbers("environment.linear_stretch", k).data();
    m.mean = numbers("environment.mean", q).data();
    m.representatives = numbers("environment.representatives", s * (q + 1)).data();
    m.rep_norm = numbers("environment.rep_norm", s).data();
    m.alpha = numbers("environment.alpha", s).data();
    m.n_isolated = integer("environment.n_isolated", 2, 1 << 24);
    m.isolated = numbers("environment.isolated", std::size_t(2) * m.n_isolated).data();
    m.isolated_start = numbers("environment.isolated_start", 1)[0];
    m.isolated_spacing = numbers("environment.isolated_spacing", 1)[0];
    if (!(m.isolated_spacing > 0.0))
      fail("has an impossible value of environment.isolated_spacing");
    m.r0 = numbers("environment.r0", 1)[0];
    m.stretch_width = numbers("environment.stretch_width", 1)[0];
  }
};

} /* namespace hmlp */

#endif
