#include "io/screening.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/text.h"
#include "io/place.h"

enum { SINGLES_BLOCK = 64 }; /* cells of a chunk of singles */

/* A cell of the micro-batch: which set of the chunk, which cell of the cohort. */
struct pending {
    int64_t set, cell;
};

struct screening {
    struct screening_plan plan;
    struct score_rule rule;
    int width;
    float *base;    /* [cells, D] */
    float *goal;    /* [D] or NULL */
    float *readout; /* [readout_count, D] prediction = readout . z */
    struct partial singles;
    int64_t blocks;          /* of cells, per gene, in singles */
    struct pending *pending; /* [cells of a micro-batch] */
    float *z;                /* [cells of a micro-batch, D] */
    float *single_rows;      /* [SET_SIZE_MAX, D] */
    double *scratch;         /* [D] */
    int32_t *gene;           /* [longest cell + SET_SIZE_MAX] an edited cell */
    float *value;
    int64_t tokens;
};

/* ---- unperturbed cells ---- */

static enum status embed_batch(struct screening *s, float *z)
{
    struct inference *inf = s->plan.inference;
    s->tokens += inf->batch.token_count;
    enum status st = inference_embed(inf, z);
    batch_clear(&inf->batch);
    return st;
}

/* Cells [first, first+count) of a cohort as they are, into z[count, D]. */
static enum status embed_cells(struct screening *s, const struct cohort *cells, int64_t first, int64_t count, float *z)
{
    enum status st = ST_OK;
    struct inference *inf = s->plan.inference;
    int64_t flushed = 0;
    batch_clear(&inf->batch);
    for (int64_t i = 0; i < count; i++) {
        struct token_list list = cohort_tokens(cells, first + i);
        if (inference_is_full(inf, list.count + 1)) {
            TRY(embed_batch(s, z + flushed * s->width));
            flushed = i;
        }
        edit_append(&inf->batch, list.gene, list.value, list.count, cells->id[first + i]);
    }
    if (count > 0) TRY(embed_batch(s, z + flushed * s->width));
done:
    return st;
}

/* All cells of a cohort on every rank, each rank computing its share. */
static enum status embed_cohort(struct comm *comm, struct screening *s, const struct cohort *cells, float **z)
{
    enum status st = ST_OK;
    int64_t first, count, bytes;
    float *mine = NULL;
    comm_share(comm, cells->count, &first, &count);
    st = NEW_ARRAY(mine, count * s->width);
    if (st == ST_OK) st = embed_cells(s, cells, first, count, mine);
    TRY(comm_agree(comm, st));
    TRY(comm_gather_all(comm, mine, count * s->width * (int64_t)sizeof *mine, (void **)z, &bytes, NULL));
done:
    free(mine);
    return st;
}

static enum status mean_of_goal(struct comm *comm, struct screening *s)
{
    enum status st = ST_OK;
    float *z = NULL;
    TRY(embed_cohort(comm, s, s->plan.goal, &z));
    TRY(comm_agree(comm, NEW_ARRAY(s->goal, s->width)));
    for (int d = 0; d < s->width; d++) {
        double sum = 0;
        for (int64_t i = 0; i < s->plan.goal->count; i++) sum += z[i * s->width + d];
        s->goal[d] = (float)(sum / (double)s->plan.goal->count);
        if (!isfinite(s->goal[d])) st = ST_NUMERIC;
    }
    if (st != ST_OK)
        st = fail(ST_NUMERIC, "the mean embedding of the goal cells is not finite; is the checkpoint damaged?");
    st = comm_agree(comm, st);
done:
    free(z);
    return st;
}

/* ---- create ---- */

static enum status allocate(struct screening *s)
{
    enum status st = ST_OK;
    int64_t cells = s->plan.inference->batch.cell_capacity;
    int64_t longest = cohort_longest(s->plan.cells) + SET_SIZE_MAX;
    TRY(NEW_ARRAY(s->pending, cells));
    TRY(NEW_ARRAY(s->z, cells * s->width));
    TRY(NEW_ARRAY(s->single_rows, (int64_t)SET_SIZE_MAX * s->width));
    TRY(NEW_ARRAY(s->scratch, s->width));
    TRY(NEW_ARRAY(s->gene, longest));
    TRY(NEW_ARRAY(s->value, longest));
    TRY(NEW_ARRAY(s->readout, (int64_t)s->plan.readout_count * s->width));
    model_read_out(s->plan.inference->model, s->plan.readout, s->plan.readout_count, s->readout);
done:
    return st;
}

enum status screening_create(struct comm *comm, const struct screening_plan *plan, struct screening **out)
{
    enum status st = ST_OK;
    struct screening *s = NULL;
    *out = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(s, 1)));
    *s = (struct screening){.plan = *plan, .width = plan->inference->width};
    s->blocks = (plan->cells->count + SINGLES_BLOCK - 1) / SINGLES_BLOCK;
    TRY(comm_agree(comm, allocate(s)));
    TRY(embed_cohort(comm, s, plan->cells, &s->base));
    if (plan->goal) TRY(mean_of_goal(comm, s));
    s->rule = (struct score_rule){s->width, s->goal};
    *out = s;
    s = NULL;
done:
    screening_destroy(&s);
    return st;
}

void screening_destroy(struct screening **screening)
{
    struct screening *s = *screening;
    if (!s) return;
    partial_close(&s->singles);
    free(s->base);
    free(s->goal);
    free(s->readout);
    free(s->pending);
    free(s->z);
    free(s->single_rows);
    free(s->scratch);
    free(s->gene);
    free(s->value);
    free(s);
    *screening = NULL;
}

enum status screening_time(struct inference *inf, const struct cohort *cells, double *seconds_per_cell)
{
    enum status st = ST_OK;
    struct screening s = {.plan = {.inference = inf, .cells = cells}, .width = inf->width};
    int64_t count = cells->count < 16 ? cells->count : 16;
    float *z = NULL;
    TRY(NEW_ARRAY(z, count * s.width));
    for (int round = 0; round < 2; round++) { /* the first warms up */
        double start = clock_s();
        TRY(embed_cells(&s, cells, 0, count, z));
        *seconds_per_cell = (clock_s() - start) / (double)count;
    }
done:
    free(z);
    return st;
}

int64_t screening_tokens(const struct screening *s) { return s->tokens; }
const float *screening_base(const struct screening *s) { return s->base; }
struct partial *screening_singles(struct screening *s) { return &s->singles; }

/* ---- edited cells ---- */

/* The set as an edit of one cell, genes ascending by vocabulary id. */
static struct edit make_edit(const struct screening *s, const int64_t *members, int size, int64_t cell, int32_t *gene,
                             float *raised)
{
    const struct screening_plan *p = &s->plan;
    for (int i = 0; i < size; i++) {
        int at = i;
        int32_t id = p->panel[members[i]];
        for (; at > 0 && gene[at - 1] > id; at--) {
            gene[at] = gene[at - 1];
            raised[at] = raised[at - 1];
        }
        gene[at] = id;
        raised[at] = p->raised ? token_value(p->raised[members[i]], p->cells->total[cell], &p->inference->rules) : 0;
    }
    return (struct edit){p->mode, size, gene, raised, p->inference->rules.max_genes};
}

/* Is the set done to this cell? Knock-out needs a token of every gene; over-expression inserts, but
 * knows no level for a gene that no cell of the group expresses. */
static bool applies(const struct screening *s, const struct edit *edit, int64_t cell)
{
    struct token_list list = cohort_tokens(s->plan.cells, cell);
    if (edit->mode == EDIT_KNOCK_OUT) return token_list_has_all(&list, edit->gene, edit->size);
    for (int i = 0; i < edit->size; i++)
        if (!(edit->raised[i] > 0)) return false;
    return true;
}

/* Tokens of the edited cell into s->gene and s->value; returns how many. */
static int edit_cell(struct screening *s, const struct edit *edit, int64_t cell)
{
    struct token_list list = cohort_tokens(s->plan.cells, cell);
    return edit_apply(&list, edit, s->gene, s->value);
}

/* ---- singles ---- */

static int64_t single_offset(const struct screening *s, int64_t gene, int64_t cell)
{
    return (gene * s->plan.cells->count + cell) * s->width * (int64_t)sizeof(float);
}

static enum status lay_out_singles(const char *temporary, void *context)
{
    const struct screening *s = context;
    return place_create(temporary, single_offset(s, s->plan.space.genes, 0));
}

static void singles_block(const struct screening *s, int64_t chunk, int64_t *gene, int64_t *first, int64_t *count)
{
    *gene = chunk / s->blocks;
    *first = chunk % s->blocks * SINGLES_BLOCK;
    *count = s->plan.cells->count - *first < SINGLES_BLOCK ? s->plan.cells->count - *first : SINGLES_BLOCK;
}

static uint64_t hash_rows(const float *z, int64_t count) { return hash_block(z, (size_t)count * sizeof *z, 0); }

static enum status singles_match(void *context, int64_t chunk, uint64_t hash, bool *matches)
{
    enum status st = ST_OK;
    struct screening *s = context;
    int64_t gene, first, count;
    float *z = NULL;
    singles_block(s, chunk, &gene, &first, &count);
    TRY(NEW_ARRAY(z, count * s->width));
    TRY(place_read(s->singles.fd, s->singles.work, single_offset(s, gene, first), z,
                   count * s->width * (int64_t)sizeof *z));
    *matches = hash_rows(z, count * s->width) == hash;
done:
    free(z);
    return st;
}

enum status screening_open_singles(struct comm *comm, struct screening *s, const char *folder,
                                   const char key[SHA256_HEX])
{
    enum status st = ST_OK;
    char *path = text_format("%s/singles", folder);
    TRY(partial_open(comm, path, s->plan.space.genes * s->blocks, key, lay_out_singles, s, &s->singles));
    TRY(partial_verify(comm, &s->singles, singles_match, s));
done:
    free(path);
    return st;
}

/* Embed the micro-batch and put its rows where their cells are in z[count, D]. */
static enum status flush_singles(struct screening *s, float *z)
{
    int cells = s->plan.inference->batch.cell_count;
    enum status st = cells > 0 ? embed_batch(s, s->z) : ST_OK;
    for (int b = 0; st == ST_OK && b < cells; b++)
        memcpy(z + s->pending[b].cell * s->width, s->z + (int64_t)b * s->width, sizeof *z * (size_t)s->width);
    return st;
}

enum status screening_do_singles(struct screening *s, int64_t chunk)
{
    enum status st = ST_OK;
    struct inference *inf = s->plan.inference;
    int64_t gene, first, count;
    int32_t id[SET_SIZE_MAX];
    float raised[SET_SIZE_MAX], *z = NULL;
    singles_block(s, chunk, &gene, &first, &count);
    TRY(NEW_ARRAY(z, count * s->width)); /* rows of cells the gene is not in stay 0 and are never read */
    batch_clear(&inf->batch);
    for (int64_t i = 0; i < count; i++) {
        struct edit edit = make_edit(s, &gene, 1, first + i, id, raised);
        if (!applies(s, &edit, first + i)) continue;
        int tokens = edit_cell(s, &edit, first + i);
        if (inference_is_full(inf, tokens + 1)) TRY(flush_singles(s, z));
        s->pending[inf->batch.cell_count] = (struct pending){gene, i};
        edit_append(&inf->batch, s->gene, s->value, tokens, s->plan.cells->id[first + i]);
    }
    TRY(flush_singles(s, z));
    TRY(place_write(s->singles.fd, s->singles.work, single_offset(s, gene, first), z,
                    count * s->width * (int64_t)sizeof *z));
    TRY(partial_mark(&s->singles, chunk, hash_rows(z, count * s->width)));
done:
    free(z);
    return st;
}

/* ---- sets ---- */

/* Score one cell of one set whose embedding is z[D], and add it to the set's sums. */
static enum status add_scores(struct screening *s, const int64_t *members, int size, int64_t cell, const float *z,
                              struct score_sum *sum, double *readout)
{
    enum status st = ST_OK;
    const float *rows[SET_SIZE_MAX], *base = s->base + cell * s->width;
    for (int i = 0; i < size; i++) {
        float *row = s->single_rows + (int64_t)i * s->width;
        rows[i] = row;
        TRY(place_read(s->singles.fd, s->singles.work, single_offset(s, members[i], cell), row,
                       s->width * (int64_t)sizeof *row));
    }
    if (!z) z = rows[0]; /* a single gene: computed before */
    int64_t before = sum->cells;
    score_sum_add(sum, score_effect(&s->rule, base, z), score_expected(&s->rule, base, rows, size, s->scratch));
    if (sum->cells == before) goto done; /* not finite: in no sum */
    for (int r = 0; r < s->plan.readout_count; r++) {
        const float *vector = s->readout + (int64_t)r * s->width;
        for (int d = 0; d < s->width; d++) readout[r] += vector[d] * ((double)z[d] - base[d]);
    }
done:
    return st;
}

/* The chunk being worked on. */
struct set_chunk {
    int64_t first;
    struct score_sum *sums;
    double *readout;
};

static enum status flush_sets(struct screening *s, const struct set_chunk *chunk)
{
    enum status st = ST_OK;
    int cells = s->plan.inference->batch.cell_count;
    if (cells > 0) TRY(embed_batch(s, s->z));
    for (int b = 0; b < cells; b++) {
        struct pending p = s->pending[b];
        int64_t members[SET_SIZE_MAX];
        int size = combination_unrank(&s->plan.space, chunk->first + p.set, members);
        TRY(add_scores(s, members, size, p.cell, s->z + (int64_t)b * s->width, &chunk->sums[p.set],
                       chunk->readout + p.set * s->plan.readout_count));
    }
done:
    return st;
}

/* Append every cell the set applies to; in order of (set, cell), so the sums do not depend on where
 * micro-batches end. */
static enum status do_set(struct screening *s, const struct set_chunk *chunk, int64_t set)
{
    enum status st = ST_OK;
    struct inference *inf = s->plan.inference;
    int64_t members[SET_SIZE_MAX];
    int32_t id[SET_SIZE_MAX];
    float raised[SET_SIZE_MAX];
    int size = combination_unrank(&s->plan.space, chunk->first + set, members);
    for (int64_t cell = 0; cell < s->plan.cells->count; cell++) {
        struct edit edit = make_edit(s, members, size, cell, id, raised);
        struct token_list list = cohort_tokens(s->plan.cells, cell);
        chunk->sums[set].carriers += token_list_has_all(&list, id, size);
        if (!applies(s, &edit, cell)) continue;
        if (size == 1) {
            TRY(add_scores(s, members, 1, cell, NULL, &chunk->sums[set], chunk->readout + set * s->plan.readout_count));
            continue;
        }
        int tokens = edit_cell(s, &edit, cell);
        if (inference_is_full(inf, tokens + 1)) TRY(flush_sets(s, chunk));
        s->pending[inf->batch.cell_count] = (struct pending){set, cell};
        edit_append(&inf->batch, s->gene, s->value, tokens, s->plan.cells->id[cell]);
    }
done:
    return st;
}

enum status screening_do_sets(struct screening *s, int64_t first, int64_t count, struct score_sum *sums,
                              double *readout)
{
    enum status st = ST_OK;
    struct set_chunk chunk = {first, sums, readout};
    memset(sums, 0, sizeof *sums * (size_t)count);
    memset(readout, 0, sizeof *readout * (size_t)(count * s->plan.readout_count));
    batch_clear(&s->plan.inference->batch);
    for (int64_t set = 0; set < count; set++) TRY(do_set(s, &chunk, set));
    TRY(flush_sets(s, &chunk));
done:
    return st;
}
