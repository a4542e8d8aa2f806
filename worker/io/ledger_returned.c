#include "worker/io/ledger_returned.h"

static struct str reply_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, reply->len} : STR("");
}

static int64_t reply_number(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
}

bool ledger_returned_read(const redisReply *reply, struct ledger_returned *returned)
{
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 5)
        return false;
    *returned = (struct ledger_returned){
        .verdict = reply_text(reply->element[0]),
        .fence = reply_number(reply->element[1]),
        .wait_ms = reply_number(reply->element[2]),
        .incarnation = reply_text(reply->element[3]),
        .text = reply_text(reply->element[4]),
    };
    return true;
}
