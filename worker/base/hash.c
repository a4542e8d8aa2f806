#include "worker/base/hash.h"

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SHA-256 over memory fails only when libcrypto is out of memory or broken: nothing can be trusted after that. */
static void must(int worked)
{
    if (worked != 1) {
        (void)fprintf(stderr, "libcrypto cannot compute SHA-256\n");
        abort();
    }
}

/* Looked up once: to find it by its name costs more than to compute it over a short text. */
static EVP_MD *sha256(void)
{
    static _Atomic(EVP_MD *) known;
    EVP_MD *found = atomic_load(&known), *none = NULL;

    if (found != NULL)
        return found;
    found = EVP_MD_fetch(NULL, "SHA256", NULL);
    must(found != NULL);
    if (atomic_compare_exchange_strong(&known, &none, found))
        return found;
    EVP_MD_free(found); /* another thread was faster */
    return none;
}

static struct str hex(struct arena *arena, const unsigned char *digest)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(arena, HASH_HEX_SIZE + 1);

    for (size_t i = 0; i < HASH_HEX_SIZE / 2; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    return (struct str){text, HASH_HEX_SIZE};
}

static void digest_parts(const struct str *parts, size_t count, unsigned char *digest)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    must(context != NULL && EVP_DigestInit_ex(context, sha256(), NULL) == 1);
    for (size_t i = 0; i < count; i++) {
        unsigned char size[8];

        for (size_t byte = 0; byte < sizeof size; byte++)
            size[byte] = (unsigned char)((uint64_t)parts[i].size >> (56 - 8 * byte));
        must(EVP_DigestUpdate(context, size, sizeof size));
        must(EVP_DigestUpdate(context, parts[i].data, parts[i].size));
    }
    must(EVP_DigestFinal_ex(context, digest, NULL));
    EVP_MD_CTX_free(context);
}

struct str hash_parts(struct arena *arena, const struct str *parts, size_t count)
{
    unsigned char digest[EVP_MAX_MD_SIZE];

    digest_parts(parts, count, digest);
    return hex(arena, digest);
}

struct hash_id hash_id(const struct str *parts, size_t count)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct hash_id id;

    digest_parts(parts, count, digest);
    memcpy(&id, digest, sizeof id);
    return id;
}

struct str hash_sha256(struct arena *arena, struct str bytes)
{
    unsigned char digest[EVP_MAX_MD_SIZE];

    must(EVP_Digest(bytes.data, bytes.size, digest, NULL, sha256(), NULL));
    return hex(arena, digest);
}

void hash_sha256_raw(struct str bytes, unsigned char digest[HASH_SIZE])
{
    must(EVP_Digest(bytes.data, bytes.size, digest, NULL, sha256(), NULL));
}

/* The fingerprint of the empty text, and the polynomial (reflected): Avro 1.11 specification, "Schema Fingerprints". */
#define CRC64_EMPTY UINT64_C(0xc15d213aa4d7a795)

/* What four bits more do to the remainder. Half bytes, because it is run over schemas only, once at start. */
static const uint64_t crc64_table[16] = {
    0x0000000000000000, 0x48d27cf4afc4cedd, 0x91a4f9e95f899dba, 0xd976851df04d5367,
    0xa1f3b1a7f6bc745f, 0xe921cd535978ba82, 0x3057484ea935e9e5, 0x788534ba06f12738,
    0xc15d213aa4d7a795, 0x898f5dce0b136948, 0x50f9d8d3fb5e3a2f, 0x182ba427549af4f2,
    0x60ae909d526bd3ca, 0x287cec69fdaf1d17, 0xf10a69740de24e70, 0xb9d81580a22680ad,
};

uint64_t hash_crc64_avro(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t crc = CRC64_EMPTY;

    for (size_t i = 0; i < size; i++) {
        crc = (crc >> 4) ^ crc64_table[(crc ^ bytes[i]) & 15];
        crc = (crc >> 4) ^ crc64_table[(crc ^ (bytes[i] >> 4)) & 15];
    }
    return crc;
}
