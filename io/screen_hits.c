#include "io/screen_hits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "screen/top.h"

/* The three parts of the file. */
enum part { PART_SETS, PART_SINGLES, PART_UNRANKED, PART_COUNT };

/* ---- choosing ---- */

static enum status offer(struct top tops[PART_COUNT], const struct results *r, int64_t set, const struct score_sum *sum,
                         int64_t min_cells, int64_t *unranked)
{
    if (sum->cells < min_cells) {
        ++*unranked;
        return top_offer(&tops[PART_UNRANKED], (struct hit){0, set}); /* equal keys: by number */
    }
    bool single = r->plan.space.order == 1 || set < r->plan.space.first[2];
    double mean = (single ? sum->effect : sum->interaction) / (double)sum->cells;
    return top_offer(&tops[single ? PART_SINGLES : PART_SETS], (struct hit){fabs(mean), set});
}

static enum status scan_share(const struct comm *comm, struct results *r, int64_t min_cells,
                              struct top tops[PART_COUNT], int64_t *unranked)
{
    enum { BLOCK = 16384 };
    enum status st = ST_OK;
    struct score_sum *sums = NULL;
    int64_t first, count;
    comm_share(comm, combination_count(&r->plan.space), &first, &count);
    TRY(NEW_ARRAY(sums, BLOCK));
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        TRY(results_read(r, first + at, n, sums));
        for (int64_t i = 0; i < n; i++) TRY(offer(tops, r, first + at + i, &sums[i], min_cells, unranked));
    }
done:
    free(sums);
    return st;
}

/* The best of all ranks' best, on every rank. */
static enum status merge(struct comm *comm, struct top *top)
{
    enum status st = ST_OK;
    struct hit *all = NULL;
    struct top merged;
    int64_t bytes;
    TRY(comm_gather_all(comm, top->hits, top->count * (int64_t)sizeof *all, (void **)&all, &bytes, NULL));
    top_create(top->capacity, &merged);
    for (int64_t i = 0; st == ST_OK && i < bytes / (int64_t)sizeof *all; i++) st = top_offer(&merged, all[i]);
    top_sort(&merged);
    top_free(top);
    *top = merged;
    st = comm_agree(comm, st);
done:
    free(all);
    return st;
}

/* ---- the table ---- */

static const char *const dictionary[][3] = {
    {"rank", "",
     "place by |interaction| among sets of two genes and more, by |effect| among single genes; empty: too few cells"},
    {"size", "genes", "genes of the set"},
    {"genes", "", "symbols, joined by +"},
    {"ensembl", "", "Ensembl ids in the same order"},
    {"n", "cells", "cells of the group the set was done to: in a knock-out those that carry every gene of it"},
    {"n_each", "cells", "cells of the group that carry each gene, joined by +"},
    {"n_all", "cells", "cells of the group that carry every gene of the set, in either mode"},
    {"effect", "", "mean over the n cells of 1 - cos(z_S, z), or with a goal g of cos(z_S, g) - cos(z, g)"},
    {"effect_se", "", "standard error of effect over cells"},
    {"expected", "", "mean over the same cells of the same score of z + sum_i (z_i - z), z_i with gene i alone"},
    {"interaction", "", "mean of effect - expected; 0 for a single gene"},
    {"interaction_se", "", "standard error of interaction over cells"},
    {"set", "", "number of the set: its row in results.h5 (colexicographic within a size, singles first)"}};
enum { DICTIONARY_COUNT = sizeof dictionary / sizeof *dictionary };

static void add_joined(struct text *table, const struct results *r, const int64_t *members, int size, int what)
{
    for (int i = 0; i < size; i++) {
        const struct vocab_gene *gene = &r->plan.vocab->genes[r->plan.panel[members[i]] - 1];
        if (i > 0) text_add(table, "+");
        if (what == 2) text_add(table, "%ld", (long)r->plan.carriers[members[i]]);
        else text_add(table, "%s", what == 0 ? gene->symbol : gene->ensembl);
    }
    text_add(table, "\t");
}

static void add_hit(struct text *table, const struct results *r, int64_t rank, int64_t set, const struct score_sum *sum)
{
    int64_t members[SET_SIZE_MAX];
    int size = combination_unrank(&r->plan.space, set, members);
    struct estimate effect = estimate_from(sum->effect, sum->effect_squared, sum->cells);
    struct estimate expected = estimate_from(sum->expected, sum->expected_squared, sum->cells);
    struct estimate interaction = estimate_from(sum->interaction, sum->interaction_squared, sum->cells);
    if (rank > 0) text_add(table, "%ld", (long)rank);
    text_add(table, "\t%d\t", size);
    for (int what = 0; what < 2; what++) add_joined(table, r, members, size, what);
    text_add(table, "%ld\t", (long)sum->cells);
    add_joined(table, r, members, size, 2);
    text_add(table, "%ld\t", (long)sum->carriers);
    text_add(table, "%.9g\t%.4g\t%.9g\t%.9g\t%.4g\t%ld\n", effect.mean, effect.error, expected.mean, interaction.mean,
             interaction.error, (long)set);
}

static enum status add_hits(struct text *table, struct results *r, const struct top tops[PART_COUNT])
{
    enum status st = ST_OK;
    for (int c = 0; c < DICTIONARY_COUNT; c++) text_add(table, "%s%s", c ? "\t" : "", dictionary[c][0]);
    text_add(table, "\n");
    for (int part = 0; part < PART_COUNT; part++)
        for (int64_t h = 0; h < tops[part].count; h++) {
            struct score_sum sum;
            TRY(results_read(r, tops[part].hits[h].number, 1, &sum));
            add_hit(table, r, part == PART_UNRANKED ? 0 : h + 1, tops[part].hits[h].number, &sum);
        }
done:
    return st;
}

static void add_dictionary(struct text *table)
{
    text_add(table, "column\tunit\tmeaning\n");
    for (int c = 0; c < DICTIONARY_COUNT; c++)
        text_add(table, "%s\t%s\t%s\n", dictionary[c][0], dictionary[c][1], dictionary[c][2]);
}

/* A table that says the same already is left alone. */
static enum status write_table(const char *path, const struct text *table)
{
    char *there = NULL;
    size_t bytes = 0;
    bool same = access(path, R_OK) == 0 && text_read_file(path, &there, &bytes) == ST_OK && bytes == table->length &&
                memcmp(there, table->data, bytes) == 0;
    status_clear();
    free(there);
    return same ? ST_OK : text_write_file(path, table->data, table->length);
}

static enum status write_tables(const char *folder, struct results *r, const struct top tops[PART_COUNT])
{
    enum status st = ST_OK;
    struct text columns = {0}, hits = {0};
    char *columns_path = text_format("%s/hits_columns.tsv", folder), *hits_path = text_format("%s/hits.tsv", folder);
    add_dictionary(&columns);
    TRY(add_hits(&hits, r, tops));
    TRY(write_table(columns_path, &columns));
    TRY(write_table(hits_path, &hits));
done:
    text_free(&columns);
    text_free(&hits);
    free(columns_path);
    free(hits_path);
    return st;
}

enum status hits_write(struct comm *comm, struct results *r, const char *folder, int64_t top, int64_t min_cells,
                       int64_t *unranked)
{
    enum status st = ST_OK;
    struct top tops[PART_COUNT];
    *unranked = 0;
    for (int part = 0; part < PART_COUNT; part++) top_create(top, &tops[part]);
    TRY(comm_agree(comm, scan_share(comm, r, min_cells, tops, unranked)));
    comm_sum_i64(comm, unranked, 1);
    for (int part = 0; part < PART_COUNT; part++) TRY(merge(comm, &tops[part]));
    st = comm_agree(comm, comm->rank == 0 ? write_tables(folder, r, tops) : ST_OK);
done:
    for (int part = 0; part < PART_COUNT; part++) top_free(&tops[part]);
    return st;
}
