/* Instruction sets: every fast kernel is compiled once per set and chosen at run time.
 *
 * A kernel's file is compiled with -DISA=generic, avx2 and avx512 and defines ISA_NAME(f); one row
 * of KERNEL_LIST (kernel_list.h) makes of it the public function f, its entry in the table of each
 * set, and the prototype of its plain version f_ref, which has the same parameters. In the double
 * build the public function is the plain version. An embedding depends on the set in use, so run
 * records carry kernel_isa_name().
 *
 *     TRY(kernel_select(config_text(cfg, "run.isa")));   "auto" if never called */
#ifndef CYTOMILL_KERNEL_ISA_H
#define CYTOMILL_KERNEL_ISA_H

#include "base/status.h"

#define ISA_PASTE_(name, isa) name##_##isa
#define ISA_PASTE(name, isa)  ISA_PASTE_(name, isa)
#define ISA_NAME(name)        ISA_PASTE(name, ISA)

/* Use "generic", "avx2", "avx512" or the best this processor has ("auto"). ST_CONFIG if the
 * processor lacks it or the name is unknown. Call before threads start. Local. */
MUST_CHECK enum status kernel_select(const char *isa);
/* Name of the set in use: "generic", "avx2" or "avx512"; "plain" in the double build. Never NULL. */
const char *kernel_isa_name(void);

#endif
