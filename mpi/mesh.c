#include "mpi/mesh.h"

/* The shape with every axis filled in. */
static enum status check_shape(const struct comm *world, struct mesh_shape *s)
{
    if (s->pipe < 1 || s->expert < 1 || s->data < 0)
        return fail(ST_USAGE, "a mesh of %d x %d x %d (data x pipe x expert); each axis has at least 1 rank", s->data,
                    s->pipe, s->expert);
    int64_t block = (int64_t)s->pipe * s->expert;
    if (s->data == 0 && world->size % block == 0) s->data = (int)(world->size / block);
    if (s->data * block == world->size) return ST_OK;
    if (world->size % block != 0)
        return fail(ST_USAGE,
                    "%d ranks cannot be cut into %d stages of %d expert ranks; start a multiple of %lld ranks, or "
                    "choose stages and expert ranks whose product divides %d",
                    world->size, s->pipe, s->expert, (long long)block, world->size);
    return fail(ST_USAGE,
                "a mesh of %d x %d x %d (data x pipe x expert) has %lld ranks and this job has %d; set data to %lld, "
                "or to 0, which takes what is there",
                s->data, s->pipe, s->expert, (long long)(s->data * block), world->size,
                (long long)(world->size / block));
}

enum status mesh_open(struct comm *world, struct mesh_shape shape, struct mesh *out)
{
    enum status st = ST_OK;
    *out = (struct mesh){0};
    TRY(comm_agree(world, check_shape(world, &shape)));
    int place = world->rank % shape.expert, replica = world->rank / shape.expert % shape.data;
    int stage = world->rank / (shape.expert * shape.data);
    TRY(comm_split(world, 0, &out->world));
    TRY(comm_split(world, stage * shape.expert + place, &out->data));
    TRY(comm_split(world, replica * shape.expert + place, &out->pipe));
    TRY(comm_split(world, stage * shape.data + replica, &out->expert));
    TRY(comm_split(world, stage, &out->dense));
done:
    if (st != ST_OK) mesh_close(out);
    return st;
}

void mesh_close(struct mesh *mesh)
{
    comm_free(&mesh->dense);
    comm_free(&mesh->expert);
    comm_free(&mesh->pipe);
    comm_free(&mesh->data);
    comm_free(&mesh->world);
}

/* Blocks go one by one to the part that is cheapest so far: as all cost the same, no other way makes the dearest part
 * cheaper. */
enum status mesh_share_layers(int layers, int parts, double before, double after, int *first)
{
    if (parts < 1 || layers < parts)
        return fail(ST_CONFIG, "%d layers for %d parts of a pipeline; every part needs one: use at most %d", layers,
                    parts, layers);
    int *count = first + 1;
    for (int p = 0; p < parts; p++) count[p] = 1;
    for (int left = layers - parts; left > 0; left--) {
        int cheapest = 0;
        double least = 0;
        for (int p = 0; p < parts; p++) {
            double cost = count[p] + (p == 0 ? before : 0) + (p == parts - 1 ? after : 0);
            if (p == 0 || cost < least) least = cost, cheapest = p;
        }
        count[cheapest]++;
    }
    first[0] = 0;
    for (int p = 0; p < parts; p++) first[p + 1] += first[p];
    return ST_OK;
}
