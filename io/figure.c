#include "io/figure.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"

extern char **environ;

/* Okabe and Ito's colours in an order that keeps neighbours apart. */
static const char *const palette[] = {"#0072B2", "#E69F00", "#009E73", "#D55E00",
                                      "#56B4E9", "#CC79A7", "#B8A500", "#000000"};
enum { PALETTE = 8 };
/* Marks of gnuplot: disc, triangle, square, lozenge, pentagon. */
static const int marks[] = {7, 9, 5, 13, 15};
enum { MARKS = 5 };
#define FRAME_ROOM 2.0

/* ---- gnuplot ---- */

enum status figure_check(void)
{
    char *path = text_copy(getenv("PATH") ? getenv("PATH") : "/usr/bin");
    bool found = false;
    for (char *rest = path, *folder; !found && (folder = strsep(&rest, ":"));) {
        char *program = text_format("%s/gnuplot", folder);
        found = access(program, X_OK) == 0;
        free(program);
    }
    free(path);
    return found ? ST_OK
                 : fail(ST_CONFIG, "gnuplot, which draws the report's pictures, is not on PATH; install it (Debian "
                                   "package gnuplot-nox)");
}

/* A scratch file that has no name any more; -1 on failure. */
static int scratch_file(char path[64])
{
    snprintf(path, 64, "/tmp/cytomill-figure-XXXXXX");
    return mkstemp(path);
}

/* Run gnuplot on the script with stdout and stderr in `out`. */
static int run_gnuplot(const char *script, int out)
{
    char *argv[] = {(char *)"gnuplot", (char *)script, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int state = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, out, 2);
    int error = posix_spawnp(&child, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) return error;
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR) return errno;
    return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? 0 : ECHILD;
}

/* The <svg> element alone, without the XML prologue. */
static enum status take_svg(char *output, char **svg)
{
    char *start = strstr(output, "<svg");
    if (!start || !strstr(start, "</svg>")) {
        output[strcspn(output, "\n")] = '\0';
        return fail(ST_OUTPUT, "gnuplot drew nothing; it said: %s", *output ? output : "nothing");
    }
    *svg = text_copy(start);
    return ST_OK;
}

static enum status draw(const struct text *script, char **svg)
{
    enum status st = ST_OK;
    char script_path[64] = "", out_path[64] = "", *output = NULL;
    size_t bytes;
    int in = scratch_file(script_path), out = scratch_file(out_path);
    if (in < 0 || out < 0 || write(in, script->data, script->length) != (ssize_t)script->length)
        TRY(fail(ST_OUTPUT, "cannot write a scratch file in /tmp: %s", strerror(errno)));
    int error = run_gnuplot(script_path, out);
    TRY(text_read_file(out_path, &output, &bytes));
    if (error) {
        output[strcspn(output, "\n")] = '\0';
        TRY(fail(ST_OUTPUT, "gnuplot failed (%s): %s", strerror(error), output));
    }
    TRY(take_svg(output, svg));
done:
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    if (*script_path) unlink(script_path);
    if (*out_path) unlink(out_path);
    free(output);
    return st;
}

/* Text inside gnuplot's double quotes, with enhanced mode off. */
static void add_quoted(struct text *t, const char *s)
{
    text_add(t, "\"");
    for (; *s; s++)
        if (*s == '"' || *s == '\\') text_add(t, "\\%c", *s);
        else text_add_bytes(t, s, 1);
    text_add(t, "\"");
}

static void begin_script(struct text *t, const char *name, int width, int height, const char *x_label,
                         const char *y_label)
{
    text_add(t,
             "set encoding utf8\nset terminal svg size %d,%d dynamic noenhanced font \"Helvetica,15\" name \"%s\" "
             "background \"#ffffff\"\n",
             width, height, name);
    text_add(t, "set border 3 lc rgb \"#57606a\"\nset tics nomirror textcolor rgb \"#1b1f24\"\nset key noenhanced\nset "
                "xlabel ");
    add_quoted(t, x_label);
    text_add(t, "\nset ylabel ");
    add_quoted(t, y_label);
    text_add(t, "\n");
}

/* ---- curves ---- */

static void add_curve_data(struct text *t, const struct figure_curve *c, int number)
{
    text_add(t, "$c%d << EOD\n", number);
    for (int64_t i = 0; i < c->count; i++) {
        if (isfinite(c->y[i])) text_add(t, "%.10g %.6g\n", c->x[i], c->y[i]);
        else text_add(t, "\n");
    }
    text_add(t, "EOD\n");
}

/* Levels are dashed grey lines of different dash, curves coloured. */
static void add_curve_plot(struct text *t, const struct figure_curve *c, int number, int levels)
{
    static const char *const greys[] = {"#8c959f", "#6e7781", "#424a53", "#1b1f24"};
    if (c->count > 0)
        text_add(t, "$c%d using 1:2 with %s lw 2 pt 7 ps 0.6 lc rgb \"%s\" title ", number,
                 c->count < 60 ? "linespoints" : "lines", palette[number % PALETTE]);
    else text_add(t, "%.8g with lines lw 1.5 dt %d lc rgb \"%s\" title ", c->level, 2 + levels % 4, greys[levels % 4]);
    add_quoted(t, c->name);
}

/* Curves fall from far above the levels one wants to compare them with, and from far above where they end:
 * the frame ends a little above both. 0 = show all. */
static double frame_top(const struct figure_curve *curves, int count)
{
    double wanted = 0, highest = 0;
    for (int i = 0; i < count; i++) {
        const struct figure_curve *c = &curves[i];
        double end = c->count ? c->y[c->count - 1] : c->level;
        if (end > wanted) wanted = end;
        for (int64_t p = 0; p < c->count; p++)
            if (c->y[p] > highest) highest = c->y[p];
    }
    return highest > FRAME_ROOM * wanted ? FRAME_ROOM * wanted : 0;
}

enum status figure_curves(const char *x_label, const char *y_label, const struct figure_curve *curves, int count,
                          char **svg)
{
    struct text t = {0};
    int levels = 0;
    begin_script(&t, "curves", 860, 440, x_label, y_label);
    text_add(
        &t, "set key outside right top Left reverse spacing 1.3 samplen 2.5\nset grid ytics lc rgb \"#e4e8ec\" lt 1\n");
    double top = frame_top(curves, count);
    if (top > 0) text_add(&t, "set yrange [*:%.6g]\n", top);
    for (int i = 0; i < count; i++)
        if (curves[i].count > 0) add_curve_data(&t, &curves[i], i);
    text_add(&t, "plot ");
    for (int i = 0; i < count; i++) {
        if (i > 0) text_add(&t, ", ");
        add_curve_plot(&t, &curves[i], i, levels);
        levels += curves[i].count == 0;
    }
    text_add(&t, "\n");
    enum status st = draw(&t, svg);
    text_free(&t);
    return st;
}

/* ---- map ---- */

static int64_t add_group_data(struct text *t, const struct figure_points *p, int32_t group)
{
    int64_t members = 0;
    text_add(t, "$g%d << EOD\n", (int)group + 1);
    for (int64_t i = 0; i < p->n; i++)
        if (p->group[i] == group) {
            text_add(t, "%.4g %.4g\n", p->xy[i * 2], p->xy[i * 2 + 1]);
            members++;
        }
    text_add(t, "EOD\n");
    return members;
}

static void add_group_plot(struct text *t, const struct figure_points *p, int32_t group, int64_t members, bool first)
{
    const char *color = group < 0 ? "#c3c9d0" : palette[group % PALETTE];
    int mark = group < 0 ? marks[0] : marks[group / PALETTE % MARKS];
    char *name = text_format("%s (%lld)", group < 0 ? p->none : p->name[group], (long long)members);
    text_add(t,
             "%s $g%d using 1:2 with points pt %d ps %.2f lc rgb \"%s\" notitle, NaN with points pt %d ps 1.2 lc rgb "
             "\"%s\" title ",
             first ? "" : ",", (int)group + 1, mark,
             p->n > 4000   ? 0.25
             : p->n > 1500 ? 0.36
                           : 0.5,
             color, mark, color);
    add_quoted(t, name);
    free(name);
}

enum status figure_map(const char *x_label, const char *y_label, const struct figure_points *points, char **svg)
{
    enum status st = ST_OK;
    struct text t = {0};
    int64_t *members = NULL;
    bool first = true;
    TRY(NEW_ARRAY(members, points->groups + 1));
    begin_script(&t, "map", 860, 540, x_label, y_label);
    text_add(&t, "set key outside right top Left reverse spacing 1.35\nset format x \"\"\nset format y \"\"\nset tics "
                 "scale 0\n");
    for (int32_t g = -1; g < points->groups; g++) members[g + 1] = add_group_data(&t, points, g);
    text_add(&t, "plot");
    for (int32_t g = -1; g < points->groups; g++) {
        if (members[g + 1] == 0) continue;
        add_group_plot(&t, points, g, members[g + 1], first);
        first = false;
    }
    text_add(&t, "\n");
    TRY(draw(&t, svg));
done:
    free(members);
    text_free(&t);
    return st;
}
