#include "mpi/expert_line.h"

#include <stdlib.h>

#include "mpi/expert_exchange.h"

struct expert_line {
    struct comm *expert; /* the mesh's, which outlives the line */
    struct expert_exchange *exchange;
    struct expert_link link;
};

static int begin(void *context, const int64_t *counts)
{
    struct expert_line *l = context;
    expert_exchange_count(l->expert, l->exchange, counts);
    return expert_exchange_rounds(l->expert, l->exchange);
}

static void runs(void *context, int round, struct expert_run *list)
{
    expert_exchange_runs(((struct expert_line *)context)->exchange, round, list);
}

static void send(void *context, int round, const void *home, void *away, int64_t row_bytes)
{
    struct expert_line *l = context;
    expert_exchange_send(l->expert, l->exchange, round, home, away, row_bytes);
    expert_exchange_finish(l->expert, l->exchange);
}

static void back(void *context, int round, const void *away, void *home, int64_t row_bytes)
{
    struct expert_line *l = context;
    expert_exchange_return(l->expert, l->exchange, round, away, home, row_bytes);
    expert_exchange_finish(l->expert, l->exchange);
}

enum status expert_line_create(struct mesh *mesh, struct expert_line_shape shape, struct expert_line **out)
{
    struct expert_line *l = NULL;
    int64_t capacity = 2 * shape.tokens * shape.chosen;
    enum status st = comm_agree(&mesh->expert, NEW_ARRAY(l, 1));
    if (st != ST_OK) goto done;
    *l = (struct expert_line){.expert = &mesh->expert};
    TRY(expert_exchange_create(l->expert, shape.experts, capacity, shape.row_bytes, &l->exchange));
    int held = expert_exchange_held(l->exchange);
    l->link = (struct expert_link){.context = l,
                                   .experts = shape.experts,
                                   .first = held * l->expert->rank,
                                   .held = held,
                                   .run_count = expert_exchange_run_count(l->exchange),
                                   .capacity = capacity,
                                   .begin = begin,
                                   .runs = runs,
                                   .send = send,
                                   .back = back};
done:
    if (st != ST_OK) expert_line_destroy(&l);
    *out = l;
    return st;
}

void expert_line_destroy(struct expert_line **line)
{
    struct expert_line *l = *line;
    if (!l) return;
    expert_exchange_destroy(&l->exchange);
    free(l);
    *line = NULL;
}

const struct expert_link *expert_line_link(const struct expert_line *l) { return &l->link; }
double expert_line_waited_s(const struct expert_line *l) { return expert_exchange_waited_s(l->exchange); }
