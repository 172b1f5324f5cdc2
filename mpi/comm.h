/* A communicator and what ranks agree on. The only header through which mpi.h enters.
 *
 * A function is collective if and only if its first parameter is a non-const `struct comm *`: every
 * rank of it must call, in the same order. The status that it returns is agreed: the same on all ranks, its line
 * printed (comm_agree). Counts are 64-bit; transfers above 2 GiB are cut inside.
 *
 *     TRY(comm_open(&argc, &argv, &world));
 *     st = comm_agree(&world, read_my_part(...));     all ranks get the worst status, one line printed
 *     comm_close(&world); */
#ifndef CYTOMILL_MPI_COMM_H
#define CYTOMILL_MPI_COMM_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct comm {
    MPI_Comm handle;
    int rank, size;
    int world_rank, world_size; /* among all ranks of the job: for messages */
    int node_rank, node_size;   /* among the ranks that share this host */
    char host[64];
};

/* MPI_Init_thread (FUNNELED) and the world. Works without mpirun (one rank). Collective; ST_COMM before there is a
 * world to agree in. */
MUST_CHECK enum status comm_open(int *argc, char ***argv, struct comm *world);
void comm_close(struct comm *world);

/* Name that opens error lines ("cytomill-ingest"). Local; borrowed. */
void comm_set_program(const char *name);

/* Cut transfers into pieces of at most `bytes` (a multiple of 8, 1 GiB at start); the same on all ranks. Tests
 * make it small. Local. */
void comm_set_piece(int64_t bytes);
int64_t comm_piece(void);

/* The agreed status: worst code over ranks (any error beats ST_REQUEUE beats ST_OK). If it is an
 * error, the lowest rank that has it prints the one line
 *   PROGRAM: error[4 input]: rank 3 of 8 on node12: MESSAGE
 * and all ranks return the code; the message is then marked as printed. Collective. */
MUST_CHECK enum status comm_agree(struct comm *comm, enum status local);

/* Compare a block of bytes over ranks (configuration, hashes). ST_COMM with `what` if any differs. Collective. */
MUST_CHECK enum status comm_same(struct comm *comm, const void *data, size_t bytes, const char *what);

/* Wait for all ranks. Collective. */
void comm_barrier(struct comm *comm);
/* Sums in place; over doubles in fixed rank order, so that the same ranks give the same bits; maxima
 * likewise: x[count] on every rank. Collective. */
void comm_sum_f64(struct comm *comm, double *x, int64_t count);
void comm_sum_i64(struct comm *comm, int64_t *x, int64_t count);
void comm_max_i64(struct comm *comm, int64_t *x, int64_t count);
/* Element-wise sum of fp32 vectors in fixed rank order (every rank adds its slice, then
 * slices are gathered). Collective. */
void comm_sum_f32(struct comm *comm, float *x, int64_t count);
/* Exclusive prefix sum over ranks. Collective. */
int64_t comm_prefix_i64(struct comm *comm, int64_t x);

/* Copy from `root`; any byte count. Collective. */
void comm_bcast(struct comm *comm, void *data, int64_t bytes, int root);
/* Broadcast a string; on other ranks *s is allocated (free). NULL travels as NULL. Collective. */
void comm_bcast_text(struct comm *comm, char **s, int root);
/* Concatenate every rank's block on every rank, in rank order: *out (caller frees) of *out_bytes,
 * offsets[size+1] if not NULL. Collective. ST_MEMORY agreed. */
MUST_CHECK enum status comm_gather_all(struct comm *comm, const void *mine, int64_t bytes, void **out,
                                       int64_t *out_bytes, int64_t *offsets);
/* Send send_bytes[r] bytes to every rank r, packed in rank order; *out (caller frees) in rank order
 * with recv_bytes[size]. Any size: above 1 GiB it is cut. Collective. ST_MEMORY. */
MUST_CHECK enum status comm_exchange(struct comm *comm, const void *send, const int64_t *send_bytes, void **out,
                                     int64_t *recv_bytes);

/* Point to point, blocking, any byte count: the one exception, which only sender and receiver call. */
void comm_send(struct comm *comm, const void *data, int64_t bytes, int to, int tag);
void comm_receive(struct comm *comm, void *data, int64_t bytes, int from, int tag);

/* New communicator of the ranks with equal `color`, ordered by rank. Collective. Close with comm_free. */
MUST_CHECK enum status comm_split(struct comm *comm, int color, struct comm *out);
/* New communicator of the ranks that share this rank's host, ordered by rank. Collective. Close with comm_free. */
MUST_CHECK enum status comm_split_host(struct comm *comm, struct comm *out);
void comm_free(struct comm *comm);

/* This rank's share [first, first+count) of n items, sizes differing by at most one. Local. */
void comm_share(const struct comm *comm, int64_t n, int64_t *first, int64_t *count);

/* Wall clock in seconds. Local. */
double comm_now_s(void);

/* Print to stdout / stderr on rank 0 only, with the program's name in front of notes. Local: other
 * ranks may call too. */
void comm_print(const struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));
void comm_note(const struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
