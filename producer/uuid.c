#include "producer/uuid.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define UUID_SIZE 36

struct str uuid_new(struct arena *arena, int64_t now_ms)
{
    unsigned char b[16];
    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        abort(); /* up to 256 bytes never come short (getrandom(2)) */
    for (int i = 0; i < 6; i++)
        b[i] = (unsigned char)(now_ms >> (40 - 8 * i));
    b[6] = (unsigned char)(0x70 | (b[6] & 0x0F)); /* version 7 */
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3F)); /* variant of RFC 9562 */
    return arena_printf(arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
                        b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

int64_t uuid_time_ms(struct str id)
{
    static const char *const hex = "0123456789abcdefABCDEF";
    int64_t ms = 0;
    if (id.size != UUID_SIZE || id.data[14] != '7')
        return -1;
    for (size_t i = 0; i < UUID_SIZE; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        const char *digit = strchr(hex, id.data[i]);
        if (dash ? id.data[i] != '-' : digit == NULL || id.data[i] == '\0')
            return -1;
        if (!dash && i < 13)
            ms = ms << 4 | (digit - hex > 15 ? digit - hex - 6 : digit - hex);
    }
    return ms;
}

bool uuid_is_run_id(struct str id)
{
    static const char *const legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return id.size >= 1 && id.size <= 128 && strspn(id.data, legal) == id.size;
}
