#include "mpi/queue.h"

#include <stdlib.h>
#include <time.h>

enum { TAG_ASK = 1, TAG_ANSWER = 2 };
enum { ASK_CHUNK = 0, ASK_STOP = 1 };
static const int64_t no_chunk = -1;

struct queue {
    struct comm comm;  /* own communicator: nothing else travels on it */
    int64_t *mine;     /* this rank's share */
    int64_t next, end; /* mine[next..end) is left: own work from the front, gifts from the back */
    int victim;        /* ranks comm.rank + 1 .. + victim have said that they have none */
    bool stopped, told;
    int64_t stolen;
    int64_t asked; /* what the posted receive will hold */
    MPI_Request listen;
    MPI_Request *tell; /* [size] stop messages under way */
};

static void listen_again(struct queue *q)
{
    MPI_Irecv(&q->asked, 1, MPI_INT64_T, MPI_ANY_SOURCE, TAG_ASK, q->comm.handle, &q->listen);
}

enum status queue_open(struct comm *comm, const int64_t *chunks, int64_t count, struct queue **out)
{
    enum status st = ST_OK;
    struct queue *q = NULL;
    int64_t share = count / comm->size + 1;
    *out = NULL;
    st = NEW_ARRAY(q, 1);
    if (st == ST_OK) *q = (struct queue){0};
    if (st == ST_OK) st = NEW_ARRAY(q->mine, share);
    if (st == ST_OK) st = NEW_ARRAY(q->tell, comm->size);
    TRY(comm_agree(comm, st));
    TRY(comm_split(comm, 0, &q->comm));
    for (int64_t i = comm->rank; i < count; i += comm->size) q->mine[q->end++] = chunks[i];
    listen_again(q);
    *out = q;
    q = NULL;
done:
    if (q) {
        free(q->mine);
        free(q->tell);
        free(q);
    }
    return st;
}

static void answer(struct queue *q, int to)
{
    int64_t chunk = !q->stopped && q->next < q->end ? q->mine[--q->end] : no_chunk;
    MPI_Send(&chunk, 1, MPI_INT64_T, to, TAG_ANSWER, q->comm.handle); /* eager: the asker's receive is posted */
}

void queue_poll(struct queue *q)
{
    for (;;) {
        int come;
        MPI_Status status;
        MPI_Test(&q->listen, &come, &status);
        if (!come) return;
        if (q->asked == ASK_STOP) q->stopped = true;
        else answer(q, status.MPI_SOURCE);
        listen_again(q);
    }
}

static void wait_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); }

/* Ask one rank, answering others meanwhile so that two that ask each other do not wait for ever. */
static int64_t ask(struct queue *q, int victim)
{
    static const int64_t question = ASK_CHUNK;
    int64_t chunk = no_chunk;
    MPI_Request requests[2];
    int done = 0;
    MPI_Irecv(&chunk, 1, MPI_INT64_T, victim, TAG_ANSWER, q->comm.handle, &requests[0]);
    MPI_Isend(&question, 1, MPI_INT64_T, victim, TAG_ASK, q->comm.handle, &requests[1]);
    for (;;) {
        MPI_Testall(2, requests, &done, MPI_STATUSES_IGNORE);
        if (done) return chunk;
        queue_poll(q);
        wait_a_little();
    }
}

bool queue_next(struct queue *q, int64_t *chunk)
{
    queue_poll(q);
    if (q->stopped) return false;
    if (q->next < q->end) {
        *chunk = q->mine[q->next++];
        return true;
    }
    /* A rank without chunks gets no new ones, so each has to say so only once. */
    while (!q->stopped && q->victim < q->comm.size - 1) {
        *chunk = ask(q, (q->comm.rank + 1 + q->victim) % q->comm.size);
        if (*chunk != no_chunk) {
            q->stolen++;
            return true;
        }
        q->victim++;
    }
    return false;
}

void queue_stop(struct queue *q)
{
    static const int64_t message = ASK_STOP;
    q->stopped = true;
    if (q->told) return;
    q->told = true;
    for (int r = 0; r < q->comm.size; r++) {
        q->tell[r] = MPI_REQUEST_NULL;
        /* synchronous: complete only once received, so none is left behind when all have ended */
        if (r != q->comm.rank) MPI_Issend(&message, 1, MPI_INT64_T, r, TAG_ASK, q->comm.handle, &q->tell[r]);
    }
}

bool queue_stopped(const struct queue *q) { return q->stopped; }
int64_t queue_stolen(const struct queue *q) { return q->stolen; }

static void serve_until(struct queue *q, int count, MPI_Request *requests)
{
    for (int done = 0;;) {
        MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        if (done) return;
        queue_poll(q);
        wait_a_little();
    }
}

void queue_close(struct comm *comm, struct queue **queue)
{
    struct queue *q = *queue;
    if (!q) return;
    if (q->told) serve_until(q, q->comm.size, q->tell);
    MPI_Request all_here;
    MPI_Ibarrier(q->comm.handle, &all_here);
    serve_until(q, 1, &all_here);
    MPI_Cancel(&q->listen);
    MPI_Wait(&q->listen, MPI_STATUS_IGNORE);
    comm_free(&q->comm);
    free(q->mine);
    free(q->tell);
    free(q);
    *queue = NULL;
}

static int number_from(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

void queue_array_place(int *job, int *jobs)
{
    int first = number_from("SLURM_ARRAY_TASK_MIN", 0), step = number_from("SLURM_ARRAY_TASK_STEP", 1);
    *jobs = number_from("SLURM_ARRAY_TASK_COUNT", 1);
    *job = (number_from("SLURM_ARRAY_TASK_ID", first) - first) / (step > 0 ? step : 1);
    if (*jobs < 1 || *job < 0 || *job >= *jobs) *job = 0, *jobs = 1;
}

enum status queue_order_for_array(int64_t *chunks, int64_t count, int job, int jobs)
{
    int64_t *ordered = NULL, n = 0;
    enum status st = NEW_ARRAY(ordered, count);
    if (st != ST_OK) return st;
    for (int64_t i = 0; i < count; i++)
        if (chunks[i] % jobs == job) ordered[n++] = chunks[i];
    for (int64_t i = count - 1; i >= 0; i--)
        if (chunks[i] % jobs != job) ordered[n++] = chunks[i];
    for (int64_t i = 0; i < count; i++) chunks[i] = ordered[i];
    free(ordered);
    return st;
}
