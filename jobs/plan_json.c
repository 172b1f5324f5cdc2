/* The plan as JSON, for programs. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/plan_state.h"

static json_t *json_layout(const struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    return json_pack("{s:i, s:i, s:i, s:s, s:i, s:i, s:b, s:b, s:i, s:b, s:s}", "data", l->data, "pipe", l->pipe,
                     "expert", l->expert, "schedule", schedule_name(l->schedule), "chunks", l->chunks, "micro_batch",
                     l->micro_batch, "recompute", l->recompute, "turns", l->in_turns, "micro_batches", e->micros,
                     "fits", e->fits, "reason", e->reason);
}

static json_t *json_rows(const struct plan_row *rows, int count)
{
    json_t *object = json_object();
    for (int i = 0; i < count; i++) json_object_set_new(object, rows[i].name, json_real(rows[i].value));
    return object;
}

static json_t *json_estimate(const struct planning *p, const struct plan_estimate *e)
{
    char *options;
    struct plan_row memory[PLAN_MOST_ROWS], time[PLAN_MOST_ROWS], traffic[PLAN_MOST_ROWS];
    int memories = plan_memory_rows(e, memory), times = plan_time_rows(e, time), ways = plan_traffic_rows(e, traffic);
    if (plan_options(p, e, &options) != ST_OK) return NULL;
    json_t *json = json_pack("{s:o, s:s, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "layout",
                             json_layout(e), "options", options, "memory_bytes", json_rows(memory, memories), "time_s",
                             json_rows(time, times), "traffic_bytes", json_rows(traffic, ways), "bubble", e->bubble,
                             "run_s", e->run_s, "node_hours", plan_node_hours(p, e), "checkpoint_bytes",
                             e->checkpoint_bytes, "checkpoint_s", e->checkpoint_s, "stall_s", e->stall_s, "interval_s",
                             e->interval_s, "checkpoint_every", (json_int_t)plan_checkpoint_steps(e));
    free(options);
    return json;
}

enum status plan_write_json(const struct job *job)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    char *verdict = plan_verdict(p, &p->found.best[0]);
    json_t *layouts = json_array();
    for (int i = 0; i < p->found.count; i++) json_array_append_new(layouts, json_estimate(p, &p->found.best[i]));
    json_t *json =
        json_pack("{s:s, s:i, s:i, s:i, s:I, s:f, s:o}", "verdict", verdict, "nodes", p->machine.nodes,
                  "ranks_per_node", p->machine.ranks_per_node, "threads", p->machine.threads, "parameters",
                  (json_int_t)plan_parameters(p->plan), "flops_per_cell", plan_cell_flops(p->plan), "layouts", layouts);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    if (!text) TRY(fail(ST_MEMORY, "no memory for the plan as JSON"));
    TRY(text_write_file(config_text(job->config, "plan.json"), text, strlen(text)));
done:
    free(text);
    json_decref(json);
    free(verdict);
    return st;
}
