#include "io/screen_input.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/sort.h"
#include "base/stop.h"
#include "base/text.h"
#include "screen/tally.h"

enum { BLOCK = 2048 }; /* cells read together */

void gene_list_free(struct gene_list *list)
{
    free(list->gene);
    *list = (struct gene_list){0};
}

/* ---- genes by name ---- */

/* One name of the list; unknown ones are collected with the nearest symbol. */
static enum status add_gene(struct gene_list *list, const char *name, const char *key, const struct vocab *vocab,
                            struct text *unknown, int *unknown_count)
{
    enum { NAMED = 8 };
    int32_t gene = vocab_find(vocab, name);
    for (int i = 0; gene != 0 && i < list->count; i++)
        if (list->gene[i] == gene)
            return fail(ST_CONFIG, "%s: '%s' (%s) is given twice", key, name, vocab->genes[gene - 1].symbol);
    if (gene != 0) {
        list->gene[list->count++] = gene;
        return ST_OK;
    }
    if (++*unknown_count > NAMED) return ST_OK;
    const char **symbols = NULL;
    enum status st = NEW_ARRAY(symbols, vocab->count);
    if (st != ST_OK) return st;
    for (int32_t g = 0; g < vocab->count; g++) symbols[g] = vocab->genes[g].symbol;
    int near = text_nearest(name, symbols, vocab->count);
    text_add(unknown, "%s%s", unknown->length ? ", " : "", name);
    if (near >= 0) text_add(unknown, " (near: %s)", symbols[near]);
    free(symbols);
    return ST_OK;
}

/* First words of the lines of a file, cut in place. */
static int split_lines(char *text, char **names, int capacity)
{
    int count = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        line += strspn(line, " \t\r");
        line[strcspn(line, " \t\r#")] = '\0';
        if (*line && count < capacity) names[count++] = line;
    }
    return count;
}

static enum status read_names(const char *path, char **text, char ***names, int *count)
{
    enum status st = ST_OK;
    size_t bytes;
    int lines = 1;
    TRY(text_read_file(path, text, &bytes));
    for (size_t i = 0; i < bytes; i++) lines += (*text)[i] == '\n';
    TRY(NEW_ARRAY(*names, lines));
    *count = split_lines(*text, *names, lines);
    if (*count == 0) st = fail(ST_INPUT, "%s: no gene in it; write one gene a line", path);
done:
    return st;
}

enum status gene_list_read(const struct config *config, const char *key, const struct vocab *vocab,
                           struct gene_list *out)
{
    enum status st = ST_OK;
    int count, unknown_count = 0;
    const char *const *listed = config_list(config, key, &count);
    char *text = NULL, **names = NULL;
    struct text unknown = {0};
    *out = (struct gene_list){0};
    if (count == 0) return ST_OK;
    if (count == 1 && vocab_find(vocab, listed[0]) == 0 && access(listed[0], R_OK) == 0) {
        TRY(read_names(listed[0], &text, &names, &count));
        listed = (const char *const *)names;
    }
    TRY(NEW_ARRAY(out->gene, count));
    for (int i = 0; i < count; i++) TRY(add_gene(out, listed[i], key, vocab, &unknown, &unknown_count));
    if (unknown_count > 0)
        st = fail(ST_INPUT,
                  "%s: %d of %d genes are not in the model's vocabulary of %d: %s%s; correct or leave them out", key,
                  unknown_count, count, vocab->count, unknown.data, unknown_count > 8 ? ", ..." : "");
done:
    if (st != ST_OK) gene_list_free(out);
    text_free(&unknown);
    free(names);
    free(text);
    return st;
}

/* ---- cells ---- */

enum status screen_select(struct comm *comm, const struct config *config, struct atlas *atlas, const char *expression,
                          int64_t **rows, int64_t *count)
{
    const char *cells = config_text(config, "run.cells");
    char *both = *cells && *expression ? text_format("(%s) and (%s)", cells, expression)
                                       : text_copy(*cells ? cells : expression);
    enum status st = atlas_select(comm, atlas, both, rows, count);
    free(both);
    return st;
}

static enum status add_cells(struct cell_input *input, const struct inference *inf, const int64_t *rows, int64_t count,
                             const uint8_t *hidden, struct cohort *out)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    struct token_cell cell = {0};
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        TRY(atlas_read_rows(input->atlas, input->modality, rows + at, n, &cells));
        for (int64_t i = 0; i < n; i++) {
            TRY(token_cell_reserve(&cell, cells.start[i + 1] - cells.start[i]));
            token_cell_read(&cells, i, inf->lookup, &inf->rules, false, &cell);
            TRY(cohort_add(out, &cell, &inf->rules, hidden, cells.id[i]));
        }
    }
done:
    cells_free(&cells);
    token_cell_free(&cell);
    return st;
}

enum status screen_draw(struct comm *comm, struct cell_input *input, const struct inference *inf, const int64_t *rows,
                        int64_t count, int64_t most, uint64_t seed, const uint8_t *hidden, struct cohort *out)
{
    enum status st = ST_OK;
    int64_t n = count < most ? count : most;
    uint64_t *drawn = NULL;
    st = NEW_ARRAY(drawn, n);
    for (int64_t i = 0; st == ST_OK && i < n; i++)
        drawn[i] = (uint64_t)rows[perm_apply(seed, RNG_SWEEP, (uint64_t)count, (uint64_t)i)];
    if (st == ST_OK) sort_u64(drawn, n);
    if (st == ST_OK) st = add_cells(input, inf, (const int64_t *)drawn, n, hidden, out);
    if (st == ST_OK && out->count == 0)
        st = fail(ST_INPUT, "%s: none of the %ld cells drawn has a gene of the model's vocabulary", input->path,
                  (long)n);
    free(drawn);
    return comm_agree(comm, st);
}

/* ---- statistics of the group, each rank reading its share ---- */

/* Hand every (gene, count) of a rank's share to `take`. */
static enum status scan_group(const struct comm *comm, struct cell_input *input, const struct inference *inf,
                              const int64_t *rows, int64_t row_count,
                              enum status (*take)(void *context, int32_t gene, float count), void *context)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    int64_t first, count;
    comm_share(comm, row_count, &first, &count);
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        TRY(stop_asked() ? ST_REQUEUE : atlas_read_rows(input->atlas, input->modality, rows + first + at, n, &cells));
        for (int64_t e = 0; e < cells.start[n]; e++) {
            int32_t gene = inf->lookup[cells.feature[e]];
            if (gene > 0) TRY(take(context, gene, cells.value[e]));
        }
    }
done:
    cells_free(&cells);
    return st;
}

static enum status count_detection(void *context, int32_t gene, float count)
{
    int64_t *detected = context;
    detected[gene] += count > 0;
    return ST_OK;
}

static bool is_housekeeping(const char *symbol)
{
    return strncmp(symbol, "MT-", 3) == 0 || strncmp(symbol, "RPL", 3) == 0 || strncmp(symbol, "RPS", 3) == 0;
}

static int32_t most_detected_of(const int64_t *detected, int32_t genes)
{
    int32_t best = 0;
    for (int32_t g = 1; g <= genes; g++)
        if (detected[g] > detected[best]) best = g;
    return best;
}

static enum status choose_detected(const struct vocab *vocab, const uint8_t *hidden, int64_t *detected, int count,
                                   struct gene_list *out)
{
    enum status st = NEW_ARRAY(out->gene, count);
    if (st != ST_OK) return st;
    for (int32_t g = 1; g <= vocab->count; g++)
        if ((hidden && hidden[g]) || is_housekeeping(vocab->genes[g - 1].symbol)) detected[g] = 0;
    while (out->count < count) {
        int32_t best = most_detected_of(detected, vocab->count);
        if (best == 0) break; /* detected[0] is 0: no gene is left */
        out->gene[out->count++] = best;
        detected[best] = 0;
    }
    return out->count > 0
               ? ST_OK
               : fail(ST_INPUT, "no gene of the vocabulary is detected in the group; name a panel with sweep.genes");
}

enum status screen_most_detected(struct comm *comm, struct cell_input *input, const struct inference *inf,
                                 const int64_t *rows, int64_t row_count, const uint8_t *hidden, int count,
                                 struct gene_list *out)
{
    int64_t *detected = NULL;
    *out = (struct gene_list){0};
    enum status st = NEW_ARRAY(detected, inf->vocab->count + 1);
    if (st == ST_OK) st = scan_group(comm, input, inf, rows, row_count, count_detection, detected);
    TRY(comm_agree(comm, st));
    comm_sum_i64(comm, detected, inf->vocab->count + 1);
    TRY(comm_agree(comm, choose_detected(inf->vocab, hidden, detected, count, out)));
done:
    free(detected);
    return st;
}

struct panel_tally {
    struct tally tally;
    uint8_t *in_panel; /* [V+1] */
};

static enum status tally_panel(void *context, int32_t gene, float count)
{
    struct panel_tally *t = context;
    return t->in_panel[gene] && count > 0 ? tally_add(&t->tally, gene, count, 1) : ST_OK;
}

/* Join the tallies of all ranks on every rank. */
static enum status join_tallies(struct comm *comm, struct tally *tally)
{
    enum status st = ST_OK;
    struct tally_pair *all = NULL;
    int64_t bytes;
    tally_compress(tally);
    TRY(comm_gather_all(comm, tally->pairs, tally->size * (int64_t)sizeof *all, (void **)&all, &bytes, NULL));
    tally->size = 0;
    for (int64_t i = 0; st == ST_OK && i < bytes / (int64_t)sizeof *all; i++)
        st = tally_add(tally, all[i].gene, all[i].count, all[i].times);
    tally_compress(tally);
    st = comm_agree(comm, st);
done:
    free(all);
    return st;
}

enum status screen_percentiles(struct comm *comm, struct cell_input *input, const struct inference *inf,
                               const int64_t *rows, int64_t row_count, const struct gene_list *panel, float *raised)
{
    struct panel_tally t = {0};
    enum status st = NEW_ARRAY(t.in_panel, inf->vocab->count + 1);
    for (int i = 0; st == ST_OK && i < panel->count; i++) t.in_panel[panel->gene[i]] = 1;
    if (st == ST_OK) st = scan_group(comm, input, inf, rows, row_count, tally_panel, &t);
    TRY(comm_agree(comm, st));
    TRY(join_tallies(comm, &t.tally));
    for (int i = 0; i < panel->count; i++) raised[i] = tally_percentile(&t.tally, panel->gene[i], 0.99);
done:
    tally_free(&t.tally);
    free(t.in_panel);
    return st;
}
