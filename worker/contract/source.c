#include "worker/contract/source.h"

#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/base/json.h"
#include "worker/contract/scan.h"

/* The whole file, or false with a reason. Never waits: a pipe or a device is refused. */
static bool read_whole(const char *path, struct arena *arena, struct str *text, struct error *error)
{
    char reason[128];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, ERROR_POISON, "cannot be opened: %s", strerror_r(errno, reason, sizeof(reason)));
    struct stat stat;
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        close(fd);
        return error_set(error, ERROR_POISON, "is no regular file");
    }
    char *data = arena_alloc(arena, CONTRACT_SIZE_MAX + 2);
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0 && size <= CONTRACT_SIZE_MAX) {
        got = read(fd, data + size, CONTRACT_SIZE_MAX + 1 - size);
        size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        error_set(error, ERROR_POISON, "cannot be read: %s", strerror_r(errno, reason, sizeof(reason)));
    close(fd);
    if (got < 0)
        return false;
    if (size > CONTRACT_SIZE_MAX)
        return error_set(error, ERROR_POISON, "is larger than %zu KiB", CONTRACT_SIZE_MAX >> 10);
    *text = (struct str){.data = data, .size = size};
    return true;
}

/* libconfig's tree as JSON, in the same order. The depth was checked by the scan. */
static json_t *to_json(const config_setting_t *setting)
{
    json_t *json = NULL;
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_GROUP:
        json = json_object();
        for (int i = 0; i < config_setting_length(setting); i++) {
            const config_setting_t *member = config_setting_get_elem(setting, (unsigned)i);
            json_object_set_new(json, config_setting_name(member), to_json(member));
        }
        return json;
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST:
        json = json_array();
        for (int i = 0; i < config_setting_length(setting); i++)
            json_array_append_new(json, to_json(config_setting_get_elem(setting, (unsigned)i)));
        return json;
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return json_integer(config_setting_get_int64(setting));
    case CONFIG_TYPE_FLOAT:
        return json_real(config_setting_get_float(setting));
    case CONFIG_TYPE_BOOL:
        return json_boolean(config_setting_get_bool(setting));
    default:
        return json_string(config_setting_get_string(setting));
    }
}

/* The group `contract`; everything else in the file is a mistake. */
static struct node *take_contract(struct node *file_root, struct str file, struct problems *problems)
{
    struct node *contract = tree_member(file_root, "contract");
    bool good = contract != NULL && json_is_object(contract->json);
    for (const struct node *other = file_root->first; other != NULL; other = other->next)
        if (other != contract)
            problems_add(problems, file, other->line, false,
                         "unknown setting \"%.*s\": a file holds one group, contract = { ... };", STR_ARG(other->key));
    if (!good && (contract != NULL || file_root->first == NULL))
        problems_add(problems, file, contract != NULL ? contract->line : 0, false,
                     "%s: a contract is one group, contract = { name = \"...\"; ... };",
                     contract != NULL ? "is no group" : "holds nothing");
    if (!good)
        return NULL;
    contract->parent = NULL;
    contract->key = STR_NONE;
    json_incref(contract->json);
    return contract;
}

struct node *source_read_tree(const char *path, struct arena *arena, struct problems *problems)
{
    struct str file = str_of(path), text;
    struct error error;
    if (!read_whole(path, arena, &text, &error)) {
        problems_add(problems, file, 0, false, "%s", error.text);
        return NULL;
    }
    struct scan scan;
    struct node *root = NULL;
    config_t config;
    config_init(&config);
    if (!scan_text(&scan, text, file, arena, problems))
        goto out;
    if (config_read_string(&config, scan.text.data) != CONFIG_TRUE) {
        /* The scan knows the grammar; what it leaves to libconfig is a name given twice. */
        bool twice = strstr(config_error_text(&config), "duplicate") != NULL;
        problems_add(problems, file, config_error_line(&config), false, "%s%s", twice ? "" : "libconfig: ",
                     twice ? "a name stands here twice: once in a group is allowed" : config_error_text(&config));
        goto out;
    }
    root = tree_build(arena, to_json(config_root_setting(&config)), scan.lines, scan.lines_count);
    if (tree_size(root) != scan.lines_count)
        problems_add(problems, file, 0, false, "libconfig: finds %zu values where %zu were counted", tree_size(root),
                     scan.lines_count);
out:
    config_destroy(&config);
    scan_free(&scan);
    return root;
}

struct node *source_read_file(const char *path, struct arena *arena, struct problems *problems)
{
    struct node *root = source_read_tree(path, arena, problems);
    if (root == NULL)
        return NULL;
    json_t *json = root->json;
    struct node *contract = take_contract(root, str_of(path), problems);
    json_decref(json);
    return contract;
}

/* ---- "@file" ---- */

/* The real path of `name` beside the contract, or NULL with the reason. The caller frees it. */
static char *path_beside(const char *contract_path, const char *name, struct arena *arena, struct error *error)
{
    char reason[128];
    const char *slash = strrchr(contract_path, '/');
    struct str directory = slash != NULL ? arena_copy(arena, contract_path, (size_t)(slash - contract_path) + 1)
                                         : STR("./");
    char *above = realpath(directory.data, NULL);
    char *real = realpath(arena_printf(arena, "%s%s", directory.data, name).data, NULL);
    int reason_number = errno;
    size_t size = above != NULL ? strlen(above) : 0;
    /* Links and .. are resolved by now, so the prefix tells. */
    bool inside = real != NULL && size > 0 && strncmp(real, above, size) == 0 && (real[size] == '/' || size == 1);
    free(above);
    if (inside && *name != '/')
        return real;
    if (real != NULL)
        error_set(error, ERROR_POISON, "lies outside of the contract's directory: a schema stands beside its contract");
    else
        error_set(error, ERROR_POISON, "cannot be opened: %s", strerror_r(reason_number, reason, sizeof(reason)));
    free(real);
    return NULL;
}

static void inline_schema(struct node *node, const char *path, struct arena *arena, struct problems *problems)
{
    struct str text = tree_text(node), content = STR_NONE;
    if (text.size == 0 || *text.data != '@')
        return;
    struct str where = tree_path(arena, node);
    struct error error;
    char *real = path_beside(path, text.data + 1, arena, &error);
    json_t *json = NULL;
    if (real != NULL && read_whole(real, arena, &content, &error))
        json = json_read(content, CONTRACT_SIZE_MAX, &error);
    if (json != NULL && !json_is_object(json)) {
        error_set(&error, ERROR_POISON, "holds no JSON object");
        json_decref(json);
        json = NULL;
    }
    if (json != NULL)
        tree_replace(arena, node, json);
    else
        problems_add(problems, str_of(path), node->line, false, "%.*s: the file \"%s\": %s", STR_ARG(where),
                     text.data + 1, error.text);
    free(real);
}

void source_inline_schemas(struct node *root, const char *path, struct arena *arena, struct problems *problems)
{
    static const struct {
        const char *group, *member;
    } places[] = {{"tools", "parameters"}, {"agents", "output"}, {"steps", "output"}};
    struct node *input = tree_member(root, "input");
    if (input != NULL)
        inline_schema(input, path, arena, problems);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const struct node *group = tree_member(root, places[i].group);
        for (struct node *entry = group != NULL ? group->first : NULL; entry != NULL; entry = entry->next) {
            struct node *schema = tree_member(entry, places[i].member);
            if (schema != NULL)
                inline_schema(schema, path, arena, problems);
        }
    }
}
