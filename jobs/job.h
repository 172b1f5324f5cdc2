/* The frame every program runs in: parse → MPI → configuration → placement → prepare → run → commit.
 *
 * A program is a `struct job_spec`, a struct of its own for its state, and four functions; main is one line:
 *     int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
 * `prepare` parses, checks, measures and prints the cost (a dry run ends after it); `run` does the
 * work and looks at stop_asked(); `commit` makes the results final. Each returns an agreed status. */
#ifndef CYTOMILL_JOBS_JOB_H
#define CYTOMILL_JOBS_JOB_H

#include <stdbool.h>

#include "base/config.h"
#include "mpi/comm.h"
#include "mpi/placement.h"

struct job;

/* A long option that sets a configuration key. */
struct job_option {
    const char *name;  /* "obs-table" */
    const char *value; /* "TSV", or NULL for a switch that puts "true" */
    const char *key;   /* "ingest.obs_table" */
    const char *help;  /* one line */
};

/* Options that several programs share: --out, --threads, --oversubscribe and --stop-file go with every program, the
 * others with those that honour them. Elsewhere they are usage errors; the keys behind them stay good in files, which
 * programs share. */
enum job_takes {
    TAKES_ATLAS = 1 << 0,
    TAKES_MODEL = 1 << 1,
    TAKES_SEED = 1 << 2,
    TAKES_KERNELS = 1 << 3, /* --precision, --isa */
    TAKES_IO = 1 << 4,
    TAKES_CELLS = 1 << 5,
    TAKES_FRESH = 1 << 6
};

struct job_spec {
    const char *program;              /* "cytomill-ingest" */
    const char *purpose;              /* one sentence */
    const char *usage;                /* "INPUT... --out ATLAS [options]" */
    const char *reads, *writes;       /* lines of --help: inputs and files written */
    const char *example;              /* a command that runs */
    const char *sections;             /* configuration sections it takes: "run data model train" */
    const char *positional;           /* key that bare arguments go to (KEY_LIST: all, else one); NULL = none allowed */
    const struct job_option *options; /* ends with {0}; the shared ones that it takes are added */
    unsigned takes;                   /* of enum job_takes */
    bool stop_beside;   /* without --stop-file: OUT.stop ends it, because OUT is a file or made last; else OUT/stop */
    size_t state_bytes; /* of job->state, which the frame zeroes before `prepare` and frees after `release` */
    enum status (*prepare)(struct job *job); /* collective on job->world, agreed */
    enum status (*run)(struct job *job);
    enum status (*commit)(struct job *job);
    void (*release)(struct job *job);    /* frees what job->state holds; always called once there is a state */
    const struct job_spec *const *verbs; /* of cytomill-analyze: chosen by the first word; NULL-terminated */
};

struct job {
    struct comm world;
    struct config *config;
    const struct job_spec *spec;
    struct placement placement; /* threads to use: placement.threads */
    bool dry_run;
    void *state; /* the program's own, spec->state_bytes */
};

/* Run a program; returns its exit code. */
int job_main(int argc, char **argv, const struct job_spec *spec);

/* Is this the first process of the job, as far as the environment of mpirun or srun tells? For output before
 * MPI has started. Local. */
bool job_is_first(void);

/* Say which precision the products have and why, and which kernels are in use (after kernel_select). Rank 0 speaks;
 * local. */
void job_note_kernels(const struct job *job, bool in_bf16);

/* Text of --version: version, git revision, compiler, MPI, HDF5, oneDNN. */
const char *job_version_text(void);

#endif
