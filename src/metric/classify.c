#include "metric/classify.h"

#include <stdlib.h>
#include <string.h>

enum status confusion_create(int labels, struct confusion *out)
{
    *out = (struct confusion){.labels = labels};
    enum status st = NEW_ARRAY(out->count, (int64_t)labels * labels);
    if (st == ST_OK) memset(out->count, 0, sizeof *out->count * (size_t)labels * (size_t)labels);
    return st;
}

void confusion_free(struct confusion *confusion)
{
    free(confusion->count);
    *confusion = (struct confusion){0};
}

void confusion_add(struct confusion *c, int32_t truth, int32_t predicted)
{
    c->count[(int64_t)truth * c->labels + predicted]++;
}

struct label_score confusion_label(const struct confusion *c, int label)
{
    struct label_score s = {0};
    for (int other = 0; other < c->labels; other++) {
        s.cells += c->count[(int64_t)label * c->labels + other];
        s.predicted += c->count[(int64_t)other * c->labels + label];
    }
    double hit = (double)c->count[(int64_t)label * c->labels + label];
    if (s.predicted > 0) s.precision = hit / (double)s.predicted;
    if (s.cells > 0) s.recall = hit / (double)s.cells;
    if (s.cells + s.predicted > 0) s.f1 = 2 * hit / (double)(s.cells + s.predicted);
    return s;
}

struct overall_score confusion_overall(const struct confusion *c)
{
    struct overall_score all = {0};
    double hits = 0, f1 = 0;
    for (int label = 0; label < c->labels; label++) {
        struct label_score s = confusion_label(c, label);
        all.cells += s.cells;
        all.labels += s.cells + s.predicted > 0;
        hits += (double)c->count[(int64_t)label * c->labels + label];
        f1 += s.f1;
    }
    if (all.labels > 0) all.macro_f1 = f1 / all.labels;
    if (all.cells > 0) all.accuracy = hits / (double)all.cells;
    return all;
}
