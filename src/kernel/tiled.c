#include "kernel/tiled.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Memory of a trial: A with equal rows, B packed, and C of the large and the small tile. */
struct trial {
    void *a, *b, *packed, *c, *c_small, *scratch;
};

static void trial_free(struct trial *t)
{
    free(t->a), free(t->b), free(t->packed), free(t->c), free(t->c_small), free(t->scratch);
}

/* Numbers in (-1, 1) whose sums round, repeating every `period`. */
static void fill(void *x, int64_t count, int64_t period, enum dtype type)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)(i % period) * 2654435761u;
        dtype_store(x, i, (double)(bits ^ bits >> 15) / 0x1p31 - 1, type);
    }
}

static enum status take(void **out, int64_t count, enum dtype type)
{
    enum status st = mem_alloc(out, (size_t)count + 64, dtype_bytes(type), "trial of a product");
    if (st == ST_OK) memset(*out, 0, ((size_t)count + 64) * dtype_bytes(type));
    return st;
}

static enum status trial_take(struct trial *t, struct multiply *m, const struct multiply_spec *s)
{
    enum status st = ST_OK;
    TRY(take(&t->a, s->m * s->k, s->type));
    TRY(take(&t->b, s->n * s->k, s->type));
    TRY(take(&t->c, s->m * s->n, s->c_type));
    TRY(take(&t->c_small, s->m * s->n, s->c_type));
    TRY(mem_alloc(&t->packed, multiply_packed_bytes(m) + 64, 1, "trial of a product"));
    TRY(mem_alloc(&t->scratch, multiply_scratch_bytes(m) + 64, 2, "trial of a product"));
    fill(t->a, s->m * s->k, s->k, s->type);
    fill(t->b, s->n * s->k, s->n * s->k, s->type);
    multiply_pack(m, 0, t->packed, t->b, s->type, true, t->scratch);
    multiply_run(m, 0, t->c, t->a, t->packed, t->scratch);
done:
    return st;
}

/* Are `rows` rows of c all equal to the first row of t->c, bit for bit? */
static bool rows_equal(const struct trial *t, const void *c, int64_t rows, const struct multiply_spec *s)
{
    size_t row_bytes = (size_t)s->n * dtype_bytes(s->c_type);
    for (int64_t r = 0; r < rows; r++)
        if (memcmp(t->c, (const char *)c + (size_t)r * row_bytes, row_bytes) != 0) return false;
    return true;
}

/* Look for a small tile that reads the large one's packed B and gives its bits. None is no failure. */
static enum status find_small(struct tiled *out, struct trial *t, struct multiply_spec s)
{
    static const int64_t sizes[] = {32, 30, 16};
    enum status st = ST_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] < out->rows[0]; i++) {
        struct multiply *m;
        s.m = out->rows[1] = sizes[i];
        TRY(multiply_create(&s, &m));
        bool fits = multiply_packed_bytes(m) == multiply_packed_bytes(out->multiply[0]) &&
                    multiply_scratch_bytes(m) <= 2 * multiply_scratch_bytes(out->multiply[0]);
        memset(t->c_small, 0, (size_t)(s.m * s.n) * dtype_bytes(s.c_type));
        if (fits) multiply_run(m, 0, t->c_small, t->a, t->packed, t->scratch);
        out->multiply[1] = m;
        if (fits && rows_equal(t, t->c_small, s.m, &s)) return ST_OK;
        multiply_destroy(&out->multiply[1]);
    }
done:
    return st;
}

/* Try sizes until equal rows come out equal, then small ones. */
static enum status find_sizes(const struct multiply_spec *spec, int64_t largest, struct tiled *out)
{
    const int64_t sizes[] = {largest, largest - 2, 120, 112, 96, 64, 32, 1};
    struct multiply_spec s = *spec;
    enum status st = ST_OK;
    struct trial t = {0};
    bool equal = false;
    for (size_t i = 0; !equal && i < sizeof sizes / sizeof *sizes; i++) {
        multiply_destroy(&out->multiply[0]);
        trial_free(&t);
        memset(&t, 0, sizeof t);
        s.m = out->rows[0] = sizes[i];
        TRY(multiply_create(&s, &out->multiply[0]));
        TRY(trial_take(&t, out->multiply[0], &s));
        equal = rows_equal(&t, t.c, s.m, &s);
    }
    TRY(find_small(out, &t, s));
done:
    trial_free(&t);
    return st;
}

/* What trials found, the latest of them: a model has few shapes and makes each again and again. */
enum { KNOWN = 64 };
static struct known {
    struct multiply_spec spec; /* without rows and threads */
    int64_t largest, rows[TILED_SIZES];
} known[KNOWN];
static int known_count;

static bool is_known(const struct known *k, const struct multiply_spec *s, int64_t largest)
{
    return k->spec.n == s->n && k->spec.k == s->k && k->spec.type == s->type && k->spec.c_type == s->c_type &&
           k->spec.accumulate == s->accumulate && k->spec.left_packed == s->left_packed && k->spec.plain == s->plain &&
           k->largest == largest;
}

static const struct known *find_known(const struct multiply_spec *spec, int64_t largest)
{
    for (int i = 0; i < known_count && i < KNOWN; i++)
        if (is_known(&known[i], spec, largest)) return &known[i];
    return NULL;
}

static void remember(const struct multiply_spec *spec, int64_t largest, const struct tiled *found)
{
    known[known_count++ % KNOWN] =
        (struct known){*spec, largest, {found->rows[0], found->multiply[1] ? found->rows[1] : 0}};
}

static enum status make_known(const struct multiply_spec *spec, const struct known *k, struct tiled *out)
{
    enum status st = ST_OK;
    struct multiply_spec s = *spec;
    for (int i = 0; i < TILED_SIZES; i++) {
        s.m = out->rows[i] = k->rows[i];
        if (s.m) TRY(multiply_create(&s, &out->multiply[i]));
    }
done:
    return st;
}

enum status tiled_create(const struct multiply_spec *spec, int64_t largest, struct tiled *out)
{
    enum status st;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* as in use: a trial shared among the library's threads cuts rows elsewhere */
    *out = (struct tiled){{NULL}, {0}};
#pragma omp critical(tiled_known)
    {
        const struct known *found = find_known(spec, largest);
        st = found ? make_known(spec, found, out) : find_sizes(spec, largest, out);
        if (!found && st == ST_OK) remember(spec, largest, out);
    }
    omp_set_num_threads(threads);
    return st;
}

void tiled_destroy(struct tiled *tiled)
{
    for (int i = 0; i < TILED_SIZES; i++) multiply_destroy(&tiled->multiply[i]);
}

size_t tiled_scratch_bytes(const struct tiled *tiled)
{
    size_t most = 0;
    for (int i = 0; i < TILED_SIZES; i++)
        if (tiled->multiply[i] && multiply_scratch_bytes(tiled->multiply[i]) > most)
            most = multiply_scratch_bytes(tiled->multiply[i]);
    return most;
}

/* Large tiles of `rows` rows. A rest of more than two small tiles is quicker as one large tile. */
static int64_t large_count(const struct tiled *tiled, int64_t rows)
{
    int64_t whole = rows / tiled->rows[0], rest = rows % tiled->rows[0];
    bool rest_is_large = rest > 0 && (!tiled->multiply[1] || rest > 2 * tiled->rows[1]);
    return whole + rest_is_large;
}

int64_t tiled_count(const struct tiled *tiled, int64_t rows)
{
    int64_t large = large_count(tiled, rows), rest = rows - large * tiled->rows[0];
    return rest > 0 ? large + (rest + tiled->rows[1] - 1) / tiled->rows[1] : large;
}

struct tile tiled_at(const struct tiled *tiled, int64_t rows, int64_t index)
{
    int64_t large = large_count(tiled, rows);
    struct tile t = {.size = index >= large};
    t.first = index < large ? index * tiled->rows[0] : large * tiled->rows[0] + (index - large) * tiled->rows[1];
    t.count = rows - t.first < tiled->rows[t.size] ? rows - t.first : tiled->rows[t.size];
    return t;
}
