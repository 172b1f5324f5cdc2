/* plan: ranks=1 limit=30
 * Asked to stop: nothing asked is no; TERM, INT and USR1 each ask; a file asks as soon as it is there, and not more often
 * than wanted; TERM twice at once (launchers do that) asks once, TERM again two seconds later ends the process. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/stop.h"

/* In a process of its own, because what is asked stays asked. */
static int in_child(int (*body)(int), int argument)
{
    int code;
    pid_t child = fork();
    if (child == 0) _exit(body(argument));
    waitpid(child, &code, 0);
    return code;
}

static int signalled(int number)
{
    stop_watch("", 0);
    if (stop_asked()) return 1;
    raise(number);
    return stop_asked() ? 0 : 2;
}

static void test_signals(void **state)
{
    (void)state;
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    for (int i = 0; i < 3; i++) assert_int_equal(in_child(signalled, numbers[i]), 0);
}

static int by_file(int every_s)
{
    char path[] = "/tmp/cytomill-stop.XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    stop_watch(path, every_s);
    if (stop_asked()) return 1;
    FILE *file = fopen(path, "w");
    bool seen = stop_asked();
    fclose(file);
    unlink(path);
    close(fd);
    return seen == (every_s == 0) ? 0 : 2;
}

static void test_file(void **state)
{
    (void)state;
    assert_int_equal(in_child(by_file, 0), 0);
    assert_int_equal(in_child(by_file, 3600), 0);
}

static int repeated(int pause_s)
{
    stop_watch("", 0);
    raise(SIGTERM);
    sleep((unsigned)pause_s);
    raise(SIGTERM);
    return stop_asked() ? 0 : 2;
}

static void test_second_signal(void **state)
{
    (void)state;
    assert_int_equal(in_child(repeated, 0), 0);
    int code = in_child(repeated, 2);
    assert_true(WIFSIGNALED(code));
    assert_int_equal(WTERMSIG(code), SIGTERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_signals), cmocka_unit_test(test_file),
                                       cmocka_unit_test(test_second_signal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
