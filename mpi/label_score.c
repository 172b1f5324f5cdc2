#include "mpi/label_score.h"

#include <stdlib.h>
#include <string.h>

/* Rows of this rank that `use` marks, packed, and where they stand among those of all ranks. */
struct part {
    struct spread_rows rows;
    float *values;
    int64_t *global; /* [rows.count] row of the whole */
    int32_t *code;   /* [all] labels of the parts of all ranks */
    int64_t all;
};

static bool takes_part(const struct labelled *l, const uint8_t *use, int64_t row)
{
    return use[row] && l->code[row] >= 0;
}

static enum status part_allocate(const struct spread_rows *rows, const struct labelled *l, const uint8_t *use,
                                 struct part *p)
{
    enum status st = ST_OK;
    for (int64_t i = 0; i < l->rows; i++) p->all += takes_part(l, use, i);
    for (int64_t i = 0; i < rows->count; i++) p->rows.count += takes_part(l, use, rows->first + i);
    TRY(NEW_ARRAY(p->values, p->rows.count * rows->width));
    TRY(NEW_ARRAY(p->global, p->rows.count));
    TRY(NEW_ARRAY(p->code, p->all));
done:
    return st;
}

static enum status part_create(struct comm *comm, const struct spread_rows *rows, const struct labelled *l,
                               const uint8_t *use, struct part *p)
{
    enum status st = ST_OK;
    TRY(comm_agree(comm, part_allocate(rows, l, use, p)));
    int64_t at = 0, labelled = 0;
    for (int64_t i = 0; i < rows->count; i++) {
        if (!takes_part(l, use, rows->first + i)) continue;
        memcpy(p->values + at * rows->width, rows->values + i * rows->width, sizeof *p->values * (size_t)rows->width);
        p->global[at++] = rows->first + i;
    }
    for (int64_t i = 0; i < l->rows; i++)
        if (takes_part(l, use, i)) p->code[labelled++] = l->code[i];
    p->rows.first = comm_prefix_i64(comm, p->rows.count);
    p->rows.width = rows->width;
    p->rows.values = p->values;
done:
    return st;
}

static void part_free(struct part *p)
{
    free(p->values);
    free(p->global);
    free(p->code);
}

static enum status check_apart(const struct labelled *l)
{
    int64_t shared = 0;
    for (int64_t i = 0; i < l->rows; i++) shared += l->train[i] && l->test[i];
    if (shared == 0) return ST_OK;
    return fail(ST_CONFIG,
                "%lld cells are both training and test cells; let --train and --test select apart, or give neither for "
                "leave-one-out",
                (long long)shared);
}

static enum status check_parts(const struct part *train, const struct part *test)
{
    bool several = false;
    if (train->all == 0) return fail(ST_INPUT, "no labelled training cell; check --train and --label");
    if (test->all == 0) return fail(ST_INPUT, "no labelled test cell; check --test and --label");
    for (int64_t i = 1; i < train->all; i++) several |= train->code[i] != train->code[0];
    return several ? ST_OK
                   : fail(ST_INPUT, "all %lld training cells have the same label; at least two labels are needed",
                          (long long)train->all);
}

enum status label_score(struct comm *comm, const struct spread_rows *rows, const struct labelled *l, int k,
                        struct confusion *out)
{
    enum status st = ST_OK;
    struct part train = {0}, test = {0};
    struct knn *s = NULL;
    struct confusion c = {0};
    bool same = memcmp(l->train, l->test, (size_t)l->rows) == 0;
    TRY(comm_agree(comm, same ? ST_OK : check_apart(l)));
    TRY(part_create(comm, rows, l, l->train, &train));
    TRY(part_create(comm, rows, l, l->test, &test));
    TRY(comm_agree(comm, check_parts(&train, &test)));
    TRY(neighbours_find(comm, &test.rows, &train.rows, same, k, &s));
    TRY(comm_agree(comm, confusion_create(l->labels, &c)));
    for (int64_t q = 0; q < test.rows.count; q++)
        confusion_add(&c, l->code[test.global[q]], knn_vote(s, q, train.code));
    comm_sum_i64(comm, c.count, (int64_t)c.labels * c.labels);
    *out = c;
    c = (struct confusion){0};
done:
    confusion_free(&c);
    knn_destroy(&s);
    part_free(&train);
    part_free(&test);
    return st;
}
