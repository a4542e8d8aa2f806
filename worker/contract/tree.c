#include "worker/contract/tree.h"

#include <stdlib.h>
#include <string.h>

struct builder {
    struct arena *arena;
    const int32_t *lines;
    size_t lines_count, lines_at;
    int32_t line; /* when `lines` is NULL: of every value */
};

static struct node *build(struct builder *b, struct node *parent, json_t *json);

static int compare_keys(const void *a, const void *b)
{
    const struct node *const *x = a, *const *y = b;
    return str_compare((*x)->key, (*y)->key);
}

static void sort_members(struct arena *arena, struct node *group)
{
    struct node **members = ARENA_ARRAY(arena, group->count + 1, struct node *);
    size_t count = 0;
    for (struct node *child = group->first; child != NULL; child = child->next)
        members[count++] = child;
    qsort(members, count, sizeof(struct node *), compare_keys);
    for (size_t i = 0; i < count; i++)
        members[i]->next = members[i + 1]; /* the last is NULL */
    group->first = members[0];
}

static struct node *build_child(struct builder *b, struct node *parent, json_t *json)
{
    int32_t line = b->line;
    if (b->lines_at < b->lines_count)
        line = b->lines[b->lines_at++];
    struct node *child = build(b, parent, json);
    child->line = line;
    child->index = parent->count++;
    return child;
}

static struct node *build(struct builder *b, struct node *parent, json_t *json)
{
    struct node *node = ARENA_NEW(b->arena, struct node);
    node->parent = parent;
    node->json = json;
    struct node **last = &node->first;
    const char *key;
    size_t index;
    json_t *value;
    json_object_foreach(json, key, value) {
        *last = build_child(b, node, value);
        (*last)->key = arena_str(b->arena, str_of(key));
        last = &(*last)->next;
    }
    json_array_foreach(json, index, value) {
        *last = build_child(b, node, value);
        last = &(*last)->next;
    }
    if (json_is_object(json))
        sort_members(b->arena, node);
    return node;
}

struct node *tree_build(struct arena *arena, json_t *json, const int32_t *lines, size_t lines_count)
{
    struct builder b = {.arena = arena, .lines = lines, .lines_count = lines_count};
    return build(&b, NULL, json);
}

size_t tree_size(const struct node *node)
{
    size_t size = node->count;
    for (const struct node *child = node->first; child != NULL; child = child->next)
        size += tree_size(child);
    return size;
}

struct node *tree_member(const struct node *group, const char *key)
{
    for (struct node *child = group != NULL ? group->first : NULL; child != NULL; child = child->next)
        if (str_is(child->key, key))
            return child;
    return NULL;
}

void tree_replace(struct arena *arena, struct node *node, json_t *json)
{
    json_object_setn_new(node->parent->json, node->key.data, node->key.size, json);
    struct builder b = {.arena = arena, .line = node->line};
    struct node *fresh = build(&b, node->parent, json);
    node->json = json;
    node->first = fresh->first;
    node->count = fresh->count;
    for (struct node *child = node->first; child != NULL; child = child->next)
        child->parent = node;
}

struct str tree_path(struct arena *arena, const struct node *node)
{
    if (node->parent == NULL)
        return STR("");
    struct str above = tree_path(arena, node->parent);
    if (node->key.data == NULL)
        return arena_printf(arena, "%.*s[%zu]", STR_ARG(above), node->index);
    return arena_printf(arena, "%.*s%s%.*s", STR_ARG(above), above.size > 0 ? "." : "", STR_ARG(node->key));
}

const struct node *tree_find(const struct node *node, const char *path)
{
    while (*path != '\0') {
        size_t size = strcspn(path, ".[");
        const struct node *child = node->first;
        if (*path == '[') {
            size_t index = strtoul(path + 1, NULL, 10);
            while (child != NULL && child->index != index)
                child = child->next;
            size = strcspn(path, "]") + 1;
        } else {
            while (child != NULL && !str_equal(child->key, (struct str){.data = path, .size = size}))
                child = child->next;
        }
        if (child == NULL)
            return node;
        node = child;
        path += size < strlen(path) ? size : strlen(path);
        path += *path == '.';
    }
    return node;
}

struct str tree_text(const struct node *node)
{
    if (node == NULL || !json_is_string(node->json))
        return STR_NONE;
    return (struct str){.data = json_string_value(node->json), .size = json_string_length(node->json)};
}
