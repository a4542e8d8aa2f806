#include "worker/base/cache.h"

#include <string.h>

#include "worker/base/mem.h"

#define BUCKETS_COUNT_MIN ((size_t)1024)

struct entry {
    struct entry *beside;        /* in the same bucket */
    struct entry *newer, *older; /* by when it was asked for */
    unsigned char digest[HASH_SIZE];
    size_t size;
    char bytes[]; /* and a NUL */
};

struct cache {
    struct entry **buckets;
    size_t buckets_count; /* a power of two */
    size_t count;
    struct entry *newest, *oldest;
    size_t size, size_max;
};

struct cache *cache_new(size_t size_max)
{
    struct cache *cache = mem_new(sizeof *cache);
    *cache = (struct cache){.buckets = mem_new(BUCKETS_COUNT_MIN * sizeof(struct entry *)),
                            .buckets_count = BUCKETS_COUNT_MIN,
                            .size_max = size_max};
    return cache;
}

/* Any bytes of a digest are as good as others. */
static struct entry **bucket_of(const struct cache *cache, const unsigned char *digest)
{
    size_t hash;
    memcpy(&hash, digest, sizeof hash);
    return &cache->buckets[hash & (cache->buckets_count - 1)];
}

static struct entry **find(const struct cache *cache, const unsigned char *digest)
{
    struct entry **link = bucket_of(cache, digest);
    while (*link != NULL && memcmp((*link)->digest, digest, HASH_SIZE) != 0)
        link = &(*link)->beside;
    return link;
}

static void unlist(struct cache *cache, struct entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void list(struct cache *cache, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest != NULL ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void drop(struct cache *cache, struct entry *entry)
{
    *find(cache, entry->digest) = entry->beside;
    unlist(cache, entry);
    cache->size -= entry->size;
    cache->count--;
    mem_free(entry);
}

void cache_free(struct cache *cache)
{
    if (cache == NULL)
        return;
    while (cache->oldest != NULL)
        drop(cache, cache->oldest);
    mem_free(cache->buckets);
    mem_free(cache);
}

static void grow(struct cache *cache)
{
    struct entry **small = cache->buckets;
    mem_free(small);
    cache->buckets_count *= 2;
    cache->buckets = mem_new(cache->buckets_count * sizeof(struct entry *));
    for (struct entry *entry = cache->newest; entry != NULL; entry = entry->older) {
        struct entry **bucket = bucket_of(cache, entry->digest);
        entry->beside = *bucket;
        *bucket = entry;
    }
}

void cache_put(struct cache *cache, const unsigned char digest[HASH_SIZE], struct str value)
{
    if (value.size > cache->size_max || cache_get(cache, digest).data != NULL)
        return;
    while (cache->size + value.size > cache->size_max)
        drop(cache, cache->oldest);
    if (cache->count == cache->buckets_count)
        grow(cache);
    struct entry *entry = mem_new(sizeof *entry + value.size + 1);
    memcpy(entry->digest, digest, HASH_SIZE);
    memcpy(entry->bytes, value.data, value.size);
    entry->size = value.size;
    struct entry **bucket = bucket_of(cache, digest);
    entry->beside = *bucket;
    *bucket = entry;
    list(cache, entry);
    cache->size += value.size;
    cache->count++;
}

struct str cache_get(struct cache *cache, const unsigned char digest[HASH_SIZE])
{
    struct entry *entry = *find(cache, digest);
    if (entry == NULL)
        return STR_NONE;
    unlist(cache, entry);
    list(cache, entry);
    return (struct str){entry->bytes, entry->size};
}
