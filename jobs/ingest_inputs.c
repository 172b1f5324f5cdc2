#include "jobs/ingest_inputs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/text.h"

int ingest_find_modality(const struct ingest_inputs *in, const char *name)
{
    for (int m = 0; m < in->modality_count; m++)
        if (strcmp(in->modalities[m].name, name) == 0) return m;
    return -1;
}

enum { MODALITIES_MAX = 32 };

/* ---- lists of features ---- */

/* Tables with equal strings have equal digests. */
static uint64_t digest_of(const struct feature_table *table)
{
    uint64_t digest = 1;
    for (int64_t f = 0; f < table->count; f++) {
        const char *parts[] = {table->rows[f].name, table->rows[f].id, table->rows[f].symbol};
        for (int p = 0; p < 3; p++) digest = hash_block(parts[p], strlen(parts[p]) + 1, digest);
    }
    return digest ? digest : 1;
}

static struct ingest_table *find_table(const struct ingest_inputs *in, uint64_t digest)
{
    for (int t = 0; t < in->table_count; t++)
        if (in->tables[t].digest == digest) return &in->tables[t];
    return NULL;
}

/* Take the lists of features that the source holds, each once. Local. */
static enum status keep_tables(struct ingest_inputs *in, struct ingest_input *input)
{
    enum status st = ST_OK;
    for (int v = 0; v < source_modality_count(input->source); v++) {
        if (source_modality(input->source, v)->features.count == 0) continue; /* taken before */
        struct feature_table table = source_take_features(input->source, v);
        input->table[v] = digest_of(&table);
        if (find_table(in, input->table[v])) {
            feature_table_free(&table);
            continue;
        }
        struct ingest_table *larger = realloc(in->tables, sizeof *larger * (size_t)(in->table_count + 1));
        if (!larger) return fail(ST_MEMORY, "no memory for the features of %s", source_path(input->source));
        in->tables = larger;
        in->tables[in->table_count++] = (struct ingest_table){input->table[v], table};
    }
    return st;
}

static enum status check_modalities(const struct ingest_input *input)
{
    if (source_modality_count(input->source) <= MODALITIES_MAX) return ST_OK;
    return fail(ST_INPUT, "%s: more than %d modalities; set ingest.other_features=drop", source_path(input->source),
                MODALITIES_MAX);
}

/* ---- opening ---- */

static struct source_options options_of(const struct config *config, const char *spool)
{
    struct source_options o = source_options_default();
    o.genome = config_text(config, "ingest.genome");
    o.modality = config_text(config, "ingest.modality");
    o.rna_types = config_list(config, "ingest.feature_types", &o.rna_type_count);
    o.keep_other = config_word_is(config, "ingest.other_features", "keep");
    o.probe_time_s = config_real(config, "ingest.probe_time_s");
    o.probe_memory_mib = config_int(config, "ingest.probe_memory_mib");
    o.spool = spool;
    return o;
}

/* One --counts for all inputs, or one for each. */
static enum status counts_of(const struct config *config, int input, int inputs, const char **out)
{
    int n;
    const char *const *list = config_list(config, "ingest.counts", &n);
    if (n != 1 && n != inputs)
        return config_fail(config, "ingest.counts", "names %d places for %d inputs; give one for all or one for each",
                           n, inputs);
    *out = list[n == 1 ? 0 : input];
    return ST_OK;
}

/* Hash of a whole file; false if it cannot be mapped. */
static bool hash_file(const char *path, int64_t bytes, uint64_t *out)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *data = file < 0 || bytes == 0 ? MAP_FAILED : mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (file >= 0) close(file);
    if (data == MAP_FAILED) return false;
    *out = hash_block(data, (size_t)bytes, 0);
    munmap(data, (size_t)bytes);
    return true;
}

char *ingest_identity(const char *path)
{
    static const char *const inside[] = {"/matrix.mtx.gz", "/matrix.mtx", ""};
    char *found = NULL;
    for (size_t i = 0; i < sizeof inside / sizeof *inside && !found; i++) {
        char *file = text_format("%s%s", path, inside[i]);
        struct stat info;
        uint64_t hash;
        bool there = stat(file, &info) == 0 && S_ISREG(info.st_mode);
        if (there && info.st_size <= 1 << 30 && hash_file(file, info.st_size, &hash))
            found = text_format("xxh3:%016llx size:%lld", (unsigned long long)hash, (long long)info.st_size);
        else if (there) found = text_format("size:%lld mtime:%lld", (long long)info.st_size, (long long)info.st_mtime);
        free(file);
    }
    return found ? found : text_copy("unknown");
}

static enum status open_one(struct comm *comm, const struct config *config, const char *path, int index,
                            struct ingest_inputs *in)
{
    enum status st = ST_OK;
    struct ingest_input *input = &in->inputs[index];
    struct source_options options = options_of(config, in->spool);
    TRY(comm_agree(comm, counts_of(config, index, in->count, &options.counts)));
    TRY(source_open(comm, path, &options, &input->source));
    if (comm->rank == 0) input->identity = ingest_identity(path);
    comm_bcast_text(comm, &input->identity, 0);
    TRY(comm_agree(comm, check_modalities(input)));
    TRY(comm_agree(comm, NEW_ARRAY(input->table, MODALITIES_MAX)));
    TRY(comm_agree(comm, keep_tables(in, input)));
    input->rows = source_row_count(input->source);
    input->first_row = in->rows;
    in->rows += input->rows;
done:
    return st;
}

/* ---- cutting ---- */

/* The row of input `i` at which the share of rank `rank` begins, when all inputs are laid end to end
 * and cut into equal numbers of stored entries. */
static enum status boundary(const struct ingest_inputs *in, int i, int rank, int ranks, int64_t *row)
{
    int64_t total = 0, before = 0;
    for (int k = 0; k < in->count; k++) {
        if (k == i) before = total;
        total += source_entry_count(in->inputs[k].source);
    }
    int64_t mine = source_entry_count(in->inputs[i].source);
    int64_t at = (int64_t)((__int128)total * rank / ranks);
    *row = 0;
    if (rank == ranks || at >= before + mine) *row = in->inputs[i].rows;
    else if (rank > 0 && at > before) return source_row_at(in->inputs[i].source, at - before, row);
    if (rank == 0) *row = 0;
    return ST_OK;
}

static enum status cut(const struct comm *comm, struct ingest_inputs *in)
{
    enum status st = ST_OK;
    for (int i = 0; i < in->count; i++) {
        int64_t end;
        TRY(boundary(in, i, comm->rank, comm->size, &in->inputs[i].my_first));
        TRY(boundary(in, i, comm->rank + 1, comm->size, &end));
        in->inputs[i].my_count = end - in->inputs[i].my_first;
    }
done:
    return st;
}

/* ---- features ---- */

static enum status find_modality(struct ingest_inputs *in, const struct source_modality *from, int *out)
{
    enum status st = ST_OK;
    *out = ingest_find_modality(in, from->name);
    if (*out >= 0) return ST_OK;
    if (in->modality_count == MODALITIES_MAX)
        return fail(ST_INPUT, "more than %d modalities in all; set ingest.other_features=drop", MODALITIES_MAX);
    struct ingest_modality *larger = realloc(in->modalities, sizeof *larger * (size_t)(in->modality_count + 1));
    if (!larger) return fail(ST_MEMORY, "no memory for modality %s", from->name);
    in->modalities = larger;
    struct ingest_modality *m = &in->modalities[ *out = in->modality_count];
    *m = (struct ingest_modality){.name = text_copy(from->name), .kind = from->kind};
    in->modality_count++;
    TRY(names_create(&m->keys, from->feature_count));
done:
    return st;
}

/* Counts and binary values go together (as counts), log-normalised and continuous ones too; the two pairs do not mix. */
static enum status merge_kinds(struct ingest_modality *m, const struct source *source,
                               const struct source_modality *from)
{
    bool whole = m->kind == VALUE_COUNTS || m->kind == VALUE_BINARY,
         also = from->kind == VALUE_COUNTS || from->kind == VALUE_BINARY;
    if (whole != also)
        return fail(ST_INPUT,
                    "%s: '%s' holds %s values (%s) and the inputs before it %s; one modality has one kind: choose the "
                    "matrix with "
                    "--counts, or ingest it into an atlas of its own",
                    source_path(source), from->taken, value_kind_word(from->kind), from->why, value_kind_word(m->kind));
    if (m->kind != from->kind) m->kind = whole ? VALUE_COUNTS : VALUE_CONTINUOUS;
    return ST_OK;
}

/* Row of the union for feature `f`, the `occurrence`-th of its source with that key. */
static enum status unite(struct ingest_modality *m, const struct feature *f, int64_t occurrence, int32_t *row,
                         bool *known)
{
    enum status st = ST_OK;
    int64_t held;
    char *key =
        occurrence ? text_format("%s\x1f%lld", identity_key(f), (long long)occurrence) : text_copy(identity_key(f));
    TRY(names_add(m->keys, key, m->features.count, &held));
    *known = held < m->features.count;
    if (!*known) TRY(feature_table_add(&m->features, f));
    *row = (int32_t)held;
done:
    free(key);
    return st;
}

static enum status unite_table(struct ingest_modality *m, const struct feature_table *table, int32_t *map,
                               int64_t *shared)
{
    enum status st = ST_OK;
    struct names *seen = NULL;
    *shared = 0;
    TRY(names_create(&seen, table->count));
    for (int64_t f = 0; f < table->count; f++) {
        const char *key = identity_key(&table->rows[f]);
        int64_t before = names_find(seen, key);
        bool known;
        TRY(names_set(seen, key, before + 1));
        TRY(unite(m, &table->rows[f], before + 1, &map[f], &known));
        *shared += known;
    }
done:
    names_destroy(&seen);
    return st;
}

/* An earlier input with the same list of genes, as samples of one study have; NULL if there is none. */
static const struct ingest_input *find_alike(const struct ingest_inputs *in, const struct ingest_input *input, int m)
{
    for (const struct ingest_input *other = in->inputs; other < input; other++)
        if (other->digest[m] == input->digest[m]) return other;
    return NULL;
}

/* Name the genes and put them into the union. Local. */
static enum status unite_features(struct ingest_inputs *in, struct ingest_input *input, int view, int m,
                                  const struct hgnc *hgnc)
{
    enum status st = ST_OK;
    struct feature_table *table = &find_table(in, input->table[view])->features;
    struct ingest_modality *to = &in->modalities[m];
    bool first = to->features.count == 0;
    int64_t shared;
    if (strcmp(to->name, "rna") == 0) {
        st = identity_assign(hgnc, table, &to->identity);
        if (st != ST_OK) status_prefix("%s: ", source_path(input->source));
        if (st != ST_OK) goto done;
    }
    TRY(unite_table(to, table, input->feature[m], &shared));
    if (!first && shared == 0)
        TRY(fail(ST_INPUT,
                 "%s: shares no feature of modality %s with the inputs before it ('%s' here, '%s' there); other names "
                 "or another species: "
                 "ingest it into an atlas of its own",
                 source_path(input->source), to->name, identity_key(&table->rows[0]),
                 identity_key(&to->features.rows[0])));
done:
    return st;
}

static enum status take_features(struct ingest_inputs *in, struct ingest_input *input, int view,
                                 const struct hgnc *hgnc)
{
    enum status st = ST_OK;
    const struct source_modality *from = source_modality(input->source, view);
    int m;
    TRY(find_modality(in, from, &m));
    TRY(merge_kinds(&in->modalities[m], input->source, from));
    TRY(NEW_ARRAY(input->feature[m], from->feature_count));
    input->view[m] = view;
    input->digest[m] = input->table[view];
    const struct ingest_input *alike = find_alike(in, input, m);
    if (alike) memcpy(input->feature[m], alike->feature[m], sizeof **input->feature * (size_t)from->feature_count);
    else TRY(unite_features(in, input, view, m, hgnc));
    in->modalities[m].entry_count += from->entry_count;
done:
    return st;
}

static enum status take_input(struct ingest_inputs *in, struct ingest_input *input, const struct hgnc *hgnc)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(input->view, MODALITIES_MAX));
    TRY(NEW_ARRAY(input->feature, MODALITIES_MAX));
    TRY(NEW_ARRAY(input->measured, MODALITIES_MAX));
    TRY(NEW_ARRAY(input->digest, MODALITIES_MAX));
    for (int m = 0; m < MODALITIES_MAX; m++) input->view[m] = -1;
    for (int v = 0; v < source_modality_count(input->source); v++) TRY(take_features(in, input, v, hgnc));
done:
    return st;
}

/* Once the union is complete: which of its features each input measured. */
static enum status mark_measured(struct ingest_inputs *in)
{
    enum status st = ST_OK;
    for (int i = 0; i < in->count; i++)
        for (int m = 0; m < in->modality_count; m++) {
            struct ingest_input *input = &in->inputs[i];
            if (input->view[m] < 0) continue;
            TRY(NEW_ARRAY(input->measured[m], in->modalities[m].features.count));
            int64_t n = source_modality(input->source, input->view[m])->feature_count;
            for (int64_t f = 0; f < n; f++) input->measured[m][input->feature[m][f]] = 1;
        }
done:
    return st;
}

static enum status need_counts(const struct config *config, const struct ingest_input *input)
{
    if (!config_bool(config, "ingest.need_counts")) return ST_OK;
    for (int v = 0; v < source_modality_count(input->source); v++) {
        const struct source_modality *m = source_modality(input->source, v);
        if (m->kind != VALUE_COUNTS && m->kind != VALUE_BINARY)
            return fail(ST_INPUT,
                        "%s: '%s' holds %s values (%s) where counts are needed; name the matrix of counts with "
                        "--counts, or leave "
                        "ingest.need_counts off",
                        source_path(input->source), m->taken, value_kind_word(m->kind), m->why);
    }
    return ST_OK;
}

/* ---- all of it ---- */

/* This rank's rows of one input. Local. */
static enum status scan_rows(struct ingest_input *input)
{
    enum status st = ST_OK;
    free(input->sizes);
    TRY(NEW_ARRAY(input->sizes, (int64_t)source_modality_count(input->source) * (input->my_count + 1)));
    TRY(source_scan_rows(input->source, input->my_first, input->my_count, input->sizes));
    source_rest(input->source);
done:
    return st;
}

static enum status agree_on_scan(struct comm *comm, const struct config *config, struct ingest_inputs *in,
                                 struct ingest_input *input)
{
    enum status st = ST_OK;
    for (bool again = true; again;) {
        TRY(source_scan_agree(comm, input->source, &again));
        if (again) TRY(comm_agree(comm, scan_rows(input)));
    }
    TRY(comm_agree(comm, keep_tables(in, input))); /* of another place, if it turned to one */
    TRY(comm_agree(comm, need_counts(config, input)));
done:
    return st;
}

static enum status make_spool(const struct config *config, struct ingest_inputs *in)
{
    const char *out = config_text(config, "run.out");
    in->spool = text_format("%s.spool", out);
    return text_make_folder(in->spool);
}

static enum status open_all(struct comm *comm, const struct config *config, struct ingest_inputs *in)
{
    enum status st = ST_OK;
    const char *const *paths = config_list(config, "run.input", &in->count);
    if (in->count == 0)
        return comm_agree(comm, fail(ST_USAGE, "no input; give .h5ad or 10x .h5 files or 10x folders, see --help"));
    TRY(comm_agree(comm, NEW_ARRAY(in->inputs, in->count)));
    struct progress p = progress_start("open", "input", in->count, 0, comm->rank == 0 && in->count > 1);
    for (int i = 0; i < in->count; i++) {
        TRY(open_one(comm, config, paths[i], i, in));
        progress_update(&p, i + 1, NULL, 0);
    }
    progress_finish(&p);
done:
    return st;
}

static enum status scan_all(struct comm *comm, const struct config *config, struct ingest_inputs *in)
{
    enum status st = ST_OK;
    int64_t mine = 0, done = 0;
    for (int i = 0; i < in->count; i++) mine += in->inputs[i].my_count;
    struct progress p = progress_start("scan", "rank0_cells", mine, 0, comm->rank == 0);
    for (int i = 0; i < in->count && st == ST_OK; i++) {
        st = scan_rows(&in->inputs[i]);
        done += in->inputs[i].my_count;
        struct metric rate = {"cells_per_s", (double)done / (clock_s() - p.start_s)};
        if (in->inputs[i].my_count > 0) progress_update(&p, done, &rate, 1);
    }
    progress_finish(&p);
    TRY(comm_agree(comm, st));
    for (int i = 0; i < in->count; i++) TRY(agree_on_scan(comm, config, in, &in->inputs[i]));
done:
    return st;
}

static void free_tables(struct ingest_inputs *in)
{
    for (int t = 0; t < in->table_count; t++) feature_table_free(&in->tables[t].features);
    free(in->tables);
    in->tables = NULL;
    in->table_count = 0;
}

static enum status unite_all(struct ingest_inputs *in, const struct hgnc *hgnc)
{
    enum status st = ST_OK;
    for (int i = 0; i < in->count; i++) TRY(take_input(in, &in->inputs[i], hgnc));
    TRY(mark_measured(in));
    free_tables(in);
done:
    return st;
}

enum status ingest_inputs_open(struct comm *comm, const struct config *config, const struct hgnc *hgnc,
                               struct ingest_inputs *out)
{
    enum status st = ST_OK;
    TRY(comm_agree(comm, comm->rank == 0 ? make_spool(config, out) : ST_OK));
    if (!out->spool) out->spool = text_format("%s.spool", config_text(config, "run.out"));
    TRY(open_all(comm, config, out));
    TRY(comm_agree(comm, cut(comm, out)));
    TRY(scan_all(comm, config, out));
    TRY(comm_agree(comm, unite_all(out, hgnc)));
done:
    return st;
}

static void close_input(struct ingest_input *input, int modalities)
{
    source_close(&input->source);
    for (int m = 0; m < modalities; m++) {
        if (input->feature) free(input->feature[m]);
        if (input->measured) free(input->measured[m]);
    }
    free(input->feature);
    free(input->measured);
    free(input->digest);
    free(input->table);
    free(input->view);
    free(input->sizes);
    free(input->identity);
}

void ingest_inputs_close(struct ingest_inputs *in)
{
    for (int i = 0; in->inputs && i < in->count; i++) close_input(&in->inputs[i], in->modality_count);
    for (int m = 0; m < in->modality_count; m++) {
        free(in->modalities[m].name);
        feature_table_free(&in->modalities[m].features);
        names_destroy(&in->modalities[m].keys);
        identity_report_free(&in->modalities[m].identity);
    }
    free_tables(in);
    free(in->inputs);
    free(in->modalities);
    if (in->spool) rmdir(in->spool); /* empty by now; whoever is last succeeds */
    free(in->spool);
    *in = (struct ingest_inputs){0};
}
