/* tool_watchdog LIMIT_S HOW: ranks that meet in exchanges, and the last of which does not come.
 *   well   20 exchanges, together longer than the limit, none of them alone
 *   late   it sleeps 1.5 times the limit, then comes: the job ends well
 *   sleep  it sleeps, in no exchange
 *   stop   it is stopped (SIGSTOP)
 *   send   rank 0 waits for a message of rank 1 that does not come, the others for rank 0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mpi/comm.h"
#include "mpi/watchdog.h"

static void sleep_for(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

static void meet(struct comm *world, double limit_s, const char *how)
{
    bool last = world->rank == world->size - 1;
    for (int i = 0; i < 20 && strcmp(how, "well") == 0; i++) {
        watchdog_step(i);
        if (last) sleep_for(limit_s / 8);
        comm_barrier(world);
    }
    watchdog_step(41);
    comm_barrier(world);
    if (last && strcmp(how, "late") == 0) sleep_for(1.5 * limit_s);
    if (last && strcmp(how, "sleep") == 0) sleep_for(100 * limit_s);
    if (last && strcmp(how, "stop") == 0) raise(SIGSTOP);
    if (world->rank == 0 && strcmp(how, "send") == 0) comm_receive(world, &last, sizeof last, 1, 3);
    int64_t one = 1;
    comm_sum_i64(world, &one, 1);
}

int main(int argc, char **argv)
{
    struct comm world;
    enum status st = comm_open(&argc, &argv, &world);
    if (st != ST_OK || argc != 3) return ST_USAGE;
    st = watchdog_start(&world, "tool", atof(argv[1]));
    if (st == ST_OK) meet(&world, atof(argv[1]), argv[2]);
    watchdog_stop();
    comm_close(&world);
    return st;
}
