#include <stdlib.h>

#include "io/html.h"
#include "io/report.h"
#include "io/tsv.h"

enum status report_scores(struct text *page, const char *path)
{
    enum status st = ST_OK;
    struct tsv t = {0};
    TRY(tsv_read(path, &t));
    html_section(page, "scores", "Do neighbours share labels?");
    html_paragraph(page, "Each test cell takes the label most of its 15 nearest training cells have. Macro-F1 is the "
                         "mean over labels of how well that works (1 = "
                         "always right), so that rare types count as much as common ones. PCA and sequencing depth "
                         "alone stand beside the model, whichever wins.");
    html_table_tsv(page, &t, NULL, NULL, 0, 100);
    if (*t.remarks) html_paragraph(page, "%s", t.remarks);
done:
    tsv_free(&t);
    return st;
}
