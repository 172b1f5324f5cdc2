#include "base/stop.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/text.h"

static volatile sig_atomic_t asked;
static volatile sig_atomic_t first_s[2]; /* whole seconds at which INT and TERM first came, 0 = not yet */
static char *stop_file;
static double look_every_s, looked_s = -1e9;

static sig_atomic_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (sig_atomic_t)now.tv_sec + 1;
}

static void ask_to_stop(int signal_number)
{
    asked = 1;
    if (signal_number == SIGUSR1) return;
    volatile sig_atomic_t *first = &first_s[signal_number == SIGTERM];
    if (*first == 0) *first = now_s();
    else if (now_s() - *first > 1) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

/* On a stack of its own: some of oneDNN's products use the stack pointer as a pointer into their heap
 * buffers, and a signal that came then would write its frame over the heap. The kernel hands signals
 * to a process to its main thread, which is this one. */
static void catch_signals(void)
{
    static char stack[1 << 16];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&own, NULL);
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

void stop_watch(const char *file, double every_s)
{
    free(stop_file);
    stop_file = *file ? text_copy(file) : NULL;
    look_every_s = every_s;
    catch_signals();
}

bool stop_asked(void)
{
    if (asked || !stop_file) return asked;
    double now = clock_s();
    if (now - looked_s < look_every_s) return false;
    looked_s = now;
    if (access(stop_file, F_OK) == 0) asked = 1;
    return asked;
}
