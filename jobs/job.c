#include "jobs/job.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "base/text.h"
#include "jobs/job_ranks.h"
#include "kernel/isa.h"
#include "kernel/product.h"
#include "mpi/watchdog.h"

/* In the order of --help. */
static const struct shared_option {
    unsigned takes; /* of enum job_takes; 0 = every program */
    struct job_option option;
} shared_options[] = {
    {TAKES_ATLAS, {"atlas", "ATLAS", "run.atlas", "atlas folder to read"}},
    {TAKES_MODEL, {"model", "CKPT", "run.model", "checkpoint to read, or a training run: its newest"}},
    {0, {"out", "PATH", "run.out", "what to write"}},
    {TAKES_SEED, {"seed", "N", "run.seed", "seed of all random numbers"}},
    {0, {"threads", "N", "run.threads", "OpenMP threads per rank; 0 = its share of the cores"}},
    {TAKES_KERNELS, {"precision", "P", "run.precision", "auto, bf16 or fp32"}},
    {TAKES_KERNELS, {"isa", "ISA", "run.isa", "auto, generic, avx2 or avx512"}},
    {TAKES_IO, {"io", "HOW", "run.io", "auto, ompio, romio or posix"}},
    {TAKES_CELLS, {"cells", "EXPR", "run.cells", "which cells, e.g. \"qc_n_features >= 200\""}},
    {0, {"stop-file", "FILE", "run.stop_file", "a file whose appearance ends the job in good order"}},
    {0, {"oversubscribe", NULL, "run.oversubscribe", "allow more threads than cores"}},
    {TAKES_FRESH, {"fresh", NULL, "run.fresh", "refuse to resume what is in --out"}}};
enum { SHARED_COUNT = sizeof shared_options / sizeof *shared_options };

/* Options of a program: its own, then the shared ones it takes. NULL behind the last. */
static const struct job_option *option_at(const struct job_spec *spec, int index)
{
    for (const struct job_option *o = spec->options; o && o->name; o++, index--)
        if (index == 0) return o;
    for (int k = 0; k < SHARED_COUNT; k++) {
        if (shared_options[k].takes && !(shared_options[k].takes & spec->takes)) continue;
        if (index-- == 0) return &shared_options[k].option;
    }
    return NULL;
}

void job_note_kernels(const struct job *job, bool in_bf16)
{
    const char *why = in_bf16 ? "auto, because this processor has bf16 products"
                              : "auto, because this processor has no bf16 products";
    comm_note(&job->world, "precision %s: %s; kernels %s: %s; %s", in_bf16 ? "bf16" : "fp32",
              config_word_is(job->config, "run.precision", "auto") ? why : "as asked", kernel_isa_name(),
              config_word_is(job->config, "run.isa", "auto") ? "auto" : "as asked", product_version_text());
}

/* ---- help ---- */

static const struct config_key *key_row(const char *name)
{
    for (int k = 0; k < config_key_count; k++)
        if (strcmp(config_keys[k].name, name) == 0) return &config_keys[k];
    return NULL;
}

static void print_option(const struct job_option *o)
{
    char left[64];
    const struct config_key *key = key_row(o->key);
    snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    printf("  %-24s %s", left, o->help);
    if (key && *key->fallback && o->value) printf(" [%s%s%s]", key->fallback, *key->unit ? " " : "", key->unit);
    putchar('\n');
}

static void print_help(const struct job_spec *spec)
{
    printf("%s: %s\n\nusage: %s %s\n\n", spec->program, spec->purpose, spec->program, spec->usage);
    if (spec->verbs) {
        puts("verbs:");
        for (const struct job_spec *const *v = spec->verbs; *v; v++)
            printf("  %-12s %s\n", strrchr((*v)->program, ' ') + 1, (*v)->purpose);
        printf("\n'%s VERB --help' describes one.\n", spec->program);
        return;
    }
    if (spec->reads) printf("reads:  %s\n", spec->reads);
    if (spec->writes) printf("writes: %s\n", spec->writes);
    puts("\noptions:");
    const struct job_option *o;
    for (int k = 0; (o = option_at(spec, k)); k++) print_option(o);
    puts("  --config FILE            YAML configuration; repeatable, later wins\n"
         "  --set SECTION.KEY=VALUE  one configuration value; repeatable, wins over files\n"
         "  --dry-run                check everything, print the cost, do nothing\n"
         "  --help, --version");
    printf("\nconfiguration sections: %s (configs/README.md describes every key)\n", spec->sections);
    puts("exit codes: 0 ok, 2 usage, 3 configuration, 4 input data, 5 output, 6 memory, 7 numeric,\n"
         "            8 communication, 9 internal, 75 stopped early: the same command goes on, or begins anew");
    printf("example: %s\n", spec->example);
}

/* ---- command line ---- */

struct command_line {
    struct config *config;
    const struct job_spec *spec;
    bool help, version, dry_run;
};

enum { OPTION_CONFIG = 1000, OPTION_SET, OPTION_DRY_RUN, OPTION_HELP, OPTION_VERSION };

static int make_long_options(const struct job_spec *spec, struct option *out, int capacity)
{
    static const struct option fixed[] = {{"config", required_argument, NULL, OPTION_CONFIG},
                                          {"set", required_argument, NULL, OPTION_SET},
                                          {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
                                          {"help", no_argument, NULL, OPTION_HELP},
                                          {"version", no_argument, NULL, OPTION_VERSION}};
    int n = 0;
    for (const struct job_option *o; n < capacity - 8 && (o = option_at(spec, n)); n++)
        out[n] = (struct option){o->name, o->value ? required_argument : no_argument, NULL, n + 1};
    for (size_t f = 0; f < sizeof fixed / sizeof *fixed; f++) out[n++] = fixed[f];
    out[n] = (struct option){0};
    return n;
}

static enum status bad_option(const struct job_spec *spec, const struct option *options, int n, const char *word)
{
    const char *names[128];
    char bare[64];
    for (int i = 0; i < n; i++) names[i] = options[i].name;
    snprintf(bare, sizeof bare, "%s", word + strspn(word, "-"));
    bare[strcspn(bare, "=")] = '\0';
    int near = text_nearest(bare, names, n);
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], bare) == 0)
            return fail(ST_USAGE, "option --%s %s; see %s --help", bare,
                        options[i].has_arg ? "needs a value" : "takes no value", spec->program);
    return fail(ST_USAGE, "unknown option '%s'%s%s%s; see %s --help", word, near >= 0 ? "; did you mean '--" : "",
                near >= 0 ? names[near] : "", near >= 0 ? "'?" : "", spec->program);
}

/* Files first, then options, whatever their order on the line: pass 0 reads --config, pass 1 the rest. */
static enum status take_option(struct command_line *line, int code, const char *argument, int pass)
{
    if (code == OPTION_HELP) {
        line->help = true;
        return ST_OK;
    }
    if (code == OPTION_VERSION) {
        line->version = true;
        return ST_OK;
    }
    if (code == OPTION_DRY_RUN) {
        line->dry_run = true;
        return ST_OK;
    }
    if (code == OPTION_CONFIG) return pass == 0 ? config_read(line->config, argument) : ST_OK;
    if (pass == 0) return ST_OK;
    if (code == OPTION_SET) return config_set(line->config, argument, "--set");
    const struct job_option *o = option_at(line->spec, code - 1);
    char origin[80];
    snprintf(origin, sizeof origin, "--%s", o->name);
    return config_put(line->config, o->key, argument ? argument : "true", origin);
}

static enum status take_positional(struct command_line *line, char **words, int count)
{
    const struct job_spec *spec = line->spec;
    if (count == 0) return ST_OK;
    if (!spec->positional) return fail(ST_USAGE, "unexpected argument '%s'; see %s --help", words[0], spec->program);
    if (key_row(spec->positional)->type != KEY_LIST && count > 1)
        return fail(ST_USAGE, "unexpected argument '%s' after '%s'; see %s --help", words[1], words[0], spec->program);
    struct text all = {0};
    for (int i = 0; i < count; i++)
        text_add(&all, count > 1 || key_row(spec->positional)->type == KEY_LIST ? "%s\n" : "%s", words[i]);
    enum status st = config_put(line->config, spec->positional, all.data, "command line");
    text_free(&all);
    return st;
}

static enum status parse(int argc, char **argv, struct command_line *line)
{
    enum status st = ST_OK;
    struct option options[128];
    if (line->spec->verbs) {
        const struct job_spec *top = line->spec;
        if (argc < 2) return fail(ST_USAGE, "a verb is missing; see %s --help", top->program);
        if (strcmp(argv[1], "--help") == 0) {
            line->help = true;
            return ST_OK;
        }
        if (strcmp(argv[1], "--version") == 0) {
            line->version = true;
            return ST_OK;
        }
        line->spec = NULL;
        for (const struct job_spec *const *v = top->verbs; *v; v++)
            if (strcmp(argv[1], strrchr((*v)->program, ' ') + 1) == 0) line->spec = *v;
        if (!line->spec) {
            line->spec = top;
            return fail(ST_USAGE, "unknown verb '%s'; see %s --help", argv[1], top->program);
        }
        argc--;
        argv++;
    }
    int n = make_long_options(line->spec, options, 128);
    opterr = 0;
    for (int pass = 0; pass < 2; pass++) {
        optind = 0;
        for (int code; (code = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
            if (code == '?' || code == ':') TRY(bad_option(line->spec, options, n, argv[optind - 1]));
            TRY(take_option(line, code, optarg, pass));
        }
        if (line->help || line->version) return ST_OK;
    }
    TRY(take_positional(line, argv + optind, argc - optind));
done:
    return st;
}

/* ---- main ---- */

/* Rank 0 looks for the file whenever it is asked, the others once a second, so that many ranks are no load. */
static void watch_for_stop(const struct job *job)
{
    const char *file = config_text(job->config, "run.stop_file"), *out = config_text(job->config, "run.out");
    char *usual = *out ? text_format(job->spec->stop_beside ? "%s.stop" : "%s/stop", out) : text_copy("");
    stop_watch(*file ? file : usual, job->world.rank == 0 ? 0 : 1);
    free(usual);
}

/* Ranks that train meet every few seconds; elsewhere one may rightly work for long while others wait for it. */
static double watchdog_limit(const struct job *job)
{
    bool trains = strstr(job->spec->sections, "train") != NULL;
    return trains || config_is_given(job->config, "run.watchdog_s") ? config_real(job->config, "run.watchdog_s") : 0;
}

bool job_is_first(void)
{
    const char *names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);
        if (rank) return atoi(rank) == 0;
    }
    return true;
}

static enum status run_stages(struct job *job)
{
    enum status st = ST_OK;
    TRY(job_compare_ranks(&job->world, job));
    TRY(placement_find(&job->world, (int)config_int(job->config, "run.threads"),
                       config_bool(job->config, "run.oversubscribe") || getenv("CYTOMILL_OVERSUBSCRIBE"),
                       &job->placement));
    TRY(placement_print(&job->world, &job->placement));
    watch_for_stop(job);
    TRY(watchdog_start(&job->world, job->spec->program, watchdog_limit(job)));
    TRY(comm_agree(&job->world, mem_alloc(&job->state, 1, job->spec->state_bytes, "the program's state")));
    TRY(job->spec->prepare(job));
    if (job->dry_run) {
        comm_note(&job->world, "dry run: everything checked, nothing done");
        goto done;
    }
    TRY(job->spec->run(job));
    if (job->spec->commit) TRY(job->spec->commit(job));
done:
    if (st == ST_REQUEUE) comm_note(&job->world, "stopped early, as asked");
    return st;
}

int job_main(int argc, char **argv, const struct job_spec *spec)
{
    struct job job = {.spec = spec};
    struct command_line line = {.spec = spec};
    setvbuf(stdout, NULL, _IOLBF, 0);
    comm_set_program(spec->program);
    enum status st = config_create(&job.config);
    line.config = job.config;
    if (st == ST_OK) st = parse(argc, argv, &line);
    job.spec = line.spec;
    job.dry_run = line.dry_run;
    comm_set_program(job.spec->program);
    if (st == ST_OK && (line.help || line.version)) {
        if (job_is_first() && line.help) print_help(job.spec);
        else if (job_is_first()) puts(job_version_text());
        config_destroy(&job.config);
        return 0;
    }
    enum status opened = comm_open(&argc, &argv, &job.world);
    if (opened != ST_OK) {
        fprintf(stderr, "%s: error[%d %s]: %s\n", spec->program, (int)opened, status_word(opened), status_message());
        return opened;
    }
    st = comm_agree(&job.world, st);
    if (st == ST_OK) st = run_stages(&job);
    if (job.state && job.spec->release) job.spec->release(&job);
    free(job.state);
    config_destroy(&job.config);
    watchdog_stop();
    comm_close(&job.world);
    return st;
}
