/* Replays fuzz inputs with an ordinary compiler: every file, and every truncation of it.
 *
 * Usage: fuzz_NAME FILE|DIRECTORY...
 * Each input lies in a block of exactly its own size, so that valgrind and ASan see the first byte read too far. */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TRUNCATIONS_MAX 2048 /* a prefix of every length up to here */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static size_t inputs;

static void replay_bytes(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL)
        abort();
    memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static int replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);
    int failed = file == NULL || data == NULL || fread(data, 1, size, file) != size;

    if (failed) {
        perror(path);
    } else {
        printf("%s\n", path); /* the last line before a crash names its input */
        fflush(stdout);
        for (size_t cut = 0; cut < size && cut < TRUNCATIONS_MAX; cut++)
            replay_bytes(data, cut);
        replay_bytes(data, size);
    }
    free(data);
    if (file != NULL)
        fclose(file);
    return failed;
}

static int replay_path(const char *path)
{
    struct stat status;
    struct dirent *entry;
    char below[4096];
    int failed = 0;
    DIR *directory;

    if (stat(path, &status) != 0) {
        perror(path);
        return 1;
    }
    if (!S_ISDIR(status.st_mode))
        return replay_file(path, (size_t)status.st_size);
    directory = opendir(path);
    if (directory == NULL) {
        perror(path);
        return 1;
    }
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        failed |= replay_path(below);
    }
    closedir(directory);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        failed |= replay_path(argv[i]);
    printf("%zu inputs\n", inputs);
    return failed || inputs == 0;
}
