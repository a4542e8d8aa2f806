#include "worker/io/ledger_resp.h"

#define BULK_FRAME_SIZE 26 /* $SIZE\r\n...\r\n */

void ledger_resp_bulks(struct buf *out, const struct str *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)buf_printf(out, "$%zu\r\n", texts[i].size);
        (void)buf_put(out, texts[i].data, texts[i].size);
        (void)buf_put(out, "\r\n", 2);
    }
}

void ledger_resp_head(struct buf *out, size_t count, const char *word, const char *script)
{
    const struct str words[] = {str_of(word), str_of(script)};

    (void)buf_printf(out, "*%zu\r\n", count);
    ledger_resp_bulks(out, words, 2);
}

size_t ledger_resp_size(const struct str *texts, size_t count)
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += texts[i].size + BULK_FRAME_SIZE;
    return size;
}
