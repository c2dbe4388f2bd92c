/* Unit tests of the driver: test_driver IMAGE INTERSECT.
 *
 * IMAGE: a network with a dense input map "input", a layer "a" with ReLU and pooling and a layer "b" without pooling.
 * INTERSECT: one for the intersect array, whose first layer has more output channels than there are lanes, and joined
 * phases behind one that has a round of its own.
 * Prints each failed check; exit status 1 if there is one.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, checks;

#define CHECK(condition)                                                         \
    do {                                                                         \
        ++checks;                                                                \
        if (!(condition)) {                                                      \
            ++failures;                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
        }                                                                        \
    } while (0)

static const uint8_t *original;
static size_t original_size;
static struct zs_image good;

#define FINISHED (ZEROSKIP_STATUS_DONE_MASK | ZEROSKIP_STATUS_ERROR_MASK)

static uint32_t *reg(struct fake *fake, uint32_t offset)
{
    return &fake->registers[offset / 4];
}

static void open_device(struct fake *fake, struct zs_device *device, bool interrupt)
{
    fake_open(fake, &good, good.region_bytes, 1);
    const struct zs_platform platform = fake_platform(fake, interrupt);
    const struct zs_region region = fake_region(fake);
    CHECK(zs_init(device, &platform, &region) == ZS_OK);
}

static size_t segment_at(uint32_t index)
{
    return 96 + 16 * (size_t)index;
}

static size_t map_at(uint32_t index)
{
    return segment_at(good.segment_count) + 96 * (size_t)index;
}

static size_t descriptor_at(uint32_t layer, uint32_t word)
{
    return get32(original + segment_at(0) + 8) + layer * (size_t)ZEROSKIP_DESCRIPTOR_BYTES + 4 * (size_t)word;
}

/* --- zs_init --- */

static enum zs_error init_with(struct fake *fake, struct zs_region region)
{
    struct zs_device device;
    const struct zs_platform platform = fake_platform(fake, false);
    return zs_init(&device, &platform, &region);
}

static void test_init(void)
{
    struct fake fake;
    fake_open(&fake, &good, 4096, 1);
    const struct zs_region region = fake_region(&fake);
    CHECK(init_with(&fake, region) == ZS_OK);
    CHECK(fake.stops == 0);

    *reg(&fake, ZEROSKIP_IDENTITY_OFFSET) ^= 1;
    CHECK(init_with(&fake, region) == ZS_ERROR_IDENTITY);
    *reg(&fake, ZEROSKIP_IDENTITY_OFFSET) ^= 1;

    *reg(&fake, ZEROSKIP_VERSION_OFFSET) = ZEROSKIP_VERSION + 0x010000u;
    CHECK(init_with(&fake, region) == ZS_ERROR_REGISTER_MAP);
    *reg(&fake, ZEROSKIP_VERSION_OFFSET) = ZEROSKIP_VERSION - 0x000100u;
    CHECK(init_with(&fake, region) == ZS_ERROR_REGISTER_MAP);
    *reg(&fake, ZEROSKIP_VERSION_OFFSET) = ZEROSKIP_VERSION + 0x000101u;
    CHECK(init_with(&fake, region) == ZS_OK);

    for (int64_t n = 0; n < 5; ++n) {
        fake.accesses_left = n;
        CHECK(init_with(&fake, region) == ZS_ERROR_REGISTER);
    }
    fake.accesses_left = 5;
    CHECK(init_with(&fake, region) == ZS_OK);
    fake.accesses_left = -1;

    struct zs_region bad = region;
    bad.memory = NULL;
    CHECK(init_with(&fake, bad) == ZS_ERROR_REGION);
    bad = region;
    bad.bus_address += 8;
    CHECK(init_with(&fake, bad) == ZS_ERROR_REGION);
    bad.bus_address = 0;
    CHECK(init_with(&fake, bad) == ZS_ERROR_REGION);
    bad.bus_address = 0xfffff000u;
    CHECK(init_with(&fake, bad) == ZS_OK);
    bad.size = 4097;
    CHECK(init_with(&fake, bad) == ZS_ERROR_REGION);
    fake_close(&fake);
}

static void test_init_stops_a_run(void)
{
    struct fake fake;
    fake_open(&fake, &good, 4096, 1);
    fake.end = FAKE_NEVER;
    *reg(&fake, ZEROSKIP_STATUS_OFFSET) = ZEROSKIP_STATUS_BUSY_MASK;
    CHECK(init_with(&fake, fake_region(&fake)) == ZS_OK);
    CHECK(fake.stops == 1 && *reg(&fake, ZEROSKIP_STATUS_OFFSET) == 0);
    *reg(&fake, ZEROSKIP_STATUS_OFFSET) = ZEROSKIP_STATUS_BUSY_MASK;
    fake.stuck = true;
    CHECK(init_with(&fake, fake_region(&fake)) == ZS_ERROR_STUCK);
    fake_close(&fake);
}

/* --- zs_image_check --- */

/* The check of the image with `width` bytes at `at` set to `value`, CRCs right; the image is in a block of its size. */
static enum zs_error check_with(size_t at, unsigned width, uint32_t value, uint32_t *fault)
{
    uint8_t *copy = malloc(original_size);
    struct zs_image image;
    memcpy(copy, original, original_size);
    for (unsigned n = 0; n < width; ++n)
        copy[at + n] = (uint8_t)(value >> 8 * n);
    fix_crcs(copy, original_size);
    const enum zs_error error = zs_image_check(&image, copy, original_size);
    *fault = image.fault;
    free(copy);
    return error;
}

static void refuse(int line, size_t at, unsigned width, uint32_t value, enum zs_error error, size_t where)
{
    uint32_t fault;
    const enum zs_error found = check_with(at, width, value, &fault);
    ++checks;
    if (found != error || fault != where) {
        ++failures;
        fprintf(stderr, "%s:%d: 0x%x at byte %zu: error %d at %u, not %d at %zu\n", __FILE__, line, value, at, found,
                fault, error, where);
    }
}

#define REFUSE(at, width, value, error) refuse(__LINE__, at, width, value, error, at)
#define REFUSE_AT(at, width, value, error, where) refuse(__LINE__, at, width, value, error, where)
#define ACCEPT(at, width, value) refuse(__LINE__, at, width, value, ZS_OK, 0)

static void test_image_header(void)
{
    const enum zs_error error = ZS_ERROR_IMAGE_HEADER;
    CHECK(good.value_width == 8 && good.block == 16 && good.lanes == 16);
    REFUSE(0, 4, 0x494e535b, ZS_ERROR_IMAGE_MAGIC);
    REFUSE(6, 2, 2, ZS_ERROR_IMAGE_VERSION);
    ACCEPT(4, 2, 9);
    REFUSE(28, 4, ZEROSKIP_DESCRIPTOR_MAGIC + 1, ZS_ERROR_IMAGE_VERSION);
    REFUSE(8, 4, 100, error);
    REFUSE(12, 4, (uint32_t)original_size + 1, ZS_ERROR_IMAGE_TRUNCATED);
    REFUSE(12, 4, 95, error);
    const uint32_t width = ZEROSKIP_CAPABILITY_VALUE_WIDTH_MASK, block = ZEROSKIP_CAPABILITY_BLOCK_MASK;
    const uint32_t lanes = ZEROSKIP_CAPABILITY_LANES_MASK;
    REFUSE(20, 4, good.capability & ~width, error);
    REFUSE(20, 4, good.capability & ~block, error);
    REFUSE(20, 4, good.capability & ~lanes, error);
    REFUSE(20, 4, (good.capability & ~lanes) | 17u << ZEROSKIP_CAPABILITY_LANES_SHIFT, error);
    ACCEPT(24, 4, good.configuration + 1);
    REFUSE(32, 4, good.link_base + 8, error);
    REFUSE_AT(32, 4, 0xfffff000u, error, 36);
    REFUSE(36, 4, 0, error);
    REFUSE(36, 4, good.region_bytes + 8, error);
    REFUSE(40, 4, good.descriptor_offset + 4, error);
    REFUSE(40, 4, 0xfffffff8u, error);
    REFUSE(44, 4, 0, error);
    REFUSE(44, 4, 0x10000, error);
    REFUSE(48, 4, good.log_offset + 8, error);
    REFUSE(48, 4, 0xffffff80u, error);
    REFUSE(48, 4, good.region_bytes, error);
    REFUSE(52, 4, 0, error);
    REFUSE(52, 4, 0xffffffffu, error);
    REFUSE(56, 4, 1, error);
    REFUSE_AT(56, 4, 0x05555555u, error, 52);
    REFUSE(60, 4, good.map_count, error);
    REFUSE_AT(64 + 27, 1, 'x', error, 64);
}

static void test_image_segments(void)
{
    const enum zs_error error = ZS_ERROR_IMAGE_SEGMENT;
    const size_t last = segment_at(good.segment_count - 1);
    const uint32_t tables = (uint32_t)map_at(good.map_count);
    REFUSE(last + 4, 4, 0, error);
    REFUSE(last, 4, get32(original + last) + 4, error);
    REFUSE(last, 4, 0xfffffff8u, error);
    REFUSE(last, 4, good.region_bytes, error);
    REFUSE(last, 4, good.log_offset, error);
    REFUSE(last, 4, good.descriptor_offset, error);
    REFUSE_AT(last + 4, 4, 0xffffffffu, error, last);
    REFUSE(last + 8, 4, get32(original + last + 8) + 4, error);
    REFUSE(last + 8, 4, get32(original + last + 8) + 8, error);
    REFUSE(last + 8, 4, 0xfffffff8u, error);
    REFUSE(last + 8, 4, tables - 8, error);
    REFUSE(last + 12, 4, 1, error);
    REFUSE(segment_at(0) + 4, 4, get32(original + segment_at(0) + 4) - 8, error);
    REFUSE_AT(40, 4, good.descriptor_offset + 8, error, segment_at(0));
    /* Two segments change places: each is in the file and in the region, but not in order. */
    struct zs_image image;
    uint8_t *copy = malloc(original_size);
    memcpy(copy, original, original_size);
    memcpy(copy + last - 16, original + last, 16);
    memcpy(copy + last, original + last - 16, 16);
    fix_crcs(copy, original_size);
    CHECK(good.segment_count == 3 && zs_image_check(&image, copy, original_size) == error && image.fault == last);
    free(copy);
    /* One more segment than maps can be: the table grows into the maps. */
    REFUSE_AT(52, 4, good.segment_count + 6, error, segment_at(0) + 8);
}

static void test_image_maps(void)
{
    const enum zs_error error = ZS_ERROR_IMAGE_MAP;
    const size_t input = map_at(good.input_map), other = map_at(good.input_map == 0 ? 1 : 0);
    struct zs_map map, in;
    CHECK(zs_map_entry(&good, good.input_map, &in) == ZS_OK && in.is_dense);
    CHECK(zs_map_entry(&good, good.input_map == 0 ? 1 : 0, &map) == ZS_OK && !map.is_dense);
    REFUSE_AT(other + 47, 1, 'x', error, other);
    REFUSE(other + 48, 4, map.offset + 8, error);
    REFUSE(other + 48, 4, good.region_bytes, error);
    REFUSE(other + 48, 4, 0xfffff000u, error);
    REFUSE(other + 52, 4, map.size - 1, error);
    REFUSE_AT(other + 52, 4, 0xffffffffu, error, other + 48);
    REFUSE(other + 56, 2, 0, error);
    REFUSE(other + 58, 2, 0, error);
    REFUSE(other + 60, 2, 0, error);
    REFUSE_AT(other + 58, 2, 0xffff, error, other + 52);
    REFUSE_AT(other + 60, 2, 0xffff, error, other + 64);
    REFUSE_AT(other + 56, 2, 0xffff, error, other + 68);
    REFUSE(other + 62, 1, original[other + 62] | 8u, error);
    REFUSE(other + 63, 1, 1, error);
    REFUSE(input + 63, 1, 5, error);
    REFUSE(input + 63, 1, 255, error);
    REFUSE(input + 56, 2, (1u << in.dense_shift) + 1, error);
    REFUSE(other + 64, 4, map.row_bytes - 8, error);
    REFUSE(other + 64, 4, map.row_bytes + 4, error);
    REFUSE(other + 68, 4, map.segment_bytes - 8, error);
    REFUSE(other + 68, 4, map.segment_bytes + 4, error);
    REFUSE_AT(other + 76, 4, 0x7ff00000, error, other + 72);
    REFUSE_AT(other + 76, 4, 0x80000000, error, other + 72);
    REFUSE(other + 80, 2, good.layer_count, error);
    REFUSE(other + 80, 2, 0xffff, error);
    REFUSE(input + 80, 2, 0, error);
    REFUSE_AT(other + 95, 1, 1, error, other + 82);
    REFUSE(input + 48, 4, good.descriptor_offset / 4096 * 4096, error);
}

static void test_image_descriptors(void)
{
    const enum zs_error error = ZS_ERROR_IMAGE_DESCRIPTOR;
    const uint32_t last = good.layer_count - 1;
    const uint32_t end = good.link_base + good.region_bytes;
    const size_t magic = descriptor_at(last, 0);
    REFUSE(magic, 4, ZEROSKIP_DESCRIPTOR_MAGIC + 1, error);
    static const uint32_t sizes[] = {ZEROSKIP_DESCRIPTOR_IN_HEIGHT, ZEROSKIP_DESCRIPTOR_IN_WIDTH,
                                     ZEROSKIP_DESCRIPTOR_IN_CHANNELS, ZEROSKIP_DESCRIPTOR_OUT_HEIGHT,
                                     ZEROSKIP_DESCRIPTOR_OUT_WIDTH, ZEROSKIP_DESCRIPTOR_OUT_CHANNELS};
    for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; ++n) {
        REFUSE(descriptor_at(last, sizes[n]), 4, 0, error);
        REFUSE(descriptor_at(last, sizes[n]), 4, 0x10000, error);
    }
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_DENSE_IN), 4, 2, error);
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_WRITE_FULL), 4, 2, error);
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_POOL), 4, 1, error);
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_POOL), 4, 4, error);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_DENSE_SHIFT), 4, 6, error);
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_KERNEL_ROWS), 4, 8, error);
    REFUSE(descriptor_at(last, ZEROSKIP_DESCRIPTOR_KERNEL_COLUMNS), 4, 0xffffffffu, error);

    const size_t in = descriptor_at(0, ZEROSKIP_DESCRIPTOR_IN_ADDRESS);
    REFUSE(in, 4, good.link_base - 4096, error);
    REFUSE(in, 4, end, error);
    REFUSE_AT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_IN_ROW_BYTES), 4, 0xffffffffu, error, in);
    REFUSE_AT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_IN_SEGMENT_BYTES), 4, 0xffffffffu, error, in);
    REFUSE_AT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_IN_HEIGHT), 4, 0xffff, error, in);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS), 4, good.link_base - 8, error);
    /* Segment 1 is the weight image of layer 0, which has more output channels than lanes. */
    const uint32_t weight_bytes = get32(original + segment_at(1) + 4);
    CHECK(get32(original + descriptor_at(0, ZEROSKIP_DESCRIPTOR_OUT_CHANNELS)) > good.lanes);
    ACCEPT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS), 4, end - weight_bytes);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS), 4, end - weight_bytes + 8, error);

    /* Layer 0 pools and writes nothing else, the last one does not pool. */
    const size_t pool = descriptor_at(0, ZEROSKIP_DESCRIPTOR_POOL_ADDRESS);
    const size_t full = descriptor_at(last, ZEROSKIP_DESCRIPTOR_FULL_ADDRESS);
    CHECK(get32(original + descriptor_at(0, ZEROSKIP_DESCRIPTOR_POOL)) == 2);
    CHECK(get32(original + descriptor_at(0, ZEROSKIP_DESCRIPTOR_WRITE_FULL)) == 0);
    CHECK(get32(original + descriptor_at(last, ZEROSKIP_DESCRIPTOR_POOL)) == 0);
    /* Each map just fits at the end of the region. */
    const struct { size_t field; const char *name; } maps[] = {{in, "input"}, {pool, "a"}, {full, "b"}};
    for (size_t n = 0; n < sizeof maps / sizeof maps[0]; ++n) {
        struct zs_map map;
        uint32_t index;
        CHECK(zs_find_map(&good, maps[n].name, &index) == ZS_OK && zs_map_entry(&good, index, &map) == ZS_OK);
        ACCEPT(maps[n].field, 4, end - map.size);
        REFUSE(maps[n].field, 4, end - map.size + 8, error);
    }
    REFUSE(pool, 4, good.link_base + good.descriptor_offset, error);
    REFUSE(full, 4, good.link_base + good.descriptor_offset, error);
    ACCEPT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_FULL_ADDRESS), 4, 0xffffffffu);
    ACCEPT(descriptor_at(last, ZEROSKIP_DESCRIPTOR_POOL_ADDRESS), 4, 0xffffffffu);
    REFUSE_AT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_POOL_ROW_BYTES), 4, 0xffffffffu, error, pool);
    REFUSE_AT(descriptor_at(last, ZEROSKIP_DESCRIPTOR_FULL_ROW_BYTES), 4, 0xffffffffu, error, full);
}

/* Of an image for the intersect array. */
static void test_image_weights(void)
{
    const enum zs_error error = ZS_ERROR_IMAGE_WEIGHTS;
    const uint32_t out_channels = get32(original + descriptor_at(0, ZEROSKIP_DESCRIPTOR_OUT_CHANNELS));
    CHECK(good.array == 1 && out_channels > good.lanes);
    /* Segment 1 holds the weights of layer 0: header, scales, rounds. */
    const size_t first = get32(original + segment_at(1) + 8), rounds = first + 8 + 16 * (size_t)good.lanes;
    const uint32_t beats = get32(original + first);
    const size_t second = rounds + 8 * (size_t)beats;
    REFUSE(first, 4, beats + 1, error);
    REFUSE(first, 4, beats - 1, error);
    REFUSE(first, 4, 0xffffffffu, error);
    REFUSE_AT(first + 4, 4, 1, error, first);
    REFUSE(second, 4, 0, error);
    /* The maps of the first lane lie behind its start. */
    ACCEPT(rounds, 4, 0xffffffffu);
    REFUSE_AT(rounds + 8, 4, 0xffffffffu, error, first);
    const size_t phases = descriptor_at(0, ZEROSKIP_DESCRIPTOR_PHASES);
    const size_t joined = descriptor_at(0, ZEROSKIP_DESCRIPTOR_JOINED);
    const uint32_t all = get32(original + phases), together = get32(original + joined);
    CHECK(together > 0 && together + 1 < all);
    REFUSE_AT(phases, 4, all + 1, error, first);
    REFUSE_AT(joined, 4, 0, error, first);
    REFUSE_AT(joined, 4, together - 1, error, first);
    REFUSE_AT(joined, 4, together + 1, error, first);
    REFUSE_AT(descriptor_at(0, ZEROSKIP_DESCRIPTOR_OUT_CHANNELS), 4, good.lanes + 1, error, second);
    REFUSE_AT(segment_at(1) + 4, 4, get32(original + segment_at(1) + 4) - 8, error, second);

    const enum zs_error field = ZS_ERROR_IMAGE_DESCRIPTOR;
    const size_t address = descriptor_at(0, ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS);
    REFUSE(phases, 4, 0, field);
    REFUSE(phases, 4, 8, field);
    REFUSE(joined, 4, all, field);
    REFUSE(joined, 4, 0xffffffffu, field);
    REFUSE_AT(phases, 4, together, field, joined);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_CHUNK_CHANNELS), 4, 0, field);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_CHUNK_ROWS), 4, 0, field);
    REFUSE(address, 4, good.link_base + good.descriptor_offset, field);
    REFUSE(address, 4, good.link_base + good.log_offset, field);
    REFUSE(address, 4, good.link_base - 8, field);
    REFUSE(descriptor_at(0, ZEROSKIP_DESCRIPTOR_POOL_ADDRESS), 4, get32(original + address), field);
}

static void test_image_damage(void)
{
    struct zs_image image;
    uint8_t *copy = malloc(original_size + 3);
    memcpy(copy, original, original_size);
    CHECK(zs_image_check(&image, copy, original_size + 3) == ZS_OK && image.file_bytes == original_size);
    CHECK(zs_image_check(&image, copy, 0) == ZS_ERROR_IMAGE_TRUNCATED);
    copy[20] ^= 1;
    CHECK(zs_image_check(&image, copy, original_size) == ZS_ERROR_IMAGE_HEADER_CRC && image.fault == 92);
    copy[20] ^= 1;
    copy[original_size - 1] ^= 1;
    CHECK(zs_image_check(&image, copy, original_size) == ZS_ERROR_IMAGE_PAYLOAD_CRC && image.fault == 16);
    free(copy);
    for (size_t length = 0; length < original_size; length += length < 100 ? 1 : 61) {
        copy = malloc(length ? length : 1);
        memcpy(copy, original, length);
        CHECK(zs_image_check(&image, copy, length) == ZS_ERROR_IMAGE_TRUNCATED);
        free(copy);
    }
}

/* --- zs_load --- */

static void test_load_refuses(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_image image = good;
    uint64_t counters[ZEROSKIP_COUNTERS];
    uint8_t value = 0;
    open_device(&fake, &device, false);
    CHECK(zs_run(&device, 1) == ZS_ERROR_NOT_LOADED);
    CHECK(zs_input(&device, ZS_UINT8, &value, 1) == ZS_ERROR_NOT_LOADED);
    CHECK(zs_map_read(&device, 0, ZS_UINT8, &value, 1) == ZS_ERROR_NOT_LOADED);
    CHECK(zs_counters(&device, 0, counters) == ZS_ERROR_NOT_LOADED);
    image.capability ^= 1;
    CHECK(zs_load(&device, &image) == ZS_ERROR_CAPABILITY);
    image.capability ^= 1;
    image.configuration ^= 1;
    CHECK(zs_load(&device, &image) == ZS_ERROR_CONFIGURATION);
    device.region.size = good.region_bytes - 1;
    CHECK(zs_load(&device, &good) == ZS_ERROR_REGION_SIZE);
    CHECK(zs_run(&device, 1) == ZS_ERROR_NOT_LOADED);
    device.region.size = good.region_bytes;
    CHECK(zs_load(&device, &good) == ZS_OK);
    CHECK(zs_load(&device, &image) == ZS_ERROR_CONFIGURATION);
    CHECK(zs_run(&device, 1) == ZS_ERROR_NOT_LOADED);
    CHECK(fake.starts == 0);
    fake_close(&fake);
}

/* What the accelerator sees after zs_load: all segments, and descriptors with addresses moved. */
static void test_load_relocates(void)
{
    struct fake fake;
    struct zs_device device;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    /* All of the region is flushed, the maps too. */
    CHECK(memcmp(fake.memory, fake.cache, fake.bytes) == 0);
    for (uint32_t n = 1; n < good.segment_count; ++n) {
        const uint8_t *entry = original + segment_at(n);
        CHECK(memcmp(fake.memory + get32(entry), original + get32(entry + 8), get32(entry + 4)) == 0);
    }
    for (uint32_t layer = 0; layer < good.layer_count; ++layer)
        for (uint32_t word = 0; word < ZEROSKIP_DESCRIPTOR_BYTES / 4; ++word) {
            const uint32_t old = get32(original + descriptor_at(layer, word));
            const bool full = get32(original + descriptor_at(layer, ZEROSKIP_DESCRIPTOR_WRITE_FULL)) != 0;
            const bool pool = get32(original + descriptor_at(layer, ZEROSKIP_DESCRIPTOR_POOL)) != 0;
            const bool moves = word == ZEROSKIP_DESCRIPTOR_IN_ADDRESS || word == ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS ||
                               (word == ZEROSKIP_DESCRIPTOR_FULL_ADDRESS && full) ||
                               (word == ZEROSKIP_DESCRIPTOR_POOL_ADDRESS && pool);
            const uint32_t offset = good.descriptor_offset + layer * ZEROSKIP_DESCRIPTOR_BYTES + 4 * word;
            CHECK(get32(fake.memory + offset) == (moves ? old - good.link_base + FAKE_BUS_ADDRESS : old));
        }
    fake_close(&fake);
}

static void test_cache_fails(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    uint64_t counters[ZEROSKIP_COUNTERS];
    open_device(&fake, &device, false);
    fake.cache_fails = true;
    CHECK(zs_load(&device, &good) == ZS_ERROR_CACHE);
    CHECK(zs_run(&device, 1) == ZS_ERROR_NOT_LOADED);
    fake.cache_fails = false;
    CHECK(zs_load(&device, &good) == ZS_OK);
    fake.cache_fails = true;
    CHECK(zs_map_entry(&good, good.input_map, &map) == ZS_OK);
    const size_t count = (size_t)map.channels * map.height * map.width;
    int8_t *values = calloc(count, 1);
    CHECK(zs_input(&device, ZS_INT8, values, count) == ZS_ERROR_CACHE);
    CHECK(zs_map_read(&device, good.input_map, ZS_INT8, values, count) == ZS_ERROR_CACHE);
    CHECK(zs_counters(&device, 0, counters) == ZS_ERROR_CACHE);
    free(values);
    fake_close(&fake);
}

/* --- zs_run, zs_cycles, zs_counters --- */

static void test_run(bool interrupt)
{
    struct fake fake;
    struct zs_device device;
    uint64_t cycles;
    open_device(&fake, &device, interrupt);
    CHECK(zs_load(&device, &good) == ZS_OK);
    *reg(&fake, ZEROSKIP_STATUS_OFFSET) = FINISHED;
    fake.end_reads = 3;
    CHECK(zs_run(&device, 10000) == ZS_OK);
    CHECK(fake.starts == 1 && fake.stops == 0 && fake.waits == (interrupt ? 3 : 0));
    CHECK(!interrupt || fake.cycles_to_wait == 10000 - 300 + 1);
    CHECK(*reg(&fake, ZEROSKIP_STATUS_OFFSET) == 0);
    CHECK(*reg(&fake, ZEROSKIP_INTERRUPT_ENABLE_OFFSET) == (interrupt ? FINISHED : 0));
    CHECK(*reg(&fake, ZEROSKIP_DESCRIPTOR_ADDRESS_OFFSET) == FAKE_BUS_ADDRESS + good.descriptor_offset);
    CHECK(*reg(&fake, ZEROSKIP_LAYER_COUNT_OFFSET) == good.layer_count);
    CHECK(*reg(&fake, ZEROSKIP_LOG_ADDRESS_OFFSET) == FAKE_BUS_ADDRESS + good.log_offset);
    fake.cycles = 0x123456789abcull;
    CHECK(zs_cycles(&device, &cycles) == ZS_OK && cycles == 0x123456789abcull);
    fake.end_reads = 0;
    CHECK(zs_run(&device, 10000) == ZS_OK && fake.starts == 2);
    fake_close(&fake);
}

static void test_run_ends_with_an_error(void)
{
    struct fake fake;
    struct zs_device device;
    open_device(&fake, &device, true);
    CHECK(zs_load(&device, &good) == ZS_OK);
    fake.end = FAKE_ERROR;
    for (uint32_t code = 1; code <= ZEROSKIP_ERROR_STOPPED; ++code) {
        fake.end_reads = 2;
        fake.error_code = code;
        CHECK(zs_run(&device, 10000) == (enum zs_error)(ZS_ACCELERATOR + code));
        CHECK(device.error_address == 0x12345678 && device.error_layer == 7);
        CHECK(*reg(&fake, ZEROSKIP_STATUS_OFFSET) == 0);
    }
    fake.end = FAKE_DONE;
    fake.end_reads = 2;
    CHECK(zs_run(&device, 10000) == ZS_OK);
    fake_close(&fake);
}

static void test_run_that_does_not_end(bool interrupt)
{
    struct fake fake;
    struct zs_device device;
    open_device(&fake, &device, interrupt);
    CHECK(zs_load(&device, &good) == ZS_OK);
    fake.end = FAKE_NEVER;
    CHECK(zs_run(&device, 1000) == ZS_ERROR_TIMEOUT);
    CHECK(fake.stops == 1 && fake.cycles > 1000 && fake.cycles < 1000 + 2 * fake.cycles_per_read);
    CHECK(*reg(&fake, ZEROSKIP_STATUS_OFFSET) == 0);
    fake.cycles_per_read = 1ull << 31;
    CHECK(zs_run(&device, 1ull << 34) == ZS_ERROR_TIMEOUT && fake.cycles > 1ull << 34);
    fake.stuck = true;
    CHECK(zs_run(&device, 1000) == ZS_ERROR_STUCK);
    fake.stuck = false;
    fake.end = FAKE_VANISH;
    fake.end_reads = 1;
    CHECK(zs_run(&device, 1ull << 40) == ZS_ERROR_STATE);
    fake_close(&fake);
}

static void test_run_when_waiting_fails(void)
{
    struct fake fake;
    struct zs_device device;
    open_device(&fake, &device, true);
    CHECK(zs_load(&device, &good) == ZS_OK);
    fake.end = FAKE_NEVER;
    fake.wait_fails = true;
    CHECK(zs_run(&device, 1000) == ZS_ERROR_WAIT && fake.stops == 1);
    fake_close(&fake);
}

/* Whichever register access of a run fails, the run says so. */
static void test_run_when_a_register_fails(enum fake_end end)
{
    struct fake fake;
    struct zs_device device;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    fake.end = end;
    fake.error_code = ZEROSKIP_ERROR_WATCHDOG;
    int64_t n = 0;
    enum zs_error error;
    do {
        *reg(&fake, ZEROSKIP_STATUS_OFFSET) = 0;
        fake.end_reads = 1;
        fake.accesses_left = n++;
        error = zs_run(&device, 1000);
    } while (error == ZS_ERROR_REGISTER && n < 1000);
    CHECK(error == (end == FAKE_DONE ? ZS_OK : end == FAKE_NEVER ? ZS_ERROR_TIMEOUT : ZS_ACCELERATOR_WATCHDOG));
    /* 6 to start, status and 2 for the cycles, status, and the ends: clear; 3 for the error, clear; ... */
    CHECK(n - 1 == (end == FAKE_DONE ? 11 : end == FAKE_ERROR ? 14 : 6 + 11 * 3 + 3));
    fake_close(&fake);
}

static void test_counters(void)
{
    struct fake fake;
    struct zs_device device;
    uint64_t counters[ZEROSKIP_COUNTERS];
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    const uint32_t last = good.layer_count - 1;
    uint8_t *record = fake.memory + good.log_offset + last * ZEROSKIP_LOG_BYTES;
    for (uint32_t n = 0; n < 8 * ZEROSKIP_COUNTERS; ++n)
        record[n] = (uint8_t)n;
    CHECK(zs_counters(&device, last, counters) == ZS_OK);
    CHECK(counters[0] == 0x0706050403020100ull && counters[9] == 0x4f4e4d4c4b4a4948ull);
    CHECK(zs_counters(&device, good.layer_count, counters) == ZS_ERROR_NO_LAYER);
    fake_close(&fake);
}

/* --- Maps --- */

static void test_map_table(void)
{
    struct zs_map map;
    uint32_t index;
    for (uint32_t n = 0; n < good.map_count; ++n) {
        CHECK(zs_map_entry(&good, n, &map) == ZS_OK);
        CHECK(zs_find_map(&good, map.name, &index) == ZS_OK && index == n);
        CHECK(map.scale > 0 && map.channels && map.height && map.width);
        CHECK((map.layer == 0xffff) == (n == good.input_map));
    }
    CHECK(zs_map_entry(&good, good.map_count, &map) == ZS_ERROR_NO_MAP);
    CHECK(zs_find_map(&good, "no such map", &index) == ZS_ERROR_NO_MAP);
    CHECK(zs_find_map(&good, "", &index) == ZS_ERROR_NO_MAP);
}

static void test_input_refuses(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    CHECK(zs_map_entry(&good, good.input_map, &map) == ZS_OK && map.is_signed);
    const size_t count = (size_t)map.channels * map.height * map.width;
    int32_t *values = calloc(count, sizeof *values);
    uint8_t *before = malloc(fake.bytes);
    memcpy(before, fake.memory, fake.bytes);
    CHECK(zs_input(&device, ZS_INT32, values, count - 1) == ZS_ERROR_COUNT);
    CHECK(zs_input(&device, ZS_INT32, values, count + 1) == ZS_ERROR_COUNT);
    CHECK(zs_input(&device, (enum zs_type)5, values, count) == ZS_ERROR_TYPE);
    values[count - 1] = 128;
    CHECK(zs_input(&device, ZS_INT32, values, count) == ZS_ERROR_VALUE);
    values[count - 1] = -129;
    CHECK(zs_input(&device, ZS_INT32, values, count) == ZS_ERROR_VALUE);
    CHECK(memcmp(before, fake.memory, fake.bytes) == 0);
    values[count - 1] = -128;
    CHECK(zs_input(&device, ZS_INT32, values, count) == ZS_OK);
    CHECK(memcmp(before, fake.memory, fake.bytes) != 0);
    free(before);
    free(values);
    fake_close(&fake);
}

/* Every type of the caller's array: what goes in comes out. */
static void test_types(void)
{
    static const int32_t lows[] = {-128, 0, -128, 0, -128};
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    CHECK(zs_map_entry(&good, good.input_map, &map) == ZS_OK);
    const size_t count = (size_t)map.channels * map.height * map.width;
    for (int type = ZS_INT8; type <= ZS_INT32; ++type) {
        const size_t width = zs_type_bytes((enum zs_type)type);
        uint8_t *values = malloc(count * width);
        int32_t *back = malloc(count * sizeof *back);
        for (size_t n = 0; n < count; ++n) {
            const int32_t value = lows[type] + (int32_t)(n * 37 % (size_t)(128 - lows[type]));
            for (size_t byte = 0; byte < width; ++byte)
                values[n * width + byte] = (uint8_t)((uint32_t)value >> 8 * byte);
        }
        CHECK(zs_input(&device, (enum zs_type)type, values, count) == ZS_OK);
        CHECK(zs_map_read(&device, good.input_map, ZS_INT32, back, count) == ZS_OK);
        bool equal = true;
        for (size_t n = 0; n < count; ++n)
            equal &= back[n] == lows[type] + (int32_t)(n * 37 % (size_t)(128 - lows[type]));
        CHECK(equal);
        /* The map is signed: unsigned types cannot hold it. */
        uint8_t *same = malloc(count * width);
        const bool can_hold = type != ZS_UINT8 && type != ZS_UINT16;
        CHECK(zs_map_read(&device, good.input_map, (enum zs_type)type, same, count) ==
              (can_hold ? ZS_OK : ZS_ERROR_TYPE));
        CHECK(!can_hold || memcmp(same, values, count * width) == 0);
        free(same);
        free(back);
        free(values);
    }
    CHECK(zs_map_read(&device, good.input_map, (enum zs_type)5, NULL, count) == ZS_ERROR_TYPE);
    fake_close(&fake);
}

static void test_unsigned_values(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    uint32_t index;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    CHECK(zs_find_map(&good, "a", &index) == ZS_OK && zs_map_entry(&good, index, &map) == ZS_OK && !map.is_signed);
    const size_t count = (size_t)map.channels * map.height * map.width;
    int32_t *values = malloc(count * sizeof *values);
    memset(fake.memory + map.offset, 0, map.size);
    /* Word of pixel 0, channel 0; its value. */
    fake.memory[map.offset] = 1;
    fake.memory[map.offset + 8] = 200;
    CHECK(zs_map_read(&device, index, ZS_INT32, values, count) == ZS_OK && values[0] == 200 && values[1] == 0);
    CHECK(zs_map_read(&device, index, ZS_INT16, values, count) == ZS_OK && ((int16_t *)values)[0] == 200);
    CHECK(zs_map_read(&device, index, ZS_UINT8, values, count) == ZS_OK && ((uint8_t *)values)[0] == 200);
    CHECK(zs_map_read(&device, index, ZS_INT8, values, count) == ZS_ERROR_TYPE);
    free(values);
    fake_close(&fake);
}

/* Whether the compressed map `index` reads well with byte `at` of its first slot set to `value`, others as they are. */
static enum zs_error read_with(struct fake *fake, struct zs_device *device, uint32_t index, size_t at, uint8_t value)
{
    struct zs_map map;
    (void)zs_map_entry(&good, index, &map);
    const size_t count = (size_t)map.channels * map.height * map.width;
    int32_t *values = malloc(count * sizeof *values);
    uint8_t *byte = fake->memory + map.offset + at;
    const uint8_t old = *byte;
    *byte = value;
    const enum zs_error error = zs_map_read(device, index, ZS_INT32, values, count);
    *byte = old;
    free(values);
    return error;
}

static void test_corrupt_maps(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    uint32_t index = 0;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    /* A compressed map that fills neither its last segment nor its block. */
    do
        CHECK(zs_map_entry(&good, index, &map) == ZS_OK);
    while ((map.is_dense || map.width != 2 || map.channels != 5) && ++index < good.map_count);
    CHECK(index < good.map_count);
    const size_t count = (size_t)map.channels * map.height * map.width;
    int32_t *values = malloc(count * sizeof *values);
    memset(fake.memory + map.offset, 0, map.size);
    CHECK(zs_map_read(&device, index, ZS_INT32, values, count + 1) == ZS_ERROR_COUNT);
    CHECK(zs_map_read(&device, good.map_count, ZS_INT32, values, count) == ZS_ERROR_NO_MAP);
    CHECK(zs_map_read(&device, index, ZS_INT32, values, count) == ZS_OK);
    /* Word of pixel 0, channels 0 and 1; then two values. */
    fake.memory[map.offset] = 3;
    fake.memory[map.offset + 8] = 11;
    fake.memory[map.offset + 9] = 12;
    CHECK(zs_map_read(&device, index, ZS_INT32, values, count) == ZS_OK);
    CHECK(values[0] == 11 && values[(size_t)map.height * map.width] == 12);
    CHECK(read_with(&fake, &device, index, 9, 0) == ZS_ERROR_MAP_CORRUPT);
    CHECK(read_with(&fake, &device, index, 10, 1) == ZS_ERROR_MAP_CORRUPT);
    CHECK(read_with(&fake, &device, index, 15, 1) == ZS_ERROR_MAP_CORRUPT);
    CHECK(read_with(&fake, &device, index, 16, 1) == ZS_OK);
    CHECK(read_with(&fake, &device, index, 0, 1) == ZS_ERROR_MAP_CORRUPT);
    fake.memory[map.offset + 10] = 13;
    CHECK(read_with(&fake, &device, index, 0, 7) == ZS_OK);
    CHECK(read_with(&fake, &device, index, 0, 3 | 1u << 5) == ZS_ERROR_MAP_CORRUPT);
    CHECK(read_with(&fake, &device, index, 2, 1) == ZS_OK);
    CHECK(read_with(&fake, &device, index, 4, 1) == ZS_ERROR_MAP_CORRUPT);
    memset(fake.memory + map.offset, 0xff, map.size);
    CHECK(zs_map_read(&device, index, ZS_INT32, values, count) == ZS_ERROR_MAP_CORRUPT);
    free(values);
    fake_close(&fake);
}

static void test_corrupt_dense_map(void)
{
    struct fake fake;
    struct zs_device device;
    struct zs_map map;
    open_device(&fake, &device, false);
    CHECK(zs_load(&device, &good) == ZS_OK);
    CHECK(zs_map_entry(&good, good.input_map, &map) == ZS_OK);
    CHECK(map.channels == 3 && map.dense_shift == 2 && map.width % 4 == 2);
    memset(fake.memory + map.offset, 0, map.size);
    CHECK(read_with(&fake, &device, good.input_map, 2, 1) == ZS_OK);
    CHECK(read_with(&fake, &device, good.input_map, 3, 1) == ZS_ERROR_MAP_CORRUPT);
    const size_t last = (map.width / 4) * (size_t)map.segment_bytes;
    CHECK(read_with(&fake, &device, good.input_map, last + 4, 1) == ZS_OK);
    CHECK(read_with(&fake, &device, good.input_map, last + 8, 1) == ZS_ERROR_MAP_CORRUPT);
    fake_close(&fake);
}

static void test_error_texts(void)
{
    const char *unknown = zs_error_text((enum zs_error)(ZS_ACCELERATOR + 255));
    const char *texts[64];
    size_t count = 0;
    for (int error = ZS_OK; error <= ZS_ERROR_STATE; ++error)
        texts[count++] = zs_error_text((enum zs_error)error);
    for (uint32_t code = 1; code <= ZEROSKIP_ERROR_STOPPED; ++code)
        texts[count++] = zs_error_text((enum zs_error)(ZS_ACCELERATOR + code));
    for (size_t n = 0; n < count; ++n) {
        CHECK(strcmp(texts[n], unknown) != 0 && strlen(texts[n]) > 8);
        for (size_t other = 0; other < n; ++other)
            CHECK(strcmp(texts[n], texts[other]) != 0);
    }
}

/* Make the image in a file the one that the tests are about; exit status 2 if it is not good. */
static void open_image(const char *path)
{
    free((void *)(uintptr_t)original);
    original = read_file(path, &original_size);
    const enum zs_error error = zs_image_check(&good, original, original_size);
    if (error) {
        fprintf(stderr, "%s: byte %u: %s\n", path, good.fault, zs_error_text(error));
        exit(2);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: test_driver IMAGE INTERSECT\n");
        return 2;
    }
    open_image(argv[1]);
    test_init();
    test_init_stops_a_run();
    test_image_header();
    test_image_segments();
    test_image_maps();
    test_image_descriptors();
    test_image_damage();
    test_load_refuses();
    test_load_relocates();
    test_cache_fails();
    test_run(false);
    test_run(true);
    test_run_ends_with_an_error();
    test_run_that_does_not_end(false);
    test_run_that_does_not_end(true);
    test_run_when_waiting_fails();
    test_run_when_a_register_fails(FAKE_DONE);
    test_run_when_a_register_fails(FAKE_ERROR);
    test_run_when_a_register_fails(FAKE_NEVER);
    test_counters();
    test_map_table();
    test_input_refuses();
    test_types();
    test_unsigned_values();
    test_corrupt_maps();
    test_corrupt_dense_map();
    test_error_texts();
    open_image(argv[2]);
    test_image_weights();
    printf("%d of %d checks failed\n", failures, checks);
    free((void *)(uintptr_t)original);
    return failures != 0;
}
