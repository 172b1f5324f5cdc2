#include "base/names.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"

struct slot {
    char *name; /* NULL = empty */
    uint64_t hash;
    int64_t value;
};

struct names {
    struct slot *slots;
    int64_t count, capacity; /* capacity is a power of two, at most half full */
};

static uint64_t hash_name(const char *name) { return hash_block(name, strlen(name), 0); }

/* The slot that holds the name, or the empty one where it belongs. */
static struct slot *slot_of(const struct names *names, const char *name, uint64_t hash)
{
    uint64_t mask = (uint64_t)names->capacity - 1;
    for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
        struct slot *slot = &names->slots[at];
        if (!slot->name || (slot->hash == hash && strcmp(slot->name, name) == 0)) return slot;
    }
}

enum status names_create(struct names **out, int64_t expected)
{
    enum status st = ST_OK;
    struct names *names = NULL;
    TRY(NEW_ARRAY(names, 1));
    names->capacity = 64;
    while (names->capacity < expected * 2) names->capacity *= 2;
    TRY(NEW_ARRAY(names->slots, names->capacity));
    *out = names;
    names = NULL;
done:
    names_destroy(&names);
    return st;
}

void names_destroy(struct names **names)
{
    if (!*names) return;
    for (int64_t i = 0; (*names)->slots && i < (*names)->capacity; i++) free((*names)->slots[i].name);
    free((*names)->slots);
    free(*names);
    *names = NULL;
}

static enum status grow(struct names *names)
{
    enum status st = ST_OK;
    struct names larger = {.count = names->count, .capacity = names->capacity * 2};
    TRY(NEW_ARRAY(larger.slots, larger.capacity));
    for (int64_t i = 0; i < names->capacity; i++)
        if (names->slots[i].name) *slot_of(&larger, names->slots[i].name, names->slots[i].hash) = names->slots[i];
    free(names->slots);
    *names = larger;
done:
    return st;
}

enum status names_add(struct names *names, const char *name, int64_t value, int64_t *held)
{
    enum status st = ST_OK;
    if (names->count * 2 >= names->capacity) TRY(grow(names));
    uint64_t hash = hash_name(name);
    struct slot *slot = slot_of(names, name, hash);
    if (!slot->name) {
        *slot = (struct slot){text_copy(name), hash, value};
        names->count++;
    }
    if (held) *held = slot->value;
done:
    return st;
}

enum status names_set(struct names *names, const char *name, int64_t value)
{
    enum status st = ST_OK;
    TRY(names_add(names, name, value, NULL));
    slot_of(names, name, hash_name(name))->value = value;
done:
    return st;
}

int64_t names_find(const struct names *names, const char *name)
{
    const struct slot *slot = slot_of(names, name, hash_name(name));
    return slot->name ? slot->value : -1;
}

int64_t names_count(const struct names *names) { return names->count; }
