#include "cell/select.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- what an expression is made of ---- */

enum node_type { NODE_ALL, NODE_AND, NODE_OR, NODE_NOT, NODE_COMPARE };
enum compare { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_TRUE };

struct literal {
    char *text; /* as written, without quotes */
    bool quoted, is_number, is_bool;
    double number; /* of a number, or 0/1 of true and false */
};

struct node {
    enum node_type type;
    int left, right; /* nodes; right of AND, OR only */
    enum compare compare;
    int column;             /* of a comparison: number in the list of columns */
    int position;           /* where it stands in the text, from 1 */
    struct literal *values; /* [value_count] */
    int value_count;
};

struct select {
    char *text;
    struct node *nodes;
    int node_count, root;
    char **columns;
    int *column_position;
    int column_count;
};

static const char *const compare_words[] = {"==", "!=", "<", "<=", ">", ">=", "in", ""};

/* ---- tokens ---- */

enum token_type {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_TEXT,
    TOKEN_NUMBER,
    TOKEN_OP,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_BAD
};

struct token {
    enum token_type type;
    const char *start; /* without quotes */
    int length, position;
    bool quoted; /* a name in backquotes: never a word of the language */
};

struct parser {
    struct select *select;
    const char *at;
    struct token token; /* the next one */
    int depth;
};

enum { MAX_DEPTH = 200 };

static bool is_name_char(char c) { return isalnum((unsigned char)c) || (c & 0x80) || c == '_' || c == '.' || c == '-'; }

static void read_quoted(struct parser *p, enum token_type type)
{
    char quote = *p->at++;
    const char *end = strchr(p->at, quote);
    p->token.type = end ? type : TOKEN_BAD;
    p->token.start = p->at;
    p->token.length = (int)(end ? end - p->at : (long)strlen(p->at));
    p->token.quoted = true;
    p->at = end ? end + 1 : p->at + strlen(p->at);
}

static int operator_length(const char *s)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
        if (strncmp(s, ops[k], strlen(ops[k])) == 0) return (int)strlen(ops[k]);
    return 0;
}

/* A word is a number if it begins like one: "-3", "1e-5", ".5". */
static bool begins_number(const char *s)
{
    if (*s == '-' || *s == '+') s++;
    if (*s == '.') s++;
    return isdigit((unsigned char)*s);
}

static void read_word(struct parser *p)
{
    bool number = begins_number(p->at);
    const char *end = p->at;
    if (*end == '+') end++;
    while (is_name_char(*end) || (number && *end == '+' && (end[-1] == 'e' || end[-1] == 'E'))) end++;
    p->token.type = end == p->at ? TOKEN_BAD : number ? TOKEN_NUMBER : TOKEN_NAME;
    if (end == p->at) end++;
    p->token.length = (int)(end - p->at);
    p->at = end;
}

static void advance(struct parser *p)
{
    while (isspace((unsigned char)*p->at)) p->at++;
    p->token = (struct token){.start = p->at, .length = 1, .position = (int)(p->at - p->select->text) + 1};
    int op = operator_length(p->at);
    switch (*p->at) {
    case '\0':
        p->token.type = TOKEN_END;
        p->token.length = 0;
        return;
    case '(': p->token.type = TOKEN_OPEN; break;
    case ')': p->token.type = TOKEN_CLOSE; break;
    case ',': p->token.type = TOKEN_COMMA; break;
    case '\'':
    case '"': read_quoted(p, TOKEN_TEXT); return;
    case '`': read_quoted(p, TOKEN_NAME); return;
    default:
        if (op == 0) {
            read_word(p);
            return;
        }
        p->token.type = TOKEN_OP;
        p->token.length = op;
    }
    p->at += p->token.length;
}

static bool token_is(const struct parser *p, enum token_type type, const char *word)
{
    return p->token.type == type && !p->token.quoted && strlen(word) == (size_t)p->token.length &&
           strncmp(p->token.start, word, (size_t)p->token.length) == 0;
}

static enum status unexpected(const struct parser *p, const char *expected)
{
    if (p->token.type == TOKEN_END)
        return fail(ST_CONFIG, "cells: the expression ends where %s is expected: %s", expected, p->select->text);
    if (p->token.type == TOKEN_BAD && p->token.quoted)
        return fail(ST_CONFIG, "cells: the quote at character %d is not closed: %s", p->token.position,
                    p->select->text);
    return fail(ST_CONFIG, "cells: found '%.*s' at character %d where %s is expected: %s", p->token.length,
                p->token.start, p->token.position, expected, p->select->text);
}

/* ---- grammar ---- */

static enum status add_node(struct parser *p, struct node node, int *out)
{
    struct select *s = p->select;
    struct node *more = realloc(s->nodes, sizeof *more * (size_t)(s->node_count + 1));
    if (!more) return fail(ST_MEMORY, "no memory for the expression");
    s->nodes = more;
    s->nodes[ *out = s->node_count++] = node;
    return ST_OK;
}

/* Number of a column in the list, added when new. */
static enum status add_column(struct parser *p, int *out)
{
    struct select *s = p->select;
    char *name = text_format("%.*s", p->token.length, p->token.start);
    for (int k = 0; k < s->column_count; k++)
        if (strcmp(s->columns[k], name) == 0) {
            free(name);
            *out = k;
            return ST_OK;
        }
    char **names = realloc(s->columns, sizeof *names * (size_t)(s->column_count + 1));
    if (names) s->columns = names;
    int *positions = realloc(s->column_position, sizeof *positions * (size_t)(s->column_count + 1));
    if (positions) s->column_position = positions;
    if (!names || !positions) {
        free(name);
        return fail(ST_MEMORY, "no memory for the expression");
    }
    s->columns[s->column_count] = name;
    s->column_position[s->column_count] = p->token.position;
    *out = s->column_count++;
    return ST_OK;
}

static enum status parse_literal(struct parser *p, struct node *node)
{
    bool is_true = token_is(p, TOKEN_NAME, "true"), is_false = token_is(p, TOKEN_NAME, "false");
    bool number = p->token.type == TOKEN_NUMBER;
    if (p->token.type != TOKEN_TEXT && !number && !is_true && !is_false)
        return unexpected(p, "a value ('text' in quotes, a number, true or false)");
    struct literal value = {.text = text_format("%.*s", p->token.length, p->token.start),
                            .quoted = p->token.quoted,
                            .is_number = number,
                            .is_bool = is_true || is_false,
                            .number = is_true};
    if (number && !text_to_real(value.text, &value.number)) {
        free(value.text);
        return unexpected(p, "a number");
    }
    struct literal *more = realloc(node->values, sizeof *more * (size_t)(node->value_count + 1));
    if (!more) {
        free(value.text);
        return fail(ST_MEMORY, "no memory for the expression");
    }
    node->values = more;
    node->values[node->value_count++] = value;
    advance(p);
    return ST_OK;
}

static enum status parse_list(struct parser *p, struct node *node)
{
    enum status st = ST_OK;
    if (p->token.type != TOKEN_OPEN) return unexpected(p, "'(' and a list of values");
    do {
        advance(p);
        TRY(parse_literal(p, node));
    } while (p->token.type == TOKEN_COMMA);
    if (p->token.type != TOKEN_CLOSE) return unexpected(p, "',' or ')'");
    advance(p);
done:
    return st;
}

static void free_values(struct node *node)
{
    for (int k = 0; k < node->value_count; k++) free(node->values[k].text);
    free(node->values);
}

static enum status parse_compare(struct parser *p, int *out)
{
    enum status st = ST_OK;
    struct node node = {.type = NODE_COMPARE, .compare = CMP_TRUE, .position = p->token.position};
    TRY(add_column(p, &node.column));
    advance(p);
    if (token_is(p, TOKEN_NAME, "in")) {
        node.compare = CMP_IN;
        advance(p);
        TRY(parse_list(p, &node));
    } else if (p->token.type == TOKEN_OP) {
        for (int k = CMP_EQ; k <= CMP_GE; k++)
            if (token_is(p, TOKEN_OP, compare_words[k])) node.compare = (enum compare)k;
        advance(p);
        TRY(parse_literal(p, &node));
    }
    TRY(add_node(p, node, out));
done:
    if (st != ST_OK) free_values(&node);
    return st;
}

static enum status parse_or(struct parser *p, int *out);

static enum status parse_factor(struct parser *p, int *out)
{
    enum status st = ST_OK;
    if (++p->depth > MAX_DEPTH)
        return fail(ST_CONFIG, "cells: more than %d parentheses and nots inside each other", MAX_DEPTH);
    if (token_is(p, TOKEN_NAME, "not")) {
        struct node node = {.type = NODE_NOT};
        advance(p);
        TRY(parse_factor(p, &node.left));
        TRY(add_node(p, node, out));
    } else if (p->token.type == TOKEN_OPEN) {
        advance(p);
        TRY(parse_or(p, out));
        if (p->token.type != TOKEN_CLOSE) TRY(unexpected(p, "'and', 'or' or ')'"));
        advance(p);
    } else if (p->token.type == TOKEN_NAME) {
        TRY(parse_compare(p, out));
    } else {
        TRY(unexpected(p, "a column, 'not' or '('"));
    }
    p->depth--;
done:
    return st;
}

/* A chain of one kind of link: factors by `and`, terms by `or`. */
static enum status parse_chain(struct parser *p, const char *word, enum node_type type,
                               enum status (*link)(struct parser *, int *), int *out)
{
    enum status st = ST_OK;
    TRY(link(p, out));
    while (token_is(p, TOKEN_NAME, word)) {
        struct node node = {.type = type, .left = *out};
        advance(p);
        TRY(link(p, &node.right));
        TRY(add_node(p, node, out));
    }
done:
    return st;
}

static enum status parse_and(struct parser *p, int *out) { return parse_chain(p, "and", NODE_AND, parse_factor, out); }
static enum status parse_or(struct parser *p, int *out) { return parse_chain(p, "or", NODE_OR, parse_and, out); }

enum status select_parse(const char *expression, struct select **out)
{
    enum status st = ST_OK;
    struct select *s = NULL;
    struct parser p = {0};
    *out = NULL;
    TRY(NEW_ARRAY(s, 1));
    s->text = text_copy(expression);
    p.select = s;
    p.at = s->text;
    advance(&p);
    if (p.token.type == TOKEN_END) TRY(add_node(&p, (struct node){.type = NODE_ALL}, &s->root));
    else TRY(parse_or(&p, &s->root));
    if (p.token.type != TOKEN_END) TRY(unexpected(&p, "'and' or 'or'"));
    *out = s;
done:
    if (st != ST_OK) select_destroy(&s);
    return st;
}

void select_destroy(struct select **select)
{
    struct select *s = *select;
    if (!s) return;
    for (int k = 0; k < s->node_count; k++) free_values(&s->nodes[k]);
    for (int k = 0; k < s->column_count; k++) free(s->columns[k]);
    free(s->nodes);
    free(s->columns);
    free(s->column_position);
    free(s->text);
    free(s);
    *select = NULL;
}

/* ---- columns ---- */

int select_column_count(const struct select *s) { return s->column_count; }
const char *select_column_name(const struct select *s, int index) { return s->columns[index]; }

enum status select_check_names(const struct select *s, const char *const *names, int count)
{
    for (int k = 0; k < s->column_count; k++) {
        bool found = false;
        for (int j = 0; j < count && !found; j++) found = strcmp(names[j], s->columns[k]) == 0;
        if (found) continue;
        int near = text_nearest(s->columns[k], names, count);
        return fail(ST_CONFIG, "cells: there is no obs column '%s' (character %d)%s%s%s", s->columns[k],
                    s->column_position[k], near < 0 ? "" : "; did you mean '", near < 0 ? "" : names[near],
                    near < 0 ? "" : "'?");
    }
    return ST_OK;
}

/* ---- evaluation ---- */

static bool is_text(const struct column *c) { return c->type == COLUMN_CATEGORY || c->type == COLUMN_TEXT; }

static enum status mismatch(const struct select *s, const struct node *node, const char *why)
{
    return fail(ST_CONFIG, "cells: '%s %s …' at character %d: %s", s->columns[node->column],
                compare_words[node->compare], node->position, why);
}

/* Can this column do this comparison? */
static enum status check_compare(const struct select *s, const struct node *node, const struct column *c)
{
    bool order = node->compare >= CMP_LT && node->compare <= CMP_GE;
    if (node->compare == CMP_TRUE)
        return c->type == COLUMN_BOOL
                   ? ST_OK
                   : mismatch(s, node, "a name alone must be a boolean column; compare it with a value");
    if (order && is_text(c)) return mismatch(s, node, "the column holds text, which has no order; use ==, != or in");
    if (order && c->type == COLUMN_BOOL) return mismatch(s, node, "the column is boolean; use == true or == false");
    for (int k = 0; k < node->value_count; k++) {
        const struct literal *v = &node->values[k];
        if (c->type == COLUMN_BOOL && !v->is_bool)
            return mismatch(s, node, "the column is boolean; compare it with true or false");
        if (!is_text(c) && c->type != COLUMN_BOOL && !v->is_number)
            return mismatch(s, node, "the column holds numbers; compare it with a number");
    }
    return ST_OK;
}

static bool holds(enum compare compare, double x, double y)
{
    switch (compare) {
    case CMP_EQ:
    case CMP_IN: return x == y;
    case CMP_NE: return x != y;
    case CMP_LT: return x < y;
    case CMP_LE: return x <= y;
    case CMP_GT: return x > y;
    case CMP_GE: return x >= y;
    case CMP_TRUE: return x != 0;
    }
    return false;
}

static bool number_matches(const struct node *node, double x)
{
    if (isnan(x)) return false;
    if (node->compare == CMP_TRUE) return x != 0;
    for (int k = 0; k < node->value_count; k++)
        if (holds(node->compare, x, node->values[k].number)) return true;
    return false;
}

static bool text_matches(const struct node *node, const char *x)
{
    if (!x) return false;
    bool equal = false;
    for (int k = 0; k < node->value_count && !equal; k++) equal = strcmp(x, node->values[k].text) == 0;
    return node->compare == CMP_NE ? !equal : equal;
}

/* Integers beyond 2^53 are rare in obs; they compare as the nearest double. */
static double number_at(const struct column *c, int64_t row)
{
    if (c->type == COLUMN_REAL) return c->r[row];
    return c->i[row] == INT64_MIN ? NAN : (double)c->i[row];
}

static enum status compare_column(const struct select *s, const struct node *node, const struct column *c,
                                  int64_t count, uint8_t *keep)
{
    enum status st = check_compare(s, node, c);
    uint8_t *hit = NULL; /* which categories match */
    if (st != ST_OK) return st;
    if (c->type == COLUMN_CATEGORY) {
        TRY(NEW_ARRAY(hit, c->category_count));
        for (int32_t k = 0; k < c->category_count; k++) hit[k] = text_matches(node, c->category[k]);
    }
    for (int64_t i = 0; i < count; i++) {
        if (c->type == COLUMN_CATEGORY) keep[i] = c->code[i] >= 0 && hit[c->code[i]];
        else if (c->type == COLUMN_TEXT) keep[i] = text_matches(node, c->text[i]);
        else keep[i] = number_matches(node, number_at(c, i));
    }
done:
    free(hit);
    return st;
}

static enum status evaluate(const struct select *s, int index, const struct column *columns, int64_t count,
                            uint8_t *keep)
{
    enum status st = ST_OK;
    const struct node *node = &s->nodes[index];
    uint8_t *other = NULL;
    switch (node->type) {
    case NODE_ALL: memset(keep, 1, (size_t)count); break;
    case NODE_COMPARE: TRY(compare_column(s, node, &columns[node->column], count, keep)); break;
    case NODE_NOT:
        TRY(evaluate(s, node->left, columns, count, keep));
        for (int64_t i = 0; i < count; i++) keep[i] = !keep[i];
        break;
    case NODE_AND:
    case NODE_OR:
        TRY(NEW_ARRAY(other, count));
        TRY(evaluate(s, node->left, columns, count, keep));
        TRY(evaluate(s, node->right, columns, count, other));
        for (int64_t i = 0; i < count; i++) keep[i] = node->type == NODE_AND ? keep[i] & other[i] : keep[i] | other[i];
    }
done:
    free(other);
    return st;
}

enum status select_evaluate(const struct select *s, const struct column *columns, int64_t count, uint8_t *keep)
{
    return evaluate(s, s->root, columns, count, keep);
}
