/* cytomill-probe MEMORY_MIB SECONDS FILE: walk a foreign HDF5 file within limits, before a rank opens it.
 *
 * A program of its own without MPI: when HDF5 crashes on a damaged file, or eats memory, or runs in a
 * circle, this process dies and nobody else. Exit 0: the file can be opened; 4: the reason is on stdout;
 * anything else, or a signal: the file is corrupt. Not meant to be called by hand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/text.h"
#include "io/probe.h"

static void set_limit(int what, rlim_t value)
{
    struct rlimit limit = {value, value};
    setrlimit(what, &limit);
}

int main(int argc, char **argv)
{
    int64_t memory_mib, seconds;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return puts("cytomill-probe MEMORY_MIB SECONDS FILE: walk an HDF5 file within limits (used by the other "
                    "programs)") < 0;
    if (argc != 4 || !text_to_int(argv[1], &memory_mib) || !text_to_int(argv[2], &seconds) || memory_mib < 1 ||
        seconds < 1) {
        fputs("usage: cytomill-probe MEMORY_MIB SECONDS FILE\n", stderr);
        return ST_USAGE;
    }
    set_limit(RLIMIT_CORE, 0);
#ifndef __SANITIZE_ADDRESS__ /* which reserves terabytes of address space */
    set_limit(RLIMIT_AS, (rlim_t)memory_mib << 20);
#endif
    set_limit(RLIMIT_CPU, (rlim_t)seconds);
    alarm((unsigned)seconds);
    enum status st = probe_walk(argv[3]);
    if (st != ST_OK) printf("%s\n", status_message());
    fflush(stdout);
    _exit(st); /* no library's exit handlers: they may stumble over what the file left behind */
}
