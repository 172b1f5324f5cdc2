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

struct expert_link expert_line_shape_link(const struct expert_line_shape *shape, int rank, int ranks)
{
    int held = shape->experts / ranks;
    return (struct expert_link){.experts = shape->experts,
                                .first = held * rank,
                                .held = held,
                                .run_count = shape->experts, /* held ones for each rank */
                                .capacity = 2 * shape->tokens * shape->chosen};
}

enum status expert_line_create(struct mesh *mesh, struct expert_line_shape shape, struct expert_line **out)
{
    struct expert_line *l = NULL;
    enum status st = comm_agree(&mesh->expert, NEW_ARRAY(l, 1));
    if (st != ST_OK) goto done;
    *l = (struct expert_line){.expert = &mesh->expert};
    l->link = expert_line_shape_link(&shape, l->expert->rank, l->expert->size);
    TRY(expert_exchange_create(l->expert, shape.experts, l->link.capacity, shape.row_bytes, &l->exchange));
    l->link.context = l;
    l->link.begin = begin;
    l->link.runs = runs;
    l->link.send = send;
    l->link.back = back;
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
