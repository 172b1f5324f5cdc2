#include "io/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/text.h"

extern char **environ;

/* cytomill-probe lies beside the running program, or in ../bin beside a test. The caller frees. */
static char *find_probe(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return NULL;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    for (int beside = 1; beside >= 0; beside--) {
        char *path = text_format("%s/%scytomill-probe", self, beside ? "" : "../bin/");
        if (access(path, X_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

/* The environment without what would make the probe believe it is a rank. The caller frees the array. */
static char **clean_environment(void)
{
    static const char *const of_mpi[] = {"OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_", "MPI_"};
    int n = 0, kept = 0;
    while (environ[n]) n++;
    char **clean = calloc((size_t)n + 1, sizeof *clean);
    for (int i = 0; clean && i < n; i++) {
        bool drop = false;
        for (size_t p = 0; p < sizeof of_mpi / sizeof *of_mpi; p++)
            drop |= strncmp(environ[i], of_mpi[p], strlen(of_mpi[p])) == 0;
        if (!drop) clean[kept++] = environ[i];
    }
    return clean;
}

static enum status start_probe(const char *program, const char *path, double seconds, int64_t memory_mib, pid_t *pid,
                               int *out)
{
    char time_text[32], memory_text[32];
    int ends[2];
    snprintf(time_text, sizeof time_text, "%.0f", seconds);
    snprintf(memory_text, sizeof memory_text, "%lld", (long long)memory_mib);
    char *arguments[] = {(char *)program, memory_text, time_text, (char *)path, NULL};
    if (pipe(ends) != 0) return fail(ST_INTERNAL, "no pipe for the probe: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    char **environment = clean_environment();
    int rc = posix_spawn(pid, program, &actions, NULL, arguments, environment ? environment : environ);
    free(environment);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (rc == 0) {
        *out = ends[0];
        return ST_OK;
    }
    close(ends[0]);
    return fail(ST_INTERNAL, "%s: cannot be started: %s", program, strerror(rc));
}

/* What the probe says until it ends or the time is up, at most size-1 bytes. */
static void listen_to(int from, double until_s, char *said, size_t size)
{
    size_t used = 0;
    for (;;) {
        double left = until_s - clock_s();
        struct pollfd ready = {.fd = from, .events = POLLIN};
        int rc = left > 0 ? poll(&ready, 1, (int)(left * 1000) + 1) : 0;
        if (rc < 0 && errno == EINTR) continue;
        char rubbish[256];
        ssize_t n =
            rc > 0 ? used + 1 < size ? read(from, said + used, size - 1 - used) : read(from, rubbish, sizeof rubbish)
                   : 0;
        if (n <= 0) break;
        if (used + 1 < size) used += (size_t)n;
    }
    said[used] = '\0';
    close(from);
}

/* Wait for it, killing it once the time is up. */
static int wait_for(pid_t pid, double until_s, bool *late)
{
    int status = 0;
    *late = false;
    for (;;) {
        pid_t got = waitpid(pid, &status, *late ? 0 : WNOHANG);
        if (got == pid) return status;
        if (got < 0 && errno != EINTR) return -1;
        if (clock_s() > until_s) {
            *late = true;
            kill(pid, SIGKILL);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
}

enum status probe_file(const char *path, const struct probe_limits *limits)
{
    struct stat info;
    char said[1024];
    pid_t pid = -1;
    int from = -1;
    bool late;
    char *program = find_probe();
    if (!program)
        return fail(ST_INTERNAL, "cytomill-probe was not found beside this program; build or install it again");
    double seconds = limits->time_s + (stat(path, &info) == 0 ? (double)info.st_size / 1e9 : 0),
           until_s = clock_s() + seconds + 1;
    enum status st = start_probe(program, path, seconds, limits->memory_mib, &pid, &from);
    free(program);
    if (st != ST_OK) return st;
    listen_to(from, until_s, said, sizeof said);
    int status = wait_for(pid, until_s, &late);
    said[strcspn(said, "\n")] = '\0';
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ST_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == ST_INPUT && *said) return fail(ST_INPUT, "%s", said);
    if (late || (WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGXCPU)))
        return fail(
            ST_INPUT,
            "%s: corrupt file: walking it took over %.0f s; fetch or write it again, or raise ingest.probe_time_s",
            path, seconds);
    if (WIFSIGNALED(status))
        return fail(ST_INPUT, "%s: corrupt file: HDF5 died on it (%s); fetch or write it again", path,
                    strsignal(WTERMSIG(status)));
    return fail(ST_INPUT,
                "%s: corrupt file: HDF5 gave up on it (exit %d); fetch or write it again, or raise "
                "ingest.probe_memory_mib (%lld)",
                path, WIFEXITED(status) ? WEXITSTATUS(status) : -1, (long long)limits->memory_mib);
}
