/* The partitions that are ours, by rising tenure. */
#include <string.h>

#include "worker/io/log_internal.h"

struct log_partition *log_partition_of(const struct log *log, int64_t tenure)
{
    size_t low = 0, high = log->partitions_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->partitions[middle]->tenure < tenure)
            low = middle + 1;
        else
            high = middle;
    }
    return low < log->partitions_count && log->partitions[low]->tenure == tenure ? log->partitions[low] : NULL;
}

struct log_partition *log_partition_find(const struct log *log, const char *topic, int32_t number)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->number == number && strcmp(partition->of->name, topic) == 0)
            return partition;
    }
    return NULL;
}
