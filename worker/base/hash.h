/*
 * hash.h: SHA-256 (FIPS 180-4, by libcrypto) and CRC-64-AVRO (Avro 1.11 specification, "Schema Fingerprints").
 */
#ifndef MYELIN_BASE_HASH_H
#define MYELIN_BASE_HASH_H

#include <stdint.h>

#include "worker/base/arena.h"

#define HASH_HEX_SIZE 64

/* Lower-case hex of the SHA-256 of the parts, each preceded by its size (8 bytes, big-endian), so that ("ab","c") and
 * ("a","bc") differ. In the arena. */
struct str hash_parts(struct arena *arena, const struct str *parts, size_t count);

/* The first 16 bytes of that SHA-256: a name for what is looked up in memory. */
struct hash_id {
    uint64_t halves[2];
};
struct hash_id hash_id(const struct str *parts, size_t count);

/* Lower-case hex of the SHA-256 of the bytes alone (what `sha256sum` prints). In the arena. */
struct str hash_sha256(struct arena *arena, struct str bytes);

#define HASH_SIZE 32
void hash_sha256_raw(struct str bytes, unsigned char digest[HASH_SIZE]);

uint64_t hash_crc64_avro(const void *data, size_t size);

#endif
