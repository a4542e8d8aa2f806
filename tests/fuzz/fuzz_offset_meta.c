/* Metadata of a committed offset, which anybody with access to the group may have written: what is accepted is exactly what we
 * write, or nothing. */
#include <stdlib.h>
#include <string.h>

#include "worker/io/offset_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct offset_meta meta;
    struct error error = {.class = ERROR_NONE};
    char text[OFFSET_META_TEXT_SIZE];
    struct str given = {(const char *)data, size};
    if (!offset_meta_read(given, 7, &meta, &error)) {
        if (error.class != ERROR_POISON || error.text[0] == '\0')
            abort();
        return 0;
    }
    offset_meta_write(&meta, 7, text);
    if (size > 0 && data[size - 1] == '\0')
        given.size--;
    if (given.size > 0 && (given.size != strlen(text) || memcmp(given.data, text, given.size) != 0))
        abort();
    return 0;
}
