/* Damaged images through the driver, under the sanitizers: fuzz_image SEED COUNT IMAGE...
 *
 * Each round damages one image: bytes, the length, or words of header, tables and segments with the CRCs made right
 * again, so that the checks behind them are reached. One image is for the intersect array. What zs_image_check accepts is loaded into a region of exactly the
 * size that the image asks for, given an input, and read back from noise.
 * Exit status 1 (or the sanitizer's): the driver accepted what it must not, or the rounds reached too little.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Larger regions are not made, only refused. */
#define MAX_REGION (4u << 20)
#define KINDS (ZS_ERROR_STATE + 1)

static uint32_t state;

static uint32_t below(uint32_t limit)
{
    return noise(&state) % limit;
}

static uint32_t interesting(uint32_t old)
{
    static const uint32_t values[] = {0, 1, 2, 3, 5, 7, 8, 15, 16, 63, 64, 127, 128, 255, 4095, 4096, 8191, 65535,
                                      65536, 0x7fffffff, 0x80000000, 0xfffff000, 0xfffffff8, 0xffffffff};
    switch (below(6)) {
    case 0: return values[below(sizeof values / sizeof values[0])];
    case 1: return old + (1u << below(16));
    case 2: return old - (1u << below(16));
    case 3: return old ^ 1u << below(32);
    case 4: return noise(&state);
    default: return old * 2;
    }
}

/* A 32-bit word that matters: of the header, of the tables, of a descriptor or of another segment. */
static size_t choose_word(const uint8_t *image, size_t size)
{
    const size_t segments = 16 * (size_t)get32(image + 52), maps = 96 * (size_t)get32(image + 56);
    size_t base = 0, length = 96;
    switch (below(5)) {
    case 0: break;
    case 1: base = 96, length = segments; break;
    case 2: base = 96 + segments, length = maps; break;
    default: {
        /* Descriptors as often as the other segments together. */
        const uint8_t *entry = image + 96 + (below(2) ? 16 * (size_t)below(get32(image + 52)) : 0);
        base = get32(entry + 8);
        length = get32(entry + 4);
    }
    }
    const size_t at = base + 4 * (size_t)below((uint32_t)(length / 4));
    return at + 4 <= size ? at : 0;
}

static size_t damage(uint8_t *image, size_t size)
{
    switch (below(8)) {
    case 0:
        for (uint32_t n = 1 + below(8); n; --n)
            image[below((uint32_t)size)] = (uint8_t)noise(&state);
        return size;
    case 1:
        return below(4) ? below((uint32_t)size) : below(96 + 1);
    case 2: {
        const size_t shorter = below((uint32_t)size);
        if (shorter >= 96)
            put32(image + 12, (uint32_t)shorter);
        fix_crcs(image, shorter);
        return shorter;
    }
    case 3:
        for (uint32_t n = 1 + below(4); n; --n)
            image[96 + below((uint32_t)(size - 96))] ^= (uint8_t)(1u << below(8));
        break;
    default: {
        /* All positions are chosen in the undamaged image. */
        size_t at[3];
        const uint32_t count = 1 + below(3);
        for (uint32_t n = 0; n < count; ++n)
            at[n] = choose_word(image, size);
        for (uint32_t n = 0; n < count; ++n)
            put32(image + at[n], interesting(get32(image + at[n])));
    }
    }
    fix_crcs(image, size);
    return size;
}

#define EXPECT(condition)                                                        \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
            return false;                                                        \
        }                                                                        \
    } while (0)

static bool read_maps(struct zs_device *device)
{
    for (uint32_t n = 0; n < device->image.map_count; ++n) {
        struct zs_map map;
        EXPECT(zs_map_entry(&device->image, n, &map) == ZS_OK);
        const size_t count = (size_t)map.channels * map.height * map.width;
        const enum zs_type type = below(2) ? ZS_INT32 : zs_map_type(&device->image, &map);
        uint8_t *values = malloc(count * zs_type_bytes(type));
        const enum zs_error error = zs_map_read(device, n, type, values, count);
        free(values);
        EXPECT(error == ZS_OK || error == ZS_ERROR_MAP_CORRUPT);
    }
    return true;
}

static bool write_input(struct zs_device *device)
{
    struct zs_map map;
    EXPECT(zs_map_entry(&device->image, device->image.input_map, &map) == ZS_OK);
    const size_t count = (size_t)map.channels * map.height * map.width;
    const enum zs_type type = zs_map_type(&device->image, &map);
    uint8_t *values = malloc(count * zs_type_bytes(type));
    for (size_t n = 0; n < count * zs_type_bytes(type); ++n)
        values[n] = (uint8_t)(below(2) ? noise(&state) : 0);
    const enum zs_error error = zs_input(device, type, values, count);
    uint32_t *back = malloc(count * sizeof *back);
    EXPECT(error == ZS_OK);
    EXPECT(zs_map_read(device, device->image.input_map, ZS_INT32, back, count) == ZS_OK);
    free(back);
    free(values);
    return true;
}

/* What the driver does with an accepted image stays in the region: the sanitizer watches. */
static bool use(const struct zs_image *image)
{
    struct fake fake;
    struct zs_device device;
    const bool large = image->region_bytes > MAX_REGION;
    fake_open(&fake, image, large ? 4096 : image->region_bytes, noise(&state));
    const struct zs_platform platform = fake_platform(&fake, below(2));
    const struct zs_region region = fake_region(&fake);
    EXPECT(zs_init(&device, &platform, &region) == ZS_OK);
    EXPECT(zs_load(&device, image) == (large ? ZS_ERROR_REGION_SIZE : ZS_OK));
    if (!large) {
        for (uint32_t n = 0; n < image->layer_count; ++n) {
            const uint8_t *descriptor = fake.memory + image->descriptor_offset + n * ZEROSKIP_DESCRIPTOR_BYTES;
            const uint32_t in = get32(descriptor + 4 * ZEROSKIP_DESCRIPTOR_IN_ADDRESS);
            const uint32_t weights = get32(descriptor + 4 * ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS);
            EXPECT(in >= FAKE_BUS_ADDRESS && in - FAKE_BUS_ADDRESS < fake.bytes);
            EXPECT(weights >= FAKE_BUS_ADDRESS && weights - FAKE_BUS_ADDRESS < fake.bytes);
        }
        EXPECT(write_input(&device));
        EXPECT(zs_run(&device, 1000) == ZS_OK);
        for (uint32_t n = 0; n < image->layer_count; ++n) {
            uint64_t counters[ZEROSKIP_COUNTERS];
            EXPECT(zs_counters(&device, n, counters) == ZS_OK);
        }
        EXPECT(read_maps(&device));
    }
    fake_close(&fake);
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fuzz_image SEED COUNT IMAGE...\n");
        return 2;
    }
    const uint32_t seed = (uint32_t)strtoul(argv[1], NULL, 10), rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    uint32_t seen[KINDS] = {0};
    for (uint32_t round = 0; round < rounds; ++round) {
        size_t size;
        uint8_t *original = read_file(argv[3 + round % (uint32_t)(argc - 3)], &size);
        /* Any round can be repeated alone. */
        state = (seed * 1000003u + round) * 2654435761u | 1u;
        const size_t length = damage(original, size);
        uint8_t *image_bytes = malloc(length ? length : 1);
        memcpy(image_bytes, original, length);
        free(original);
        struct zs_image image;
        const enum zs_error error = zs_image_check(&image, image_bytes, length);
        const bool sensible = (int)error < KINDS && (error == ZS_OK || image.fault <= length);
        if (!sensible || (error == ZS_OK && !use(&image))) {
            fprintf(stderr, "seed %u, round %u: error %d, fault at byte %u of %zu\n", seed, round, error, image.fault,
                    length);
            return 1;
        }
        ++seen[error];
        free(image_bytes);
    }
    printf("seed %u: %u rounds, %u accepted\n", seed, rounds, seen[ZS_OK]);
    for (int error = ZS_ERROR_IMAGE_TRUNCATED; error <= ZS_ERROR_IMAGE_WEIGHTS; ++error) {
        printf("%6u %s\n", seen[error], zs_error_text((enum zs_error)error));
        if (!seen[error] || !seen[ZS_OK]) {
            fprintf(stderr, "seed %u: no round reached error %d (or none was accepted)\n", seed, error);
            return 1;
        }
    }
    return 0;
}
