#include "jobs/job_ranks.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/text.h"
#include "kernel/isa.h"
#include "kernel/product.h"

/* ---- what this rank is ---- */

/* Of the file as it lies there: a build id would miss a damaged copy. */
static void hash_program(char *out, size_t bytes)
{
    struct stat info = {0};
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *file = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0)
        file = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0) close(fd);
    if (file == MAP_FAILED) {
        snprintf(out, bytes, "unreadable");
        return;
    }
    snprintf(out, bytes, "%016llx", (unsigned long long)hash_block(file, (size_t)info.st_size, 0));
    munmap(file, (size_t)info.st_size);
}

/* --version on one line, without what follows oneDNN's number: that depends on the processor. */
static void join_version(char *out, size_t bytes)
{
    snprintf(out, bytes, "%s", job_version_text());
    char *last = strrchr(out, '\n');
    if (last) last[strcspn(last, ",(")] = '\0';
    for (char *c = out; *c; c++)
        if (*c == '\n') *c = ';';
}

static struct rank_card own_card(const struct comm *world)
{
    struct rank_card card = {0};
    memcpy(card.host, world->host, sizeof card.host);
    hash_program(card.program, sizeof card.program);
    join_version(card.version, sizeof card.version);
    snprintf(card.isa, sizeof card.isa, "%s", kernel_isa_name());
    snprintf(card.bf16, sizeof card.bf16, "%s", product_bf16_native() ? "bf16 products" : "no bf16 products");
    return card;
}

/* ---- who differs ---- */

static const char *text_of(const struct rank_card *card, size_t at) { return (const char *)card + at; }

/* "rank 2 on node3", "rank 0 on node1 and 5 more" of the ranks whose text is that of rank `first`. */
static void add_owners(struct text *out, const struct rank_card *cards, int ranks, size_t at, int first)
{
    int more = 0;
    for (int r = first + 1; r < ranks; r++) more += strcmp(text_of(&cards[r], at), text_of(&cards[first], at)) == 0;
    text_add(out, "%s on rank %d on %s", text_of(&cards[first], at), first, cards[first].host);
    if (more > 0) text_add(out, " and %d more", more);
}

static bool is_first_with(const struct rank_card *cards, size_t at, int rank)
{
    for (int r = 0; r < rank; r++)
        if (strcmp(text_of(&cards[r], at), text_of(&cards[rank], at)) == 0) return false;
    return true;
}

/* Who has which text, each text once; empty if all have the same. The caller frees. */
static struct text list_owners(const struct rank_card *cards, int ranks, size_t at)
{
    struct text out = {0};
    int kinds = 0;
    for (int r = 0; r < ranks; r++) kinds += is_first_with(cards, at, r);
    for (int r = 0; r < ranks && kinds > 1; r++) {
        if (!is_first_with(cards, at, r)) continue;
        if (out.length > 0) text_add(&out, ", ");
        add_owners(&out, cards, ranks, at, r);
    }
    return out;
}

/* The set that all have: sets stand best last, as in kernel/isa.c. */
static const char *common_isa(const struct rank_card *cards, int ranks)
{
    static const char *const sets[] = {"generic", "avx2", "avx512"};
    for (int s = 0; s < 2; s++)
        for (int r = 0; r < ranks; r++)
            if (strcmp(cards[r].isa, sets[s]) == 0) return sets[s];
    return sets[2];
}

enum status rank_cards_compare(const struct rank_card *cards, int ranks, const char *isa, const char *precision)
{
    bool free_isa = isa && strcmp(isa, "auto") == 0, free_bf16 = precision && strcmp(precision, "auto") == 0;
    const char *set = common_isa(cards, ranks);
    const struct {
        bool looked_at;
        size_t at;
        enum status st;
        const char *what, *remedy, *value;
    } rows[] = {
        {true, offsetof(struct rank_card, program), ST_COMM, "the program's file differs among the ranks",
         "start every rank with the same program, or install it again where it is damaged", ""},
        {true, offsetof(struct rank_card, version), ST_COMM, "versions differ among the ranks",
         "give every host the same MPI and HDF5 libraries", ""},
        {free_isa, offsetof(struct rank_card, isa), ST_CONFIG, "processors differ among the ranks",
         "the same bits everywhere need one instruction set: set run.isa to ", set},
        {free_bf16, offsetof(struct rank_card, bf16), ST_CONFIG, "processors differ among the ranks",
         "set run.precision to fp32 or bf16", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text owners = {0};
        enum status st = ST_OK;
        if (rows[i].looked_at) owners = list_owners(cards, ranks, rows[i].at);
        if (owners.length > 0)
            st = fail(rows[i].st, "%s: %s; %s%s", rows[i].what, owners.data, rows[i].remedy, rows[i].value);
        text_free(&owners);
        if (st != ST_OK) return st;
    }
    return ST_OK;
}

/* ---- configuration ---- */

/* One line "key<tab>value" for each key. */
static struct text list_keys(const struct config *config)
{
    struct text out = {0};
    for (int k = 0; k < config_key_count; k++) {
        const char *value = "";
        if (config_written(config, config_keys[k].name, &value) != ST_OK) status_clear();
        for (text_add(&out, "%s\t", config_keys[k].name); *value; value++)
            text_add(&out, "%c", *value == '\n' ? ',' : *value);
        text_add(&out, "\n");
    }
    return out;
}

/* The keys are those of one program, so both lists name the same in the same order. */
static enum status compare_keys(const char *theirs, const char *ours)
{
    while (*theirs && *ours) {
        int their_length = (int)strcspn(theirs, "\n"), our_length = (int)strcspn(ours, "\n");
        int name = (int)strcspn(ours, "\t");
        if (their_length != our_length || strncmp(theirs, ours, (size_t)our_length) != 0)
            return fail(ST_CONFIG,
                        "%.*s is '%.*s' here and '%.*s' on rank 0; start every rank with the same files and options",
                        name, ours, our_length - name - 1, ours + name + 1, their_length - name - 1, theirs + name + 1);
        theirs += their_length + 1;
        ours += our_length + 1;
    }
    return ST_OK;
}

static enum status compare_configuration(struct comm *world, const struct config *config)
{
    struct text ours = list_keys(config);
    char *theirs = world->rank == 0 ? text_copy(ours.data) : NULL;
    comm_bcast_text(world, &theirs, 0);
    enum status st = comm_agree(world, compare_keys(theirs, ours.data));
    free(theirs);
    text_free(&ours);
    return st;
}

enum status job_compare_ranks(struct comm *world, const struct job *job)
{
    enum status st = ST_OK;
    bool kernels = job->spec->takes & TAKES_KERNELS;
    struct rank_card mine = own_card(world), *cards = NULL;
    int64_t bytes;
    TRY(comm_gather_all(world, &mine, sizeof mine, (void **)&cards, &bytes, NULL));
    TRY(comm_agree(world, rank_cards_compare(cards, world->size, NULL, NULL)));
    TRY(compare_configuration(world, job->config));
    if (kernels)
        TRY(comm_agree(world, rank_cards_compare(cards, world->size, config_text(job->config, "run.isa"),
                                                 config_text(job->config, "run.precision"))));
done:
    free(cards);
    return st;
}
