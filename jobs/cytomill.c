/* The umbrella: `cytomill VERB ...` becomes `cytomill-VERB ...` of the same folder, so that exit codes,
 * signals and MPI are that program's own. Batch files also ask it for configuration values. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "jobs/job.h"

static const struct verb {
    const char *name, *purpose;
} verbs[] = {{"ingest", "count matrices of any source -> one atlas"},
             {"plan", "configuration and cluster -> memory, time and layout of a training, its batch file"},
             {"pretrain", "atlas -> trained model (checkpoint, metrics)"},
             {"embed", "model and cells -> embeddings (.h5ad)"},
             {"sweep", "model and cells -> scores of all gene perturbations, ranked hits"},
             {"analyze", "PCA, scores, report.html"},
             {"config", "print a configuration value: cytomill config KEY [--config FILE]... [--set KEY=VALUE]..."}};
enum { VERB_COUNT = sizeof verbs / sizeof *verbs };

static int print_help(void)
{
    puts("cytomill: foundation models of single cells on CPU clusters\n\n"
         "usage: cytomill VERB [options]        the same as cytomill-VERB [options]\n"
         "       mpirun -n 8 cytomill VERB ...  as MPI ranks; on a cluster: sbatch VERB.sbatch CONFIG\n\nverbs:");
    for (int v = 0; v < VERB_COUNT; v++) printf("  %-10s %s\n", verbs[v].name, verbs[v].purpose);
    puts("\n'cytomill VERB --help' describes one; --version says what this was built with.\n"
         "exit codes: those of the program; 2 for an unknown verb\n"
         "example: cytomill ingest tests/data/pbmc3k --out build/pbmc3k");
    return 0;
}

/* One error line for all ranks. A launcher kills the job at the first bad exit, so ranks that it started
 * leave together, after the line is out. */
static int report(enum status st)
{
    struct comm world;
    if (st == ST_OK) return 0;
    if ((getenv("OMPI_COMM_WORLD_RANK") || getenv("PMIX_RANK")) && comm_open(NULL, NULL, &world) == ST_OK) {
        comm_set_program("cytomill");
        st = comm_agree(&world, st);
        comm_close(&world);
    } else if (job_is_first())
        fprintf(stderr, "cytomill: error[%d %s]: %s\n", (int)st, status_word(st), status_message());
    return st;
}

static enum status unknown_verb(const char *word)
{
    const char *names[VERB_COUNT];
    for (int v = 0; v < VERB_COUNT; v++) names[v] = verbs[v].name;
    int near = text_nearest(word, names, VERB_COUNT);
    if (near >= 0)
        return fail(ST_USAGE, "unknown verb '%s'; did you mean '%s'? see cytomill --help", word, names[near]);
    return fail(ST_USAGE, "unknown verb '%s'; see cytomill --help", word);
}

/* Only returns if the program could not be started. */
static enum status become(const char *verb, char **argv)
{
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return fail(ST_INTERNAL, "cannot find the folder of this program: %s", strerror(errno));
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    char *path = text_format("%s/cytomill-%s", self, verb);
    argv[0] = path;
    execv(path, argv);
    enum status st = fail(ST_USAGE, "%s cannot be started: %s; install cytomill again", path, strerror(errno));
    free(path);
    return st;
}

/* cytomill config KEY [OPTION...]: the value a program given the same options would take, for the keys a
 * batch file asks about. Options that do not bear on those are passed over. */
static enum status print_config(int argc, char **argv)
{
    enum status st = ST_OK;
    struct config *config = NULL;
    const char *value;
    if (argc < 3) return fail(ST_USAGE, "a key is missing; write cytomill config run.out --config FILE");
    TRY(config_create(&config));
    for (int a = 3; a + 1 < argc; a++) {
        if (strcmp(argv[a], "--config") == 0) TRY(config_read(config, argv[++a]));
    }
    for (int a = 3; a + 1 < argc; a++) {
        if (strcmp(argv[a], "--set") == 0) TRY(config_set(config, argv[++a], "--set"));
        else if (strcmp(argv[a], "--out") == 0) TRY(config_put(config, "run.out", argv[++a], "--out"));
        else if (strcmp(argv[a], "--stop-file") == 0)
            TRY(config_put(config, "run.stop_file", argv[++a], "--stop-file"));
    }
    TRY(config_written(config, argv[2], &value));
    puts(value);
done:
    config_destroy(&config);
    return st;
}

int main(int argc, char **argv)
{
    if (argc < 2) return report(fail(ST_USAGE, "a verb is missing; see cytomill --help"));
    if (strcmp(argv[1], "--help") == 0) return job_is_first() ? print_help() : 0;
    if (strcmp(argv[1], "--version") == 0) return job_is_first() ? puts(job_version_text()) < 0 : 0;
    if (strcmp(argv[1], "config") == 0) return report(print_config(argc, argv));
    for (int v = 0; v < VERB_COUNT; v++)
        if (strcmp(argv[1], verbs[v].name) == 0) return report(become(argv[1], argv + 1));
    return report(unknown_verb(argv[1]));
}
