/* What the parts of cytomill-pretrain share. */
#ifndef CYTOMILL_JOBS_PRETRAIN_STATE_H
#define CYTOMILL_JOBS_PRETRAIN_STATE_H

#include "base/progress.h"
#include "io/atlas.h"
#include "io/checkpoint.h"
#include "io/loader.h"
#include "io/survey.h"
#include "jobs/job.h"
#include "model/expert_usage.h"
#include "mpi/train_step.h"

/* Cell types of the held-out cells, for the experts' usage. */
struct usage_labels {
    int count;
    char **name;   /* [count] */
    int32_t *code; /* [held-out cells] -1: without a label */
};

struct pretrain {
    /* data */
    struct atlas *atlas;
    int modality;
    struct vocab *vocab;
    int32_t *lookup;          /* vocabulary id of each feature of the modality */
    int64_t *rows, row_count; /* selected atlas rows */
    struct token_rules rules;
    struct survey survey;
    struct loader *loader, *held_out;
    struct usage_labels labels;
    /* model */
    struct mesh mesh;
    struct stage_plan plan;
    int domain;              /* ranks of a host with the same one share packed weights, */
    int sharers[PACK_KINDS]; /* so many do, this rank included */
    int *first;              /* [parts + 1] block that each part begins with */
    int *trips;              /* [parts] of its blocks, how many have experts */
    struct stage *stage;
    struct model *model;
    struct expert_usage usage; /* of an evaluation; empty in a model without experts */
    struct model_limits limits;
    struct optimiser *optimiser;
    struct reducer *reducer;
    struct hand_out *hand_out;
    struct trainer trainer;
    double waited_s; /* for other ranks, until the step before */
    /* where it stands */
    char *resume_from; /* checkpoint, or NULL */
    struct train_state state;
    int64_t saved_step;  /* of the newest checkpoint, -1 without */
    int64_t saving_step; /* of the one under way */
    struct checkpoint_saver *saver;
    struct metrics_file metrics; /* rank 0 */
    struct progress progress;
};

/* Losses of the model and the references on the same hidden positions of held-out cells. */
struct evaluation {
    int64_t cells;
    struct loss_sum loss;
    struct reference_score reference;
};

/* pretrain_prepare.c: data, model and what a run will cost. Collective, agreed. */
MUST_CHECK enum status pretrain_prepare(struct job *job);
void pretrain_release(struct job *job);

/* pretrain_layout.c: mesh, stages and the model's parts on this rank, without memory. Collective, agreed. ST_CONFIG or
 * ST_USAGE names what does not divide. */
MUST_CHECK enum status pretrain_lay_out(struct job *job);

/* pretrain_evaluate.c. `cells` of the held-out ones (0 all), the same ones and the same masks each
 * time. With `may_stop`, ST_REQUEUE when asked to stop between two micro-batches; an evaluation during the training runs
 * to its end, so that a run that was stopped goes through the same states. Collective, agreed. */
MUST_CHECK enum status pretrain_evaluate(struct job *job, int64_t cells, bool may_stop, struct evaluation *out);
/* OUT/learning.tsv, and one sentence that says which references the model beats and by how much. Collective, agreed. */
MUST_CHECK enum status pretrain_tell_learning(struct job *job, const struct evaluation *e);

/* pretrain_usage.c: slots of each expert by cell type in the passes between begin and end, then their sum over the ranks
 * into OUT/expert_usage.tsv and metrics.jsonl; nothing in a model without experts. open and write: collective, agreed.
 * ST_CONFIG: data.cell_type names no column of labels. */
MUST_CHECK enum status pretrain_usage_open(struct job *job);
void pretrain_usage_close(struct pretrain *p);
void pretrain_usage_begin(struct pretrain *p);
void pretrain_usage_end(struct pretrain *p);
MUST_CHECK enum status pretrain_usage_write(struct job *job);

/* pretrain_record.c: what the run is, as OUT/run.json. Collective, agreed. */
MUST_CHECK enum status pretrain_record(struct job *job);

#endif
