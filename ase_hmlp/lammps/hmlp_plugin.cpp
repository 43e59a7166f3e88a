/* Registers pair_style hmlp with LAMMPS's plugin loader. */
#include "lammps.h"
#include "pair_hmlp.h"

/* LAMMPS refuses plugins of another version. A source tree states its own; installed headers don't,
 * and then whoever builds has to. */
#if __has_include("version.h")
#include "version.h"
#elif !defined(LAMMPS_VERSION)
#error "define LAMMPS_VERSION as LAMMPS prints it, such as \"22 Jul 2025\""
#endif

namespace {

/* lammpsplugin.h of LAMMPS's sources, which installed headers lack. */
struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  union {
    void *(*v1)(void *);
    void *(*v2)(void *, int, char **);
  } creator;
  void *handle;
};

void *create(void *lammps)
{
  return new LAMMPS_NS::PairHMLP(static_cast<LAMMPS_NS::LAMMPS *>(lammps));
}

}    // namespace

extern "C" void lammpsplugin_init(void *lammps, void *handle, void *register_plugin)
{
  lammpsplugin_t plugin{};
  plugin.version = LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.name = "hmlp";
  plugin.info = "hierarchical machine-learned potential of molecular hydrogen";
  plugin.author = "the ase_hmlp developers";
  plugin.creator.v1 = create;
  plugin.handle = handle;
  reinterpret_cast<void (*)(void *, void *)>(register_plugin)(&plugin, lammps);
}
