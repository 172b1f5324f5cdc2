/* How inputs are cut between ranks: tool_cut INPUT... prints the non-zero values that each rank reads, one a line. */
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "jobs/data_path.h"
#include "jobs/ingest_inputs.h"

static enum status print_shares(struct comm *world, int argc, char **argv)
{
    enum status st = ST_OK;
    struct config *config = NULL;
    struct hgnc *hgnc = NULL;
    struct ingest_inputs in = {0};
    struct text list = {0};
    char *path = NULL;
    int64_t shares[64] = {0};
    for (int a = 1; a < argc; a++) text_add(&list, "%s%s", a > 1 ? "," : "run.input=", argv[a]);
    TRY(config_create(&config));
    TRY(config_set(config, list.data ? list.data : "run.input=", "command line"));
    TRY(data_path_find("configs/genes/hgnc_complete_set_2020-05.tsv.gz", &path));
    TRY(hgnc_read(path, &hgnc));
    TRY(ingest_inputs_open(world, config, hgnc, &in));
    for (int i = 0; i < in.count; i++)
        for (int64_t r = 0; r < in.inputs[i].my_count; r++) shares[world->rank] += in.inputs[i].sizes[r];
    comm_sum_i64(world, shares, world->size);
    for (int r = 0; world->rank == 0 && r < world->size; r++) printf("%lld\n", (long long)shares[r]);
done:
    ingest_inputs_close(&in);
    hgnc_destroy(&hgnc);
    config_destroy(&config);
    text_free(&list);
    free(path);
    return st;
}

int main(int argc, char **argv)
{
    struct comm world;
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    enum status st = comm_agree(&world, print_shares(&world, argc, argv));
    comm_close(&world);
    return st;
}
