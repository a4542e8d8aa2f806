/* The bodies in memory: those that can be read back in one list of all keepers, the others in a list of their keeper. */
#include <string.h>

#include "worker/base/mem.h"
#include "worker/core/keeper_internal.h"

struct keeper_bodies {
    size_t size_max, size; /* with what a body costs beside its bytes */
    int64_t last_ticket;
    uint64_t pass;          /* ends with a trim */
    struct body_list loose; /* the least recently used first */
};

struct keeper_bodies *keeper_bodies_new(size_t size_max)
{
    struct keeper_bodies *bodies = mem_new(sizeof(*bodies));
    *bodies = (struct keeper_bodies){.size_max = size_max, .pass = 1};
    return bodies;
}

void keeper_bodies_free(struct keeper_bodies *bodies)
{
    mem_free(bodies);
}

size_t keeper_bodies_size(const struct keeper_bodies *bodies)
{
    return bodies->size;
}

static void add(struct body_list *list, struct body *body)
{
    body->before = list->last;
    body->after = NULL;
    if (list->last != NULL)
        list->last->after = body;
    else
        list->first = body;
    list->last = body;
}

static void take_out(struct body_list *list, const struct body *body)
{
    if (body->before != NULL)
        body->before->after = body->after;
    else
        list->first = body->after;
    if (body->after != NULL)
        body->after->before = body->before;
    else
        list->last = body->before;
}

static size_t cost(const struct body *body)
{
    return sizeof(*body) + body->size + 1;
}

struct body *keeper_body_add(struct keeper *keeper, struct kept *kept, struct str bytes, int64_t offset)
{
    struct keeper_bodies *bodies = keeper->bodies;
    struct body *body = mem_new(sizeof(*body) + bytes.size + 1);
    *body = (struct body){.of = kept, .offset = offset, .pass = bodies->pass, .size = bytes.size};
    memcpy(body->bytes, bytes.data, bytes.size);
    if (offset < 0)
        body->ticket = ++bodies->last_ticket;
    add(body->ticket != 0 ? &keeper->pinned : &bodies->loose, body);
    bodies->size += cost(body);
    kept->row.body = body;
    kept->in_memory = true;
    return body;
}

void keeper_body_drop(struct keeper *keeper, struct kept *kept)
{
    if (!kept->in_memory)
        return;
    struct body *body = kept->row.body;
    take_out(body->ticket != 0 ? &keeper->pinned : &keeper->bodies->loose, body);
    keeper->bodies->size -= cost(body);
    kept->in_memory = false;
    kept->row.offset = -1;
    mem_free(body);
}

void keeper_body_use(struct keeper *keeper, struct body *body)
{
    body->pass = keeper->bodies->pass;
    if (body->ticket != 0)
        return;
    take_out(&keeper->bodies->loose, body);
    add(&keeper->bodies->loose, body);
}

void keeper_body_unpin(struct keeper *keeper, struct body *body, int64_t offset)
{
    take_out(&keeper->pinned, body);
    body->ticket = 0;
    body->offset = offset;
    add(&keeper->bodies->loose, body);
}

void keeper_bodies_trim(struct keeper_bodies *bodies)
{
    struct body *body;
    while (bodies->size > bodies->size_max && (body = bodies->loose.first) != NULL && body->pass != bodies->pass) {
        take_out(&bodies->loose, body);
        bodies->size -= cost(body);
        body->of->in_memory = false;
        body->of->row.offset = body->offset;
        mem_free(body);
    }
    bodies->pass++;
}
