#include "base/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config_keys.h"
#include "base/text.h"

#define INT(n, d, lo, hi, u, h)  {n, KEY_INT, d, lo, hi, NULL, u, h},
#define REAL(n, d, lo, hi, u, h) {n, KEY_REAL, d, lo, hi, NULL, u, h},
#define BOOL(n, d, h)            {n, KEY_BOOL, d, 0, 0, NULL, "", h},
#define WORD(n, d, w, h)         {n, KEY_WORD, d, 0, 0, w, "", h},
#define TEXT(n, d, h)            {n, KEY_TEXT, d, 0, 0, NULL, "", h},
#define LIST(n, d, h)            {n, KEY_LIST, d, 0, 0, NULL, "", h},
const struct config_key config_keys[] = {CONFIG_KEYS(INT, REAL, BOOL, WORD, TEXT, LIST)};
#undef INT
#undef REAL
#undef BOOL
#undef WORD
#undef TEXT
#undef LIST
const int config_key_count = sizeof config_keys / sizeof *config_keys;

struct value {
    char *text; /* as written; list items joined by '\n' */
    int64_t i;
    double r;
    bool b;
    char **items;
    int item_count;
    char *origin; /* "demo.yaml:3:10", "--set"; NULL for a default */
};

struct config {
    struct value *values; /* [config_key_count] */
};

static int key_find(const char *name)
{
    for (int k = 0; k < config_key_count; k++)
        if (strcmp(config_keys[k].name, name) == 0) return k;
    return -1;
}

static void value_clear(struct value *v)
{
    for (int i = 0; i < v->item_count; i++) free(v->items[i]);
    free(v->items);
    free(v->text);
    free(v->origin);
    *v = (struct value){0};
}

static enum status unknown_key(const char *name, const char *origin)
{
    const char **names = malloc(sizeof *names * (size_t)config_key_count);
    for (int k = 0; names && k < config_key_count; k++) names[k] = config_keys[k].name;
    int near = names ? text_nearest(name, names, config_key_count) : -1;
    free(names);
    if (near >= 0)
        return fail(ST_CONFIG, "%s: unknown key '%s'; did you mean '%s'? configs/README.md lists all", origin, name,
                    config_keys[near].name);
    return fail(ST_CONFIG, "%s: unknown key '%s'; configs/README.md lists all keys", origin, name);
}

static enum status parse_number(const struct config_key *key, struct value *v, const char *origin)
{
    bool is_int = key->type == KEY_INT;
    bool good = is_int ? text_to_int(v->text, &v->i) : text_to_real(v->text, &v->r);
    double number = is_int ? (double)v->i : v->r;
    if (good && number >= key->min && number <= key->max) return ST_OK;
    return fail(ST_CONFIG, "%s: %s is '%s'; allowed is %s from %.16g to %.16g%s%s", origin, key->name, v->text,
                is_int ? "a whole number" : "a number", key->min, key->max, *key->unit ? " " : "", key->unit);
}

static enum status parse_bool(const struct config_key *key, struct value *v, const char *origin)
{
    v->b = strcmp(v->text, "true") == 0;
    if (v->b || strcmp(v->text, "false") == 0) return ST_OK;
    return fail(ST_CONFIG, "%s: %s is '%s'; allowed are true and false", origin, key->name, v->text);
}

static enum status parse_word(const struct config_key *key, struct value *v, const char *origin)
{
    size_t length = strlen(v->text);
    for (const char *w = key->words; w; w = strchr(w, '|')) {
        w += *w == '|';
        if (length && strncmp(w, v->text, length) == 0 && (w[length] == '|' || w[length] == '\0')) return ST_OK;
    }
    return fail(ST_CONFIG, "%s: %s is '%s'; allowed is one of %s", origin, key->name, v->text, key->words);
}

/* Lists come as '\n'-joined items (YAML sequence) or one comma-separated text (--set, defaults). */
static void split_list(struct value *v)
{
    const char *separator = strchr(v->text, '\n') ? "\n" : ",";
    char *copy = text_copy(v->text), *save = NULL;
    for (char *item = strtok_r(copy, separator, &save); item; item = strtok_r(NULL, separator, &save)) {
        while (*item == ' ') item++;
        char *end = item + strlen(item);
        while (end > item && end[-1] == ' ') *--end = '\0';
        if (!*item) continue;
        char **items = realloc(v->items, sizeof *items * (size_t)(v->item_count + 1));
        if (!items) abort();
        v->items = items;
        v->items[v->item_count++] = text_copy(item);
    }
    free(copy);
}

static enum status value_set(struct config *config, int k, const char *text, const char *origin)
{
    const struct config_key *key = &config_keys[k];
    struct value v = {.text = text_copy(text), .origin = origin ? text_copy(origin) : NULL};
    const char *from = origin ? origin : "default";
    enum status st = ST_OK;
    switch (key->type) {
    case KEY_INT:
    case KEY_REAL: st = parse_number(key, &v, from); break;
    case KEY_BOOL: st = parse_bool(key, &v, from); break;
    case KEY_WORD: st = parse_word(key, &v, from); break;
    case KEY_LIST: split_list(&v); break;
    case KEY_TEXT: break;
    }
    if (st == ST_OK) {
        value_clear(&config->values[k]);
        config->values[k] = v;
    } else {
        value_clear(&v);
    }
    return st;
}

enum status config_create(struct config **out)
{
    enum status st = ST_OK;
    struct config *config = NULL;
    TRY(NEW_ARRAY(config, 1));
    TRY(NEW_ARRAY(config->values, config_key_count));
    for (int k = 0; k < config_key_count; k++) TRY(value_set(config, k, config_keys[k].fallback, NULL));
    *out = config;
    config = NULL;
done:
    config_destroy(&config);
    return st;
}

void config_destroy(struct config **config)
{
    if (!*config) return;
    for (int k = 0; (*config)->values && k < config_key_count; k++) value_clear(&(*config)->values[k]);
    free((*config)->values);
    free(*config);
    *config = NULL;
}

enum status config_put(struct config *config, const char *name, const char *value, const char *origin)
{
    int k = key_find(name);
    return k < 0 ? unknown_key(name, origin) : value_set(config, k, value, origin);
}

enum status config_set(struct config *config, const char *assignment, const char *origin)
{
    const char *equals = strchr(assignment, '=');
    if (!equals) return fail(ST_CONFIG, "%s: '%s' has no '='; write section.key=value", origin, assignment);
    char *name = text_copy(assignment);
    name[equals - assignment] = '\0';
    enum status st = config_put(config, name, equals + 1, origin);
    free(name);
    return st;
}

/* ---- YAML: a map of sections, each a map of keys to a scalar or a list of scalars ---- */

static void node_origin(const char *path, const yaml_node_t *node, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s:%zu:%zu", path, node->start_mark.line + 1, node->start_mark.column + 1);
}

static const char *scalar_text(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static enum status read_sequence(yaml_document_t *doc, const yaml_node_t *node, struct text *out, const char *origin)
{
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const char *word = scalar_text(yaml_document_get_node(doc, *item));
        if (!word) return fail(ST_CONFIG, "%s: a list may hold only plain values", origin);
        text_add(out, "%s\n", word);
    }
    return ST_OK;
}

static enum status read_entry(struct config *config, yaml_document_t *doc, const char *path, const char *section,
                              const yaml_node_pair_t *pair)
{
    enum status st = ST_OK;
    const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
    const yaml_node_t *value = yaml_document_get_node(doc, pair->value);
    char origin[512], key_origin[512], name[256];
    struct text list = {0};
    node_origin(path, value, origin, sizeof origin);
    node_origin(path, key, key_origin, sizeof key_origin);
    if (!scalar_text(key)) return fail(ST_CONFIG, "%s: a key must be a word", key_origin);
    snprintf(name, sizeof name, "%s.%s", section, scalar_text(key));
    int k = key_find(name);
    if (k < 0) return unknown_key(name, key_origin);
    if (value->type == YAML_SEQUENCE_NODE && config_keys[k].type == KEY_LIST) {
        TRY(read_sequence(doc, value, &list, origin));
        TRY(value_set(config, k, list.data ? list.data : "", origin));
    } else if (scalar_text(value)) {
        TRY(value_set(config, k, scalar_text(value), origin));
    } else {
        TRY(fail(ST_CONFIG, "%s: %s holds a %s where a plain value is needed", origin, name,
                 value->type == YAML_SEQUENCE_NODE ? "list" : "map"));
    }
done:
    text_free(&list);
    return st;
}

static enum status read_section(struct config *config, yaml_document_t *doc, const char *path,
                                const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
    const yaml_node_t *value = yaml_document_get_node(doc, pair->value);
    char origin[512];
    node_origin(path, key, origin, sizeof origin);
    if (!scalar_text(key)) return fail(ST_CONFIG, "%s: a section must be a word", origin);
    if (value->type != YAML_MAPPING_NODE)
        return fail(ST_CONFIG, "%s: '%s' must be a section with keys below it, such as 'train:'", origin,
                    scalar_text(key));
    enum status st = ST_OK;
    for (yaml_node_pair_t *p = value->data.mapping.pairs.start; st == ST_OK && p < value->data.mapping.pairs.top; p++)
        st = read_entry(config, doc, path, scalar_text(key), p);
    return st;
}

static enum status read_document(struct config *config, yaml_parser_t *parser, const char *path)
{
    yaml_document_t doc;
    if (!yaml_parser_load(parser, &doc))
        return fail(ST_CONFIG, "%s:%zu:%zu: not YAML: %s", path, parser->problem_mark.line + 1,
                    parser->problem_mark.column + 1, parser->problem ? parser->problem : "unreadable");
    enum status st = ST_OK;
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root && root->type != YAML_MAPPING_NODE)
        st = fail(ST_CONFIG, "%s:1:1: the file must hold sections, such as 'train:'", path);
    for (yaml_node_pair_t *p = root && st == ST_OK ? root->data.mapping.pairs.start : NULL;
         p && st == ST_OK && p < root->data.mapping.pairs.top; p++)
        st = read_section(config, &doc, path, p);
    yaml_document_delete(&doc);
    return st;
}

enum status config_read(struct config *config, const char *path)
{
    yaml_parser_t parser;
    FILE *file = fopen(path, "rb");
    if (!file) return fail(ST_CONFIG, "%s: cannot be opened: %s", path, strerror(errno));
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return fail(ST_MEMORY, "no memory to read %s", path);
    }
    yaml_parser_set_input_file(&parser, file);
    enum status st = read_document(config, &parser, path);
    yaml_parser_delete(&parser);
    fclose(file);
    return st;
}

/* ---- values ---- */

static const struct value *value_of(const struct config *config, const char *name, enum key_type type)
{
    int k = key_find(name);
    bool textual = k >= 0 && type == KEY_TEXT && config_keys[k].type == KEY_WORD;
    if (k < 0 || (config_keys[k].type != type && !textual)) {
        fprintf(stderr, "config: '%s' is not a key of this type in config_keys.h\n", name);
        abort();
    }
    return &config->values[k];
}

int64_t config_int(const struct config *c, const char *name) { return value_of(c, name, KEY_INT)->i; }
double config_real(const struct config *c, const char *name) { return value_of(c, name, KEY_REAL)->r; }
bool config_bool(const struct config *c, const char *name) { return value_of(c, name, KEY_BOOL)->b; }

const char *config_text(const struct config *c, const char *name) { return value_of(c, name, KEY_TEXT)->text; }

bool config_word_is(const struct config *c, const char *name, const char *word)
{
    return strcmp(value_of(c, name, KEY_WORD)->text, word) == 0;
}

const char *const *config_list(const struct config *c, const char *name, int *count)
{
    const struct value *v = value_of(c, name, KEY_LIST);
    *count = v->item_count;
    return (const char *const *)v->items;
}

enum status config_written(const struct config *config, const char *name, const char **text)
{
    int k = key_find(name);
    if (k < 0) return unknown_key(name, "command line");
    *text = config->values[k].text;
    return ST_OK;
}

bool config_is_given(const struct config *config, const char *name)
{
    int k = key_find(name);
    return k >= 0 && config->values[k].origin;
}

enum status config_fail(const struct config *config, const char *name, const char *format, ...)
{
    int k = key_find(name);
    const char *origin = k >= 0 && config->values[k].origin ? config->values[k].origin : "default";
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(ST_CONFIG, "%s: %s is '%s'; %s", origin, name, k >= 0 ? config->values[k].text : "", text);
}

/* ---- writing ---- */

static void add_quoted(struct text *out, const char *text)
{
    text_add_bytes(out, "'", 1);
    for (; *text; text++) {
        if (*text == '\'') text_add_bytes(out, "'", 1);
        text_add_bytes(out, text, 1);
    }
    text_add_bytes(out, "'", 1);
}

static void add_value(struct text *out, const struct config_key *key, const struct value *v)
{
    if (key->type == KEY_LIST) {
        text_add(out, "[");
        for (int i = 0; i < v->item_count; i++) {
            if (i) text_add(out, ", ");
            add_quoted(out, v->items[i]);
        }
        text_add(out, "]");
    } else if (key->type == KEY_TEXT) {
        add_quoted(out, v->text);
    } else {
        text_add(out, "%s", v->text);
    }
}

/* Length of the section part of a key's name. */
static int section_length(const char *name) { return (int)(strchr(name, '.') - name); }

static bool starts_section(int k)
{
    int n = section_length(config_keys[k].name);
    return k == 0 || strncmp(config_keys[k].name, config_keys[k - 1].name, (size_t)n + 1) != 0;
}

/* Does the list name the key, or its section? */
static bool names_key(const char *sections, const char *key)
{
    for (const char *s = sections; *s; s += strcspn(s, " "), s += strspn(s, " ")) {
        int n = (int)strcspn(s, " ");
        if ((n == section_length(key) || n == (int)strlen(key)) && strncmp(s, key, (size_t)n) == 0) return true;
    }
    return false;
}

char *config_yaml(const struct config *config, const char *sections)
{
    struct text out = {0};
    const char *open = ""; /* a key of the section being written */
    text_add(&out, "%s", "");
    for (int k = 0; k < config_key_count; k++) {
        const struct config_key *key = &config_keys[k];
        int n = section_length(key->name);
        if (sections && !names_key(sections, key->name)) continue;
        if (strncmp(open, key->name, (size_t)n + 1) != 0) text_add(&out, "%.*s:\n", n, key->name);
        open = key->name;
        text_add(&out, "  %s: ", key->name + n + 1);
        add_value(&out, key, &config->values[k]);
        text_add(&out, "\n");
    }
    return out.data;
}

static void write_reference_row(const struct config_key *key, FILE *file)
{
    static const char *const type[] = {"whole number", "number", "true/false", "word", "text", "list"};
    fprintf(file, "| `%s` | %s", key->name, type[key->type]);
    if (key->type == KEY_INT || key->type == KEY_REAL)
        fprintf(file, ", %.6g to %.6g%s%s", key->min, key->max, *key->unit ? " " : "", key->unit);
    if (key->words) {
        fputs(": ", file);
        for (const char *w = key->words; *w; w++) fputs(*w == '|' ? ", " : (char[]){*w, 0}, file);
    }
    fprintf(file, " | %s%s%s | %s |\n", *key->fallback ? "`" : "", key->fallback, *key->fallback ? "`" : "", key->help);
}

void config_write_reference(FILE *file)
{
    fputs("# Configuration reference\n\n"
          "Generated from the key table (`src/base/config_keys.h`) by `make configs/README.md`.\n"
          "Give a key in a YAML file (`section:` and below it `key: value`), or on the command line as\n"
          "`--set section.key=value`. Later files win over earlier ones and `--set` over files. Counts may\n"
          "be written `1e6`; lists as YAML lists or comma-separated.\n",
          file);
    for (int k = 0; k < config_key_count; k++) {
        if (starts_section(k))
            fprintf(file, "\n## %.*s\n\n| key | kind | default | meaning |\n|---|---|---|---|\n",
                    section_length(config_keys[k].name), config_keys[k].name);
        write_reference_row(&config_keys[k], file);
    }
    fputs("\n## Environment\n\n"
          "| variable | meaning |\n|---|---|\n"
          "| `CYTOMILL_SHARE` | Folder with `configs/genes/...`, looked at before the places beside the programs. |\n"
          "| `CYTOMILL_DATA` | Folder of data that does not ship, such as CellFM's gene tables. |\n"
          "| `CYTOMILL_OVERSUBSCRIBE` | Set to anything: as `run.oversubscribe`, for whole test and benchmark runs. |\n"
          "| `CYTOMILL_PROGRESS_S` | Seconds between progress lines of a log; 10. |\n"
          "| `CYTOMILL_WHERE` | Set to anything: below an error, the source line that found it. |\n"
          "| `OMP_NUM_THREADS` | Threads of a rank where `run.threads` is 0. |\n",
          file);
}
