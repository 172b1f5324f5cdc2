#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/figure.h"
#include "io/html.h"
#include "io/report.h"
#include "io/tsv.h"

/* One quantity over the steps of one kind of line in metrics.jsonl. */
struct series {
    const char *kind, *key;
    int64_t count, capacity;
    double *step, *value;
};

enum { TRAIN, HELD_OUT, MEAN, OFFSET, POISSON, SERIES };

static void series_add(struct series *s, double step, double value)
{
    if (s->count == s->capacity) {
        int64_t room = s->capacity ? 2 * s->capacity : 256;
        double *step2 = realloc(s->step, sizeof *step2 * (size_t)room);
        if (step2) s->step = step2;
        double *value2 = realloc(s->value, sizeof *value2 * (size_t)room);
        if (value2) s->value = value2;
        if (!step2 || !value2) return; /* a picture with fewer points */
        s->capacity = room;
    }
    s->step[s->count] = step;
    s->value[s->count++] = value;
}

static void take_line(json_t *line, struct series *series)
{
    const char *kind = json_string_value(json_object_get(line, "kind"));
    json_t *step = json_object_get(line, "step");
    if (!kind || !json_is_number(step)) return;
    for (int i = 0; i < SERIES; i++) {
        json_t *value = json_object_get(line, series[i].key);
        if (strcmp(kind, series[i].kind) == 0 && json_is_number(value))
            series_add(&series[i], json_number_value(step), json_number_value(value));
    }
}

static enum status read_metrics(const char *path, struct series *series)
{
    enum status st = ST_OK;
    char *text = NULL;
    size_t bytes;
    int number = 0;
    TRY(text_read_file(path, &text, &bytes));
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        json_error_t error;
        number++;
        if (!*line) continue;
        json_t *object = json_loads(line, 0, &error);
        if (!object && !rest) break; /* the last line may be cut: the run goes on */
        if (!object) TRY(fail(ST_INPUT, "%s line %d is not JSON: %s", path, number, error.text));
        take_line(object, series);
        json_decref(object);
    }
    if (series[TRAIN].count == 0) TRY(fail(ST_INPUT, "%s holds no training step; is it of cytomill-pretrain?", path));
done:
    free(text);
    return st;
}

/* Means of runs of neighbouring points, so that at most `most` remain. */
static void thin(struct series *s, int64_t most)
{
    int64_t run = (s->count + most - 1) / most, kept = 0;
    for (int64_t i = 0; run > 1 && i < s->count; i += run, kept++) {
        int64_t n = s->count - i < run ? s->count - i : run;
        double step = 0, value = 0;
        for (int64_t j = i; j < i + n; j++) {
            step += s->step[j] / (double)n;
            value += s->value[j] / (double)n;
        }
        s->step[kept] = step;
        s->value[kept] = value;
    }
    if (run > 1) s->count = kept;
}

static double last(const struct series *s) { return s->count ? s->value[s->count - 1] : NAN; }

static enum status add_curves(struct text *page, struct series *series)
{
    enum status st = ST_OK;
    static const char *const names[] = {"gene mean", "gene + cell offset", "Poisson with the cell's total"};
    struct figure_curve curves[SERIES] = {{0}};
    int count = 0;
    char *svg = NULL;
    thin(&series[TRAIN], 150);
    curves[count++] =
        (struct figure_curve){"training cells", series[TRAIN].count, series[TRAIN].step, series[TRAIN].value, 0};
    if (series[HELD_OUT].count)
        curves[count++] = (struct figure_curve){"held-out cells", series[HELD_OUT].count, series[HELD_OUT].step,
                                                series[HELD_OUT].value, 0};
    for (int r = MEAN; r <= POISSON; r++)
        if (series[r].count)
            curves[count++] = (struct figure_curve){.name = names[r - MEAN], .level = last(&series[r])};
    TRY(figure_curves("optimiser step", "mean squared error of hidden values", curves, count, &svg));
    html_figure(page, svg,
                "How well the model guesses the expression of genes it was not shown, lower is better. The coloured "
                "lines are the model, on the cells it "
                "learns from and on cells it never trains on. The dashed lines are guesses that know no relation "
                "between genes: a gene's mean, that mean "
                "corrected for how deeply the cell was sequenced, and pure counting noise. A model that has learned "
                "biology lies below all three. The first steps may "
                "lie above the frame.");
done:
    free(svg);
    return st;
}

static void add_verdict(struct text *page, const struct series *series)
{
    static const char *const names[] = {"the gene mean", "the gene mean with the cell's offset",
                                        "the Poisson reference"};
    struct text beaten = {0}, not_beaten = {0};
    double model = last(&series[HELD_OUT]);
    if (!isfinite(model)) {
        html_paragraph(page, "No cells were held out in this run, so learning was not measured.");
        return;
    }
    for (int r = MEAN; r <= POISSON; r++) {
        struct text *list = model < last(&series[r]) ? &beaten : &not_beaten;
        if (series[r].count) text_add(list, "%s%s (%.4f)", list->length ? ", " : "", names[r - MEAN], last(&series[r]));
    }
    html_paragraph(page, "On held-out cells the model's error is %.4f. It beats: %s. It does not beat: %s.", model,
                   beaten.length ? beaten.data : "none of the references",
                   not_beaten.length ? not_beaten.data : "none; all are beaten");
    text_free(&beaten);
    text_free(&not_beaten);
}

static void add_table(struct text *page, const char *path)
{
    struct tsv t = {0};
    static const char *const heads[] = {"prediction", "mean squared error", "hidden values", "held-out cells",
                                        "model better by %"};
    static const char *const names[] = {"predictor", "mse_hidden", "hidden_positions", "held_out_cells",
                                        "model_better_percent"};
    int column[5];
    if (tsv_read(path, &t) != ST_OK) {
        status_clear();
        return; /* written at the end of a run */
    }
    bool complete = true;
    for (int c = 0; c < 5; c++) complete = (column[c] = tsv_find(&t, names[c])) >= 0 && complete;
    if (complete) html_table_tsv(page, &t, column, heads, 5, 20);
    tsv_free(&t);
}

enum status report_learning(struct text *page, const char *run)
{
    enum status st = ST_OK;
    struct series series[SERIES] = {{"train", "genewise_hidden", 0, 0, NULL, NULL},
                                    {"evaluate", "genewise_hidden", 0, 0, NULL, NULL},
                                    {"evaluate", "reference_mean", 0, 0, NULL, NULL},
                                    {"evaluate", "reference_offset", 0, 0, NULL, NULL},
                                    {"evaluate", "reference_poisson", 0, 0, NULL, NULL}};
    char *metrics = text_format("%s/metrics.jsonl", run), *learning = text_format("%s/learning.tsv", run);
    TRY(read_metrics(metrics, series));
    html_section(page, "learning", "What the model learned");
    html_paragraph(
        page, "The model sees a cell with a part of its genes hidden and must say how strongly they are expressed.");
    TRY(add_curves(page, series));
    add_verdict(page, series);
    add_table(page, learning);
done:
    for (int i = 0; i < SERIES; i++) {
        free(series[i].step);
        free(series[i].value);
    }
    free(metrics);
    free(learning);
    return st;
}
