#include "io/coherence.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "io/place.h"

/* Pieces go round the hosts, so that the first and the last bytes of pages belong to several. */
enum { PIECE_BYTES = 1000, ROUNDS = 16 };

static void fill(unsigned char out[PIECE_BYTES], int64_t piece)
{
    for (int64_t i = 0; i < PIECE_BYTES; i++) out[i] = (unsigned char)(1 + (piece * 31 + i) % 255); /* never 0 */
}

static enum status write_pieces(const char *path, int64_t host, int64_t hosts)
{
    enum status st = ST_OK;
    unsigned char data[PIECE_BYTES];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fail(ST_OUTPUT, "%s: cannot be opened: %s", path, strerror(errno));
    for (int64_t k = host; k < ROUNDS * hosts; k += hosts) {
        fill(data, k);
        TRY(place_write(fd, path, k * PIECE_BYTES, data, PIECE_BYTES));
    }
    if (fsync(fd) != 0) st = fail(ST_OUTPUT, "%s: cannot be put on disk: %s", path, strerror(errno));
done:
    close(fd);
    return st;
}

static enum status compare_piece(int fd, const char *path, int64_t k)
{
    enum status st = ST_OK;
    unsigned char data[PIECE_BYTES], want[PIECE_BYTES];
    fill(want, k);
    TRY(place_read(fd, path, k * PIECE_BYTES, data, PIECE_BYTES));
    if (memcmp(data, want, PIECE_BYTES) != 0) st = fail(ST_OUTPUT, "%s: what another host wrote is not there", path);
done:
    return st;
}

/* Own pieces and those before and after. */
static enum status read_pieces(const char *path, int64_t host, int64_t hosts)
{
    enum status st = ST_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(ST_OUTPUT, "%s: cannot be opened: %s", path, strerror(errno));
    for (int64_t own = host; own < ROUNDS * hosts; own += hosts)
        for (int64_t k = own - (own > 0); k <= own + 1 && k < ROUNDS * hosts; k++) TRY(compare_piece(fd, path, k));
done:
    close(fd);
    return st;
}

enum status coherence_probe(struct comm *comm, const char *path, bool *coherent)
{
    enum status st = ST_OK;
    bool leads = comm->node_rank == 0;
    int64_t hosts = leads, host = comm_prefix_i64(comm, leads), lacks = 0;
    comm_sum_i64(comm, &hosts, 1);
    TRY(comm_agree(comm, comm->rank == 0 ? place_create(path, hosts * ROUNDS * PIECE_BYTES) : ST_OK));
    if (leads) lacks = write_pieces(path, host, hosts) != ST_OK;
    comm_max_i64(comm, &lacks, 1);
    if (leads && !lacks) lacks = read_pieces(path, host, hosts) != ST_OK;
    comm_max_i64(comm, &lacks, 1);
    status_clear();
    *coherent = !lacks;
    if (comm->rank == 0) unlink(path);
done:
    return st;
}
