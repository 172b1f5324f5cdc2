#include "mpi/hand_out.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"
#include "mpi/watchdog.h"

enum { WINDOW = 2 }; /* modules whose split tensors are on their way at once */

/* Messages that were started in one order, and how many of them are known to be through. */
struct messages {
    MPI_Request *list;
    int count, through;
};

/* A module that lies here. */
struct arrival {
    int module;
    int whole_end; /* of the messages of tensors that are not split, those of this module and the ones before */
};

struct hand_out {
    struct model *model; /* borrowed */
    const struct param_table *params;
    struct pack_group *group;
    MPI_Comm handle;
    int rank, ranks; /* of mesh->dense */
    int last;        /* module: the heads */
    enum dtype type;
    struct messages sent, whole, slot[WINDOW]; /* arrival k uses slot k % WINDOW */
    struct arrival *arrivals;                  /* in the order of the model */
    int arrival_count;
    int64_t *at;       /* [tensors] bytes into its module's slot */
    const void **from; /* [tensors] where it came to; NULL: it does not come to a slot here */
    char *window;      /* [WINDOW * slot_bytes] */
    int64_t slot_bytes;
    char *rounded; /* own pieces as they travel, where that is not as they lie */
    int *takers;   /* [ranks] of a piece */
    bool under_way;
    int posted, packed; /* arrivals whose receives are posted; whose part here is packed; */
    int whole_packed;   /* that are packed by all who share in them */
    double waited_s;
};

/* ---- what travels, and as what ---- */

static enum dtype type_of(const struct param *p, enum dtype type) { return p->split && !p->fine ? type : DTYPE_REAL; }

static bool travels(const struct param *p) { return !p->elsewhere && (p->split || p->trainable); }

/* A stage that holds a tied tensor for its heads alone needs it with these. */
static int module_of(const struct param *p, int last) { return p->copy ? last : p->module; }

static int64_t piece_bytes(const struct param *p, const struct piece *piece, enum dtype type)
{
    return piece->reals * (int64_t)dtype_bytes(type_of(p, type));
}

static int last_module(const struct param_table *params)
{
    int last = 0;
    for (int i = 0; i < params->count; i++)
        if (params->rows[i].module > last) last = params->rows[i].module;
    return last;
}

/* Does rank `rank` want pieces of tensor i, beyond those it owns? */
static bool wants(const struct hand_out *h, int rank, int i)
{
    const struct param *p = &h->params->rows[i];
    return travels(p) && (!p->split || pack_group_packs(h->group, rank, i));
}

/* Bytes of tensor i in its module's slot, whole and aligned; 0 if it does not come there. */
static int64_t slot_share(const struct hand_out *h, int i)
{
    const struct param *p = &h->params->rows[i];
    if (!p->split || p->elsewhere || !wants(h, h->rank, i)) return 0;
    return (param_reals(p) * (int64_t)dtype_bytes(type_of(p, h->type)) + 63) / 64 * 64;
}

/* The largest module's. */
static int64_t slot_bytes_of(const struct hand_out *h)
{
    int64_t most = 0;
    for (int module = MODULE_EMBEDDING; module <= h->last; module++) {
        int64_t bytes = 0;
        for (int i = 0; i < h->params->count; i++)
            if (h->params->rows[i].module == module) bytes += slot_share(h, i);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The ranks that want a piece that this rank owns, the next one first, so that not all send to one rank; itself left
 * out. At most `ranks`. */
static int takers_of(const struct hand_out *h, const struct piece *piece, int *takers)
{
    const struct shard *s = &h->params->shard;
    int first, step, count = 0;
    shard_holders(s, h->params->rows[piece->tensor].routed, &first, &step);
    int holders = (s->ranks - first + step - 1) / step;
    for (int k = 1; k < holders; k++) {
        int rank = first + ((s->rank - first) / step + k) % holders * step;
        if (wants(h, rank, piece->tensor)) takers[count++] = rank;
    }
    return count;
}

/* How much a rank sends and takes. */
struct traffic {
    int64_t sent, whole, split; /* messages; split ones of all modules */
    int64_t rounded;            /* bytes of own pieces that are rounded before */
};

static struct traffic traffic_of(struct hand_out *h)
{
    struct traffic t = {0};
    for (int64_t i = 0; i < h->params->shard.count; i++) {
        const struct piece *piece = &h->params->shard.piece[i];
        const struct param *p = &h->params->rows[piece->tensor];
        if (p->elsewhere) continue;
        if (shard_owns(&h->params->shard, piece)) {
            int takers = takers_of(h, piece, h->takers);
            t.sent += takers;
            if (takers > 0 && type_of(p, h->type) != DTYPE_REAL) t.rounded += piece_bytes(p, piece, h->type);
        } else if (wants(h, h->rank, piece->tensor)) {
            if (p->split) t.split++;
            else t.whole++;
        }
    }
    return t;
}

size_t hand_out_bytes(const struct param_table *params, int ranks, int replicas, int sharers, bool in_bf16)
{
    int64_t slot = 0, rounded = 0;
    if (ranks < 2) return 0;
    for (int module = MODULE_EMBEDDING; module <= last_module(params); module++) {
        int64_t bytes = 0;
        for (int i = 0; i < params->count; i++) {
            struct param p = params->rows[i];
            if (!p.packed || p.elsewhere || p.module != module) continue;
            bool small = in_bf16 && !p.fine;
            int64_t each = param_reals(&p) * (int64_t)(small ? sizeof(bf16) : sizeof(real));
            bytes += (each + 63) / 64 * 64;
            if (small && ranks > sharers) rounded += each / (p.routed ? replicas : ranks);
        }
        if (bytes > slot) slot = bytes;
    }
    return (size_t)(WINDOW * slot / sharers + rounded);
}

/* ---- creation ---- */

/* The modules that lie here, and where their split tensors come to. */
static void lay_out(struct hand_out *h)
{
    for (int module = MODULE_EMBEDDING; module <= h->last; module++) {
        int64_t at = 0;
        bool here = false;
        for (int i = 0; i < h->params->count; i++) {
            const struct param *p = &h->params->rows[i];
            if (p->elsewhere || module_of(p, h->last) != module) continue;
            here = true;
            h->from[i] = NULL;
            h->at[i] = at;
            at += slot_share(h, i);
        }
        if (here) h->arrivals[h->arrival_count++].module = module;
    }
}

static enum status allocate(struct hand_out *h)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(h->takers, h->ranks));
    struct traffic t = traffic_of(h);
    h->slot_bytes = slot_bytes_of(h);
    TRY(NEW_ARRAY(h->sent.list, t.sent));
    TRY(NEW_ARRAY(h->whole.list, t.whole));
    for (int i = 0; i < WINDOW; i++) TRY(NEW_ARRAY(h->slot[i].list, t.split));
    TRY(NEW_ARRAY(h->arrivals, h->last + 2));
    TRY(NEW_ARRAY(h->at, h->params->count));
    TRY(NEW_ARRAY(h->from, h->params->count));
    TRY(NEW_ARRAY(h->window, WINDOW * h->slot_bytes));
    TRY(NEW_ARRAY(h->rounded, t.rounded));
    lay_out(h);
done:
    return st;
}

enum status hand_out_create(struct mesh *mesh, struct model *model, int domain, struct hand_out **out)
{
    struct hand_out *h = NULL;
    enum status st = ST_OK;
    TRY(comm_agree(&mesh->world, NEW_ARRAY(h, 1)));
    *h = (struct hand_out){.model = model,
                           .params = model_params(model),
                           .handle = mesh->dense.handle,
                           .rank = mesh->dense.rank,
                           .ranks = mesh->dense.size,
                           .last = model_layers(model),
                           .type = model_product_type(model)};
    TRY(pack_group_create(mesh, model, domain, &h->group));
    TRY(comm_agree(&mesh->world, h->ranks > 1 ? allocate(h) : ST_OK));
done:
    if (st != ST_OK) hand_out_destroy(&h);
    *out = h;
    return st;
}

void hand_out_destroy(struct hand_out **hand_out)
{
    struct hand_out *h = *hand_out;
    if (!h) return;
    pack_group_destroy(&h->group);
    for (int i = 0; i < WINDOW; i++) free(h->slot[i].list);
    free(h->sent.list), free(h->whole.list), free(h->arrivals), free(h->at), free(h->from);
    free(h->window), free(h->rounded), free(h->takers), free(h);
    *hand_out = NULL;
}

double hand_out_waited_s(const struct hand_out *h) { return h->waited_s; }

/* ---- messages ---- */

static void test(struct messages *m)
{
    for (int done = 1; done && m->through < m->count; m->through += done)
        MPI_Test(&m->list[m->through], &done, MPI_STATUS_IGNORE);
}

static void wait(struct messages *m, int end)
{
    if (end > m->through) MPI_Waitall(end - m->through, m->list + m->through, MPI_STATUSES_IGNORE);
    if (end > m->through) m->through = end;
}

static void receive(struct hand_out *h, struct messages *m, int64_t piece, void *to, int64_t bytes)
{
    MPI_Irecv(to, (int)bytes, MPI_BYTE, h->params->shard.piece[piece].owner, (int)piece, h->handle,
              &m->list[m->count++]);
}

static void send(struct hand_out *h, int64_t piece, const void *data, int64_t bytes, int takers)
{
    for (int k = 0; k < takers; k++)
        MPI_Isend(data, (int)bytes, MPI_BYTE, h->takers[k], (int)piece, h->handle, &h->sent.list[h->sent.count++]);
}

static bool comes_with(const struct hand_out *h, const struct piece *piece, int module)
{
    const struct param *p = &h->params->rows[piece->tensor];
    return travels(p) && module_of(p, h->last) == module;
}

static void send_module(struct hand_out *h, int module, char **rounded)
{
    const struct shard *s = &h->params->shard;
    for (int64_t i = 0; i < s->count; i++) {
        const struct piece *piece = &s->piece[i];
        if (!comes_with(h, piece, module) || !shard_owns(s, piece)) continue;
        const struct param *p = &h->params->rows[piece->tensor];
        int takers = takers_of(h, piece, h->takers);
        if (takers == 0) continue;
        const void *data = param_piece_weight(h->params, piece);
        int64_t bytes = piece_bytes(p, piece, h->type);
        if (type_of(p, h->type) != DTYPE_REAL) {
            vector_convert(*rounded, h->type, data, DTYPE_REAL, piece->reals);
            data = *rounded;
            *rounded += bytes;
        }
        send(h, i, data, bytes, takers);
    }
}

/* Tensors that are not split come to their place, whenever that is: nobody reads them before. */
static void post_whole(struct hand_out *h, struct arrival *a)
{
    const struct shard *s = &h->params->shard;
    for (int64_t i = 0; i < s->count; i++) {
        const struct piece *piece = &s->piece[i];
        const struct param *p = &h->params->rows[piece->tensor];
        if (p->split || !comes_with(h, piece, a->module) || shard_owns(s, piece)) continue;
        receive(h, &h->whole, i, param_piece_weight(h->params, piece), piece_bytes(p, piece, h->type));
    }
    a->whole_end = h->whole.count;
}

/* A module's split tensors into a slot: own pieces now, others as messages. */
static void fill_slot(struct hand_out *h, int module, char *slot, struct messages *messages)
{
    const struct shard *s = &h->params->shard;
    messages->count = messages->through = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const struct piece *piece = &s->piece[i];
        const struct param *p = &h->params->rows[piece->tensor];
        if (!p->split || !comes_with(h, piece, module) || !wants(h, h->rank, piece->tensor)) continue;
        enum dtype type = type_of(p, h->type);
        char *to = slot + h->at[piece->tensor] + piece->first * p->cols * (int64_t)dtype_bytes(type);
        h->from[piece->tensor] = slot + h->at[piece->tensor];
        if (!shard_owns(s, piece)) receive(h, messages, i, to, piece_bytes(p, piece, h->type));
        else vector_convert(to, type, param_piece_weight(h->params, piece), DTYPE_REAL, piece->reals);
    }
}

static void post(struct hand_out *h)
{
    for (; h->posted < h->arrival_count && h->posted < h->packed + WINDOW; h->posted++) {
        int k = h->posted % WINDOW;
        fill_slot(h, h->arrivals[h->posted].module, h->window + k * h->slot_bytes, &h->slot[k]);
    }
}

/* ---- use ---- */

void hand_out_start(struct mesh *mesh, struct hand_out *h)
{
    char *rounded = h->rounded;
    model_expire(h->model);
    if (h->ranks == 1)
        for (int module = MODULE_EMBEDDING; module <= h->last; module++) model_pack_module(h->model, module, NULL);
    if (h->ranks == 1) return;
    h->sent.count = h->sent.through = h->whole.count = h->whole.through = 0;
    h->posted = h->packed = h->whole_packed = 0;
    h->under_way = true;
    pack_group_begin(h->group);
    for (int k = 0; k < h->arrival_count; k++) post_whole(h, &h->arrivals[k]);
    post(h);
    for (int k = 0; k < h->arrival_count; k++) send_module(h, h->arrivals[k].module, &rounded);
}

void hand_out_poll(struct hand_out *h)
{
    if (!h->under_way) return;
    test(&h->sent);
    test(&h->whole);
    for (int k = h->packed; k < h->posted; k++) test(&h->slot[k % WINDOW]);
}

/* The next module comes whole, is packed, and leaves its slot to another. */
static void take(struct hand_out *h)
{
    const struct arrival *a = &h->arrivals[h->packed];
    struct messages *slot = &h->slot[h->packed % WINDOW];
    double start = comm_now_s();
    wait(&h->whole, a->whole_end);
    wait(slot, slot->count);
    if (h->packed == 0) pack_group_wait_begun(h->group);
    h->waited_s += comm_now_s() - start;
    model_pack_module(h->model, a->module, h->from);
    pack_group_tell(h->group, a->module);
    h->packed++;
    post(h);
}

/* What others pack, too. */
static void wait_packed(struct hand_out *h)
{
    double start = comm_now_s();
    for (; h->whole_packed < h->packed; h->whole_packed++)
        pack_group_wait_packed(h->group, h->arrivals[h->whole_packed].module);
    h->waited_s += comm_now_s() - start;
}

void hand_out_need(struct mesh *mesh, struct hand_out *h, int module)
{
    WATCH_EXCHANGE();
    if (!h->under_way) return;
    while (h->packed < h->arrival_count && h->arrivals[h->packed].module <= module) take(h);
    wait_packed(h);
}

void hand_out_finish(struct mesh *mesh, struct hand_out *h)
{
    WATCH_EXCHANGE();
    if (!h->under_way) return;
    hand_out_need(mesh, h, h->last);
    double start = comm_now_s();
    wait(&h->sent, h->sent.count);
    h->waited_s += comm_now_s() - start;
    h->under_way = false;
}
