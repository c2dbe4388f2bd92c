/* The driver against the RTL, errors and recovery: test_rtl LIBRARY IMAGE INPUT GOLDEN poll|interrupt.
 *
 * GOLDEN: a folder with <map>.bin for every map, as program.c writes them. After each error the next run must be right.
 * Exit status 1 if something differs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "program.h"
#include "simulated.h"

#define CYCLES 10000000u

static int failures;
static const char *golden;
static struct zs_device device;

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            ++failures;                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
        }                                                                        \
    } while (0)

static uint8_t *descriptor(uint32_t layer)
{
    return (uint8_t *)device.region.memory + device.image.descriptor_offset + layer * ZEROSKIP_DESCRIPTOR_BYTES;
}

/* A run whose maps all equal golden. They are wiped before: nothing is left of an earlier run. */
static void run_right(void)
{
    struct zs_map map;
    for (uint32_t n = 0; n < device.image.map_count; ++n)
        if (n != device.image.input_map && zs_map_entry(&device.image, n, &map) == ZS_OK)
            memset((uint8_t *)device.region.memory + map.offset, 0xff, map.size);
    CHECK(zs_run(&device, CYCLES) == ZS_OK);
    for (uint32_t n = 0; n < device.image.map_count; ++n) {
        char path[4096];
        size_t size;
        CHECK(zs_map_entry(&device.image, n, &map) == ZS_OK);
        snprintf(path, sizeof path, "%s/%s.bin", golden, map.name);
        uint8_t *expected = read_file(path, &size), *values = malloc(size);
        const enum zs_type type = zs_map_type(&device.image, &map);
        CHECK(zs_map_read(&device, n, type, values, size / zs_type_bytes(type)) == ZS_OK);
        CHECK(memcmp(values, expected, size) == 0);
        free(values);
        free(expected);
    }
}

static void test_read_error(void)
{
    const uint32_t weights = get32(descriptor(1) + 4 * ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS);
    simulated_inject(weights + 64, weights + 128);
    CHECK(zs_run(&device, CYCLES) == ZS_ACCELERATOR_READ_RESPONSE);
    CHECK(device.error_address >= weights && device.error_address < weights + 128 && device.error_layer <= 1);
    simulated_clear();
    run_right();
}

static void test_write_error(void)
{
    struct zs_map map;
    for (uint32_t n = 0; n < device.image.map_count; ++n)
        if (zs_map_entry(&device.image, n, &map) == ZS_OK && map.layer == 1)
            break;
    const uint32_t address = device.region.bus_address + map.offset;
    simulated_inject(address, address + map.size);
    CHECK(zs_run(&device, CYCLES) == ZS_ACCELERATOR_WRITE_RESPONSE);
    CHECK(device.error_address >= address && device.error_address < address + map.size && device.error_layer == 1);
    simulated_clear();
    run_right();
}

static void test_damaged_descriptor(void)
{
    put32(descriptor(1) + 4 * ZEROSKIP_DESCRIPTOR_TILE_ROWS, 0);
    CHECK(zs_run(&device, CYCLES) == ZS_ACCELERATOR_DESCRIPTOR_FIELD);
    CHECK(device.error_address == device.region.bus_address + device.image.descriptor_offset +
                                      ZEROSKIP_DESCRIPTOR_BYTES + 4 * ZEROSKIP_DESCRIPTOR_TILE_ROWS);
    const struct zs_image image = device.image;
    CHECK(zs_load(&device, &image) == ZS_OK);
    run_right();

    /* Behind the end of the memory: DECERR. */
    put32(descriptor(0) + 4 * ZEROSKIP_DESCRIPTOR_IN_ADDRESS, device.region.bus_address + device.region.size);
    CHECK(zs_run(&device, CYCLES) == ZS_ACCELERATOR_READ_RESPONSE && device.error_layer == 0);
    CHECK(zs_load(&device, &image) == ZS_OK);
    run_right();

    put32(descriptor(1) + 4 * ZEROSKIP_DESCRIPTOR_PASSES, 3);
    CHECK(zs_run(&device, CYCLES) == ZS_ACCELERATOR_GEOMETRY && device.error_layer == 1);
    CHECK(zs_load(&device, &image) == ZS_OK);
    run_right();
}

static void test_timeout(void)
{
    CHECK(zs_run(&device, 500) == ZS_ERROR_TIMEOUT);
    run_right();
}

/* A new driver takes over an accelerator that still runs. */
static void test_takes_over(const struct zs_platform *platform, const struct zs_region *region, const uint8_t *input,
                            size_t count, enum zs_type type)
{
    const struct zs_image image = device.image;
    CHECK(platform->write32(platform->context, ZEROSKIP_CONTROL_OFFSET, ZEROSKIP_CONTROL_START_MASK) == 0);
    CHECK(zs_init(&device, platform, region) == ZS_OK);
    CHECK(zs_load(&device, &image) == ZS_OK);
    CHECK(zs_input(&device, type, input, count) == ZS_OK);
    run_right();
}

int main(int argc, char **argv)
{
    struct zs_platform platform;
    struct zs_region region;
    struct zs_image image;
    struct zs_map map;
    size_t image_bytes, input_bytes;
    if (argc != 6 || board_option("--library", argv[1])) {
        fprintf(stderr, "usage: test_rtl LIBRARY IMAGE INPUT GOLDEN poll|interrupt\n");
        return 2;
    }
    uint8_t *bytes = read_file(argv[2], &image_bytes), *input = read_file(argv[3], &input_bytes);
    golden = argv[4];
    CHECK(zs_image_check(&image, bytes, image_bytes) == ZS_OK);
    if (failures || board_connect(image.region_bytes, &platform, &region))
        return 2;
    if (strcmp(argv[5], "poll") == 0)
        platform.wait = NULL;
    CHECK(zs_init(&device, &platform, &region) == ZS_OK);
    CHECK(zs_load(&device, &image) == ZS_OK);
    CHECK(zs_map_entry(&image, image.input_map, &map) == ZS_OK);
    const enum zs_type type = zs_map_type(&image, &map);
    const size_t count = input_bytes / zs_type_bytes(type);
    CHECK(zs_input(&device, type, input, count) == ZS_OK);
    run_right();
    test_read_error();
    test_write_error();
    test_damaged_descriptor();
    test_timeout();
    test_takes_over(&platform, &region, input, count, type);
    board_disconnect();
    free(input);
    free(bytes);
    printf("%d failures\n", failures);
    return failures != 0;
}
