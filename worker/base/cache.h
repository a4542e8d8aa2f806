/*
 * cache.h: bytes by the SHA-256 of them, up to a stated size; what was not asked for longest goes first. One thread.
 */
#ifndef MYELIN_BASE_CACHE_H
#define MYELIN_BASE_CACHE_H

#include "worker/base/bytes.h"
#include "worker/base/hash.h"

struct cache;

struct cache *cache_new(size_t size_max);
void cache_free(struct cache *cache); /* NULL is fine */

/* Copies. What is larger than the whole cache is not kept. */
void cache_put(struct cache *cache, const unsigned char digest[HASH_SIZE], struct str value);

/* Borrowed until the next cache_put; STR_NONE = not there. */
struct str cache_get(struct cache *cache, const unsigned char digest[HASH_SIZE]);

#endif
