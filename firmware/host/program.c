/* Command line: run a network image once on a board, print the counters of each layer, write every map.
 *
 * Maps are files of values in the order channel, row, column, in the type of the map (int8, uint8, int16 or uint16,
 * little endian). Exit status: 0 done, 1 the accelerator or the driver failed, 2 the input is not usable.
 */
#include "program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAILED = 1, BAD_INPUT = 2 };
#define DEFAULT_MAX_CYCLES 1000000000ull

static const char *const type_names[] = {"int8", "uint8", "int16", "uint16", "int32"};

/* Short names of the counters, in the order of ZEROSKIP_COUNTER_... . */
static const char *const counter_names[] = {"cycles", "non-zero MACs", "busy", "output", "tile",
                                            "weights", "find", "idle", "beats read", "written"};
_Static_assert(sizeof counter_names / sizeof counter_names[0] == ZEROSKIP_COUNTERS, "a name for each counter");

struct options {
    const char *image, *input, *folder;
    uint64_t max_cycles;
    bool poll;
};

static void print_usage(const char *program)
{
    printf("usage: %s [--max-cycles N] [--poll] %s IMAGE INPUT FOLDER\n\n"
           "Run a network image once, print the counters of each layer, write every map to FOLDER/<map>.bin.\n\n"
           "  IMAGE             network image (docs/network-image.md)\n"
           "  INPUT             values of the input map in the order channel, row, column, in its type\n"
           "  --max-cycles N    stop after N clock cycles of the accelerator (%llu)\n"
           "  --poll            look at the status register instead of waiting for the interrupt\n%s",
           program, board_usage, DEFAULT_MAX_CYCLES, board_help);
}

static int parse(int argc, char **argv, struct options *options)
{
    const char **const places[] = {&options->image, &options->input, &options->folder};
    size_t count = 0;
    *options = (struct options){.max_cycles = DEFAULT_MAX_CYCLES};
    for (int n = 1; n < argc; ++n) {
        const char *name = argv[n];
        if (strncmp(name, "--", 2) != 0) {
            if (count == sizeof places / sizeof places[0]) {
                complain("%s is one argument too many; %s --help explains them", name, argv[0]);
                return BAD_INPUT;
            }
            *places[count++] = name;
        } else if (strcmp(name, "--help") == 0) {
            print_usage(argv[0]);
            exit(0);
        } else if (strcmp(name, "--poll") == 0) {
            options->poll = true;
        } else {
            const char *value = ++n < argc ? argv[n] : "";
            const bool common = strcmp(name, "--max-cycles") == 0;
            if (common ? parse_number(value, 1, UINT64_MAX, &options->max_cycles) : board_option(name, value)) {
                complain("option %s %s is not usable; %s --help explains the options", name, value, argv[0]);
                return BAD_INPUT;
            }
        }
    }
    if (count != sizeof places / sizeof places[0]) {
        complain("IMAGE, INPUT and FOLDER are needed; %s --help explains them", argv[0]);
        return BAD_INPUT;
    }
    return 0;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long end = -1;
    if (file && fseek(file, 0, SEEK_END) == 0)
        end = ftell(file);
    if (end >= 0) {
        *size = (size_t)end;
        bytes = malloc(*size + 1);
        rewind(file);
        if (bytes && fread(bytes, 1, *size, file) != *size) {
            free(bytes);
            bytes = NULL;
        }
    }
    if (!bytes)
        complain("cannot read %s: %s", path, strerror(errno));
    if (file)
        fclose(file);
    return bytes;
}

static int report(const struct zs_device *device, const char *what, enum zs_error error)
{
    complain("%s: %s", what, zs_error_text(error));
    if (error > ZS_ACCELERATOR)
        fprintf(stderr, "error_address 0x%08" PRIx32 ", layer %" PRIu32 ", DMA region at 0x%08" PRIx32 "\n",
                device->error_address, device->error_layer, device->region.bus_address);
    return FAILED;
}

/* The name of what layer `layer` writes. */
static const char *layer_name(const struct zs_image *image, uint32_t layer)
{
    struct zs_map map;
    for (uint32_t n = 0; n < image->map_count; ++n)
        if (zs_map_entry(image, n, &map) == ZS_OK && map.layer == layer)
            return map.name;
    return "";
}

static int print_counters(struct zs_device *device)
{
    uint64_t counters[ZEROSKIP_COUNTERS], cycles;
    enum zs_error error = zs_cycles(device, &cycles);
    printf("%-16s", "layer");
    for (size_t n = 0; n < ZEROSKIP_COUNTERS; ++n)
        printf(" %13s", counter_names[n]);
    printf("\n");
    for (uint32_t layer = 0; !error && layer < device->image.layer_count; ++layer) {
        error = zs_counters(device, layer, counters);
        printf("%-16s", layer_name(&device->image, layer));
        for (size_t n = 0; n < ZEROSKIP_COUNTERS; ++n)
            printf(" %13" PRIu64, counters[n]);
        printf("\n");
    }
    if (error)
        return report(device, "counters", error);
    printf("%" PRIu64 " cycles in all\n", cycles);
    return 0;
}

static int write_map(struct zs_device *device, uint32_t index, const char *folder)
{
    struct zs_map map;
    char path[4096];
    (void)zs_map_entry(&device->image, index, &map);
    if (!map.name[0] || strchr(map.name, '/')) {
        complain("the name of map %s cannot be that of a file", map.name);
        return BAD_INPUT;
    }
    if (snprintf(path, sizeof path, "%s/%s.bin", folder, map.name) >= (int)sizeof path) {
        complain("the path of folder %s is too long", folder);
        return BAD_INPUT;
    }
    const enum zs_type type = zs_map_type(&device->image, &map);
    const size_t count = (size_t)map.channels * map.height * map.width, width = zs_type_bytes(type);
    void *values = malloc(count * width);
    const enum zs_error error = values ? zs_map_read(device, index, type, values, count) : ZS_OK;
    FILE *file = values && !error ? fopen(path, "wb") : NULL;
    const bool written = file && fwrite(values, width, count, file) == count;
    const bool closed = file && fclose(file) == 0;
    free(values);
    if (error)
        return report(device, map.name, error);
    if (!written || !closed) {
        complain("cannot write %s: %s", path, strerror(errno));
        return BAD_INPUT;
    }
    printf("%s%s: %" PRIu32 " x %" PRIu32 " x %" PRIu32 " %s, 1 is %g\n", map.name, map.is_output ? " (output)" : "",
           map.channels, map.height, map.width, type_names[type], map.scale);
    return 0;
}

static int run(struct zs_device *device, const struct zs_image *image, const uint8_t *input, size_t input_bytes,
               const struct options *options)
{
    struct zs_map map;
    (void)zs_map_entry(image, image->input_map, &map);
    const enum zs_type type = zs_map_type(image, &map);
    const size_t needed = (size_t)map.channels * map.height * map.width * zs_type_bytes(type);
    if (input_bytes != needed) {
        complain("%s has %zu bytes; map %s needs %zu: %" PRIu32 " x %" PRIu32 " x %" PRIu32 " values, %s",
                 options->input, input_bytes, map.name, needed, map.channels, map.height, map.width, type_names[type]);
        return BAD_INPUT;
    }
    enum zs_error error = zs_load(device, image);
    if (error)
        return report(device, options->image, error) ? BAD_INPUT : 0;
    error = zs_input(device, type, input, input_bytes / zs_type_bytes(type));
    if (!error)
        error = zs_run(device, options->max_cycles);
    if (error)
        return report(device, "run", error);
    int status = print_counters(device);
    for (uint32_t n = 0; !status && n < image->map_count; ++n)
        if (n != image->input_map)
            status = write_map(device, n, options->folder);
    return status;
}

/* Everything but the files. */
static int execute(const struct zs_image *image, const uint8_t *input, size_t input_bytes,
                   const struct options *options)
{
    struct zs_platform platform;
    struct zs_region region;
    struct zs_device device;
    int status = board_connect(image->region_bytes, &platform, &region);
    if (status)
        return status;
    if (options->poll)
        platform.wait = NULL;
    const enum zs_error error = zs_init(&device, &platform, &region);
    status = error ? report(&device, "accelerator", error) : run(&device, image, input, input_bytes, options);
    board_disconnect();
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    struct zs_image image;
    size_t image_bytes = 0, input_bytes = 0;
    int status = parse(argc, argv, &options);
    if (status)
        return status;
    uint8_t *bytes = read_file(options.image, &image_bytes);
    uint8_t *input = bytes ? read_file(options.input, &input_bytes) : NULL;
    status = BAD_INPUT;
    if (input) {
        const enum zs_error error = zs_image_check(&image, bytes, image_bytes);
        if (error)
            complain("%s, byte %" PRIu32 ": %s", options.image, image.fault, zs_error_text(error));
        else
            status = execute(&image, input, input_bytes, &options);
    }
    free(input);
    free(bytes);
    return status;
}
