#include "mpi/expert_line.h"

#include <stdlib.h>

#include "mpi/expert_exchange.h"

struct lane {
    struct expert_exchange *exchange;
    struct travel_move *move; /* under way; NULL for none */
    bool counting;            /* its counts are; rows leave when they have come */
};

struct expert_line {
    struct comm *expert; /* of the moves that are under way */
    int experts;         /* E */
    struct lane lane[EXPERT_LANES];
};

enum status expert_line_create(struct comm *expert, const struct expert_ranks *ranks, int64_t most_row_bytes,
                               struct expert_line **out)
{
    struct expert_line *l = NULL;
    enum status st = comm_agree(expert, NEW_ARRAY(l, 1));
    if (st != ST_OK) goto done;
    *l = (struct expert_line){.expert = expert, .experts = ranks->experts};
    for (int i = 0; i < EXPERT_LANES; i++)
        TRY(expert_exchange_create(expert, ranks->experts, ranks->capacity, most_row_bytes, i, &l->lane[i].exchange));
done:
    if (st != ST_OK) expert_line_destroy(&l);
    *out = l;
    return st;
}

void expert_line_destroy(struct expert_line **line)
{
    struct expert_line *l = *line;
    if (!l) return;
    for (int i = 0; i < EXPERT_LANES; i++) expert_exchange_destroy(&l->lane[i].exchange);
    free(l);
    *line = NULL;
}

double expert_line_waited_s(const struct expert_line *l)
{
    double sum = 0;
    for (int i = 0; i < EXPERT_LANES; i++) sum += expert_exchange_waited_s(l->lane[i].exchange);
    return sum;
}

static void begin_rows(struct comm *expert, struct lane *a)
{
    const struct travel_move *m = a->move;
    a->counting = false;
    if (m->runs) expert_exchange_runs(a->exchange, m->round, m->runs);
    if (m->out) expert_exchange_send(expert, a->exchange, m->round, m->home, m->away, m->row_bytes);
    else expert_exchange_return(expert, a->exchange, m->round, m->away, m->home, m->row_bytes);
}

/* Counts are here, or are waited for: tell what follows from them. */
static void take_counts(struct comm *expert, struct lane *a, int runs)
{
    struct travel_move *m = a->move;
    m->rounds = expert_exchange_rounds(expert, a->exchange);
    expert_exchange_counts(a->exchange, m->count);
    begin_rows(expert, a);
    m->come = 0;
    for (int i = 0; i < runs; i++)
        if (m->runs[i].first + m->runs[i].rows > m->come) m->come = m->runs[i].first + m->runs[i].rows;
}

void expert_line_start(struct comm *expert, struct expert_line *l, int lane, struct travel_move *move)
{
    struct lane *a = &l->lane[lane];
    a->move = move;
    a->counting = move->counts;
    l->expert = expert;
    if (!move->counts) {
        expert_exchange_use(a->exchange, move->count);
        begin_rows(expert, a);
        return;
    }
    expert_exchange_count(expert, a->exchange, move->count + expert->rank * l->experts);
}

void expert_line_poll(struct expert_line *l)
{
    for (int i = 0; i < EXPERT_LANES; i++) {
        struct lane *a = &l->lane[i];
        if (!a->move) continue;
        if (!a->counting) expert_exchange_poll(a->exchange);
        else if (expert_exchange_counted(a->exchange)) take_counts(l->expert, a, l->experts);
    }
}

void expert_line_finish(struct comm *expert, struct expert_line *l, int lane)
{
    struct lane *a = &l->lane[lane];
    if (a->counting) take_counts(expert, a, l->experts);
    expert_exchange_finish(expert, a->exchange);
    a->move = NULL;
}
