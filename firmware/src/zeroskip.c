/* Driver of a zeroskip accelerator. Contracts: zeroskip.h. Formats: docs/network-image.md, golden/README.md. */
#include "zeroskip.h"

#include <string.h>

#define MAJOR(version) ((version) >> 16 & 0xffu)
#define MINOR(version) ((version) >> 8 & 0xffu)
#define FIELD(word, name) (((word) & ZEROSKIP_##name##_MASK) >> ZEROSKIP_##name##_SHIFT)
#define FINISHED (ZEROSKIP_STATUS_DONE_MASK | ZEROSKIP_STATUS_ERROR_MASK)

/* Status reads until a stop counts as failed; the accelerator itself gives up after `watchdog` cycles. */
#define STOP_READS 10000000u
#define SEGMENT_PIXELS 4u
#define BEAT_BYTES 8u
/* 64 channels have 8 bits, 16 bits at most 32 of them. */
#define MAX_BLOCK 64u
#define MAX_SLOT_BYTES (MAX_BLOCK * 8u)
#define BROADCAST 0u
#define INTERSECT 1u
/* Most phases of the weights that share a round. */
#define ROUND_PHASES 4u
#define PAGE 4096u
#define ADDRESS_SPACE ((uint64_t)1 << 32)

/* Byte offsets in the image. */
enum {
    HEADER_MAGIC = 0, HEADER_MINOR = 4, HEADER_MAJOR = 6, HEADER_HEADER_BYTES = 8, HEADER_FILE_BYTES = 12,
    HEADER_PAYLOAD_CRC = 16, HEADER_CAPABILITY = 20, HEADER_CONFIGURATION = 24, HEADER_DESCRIPTOR_VERSION = 28,
    HEADER_LINK_BASE = 32, HEADER_REGION_BYTES = 36, HEADER_DESCRIPTOR_OFFSET = 40, HEADER_LAYER_COUNT = 44,
    HEADER_LOG_OFFSET = 48, HEADER_SEGMENT_COUNT = 52, HEADER_MAP_COUNT = 56, HEADER_INPUT_MAP = 60,
    HEADER_NAME = 64, HEADER_NAME_BYTES = 28, HEADER_CRC = 92, HEADER_BYTES = 96,
    SEGMENT_REGION_OFFSET = 0, SEGMENT_SIZE = 4, SEGMENT_FILE_OFFSET = 8, SEGMENT_ZERO = 12, SEGMENT_BYTES = 16,
    MAP_NAME = 0, MAP_NAME_BYTES = 48, MAP_OFFSET = 48, MAP_SIZE = 52, MAP_CHANNELS = 56, MAP_HEIGHT = 58,
    MAP_WIDTH = 60, MAP_FLAGS = 62, MAP_DENSE_SHIFT = 63, MAP_ROW_BYTES = 64, MAP_SEGMENT_BYTES = 68, MAP_SCALE = 72,
    MAP_LAYER = 80, MAP_ZERO = 82, MAP_ZERO_BYTES = 14, MAP_BYTES = 96
};
enum { MAP_SIGNED = 1, MAP_DENSE = 2, MAP_OUTPUT = 4 };
#define IMAGE_MAGIC 0x494e535au
#define IMAGE_MAJOR 1u
#define NO_LAYER 0xffffu

static uint32_t load16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t load32(const uint8_t *bytes)
{
    return load16(bytes) | load16(bytes + 2) << 16;
}

static uint64_t load64(const uint8_t *bytes)
{
    return load32(bytes) | (uint64_t)load32(bytes + 4) << 32;
}

static void store32(uint8_t *bytes, uint32_t value)
{
    for (unsigned n = 0; n < 4; ++n)
        bytes[n] = (uint8_t)(value >> 8 * n);
}

static uint64_t divide_up(uint64_t number, uint64_t by)
{
    return (number + by - 1) / by;
}

static uint32_t least(uint32_t number, uint32_t limit)
{
    return number < limit ? number : limit;
}

static uint32_t whole_beats(uint32_t bytes)
{
    return (bytes + BEAT_BYTES - 1) / BEAT_BYTES * BEAT_BYTES;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
    for (size_t n = 0; n < count; ++n)
        if (bytes[n])
            return false;
    return true;
}

/* Polynomial and conventions of zlib's crc32, four bits at a time: a table of 64 bytes. */
static uint32_t crc32(const uint8_t *bytes, size_t count)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    uint32_t crc = 0xffffffffu;
    for (size_t n = 0; n < count; ++n) {
        crc ^= bytes[n];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return ~crc;
}

/* --- Layout of maps --- */

static uint32_t slot_bytes(const struct zs_image *image)
{
    /* Values and map words need between 1/2 and all of this power of two. */
    return image->block * image->value_width;
}

static uint64_t cell_bytes(const struct zs_image *image, bool dense, uint32_t dense_shift, uint32_t channels)
{
    if (!dense)
        return divide_up(channels, image->block) * slot_bytes(image);
    const uint64_t bytes = (uint64_t)(SEGMENT_PIXELS << dense_shift) * image->value_width / 8;
    return bytes < BEAT_BYTES ? BEAT_BYTES : bytes;
}

/* From the first byte of a map to behind its last one; height and width are 1 to 65535. */
static uint64_t map_extent(uint32_t height, uint32_t width, uint32_t row_bytes, uint32_t segment_bytes, uint64_t cell)
{
    const uint64_t segments = divide_up(width, SEGMENT_PIXELS);
    return (uint64_t)(height - 1) * row_bytes + (segments - 1) * segment_bytes + cell;
}

static bool overlap(uint64_t first, uint64_t first_size, uint64_t second, uint64_t second_size)
{
    return first < second + second_size && second < first + first_size;
}

/* --- Image check --- */

static const uint8_t *segment_entry(const struct zs_image *image, uint32_t index)
{
    return image->bytes + HEADER_BYTES + (size_t)index * SEGMENT_BYTES;
}

static const uint8_t *map_bytes(const struct zs_image *image, uint32_t index)
{
    return segment_entry(image, image->segment_count) + (size_t)index * MAP_BYTES;
}

static uint64_t descriptor_bytes(const struct zs_image *image)
{
    return (uint64_t)image->layer_count * ZEROSKIP_DESCRIPTOR_BYTES;
}

static uint64_t log_bytes(const struct zs_image *image)
{
    return (uint64_t)image->layer_count * ZEROSKIP_LOG_BYTES;
}

/* UTF-8, padded with zeros, at least one. */
static bool is_name(const uint8_t *bytes, size_t size)
{
    /* The first code that needs so many bytes more: a longer form of a smaller one is refused. */
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    size_t n = 0;
    while (n < size && bytes[n]) {
        const uint32_t first = bytes[n++];
        const unsigned more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        uint32_t code = more ? first & 0x3fu >> more : first;
        for (unsigned m = 0; m < more; ++m, ++n) {
            if (n == size || (bytes[n] & 0xc0u) != 0x80u)
                return false;
            code = code << 6 | (bytes[n] & 0x3fu);
        }
        const bool leads = first < 0x80 || (first >= 0xc0 && first < 0xf8);
        const bool surrogate = code >= 0xd800 && code < 0xe000;
        if (!leads || code < least[more] || surrogate || code > 0x10ffff)
            return false;
    }
    return n < size && all_zero(bytes + n, size - n);
}

static enum zs_error fault(struct zs_image *image, enum zs_error error, const uint8_t *where)
{
    image->fault = (uint32_t)(where - image->bytes);
    return error;
}

/* A table of checks: the first that is violated names the byte. */
struct check {
    bool holds;
    uint32_t offset;
};

static enum zs_error check_all(struct zs_image *image, enum zs_error error, const uint8_t *base,
                               const struct check *checks, size_t count)
{
    for (size_t n = 0; n < count; ++n)
        if (!checks[n].holds)
            return fault(image, error, base + checks[n].offset);
    return ZS_OK;
}

#define CHECK_ALL(image, error, base, checks) check_all(image, error, base, checks, sizeof(checks) / sizeof(checks)[0])

/* What has to hold before the rest of the file can be looked at. */
static enum zs_error check_file(struct zs_image *image, size_t length)
{
    const uint8_t *bytes = image->bytes;
    if (length < HEADER_BYTES)
        return fault(image, ZS_ERROR_IMAGE_TRUNCATED, bytes + length);
    if (load32(bytes + HEADER_MAGIC) != IMAGE_MAGIC)
        return fault(image, ZS_ERROR_IMAGE_MAGIC, bytes + HEADER_MAGIC);
    if (load16(bytes + HEADER_MAJOR) != IMAGE_MAJOR)
        return fault(image, ZS_ERROR_IMAGE_VERSION, bytes + HEADER_MAJOR);
    if (load32(bytes + HEADER_CRC) != crc32(bytes, HEADER_CRC))
        return fault(image, ZS_ERROR_IMAGE_HEADER_CRC, bytes + HEADER_CRC);
    if (load32(bytes + HEADER_DESCRIPTOR_VERSION) != ZEROSKIP_DESCRIPTOR_MAGIC)
        return fault(image, ZS_ERROR_IMAGE_VERSION, bytes + HEADER_DESCRIPTOR_VERSION);
    image->file_bytes = load32(bytes + HEADER_FILE_BYTES);
    if (image->file_bytes > length)
        return fault(image, ZS_ERROR_IMAGE_TRUNCATED, bytes + HEADER_FILE_BYTES);
    if (image->file_bytes < HEADER_BYTES)
        return fault(image, ZS_ERROR_IMAGE_HEADER, bytes + HEADER_FILE_BYTES);
    if (load32(bytes + HEADER_PAYLOAD_CRC) != crc32(bytes + HEADER_BYTES, image->file_bytes - HEADER_BYTES))
        return fault(image, ZS_ERROR_IMAGE_PAYLOAD_CRC, bytes + HEADER_PAYLOAD_CRC);
    return ZS_OK;
}

/* Whether there are accelerators with this array, values, block and lanes. */
static bool is_possible(const struct zs_image *image)
{
    const bool broadcast = image->array == BROADCAST, intersect = image->array == INTERSECT;
    const bool width = image->value_width == 8 || (image->value_width == 16 && broadcast);
    const bool block = image->block == 16 || image->block == 32 || (image->block == 64 && intersect);
    return (broadcast || intersect) && width && block && image->lanes && image->lanes % image->block == 0;
}

static enum zs_error check_header(struct zs_image *image)
{
    const uint8_t *bytes = image->bytes;
    image->capability = load32(bytes + HEADER_CAPABILITY);
    image->configuration = load32(bytes + HEADER_CONFIGURATION);
    image->link_base = load32(bytes + HEADER_LINK_BASE);
    image->region_bytes = load32(bytes + HEADER_REGION_BYTES);
    image->descriptor_offset = load32(bytes + HEADER_DESCRIPTOR_OFFSET);
    image->layer_count = load32(bytes + HEADER_LAYER_COUNT);
    image->log_offset = load32(bytes + HEADER_LOG_OFFSET);
    image->segment_count = load32(bytes + HEADER_SEGMENT_COUNT);
    image->map_count = load32(bytes + HEADER_MAP_COUNT);
    image->input_map = load32(bytes + HEADER_INPUT_MAP);
    image->name = (const char *)bytes + HEADER_NAME;
    image->array = FIELD(image->capability, CAPABILITY_ARRAY);
    image->value_width = FIELD(image->capability, CAPABILITY_VALUE_WIDTH);
    image->block = FIELD(image->capability, CAPABILITY_BLOCK);
    image->lanes = FIELD(image->capability, CAPABILITY_LANES);
    const uint64_t tables = HEADER_BYTES + (uint64_t)image->segment_count * SEGMENT_BYTES +
                            (uint64_t)image->map_count * MAP_BYTES;
    const uint64_t log_end = image->log_offset + log_bytes(image);
    const uint64_t list_end = image->descriptor_offset + descriptor_bytes(image);
    const struct check checks[] = {
        {load32(bytes + HEADER_HEADER_BYTES) == HEADER_BYTES, HEADER_HEADER_BYTES},
        {is_possible(image), HEADER_CAPABILITY},
        {image->link_base % PAGE == 0, HEADER_LINK_BASE},
        {image->region_bytes % PAGE == 0 && image->region_bytes, HEADER_REGION_BYTES},
        {image->link_base + (uint64_t)image->region_bytes <= ADDRESS_SPACE, HEADER_REGION_BYTES},
        {image->layer_count >= 1 && image->layer_count <= ZEROSKIP_LAYER_COUNT_VALUE_MASK, HEADER_LAYER_COUNT},
        {image->descriptor_offset % 8 == 0 && list_end <= image->region_bytes, HEADER_DESCRIPTOR_OFFSET},
        {image->log_offset % ZEROSKIP_LOG_BYTES == 0 && log_end <= image->region_bytes, HEADER_LOG_OFFSET},
        {image->segment_count >= 1 && tables <= image->file_bytes, HEADER_SEGMENT_COUNT},
        {image->map_count >= 2, HEADER_MAP_COUNT},
        {image->input_map < image->map_count, HEADER_INPUT_MAP},
        {is_name(bytes + HEADER_NAME, HEADER_NAME_BYTES), HEADER_NAME},
    };
    return CHECK_ALL(image, ZS_ERROR_IMAGE_HEADER, bytes, checks);
}

static enum zs_error check_segments(struct zs_image *image)
{
    const uint64_t tables = (uint64_t)(map_bytes(image, image->map_count) - image->bytes);
    uint64_t last_end = 0;
    for (uint32_t n = 0; n < image->segment_count; ++n) {
        const uint8_t *entry = segment_entry(image, n);
        const uint64_t offset = load32(entry + SEGMENT_REGION_OFFSET), size = load32(entry + SEGMENT_SIZE);
        const uint64_t source = load32(entry + SEGMENT_FILE_OFFSET);
        const bool apart = offset >= last_end && !overlap(offset, size, image->log_offset, log_bytes(image));
        const struct check checks[] = {
            {size >= 1, SEGMENT_SIZE},
            {offset % 8 == 0 && offset + size <= image->region_bytes && apart, SEGMENT_REGION_OFFSET},
            {source % 8 == 0 && source >= tables && source + size <= image->file_bytes, SEGMENT_FILE_OFFSET},
            {load32(entry + SEGMENT_ZERO) == 0, SEGMENT_ZERO},
            {n || offset == image->descriptor_offset, SEGMENT_REGION_OFFSET},
            {n || size == descriptor_bytes(image), SEGMENT_SIZE},
        };
        const enum zs_error error = CHECK_ALL(image, ZS_ERROR_IMAGE_SEGMENT, entry, checks);
        if (error)
            return error;
        last_end = offset + size;
    }
    return ZS_OK;
}

/* The driver writes the input map: it must not hit what zs_load has copied, nor the log. */
static bool input_is_apart(const struct zs_image *image, const struct zs_map *map)
{
    bool apart = !overlap(map->offset, map->size, image->log_offset, log_bytes(image));
    for (uint32_t n = 0; n < image->segment_count; ++n) {
        const uint8_t *entry = segment_entry(image, n);
        apart &= !overlap(map->offset, map->size, load32(entry + SEGMENT_REGION_OFFSET), load32(entry + SEGMENT_SIZE));
    }
    return apart;
}

static enum zs_error check_maps(struct zs_image *image)
{
    for (uint32_t n = 0; n < image->map_count; ++n) {
        const uint8_t *entry = map_bytes(image, n);
        struct zs_map map;
        (void)zs_map_entry(image, n, &map);
        const uint64_t scale = load64(entry + MAP_SCALE);
        const bool input = n == image->input_map;
        /* Checked before it shifts anything. */
        if (map.is_dense ? map.dense_shift > 5 || 1u << map.dense_shift > image->block : map.dense_shift != 0)
            return fault(image, ZS_ERROR_IMAGE_MAP, entry + MAP_DENSE_SHIFT);
        const struct check shape[] = {
            {is_name(entry + MAP_NAME, MAP_NAME_BYTES), MAP_NAME},
            {map.channels >= 1 && (!map.is_dense || map.channels <= 1u << map.dense_shift), MAP_CHANNELS},
            {map.height >= 1, MAP_HEIGHT},
            {map.width >= 1, MAP_WIDTH},
        };
        enum zs_error error = CHECK_ALL(image, ZS_ERROR_IMAGE_MAP, entry, shape);
        if (error)
            return error;
        const uint64_t cell = cell_bytes(image, map.is_dense, map.dense_shift, map.channels);
        const uint64_t row = divide_up(map.width, SEGMENT_PIXELS) * map.segment_bytes;
        const struct check checks[] = {
            {(entry[MAP_FLAGS] & ~(MAP_SIGNED | MAP_DENSE | MAP_OUTPUT)) == 0, MAP_FLAGS},
            {map.segment_bytes % 8 == 0 && map.segment_bytes >= cell, MAP_SEGMENT_BYTES},
            {map.row_bytes % 8 == 0 && map.row_bytes >= row, MAP_ROW_BYTES},
            {map_extent(map.height, map.width, map.row_bytes, map.segment_bytes, cell) <= map.size, MAP_SIZE},
            {map.offset % PAGE == 0 && map.offset + (uint64_t)map.size <= image->region_bytes, MAP_OFFSET},
            /* By the bits of an IEEE 754 double: a number above 0 or, inside the network, 0; no infinity, not a NaN. */
            {(scale > 0 || !(input || map.is_output)) && scale < (uint64_t)0x7ff << 52, MAP_SCALE},
            {input ? map.layer == NO_LAYER : map.layer < image->layer_count, MAP_LAYER},
            {all_zero(entry + MAP_ZERO, MAP_ZERO_BYTES), MAP_ZERO},
            {!input || input_is_apart(image, &map), MAP_OFFSET},
        };
        error = CHECK_ALL(image, ZS_ERROR_IMAGE_MAP, entry, checks);
        if (error)
            return error;
    }
    return ZS_OK;
}

static uint32_t pooled(uint32_t windows, uint32_t kernel)
{
    return windows < kernel ? 1 : (windows - kernel + 1) / 2 + 1;
}

/* An address below link_base wraps to an offset far beyond the region. */
static bool in_region(const struct zs_image *image, uint32_t address, uint64_t size)
{
    return address - image->link_base + size <= image->region_bytes;
}

/* Whether a map that the accelerator writes stays in the region and off what steers it: descriptors, and the weights of
 * the intersect array. */
static bool output_fits(const struct zs_image *image, uint32_t address, uint64_t size)
{
    bool fits = in_region(image, address, size);
    const uint32_t kept = image->array == INTERSECT ? image->segment_count : 1;
    for (uint32_t n = 0; n < kept; ++n) {
        const uint8_t *entry = segment_entry(image, n);
        fits &= !overlap(address - image->link_base, size, load32(entry + SEGMENT_REGION_OFFSET),
                         load32(entry + SEGMENT_SIZE));
    }
    return fits;
}

static uint64_t weight_bytes(const struct zs_image *image, uint32_t lanes, uint64_t weights)
{
    return divide_up(lanes, image->block) * image->block * 16 +
           weights * divide_up((uint64_t)lanes * image->value_width, 64) * 8;
}

/* A field of the descriptor at `entry`, and its byte there. */
#define WORD(name) load32(entry + 4 * ZEROSKIP_DESCRIPTOR_##name)
#define AT(name) (4 * ZEROSKIP_DESCRIPTOR_##name)

/* Bytes from weight_address on that the broadcast array reads. */
static uint64_t weight_image_bytes(const struct zs_image *image, const uint8_t *entry)
{
    const uint64_t weights = (uint64_t)WORD(KERNEL_ROWS) * WORD(KERNEL_COLUMNS) * WORD(IN_CHANNELS);
    return WORD(OUT_CHANNELS) / image->lanes * weight_bytes(image, image->lanes, weights) +
           weight_bytes(image, WORD(OUT_CHANNELS) % image->lanes, weights);
}

/* The accelerator checks that the fields fit together; this checks the memory that they lead to. */
static enum zs_error check_descriptor(struct zs_image *image, const uint8_t *entry)
{
#define WITHIN(name, high) (WORD(name) >= 1 && WORD(name) <= (high))
#define SIZE(name) WITHIN(name, 0xffff)
    const bool intersect = image->array == INTERSECT;
    const struct check sizes[] = {
        {load32(entry) == ZEROSKIP_DESCRIPTOR_MAGIC, 0},
        {WORD(DENSE_IN) <= 1, AT(DENSE_IN)}, {WORD(WRITE_FULL) <= 1, AT(WRITE_FULL)},
        {WORD(POOL) <= 3 && WORD(POOL) != 1, AT(POOL)}, {WORD(DENSE_SHIFT) <= 5, AT(DENSE_SHIFT)},
        {SIZE(IN_HEIGHT), AT(IN_HEIGHT)}, {SIZE(IN_WIDTH), AT(IN_WIDTH)}, {SIZE(IN_CHANNELS), AT(IN_CHANNELS)},
        {SIZE(OUT_HEIGHT), AT(OUT_HEIGHT)}, {SIZE(OUT_WIDTH), AT(OUT_WIDTH)}, {SIZE(OUT_CHANNELS), AT(OUT_CHANNELS)},
        {WORD(KERNEL_ROWS) <= 7, AT(KERNEL_ROWS)}, {WORD(KERNEL_COLUMNS) <= 7, AT(KERNEL_COLUMNS)},
        {!intersect || SIZE(CHUNK_CHANNELS), AT(CHUNK_CHANNELS)},
        {!intersect || WITHIN(CHUNK_ROWS, 7), AT(CHUNK_ROWS)}, {!intersect || WITHIN(PHASES, 7), AT(PHASES)},
        {!intersect || WORD(JOINED) < least(WORD(PHASES), ROUND_PHASES), AT(JOINED)},
    };
    const enum zs_error error = CHECK_ALL(image, ZS_ERROR_IMAGE_DESCRIPTOR, entry, sizes);
    if (error)
        return error;
    /* Of one block; the others lie between the first and the last, whose distance is in two's complement. */
    const uint64_t in_cell = cell_bytes(image, WORD(DENSE_IN), WORD(DENSE_SHIFT), 1);
    const uint64_t out_cell = cell_bytes(image, false, 0, WORD(OUT_CHANNELS));
    const uint64_t in = map_extent(WORD(IN_HEIGHT), WORD(IN_WIDTH), WORD(IN_ROW_BYTES), WORD(IN_SEGMENT_BYTES),
                                   in_cell);
    const int64_t last_block = WORD(DENSE_IN) ? 0 : (int64_t)divide_up(WORD(IN_CHANNELS), image->block) - 1;
    const int64_t last = (uint32_t)(WORD(IN_ADDRESS) - image->link_base) + last_block * (int32_t)WORD(IN_BLOCK_BYTES);
    const uint64_t full = map_extent(WORD(OUT_HEIGHT), WORD(OUT_WIDTH), WORD(FULL_ROW_BYTES), WORD(FULL_SEGMENT_BYTES),
                                     out_cell);
    const uint64_t pool = map_extent(pooled(WORD(OUT_HEIGHT), WORD(POOL)), pooled(WORD(OUT_WIDTH), WORD(POOL)),
                                     WORD(POOL_ROW_BYTES), WORD(POOL_SEGMENT_BYTES), out_cell);
    const struct check places[] = {
        {in_region(image, WORD(IN_ADDRESS), in), AT(IN_ADDRESS)},
        {last >= 0 && (uint64_t)last + in <= image->region_bytes, AT(IN_BLOCK_BYTES)},
        {intersect || in_region(image, WORD(WEIGHT_ADDRESS), weight_image_bytes(image, entry)), AT(WEIGHT_ADDRESS)},
        {!WORD(WRITE_FULL) || output_fits(image, WORD(FULL_ADDRESS), full), AT(FULL_ADDRESS)},
        {!WORD(POOL) || output_fits(image, WORD(POOL_ADDRESS), pool), AT(POOL_ADDRESS)},
    };
    return CHECK_ALL(image, ZS_ERROR_IMAGE_DESCRIPTOR, entry, places);
#undef WITHIN
#undef SIZE
}

/* --- Weight images of the intersect array: their contents say how much of them is read --- */

/* What is loaded from a weight image on, and how much of it has been walked over. */
struct weights {
    const uint8_t *bytes;
    uint32_t size, at;
};

/* The bytes of a segment from `offset` in the region on. Not of the first one: loading changes descriptors. */
static bool find_weights(const struct zs_image *image, uint32_t offset, struct weights *weights)
{
    for (uint32_t n = 1; n < image->segment_count; ++n) {
        const uint8_t *entry = segment_entry(image, n);
        const uint32_t first = load32(entry + SEGMENT_REGION_OFFSET), size = load32(entry + SEGMENT_SIZE);
        if (offset < first || offset - first >= size)
            continue;
        *weights = (struct weights){
            .bytes = image->bytes + load32(entry + SEGMENT_FILE_OFFSET) + (offset - first),
            .size = size - (offset - first),
        };
        return true;
    }
    return false;
}

/* Walk over `count` bytes; false if so many are not there. */
static bool skip(struct weights *weights, uint32_t count)
{
    const bool fits = count <= weights->size - weights->at;
    if (fits)
        weights->at += count;
    return fits;
}

static uint32_t count_ones(const uint8_t *bytes, uint32_t count)
{
    uint32_t ones = 0;
    for (uint32_t n = 0; n < count; ++n)
        for (uint32_t bits = bytes[n]; bits; bits &= bits - 1)
            ++ones;
    return ones;
}

/* A lane of a round: its start, its maps of all phases, and a value for each bit that is set in them. */
static bool skip_lane(struct weights *weights, uint32_t map_bytes)
{
    const uint32_t maps = weights->at + BEAT_BYTES;
    return skip(weights, BEAT_BYTES + whole_beats(map_bytes)) &&
           skip(weights, whole_beats(count_ones(weights->bytes + maps, map_bytes)));
}

/* All rounds of a kernel block: phases, the last ones joined, for each the chunks of channels, in each those of kernel
 * rows. */
static bool skip_rounds(struct weights *weights, const struct zs_image *image, const uint8_t *entry, uint32_t lanes)
{
    const uint32_t channels = WORD(IN_CHANNELS), rows = WORD(KERNEL_ROWS), last = WORD(PHASES) - WORD(JOINED) - 1;
    for (uint32_t phase = 0; phase <= last; ++phase) {
        const uint32_t phases = phase < last ? 1 : WORD(JOINED) + 1;
        for (uint32_t channel = 0; channel < channels; channel += WORD(CHUNK_CHANNELS))
            for (uint32_t row = 0; row < rows; row += WORD(CHUNK_ROWS)) {
                const uint32_t taps = least(WORD(CHUNK_ROWS), rows - row) * WORD(KERNEL_COLUMNS);
                const uint64_t blocks = divide_up(least(WORD(CHUNK_CHANNELS), channels - channel), image->block);
                for (uint32_t lane = 0; lane < lanes; ++lane)
                    if (!skip_lane(weights, phases * taps * (uint32_t)blocks * image->block / 8))
                        return false;
            }
    }
    return true;
}

/* Header, scales and rounds of a kernel block; the header tells the beats of the rounds. */
static bool skip_kernel_block(struct weights *weights, const struct zs_image *image, const uint8_t *entry,
                              uint32_t lanes)
{
    const uint32_t header = weights->at;
    const uint32_t scales = (uint32_t)divide_up(lanes, image->block) * image->block * 2 * BEAT_BYTES;
    if (!skip(weights, BEAT_BYTES + scales))
        return false;
    const uint32_t rounds = weights->at;
    return skip_rounds(weights, image, entry, lanes) &&
           load64(weights->bytes + header) == (weights->at - rounds) / BEAT_BYTES;
}

/* Whether the weights of a layer are loaded, and are as many as the accelerator will read. */
static enum zs_error check_weights(struct zs_image *image, const uint8_t *entry)
{
    struct weights weights;
    if (!find_weights(image, WORD(WEIGHT_ADDRESS) - image->link_base, &weights))
        return fault(image, ZS_ERROR_IMAGE_DESCRIPTOR, entry + AT(WEIGHT_ADDRESS));
    for (uint32_t first = 0; first < WORD(OUT_CHANNELS); first += image->lanes) {
        const uint8_t *header = weights.bytes + weights.at;
        if (!skip_kernel_block(&weights, image, entry, least(image->lanes, WORD(OUT_CHANNELS) - first)))
            return fault(image, ZS_ERROR_IMAGE_WEIGHTS, header);
    }
    return ZS_OK;
}

#undef WORD
#undef AT

enum zs_error zs_image_check(struct zs_image *image, const void *bytes, size_t length)
{
    memset(image, 0, sizeof *image);
    image->bytes = bytes;
    enum zs_error error = check_file(image, length);
    if (!error)
        error = check_header(image);
    if (!error)
        error = check_segments(image);
    if (!error)
        error = check_maps(image);
    for (uint32_t n = 0; !error && n < image->layer_count; ++n) {
        const uint8_t *descriptors = image->bytes + load32(segment_entry(image, 0) + SEGMENT_FILE_OFFSET);
        const uint8_t *entry = descriptors + (size_t)n * ZEROSKIP_DESCRIPTOR_BYTES;
        error = check_descriptor(image, entry);
        if (!error && image->array == INTERSECT)
            error = check_weights(image, entry);
    }
    return error;
}

/* --- Maps of a checked image --- */

enum zs_error zs_map_entry(const struct zs_image *image, uint32_t index, struct zs_map *map)
{
    if (index >= image->map_count)
        return ZS_ERROR_NO_MAP;
    const uint8_t *entry = map_bytes(image, index);
    const uint64_t scale = load64(entry + MAP_SCALE);
    *map = (struct zs_map){
        .name = (const char *)entry + MAP_NAME,
        .offset = load32(entry + MAP_OFFSET),
        .size = load32(entry + MAP_SIZE),
        .channels = load16(entry + MAP_CHANNELS),
        .height = load16(entry + MAP_HEIGHT),
        .width = load16(entry + MAP_WIDTH),
        .is_signed = (entry[MAP_FLAGS] & MAP_SIGNED) != 0,
        .is_dense = (entry[MAP_FLAGS] & MAP_DENSE) != 0,
        .is_output = (entry[MAP_FLAGS] & MAP_OUTPUT) != 0,
        .dense_shift = entry[MAP_DENSE_SHIFT],
        .row_bytes = load32(entry + MAP_ROW_BYTES),
        .segment_bytes = load32(entry + MAP_SEGMENT_BYTES),
        .layer = load16(entry + MAP_LAYER),
    };
    memcpy(&map->scale, &scale, sizeof map->scale);
    return ZS_OK;
}

enum zs_error zs_find_map(const struct zs_image *image, const char *name, uint32_t *index)
{
    for (uint32_t n = 0; n < image->map_count; ++n)
        if (strcmp((const char *)map_bytes(image, n) + MAP_NAME, name) == 0) {
            *index = n;
            return ZS_OK;
        }
    return ZS_ERROR_NO_MAP;
}

enum zs_type zs_map_type(const struct zs_image *image, const struct zs_map *map)
{
    if (image->value_width == 8)
        return map->is_signed ? ZS_INT8 : ZS_UINT8;
    return map->is_signed ? ZS_INT16 : ZS_UINT16;
}

/* --- Registers --- */

static enum zs_error read_register(const struct zs_device *device, uint32_t offset, uint32_t *value)
{
    return device->platform.read32(device->platform.context, offset, value) ? ZS_ERROR_REGISTER : ZS_OK;
}

static enum zs_error write_register(const struct zs_device *device, uint32_t offset, uint32_t value)
{
    return device->platform.write32(device->platform.context, offset, value) ? ZS_ERROR_REGISTER : ZS_OK;
}

/* control.stop, until the accelerator is idle, with nothing left in the status. */
static enum zs_error stop(struct zs_device *device)
{
    enum zs_error error = write_register(device, ZEROSKIP_CONTROL_OFFSET, ZEROSKIP_CONTROL_STOP_MASK);
    for (uint32_t n = 0; !error && n < STOP_READS; ++n) {
        uint32_t status;
        error = read_register(device, ZEROSKIP_STATUS_OFFSET, &status);
        if (!error && !(status & ZEROSKIP_STATUS_BUSY_MASK))
            return write_register(device, ZEROSKIP_STATUS_OFFSET, FINISHED);
    }
    return error ? error : ZS_ERROR_STUCK;
}

enum zs_error zs_init(struct zs_device *device, const struct zs_platform *platform, const struct zs_region *region)
{
    memset(device, 0, sizeof *device);
    device->platform = *platform;
    device->region = *region;
    /* Address 0 is the log's "nowhere". */
    if (!region->memory || !region->bus_address || region->bus_address % PAGE ||
        region->bus_address + (uint64_t)region->size > ADDRESS_SPACE)
        return ZS_ERROR_REGION;
    uint32_t identity, version, status;
    enum zs_error error = read_register(device, ZEROSKIP_IDENTITY_OFFSET, &identity);
    if (error)
        return error;
    if (identity != ZEROSKIP_IDENTITY)
        return ZS_ERROR_IDENTITY;
    error = read_register(device, ZEROSKIP_VERSION_OFFSET, &version);
    if (error)
        return error;
    if (MAJOR(version) != MAJOR(ZEROSKIP_VERSION) || MINOR(version) < MINOR(ZEROSKIP_VERSION))
        return ZS_ERROR_REGISTER_MAP;
    error = read_register(device, ZEROSKIP_CAPABILITY_OFFSET, &device->capability);
    if (!error)
        error = read_register(device, ZEROSKIP_CONFIGURATION_OFFSET, &device->configuration);
    if (!error)
        error = read_register(device, ZEROSKIP_STATUS_OFFSET, &status);
    if (!error && (status & ZEROSKIP_STATUS_BUSY_MASK))
        error = stop(device);
    return error;
}

enum zs_error zs_cycles(struct zs_device *device, uint64_t *cycles)
{
    uint32_t low, high;
    /* Reading the low word latches the high one. */
    enum zs_error error = read_register(device, ZEROSKIP_CYCLES_LOW_OFFSET, &low);
    if (!error)
        error = read_register(device, ZEROSKIP_CYCLES_HIGH_OFFSET, &high);
    if (!error)
        *cycles = low | (uint64_t)high << 32;
    return error;
}

/* --- Load and run --- */

typedef int (*cache_function)(void *context, void *start, size_t size);

static enum zs_error synchronise(const struct zs_device *device, cache_function function, uint32_t offset,
                                 uint32_t size)
{
    uint8_t *start = (uint8_t *)device->region.memory + offset;
    return function && function(device->platform.context, start, size) ? ZS_ERROR_CACHE : ZS_OK;
}

static enum zs_error flush(const struct zs_device *device, uint32_t offset, uint32_t size)
{
    return synchronise(device, device->platform.flush, offset, size);
}

static enum zs_error invalidate(const struct zs_device *device, uint32_t offset, uint32_t size)
{
    return synchronise(device, device->platform.invalidate, offset, size);
}

static void relocate(uint8_t *descriptor, uint32_t word, uint32_t distance)
{
    store32(descriptor + 4 * word, load32(descriptor + 4 * word) + distance);
}

enum zs_error zs_load(struct zs_device *device, const struct zs_image *image)
{
    device->image.bytes = NULL;
    if (image->capability != device->capability)
        return ZS_ERROR_CAPABILITY;
    if (image->configuration != device->configuration)
        return ZS_ERROR_CONFIGURATION;
    if (image->region_bytes > device->region.size)
        return ZS_ERROR_REGION_SIZE;
    uint8_t *memory = device->region.memory;
    for (uint32_t n = 0; n < image->segment_count; ++n) {
        const uint8_t *entry = segment_entry(image, n);
        memcpy(memory + load32(entry + SEGMENT_REGION_OFFSET), image->bytes + load32(entry + SEGMENT_FILE_OFFSET),
               load32(entry + SEGMENT_SIZE));
    }
    const uint32_t distance = device->region.bus_address - image->link_base;
    for (uint32_t n = 0; n < image->layer_count; ++n) {
        uint8_t *descriptor = memory + image->descriptor_offset + n * ZEROSKIP_DESCRIPTOR_BYTES;
        relocate(descriptor, ZEROSKIP_DESCRIPTOR_IN_ADDRESS, distance);
        relocate(descriptor, ZEROSKIP_DESCRIPTOR_WEIGHT_ADDRESS, distance);
        if (load32(descriptor + 4 * ZEROSKIP_DESCRIPTOR_WRITE_FULL))
            relocate(descriptor, ZEROSKIP_DESCRIPTOR_FULL_ADDRESS, distance);
        if (load32(descriptor + 4 * ZEROSKIP_DESCRIPTOR_POOL))
            relocate(descriptor, ZEROSKIP_DESCRIPTOR_POOL_ADDRESS, distance);
    }
    /* All of it: a dirty cache line over a map would later be written over what the accelerator has put there. */
    const enum zs_error error = flush(device, 0, image->region_bytes);
    if (!error)
        device->image = *image;
    return error;
}

static enum zs_error start(struct zs_device *device)
{
    const uint32_t base = device->region.bus_address;
    const uint32_t writes[][2] = {
        {ZEROSKIP_STATUS_OFFSET, FINISHED},
        {ZEROSKIP_INTERRUPT_ENABLE_OFFSET, device->platform.wait ? FINISHED : 0},
        {ZEROSKIP_DESCRIPTOR_ADDRESS_OFFSET, base + device->image.descriptor_offset},
        {ZEROSKIP_LAYER_COUNT_OFFSET, device->image.layer_count},
        {ZEROSKIP_LOG_ADDRESS_OFFSET, base + device->image.log_offset},
        {ZEROSKIP_CONTROL_OFFSET, ZEROSKIP_CONTROL_START_MASK},
    };
    enum zs_error error = ZS_OK;
    for (size_t n = 0; !error && n < sizeof writes / sizeof writes[0]; ++n)
        error = write_register(device, writes[n][0], writes[n][1]);
    return error;
}

/* Why the accelerator ended a run with status.error. */
static enum zs_error run_error(struct zs_device *device)
{
    uint32_t code;
    enum zs_error error = read_register(device, ZEROSKIP_ERROR_CODE_OFFSET, &code);
    if (!error)
        error = read_register(device, ZEROSKIP_ERROR_ADDRESS_OFFSET, &device->error_address);
    if (!error)
        error = read_register(device, ZEROSKIP_LAYER_OFFSET, &device->error_layer);
    return error ? error : (enum zs_error)(ZS_ACCELERATOR + (code & ZEROSKIP_ERROR_CODE_VALUE_MASK));
}

/* Until the status says done or error, which it returns. */
static enum zs_error wait_for_end(struct zs_device *device, uint64_t max_cycles, uint32_t *status)
{
    for (;;) {
        uint64_t cycles;
        enum zs_error error = read_register(device, ZEROSKIP_STATUS_OFFSET, status);
        if (!error && (*status & FINISHED))
            return ZS_OK;
        if (!error && !(*status & ZEROSKIP_STATUS_BUSY_MASK))
            return ZS_ERROR_STATE;
        if (!error)
            error = zs_cycles(device, &cycles);
        if (error)
            return error;
        if (cycles > max_cycles)
            return ZS_ERROR_TIMEOUT;
        const uint64_t left = max_cycles - cycles + 1;
        const uint32_t cycles_to_wait = left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
        if (device->platform.wait && device->platform.wait(device->platform.context, cycles_to_wait))
            return ZS_ERROR_WAIT;
    }
}

enum zs_error zs_run(struct zs_device *device, uint64_t max_cycles)
{
    if (!device->image.bytes)
        return ZS_ERROR_NOT_LOADED;
    uint32_t status = 0;
    enum zs_error error = start(device);
    if (!error)
        error = wait_for_end(device, max_cycles, &status);
    if (error == ZS_ERROR_TIMEOUT || error == ZS_ERROR_WAIT) {
        const enum zs_error stopped = stop(device);
        return stopped ? stopped : error;
    }
    if (!error && (status & ZEROSKIP_STATUS_ERROR_MASK))
        error = run_error(device);
    if (error == ZS_ERROR_REGISTER)
        return error;
    /* Takes the interrupt line down. */
    const enum zs_error cleared = write_register(device, ZEROSKIP_STATUS_OFFSET, FINISHED);
    return cleared ? cleared : error;
}

enum zs_error zs_counters(struct zs_device *device, uint32_t layer, uint64_t counters[ZEROSKIP_COUNTERS])
{
    if (!device->image.bytes)
        return ZS_ERROR_NOT_LOADED;
    if (layer >= device->image.layer_count)
        return ZS_ERROR_NO_LAYER;
    const uint32_t offset = device->image.log_offset + layer * ZEROSKIP_LOG_BYTES;
    const enum zs_error error = invalidate(device, offset, ZEROSKIP_LOG_BYTES);
    for (uint32_t n = 0; !error && n < ZEROSKIP_COUNTERS; ++n)
        counters[n] = load64((const uint8_t *)device->region.memory + offset + 8 * n);
    return error;
}

/* --- Values of maps ---
 *
 * Both formats are handled cell by cell: the 4 pixels of a segment with the channels of one block (compressed) or all
 * that are stored (dense), as values[pixel * channels + channel].
 */

struct cell {
    int32_t values[SEGMENT_PIXELS * MAX_BLOCK];
    uint32_t channels;          /* Stored for a pixel. */
    uint32_t value_bytes;
    bool is_signed;
};

static int32_t type_low(enum zs_type type)
{
    static const int32_t low[] = {INT8_MIN, 0, INT16_MIN, 0, INT32_MIN};
    return low[type];
}

static int32_t type_high(enum zs_type type)
{
    static const int32_t high[] = {INT8_MAX, UINT8_MAX, INT16_MAX, UINT16_MAX, INT32_MAX};
    return high[type];
}

size_t zs_type_bytes(enum zs_type type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4};
    return bytes[type];
}

static int32_t array_get(enum zs_type type, const void *values, size_t index)
{
    switch (type) {
    case ZS_INT8: return ((const int8_t *)values)[index];
    case ZS_UINT8: return ((const uint8_t *)values)[index];
    case ZS_INT16: return ((const int16_t *)values)[index];
    case ZS_UINT16: return ((const uint16_t *)values)[index];
    default: return ((const int32_t *)values)[index];
    }
}

static void array_set(enum zs_type type, void *values, size_t index, int32_t value)
{
    switch (type) {
    case ZS_INT8: ((int8_t *)values)[index] = (int8_t)value; break;
    case ZS_UINT8: ((uint8_t *)values)[index] = (uint8_t)value; break;
    case ZS_INT16: ((int16_t *)values)[index] = (int16_t)value; break;
    case ZS_UINT16: ((uint16_t *)values)[index] = (uint16_t)value; break;
    default: ((int32_t *)values)[index] = value; break;
    }
}

static void put_value(uint8_t *bytes, const struct cell *cell, int32_t value)
{
    bytes[0] = (uint8_t)value;
    if (cell->value_bytes == 2)
        bytes[1] = (uint8_t)((uint32_t)value >> 8);
}

static int32_t get_value(const uint8_t *bytes, const struct cell *cell)
{
    const int32_t half = cell->value_bytes == 1 ? 0x80 : 0x8000;
    const int32_t value = cell->value_bytes == 1 ? bytes[0] : (int32_t)load16(bytes);
    return cell->is_signed && value >= half ? value - 2 * half : value;
}

/* The format of a cell into `bytes` (MAX_SLOT_BYTES); returns how many of them count. */
static uint32_t pack_cell(const struct cell *cell, bool dense, uint8_t *bytes)
{
    const uint32_t count = SEGMENT_PIXELS * cell->channels;
    uint32_t next = dense ? 0 : count / 8;
    memset(bytes, 0, MAX_SLOT_BYTES);
    for (uint32_t n = 0; n < count; ++n) {
        if (!dense && !cell->values[n])
            continue;
        if (!dense)
            bytes[n / 8] = (uint8_t)(bytes[n / 8] | 1u << n % 8);
        put_value(bytes + next, cell, cell->values[n]);
        next += cell->value_bytes;
    }
    return whole_beats(next);
}

static void unpack_dense(struct cell *cell, const uint8_t *source)
{
    uint8_t bytes[MAX_SLOT_BYTES];
    const uint32_t count = SEGMENT_PIXELS * cell->channels;
    memcpy(bytes, source, count * cell->value_bytes);
    for (uint32_t n = 0; n < count; ++n)
        cell->values[n] = get_value(bytes + n * cell->value_bytes, cell);
}

static uint32_t map_bit(const uint8_t *map, uint32_t n)
{
    return (uint32_t)map[n / 8] >> n % 8 & 1u;
}

static enum zs_error unpack_slot(struct cell *cell, const uint8_t *source)
{
    /* Read once: what is counted here is what is unpacked, whatever happens to the memory meanwhile. */
    uint8_t map[SEGMENT_PIXELS * MAX_BLOCK / 8], bytes[MAX_SLOT_BYTES];
    const uint32_t count = SEGMENT_PIXELS * cell->channels;
    uint32_t ones = 0, next = 0;
    memcpy(map, source, count / 8);
    for (uint32_t n = 0; n < count; ++n)
        ones += map_bit(map, n);
    const uint32_t size = whole_beats(ones * cell->value_bytes);
    memcpy(bytes, source + count / 8, size);
    for (uint32_t n = 0; n < count; ++n) {
        cell->values[n] = 0;
        if (!map_bit(map, n))
            continue;
        cell->values[n] = get_value(bytes + next, cell);
        next += cell->value_bytes;
        if (!cell->values[n])
            return ZS_ERROR_MAP_CORRUPT;
    }
    return all_zero(bytes + next, size - next) ? ZS_OK : ZS_ERROR_MAP_CORRUPT;
}

/* One cell of a map: where it lies, and which part of the map it holds. */
struct place {
    uint32_t row, segment, block;
};

/* Steps to the next cell of the map; false behind the last one. */
static bool next_place(struct place *place, const struct zs_map *map, uint32_t blocks)
{
    if (++place->block < blocks)
        return true;
    place->block = 0;
    if (++place->segment < divide_up(map->width, SEGMENT_PIXELS))
        return true;
    place->segment = 0;
    return ++place->row < map->height;
}

static size_t place_offset(const struct zs_image *image, const struct zs_map *map, const struct place *place)
{
    return map->offset + (size_t)place->row * map->row_bytes + (size_t)place->segment * map->segment_bytes +
           (size_t)place->block * slot_bytes(image);
}

/* The index in the caller's array of value `n` of a cell; false if it lies beyond the map. */
static bool array_index(const struct zs_map *map, const struct cell *cell, const struct place *place, uint32_t n,
                        size_t *index)
{
    const uint32_t column = place->segment * SEGMENT_PIXELS + n / cell->channels;
    const uint32_t channel = place->block * cell->channels + n % cell->channels;
    *index = ((size_t)channel * map->height + place->row) * map->width + column;
    return column < map->width && channel < map->channels;
}

static uint32_t prepare(const struct zs_image *image, const struct zs_map *map, struct cell *cell)
{
    cell->channels = map->is_dense ? 1u << map->dense_shift : image->block;
    cell->value_bytes = image->value_width / 8;
    cell->is_signed = map->is_signed;
    return (map->channels + cell->channels - 1) / cell->channels;
}

static bool count_fits(const struct zs_map *map, size_t count)
{
    return (uint64_t)map->channels * map->height * map->width == count;
}

enum zs_error zs_input(struct zs_device *device, enum zs_type type, const void *values, size_t count)
{
    const struct zs_image *image = &device->image;
    struct zs_map map;
    struct cell cell;
    uint8_t bytes[MAX_SLOT_BYTES];
    if (!image->bytes)
        return ZS_ERROR_NOT_LOADED;
    if (type > ZS_INT32)
        return ZS_ERROR_TYPE;
    (void)zs_map_entry(image, image->input_map, &map);
    if (!count_fits(&map, count))
        return ZS_ERROR_COUNT;
    const enum zs_type stored = zs_map_type(image, &map);
    for (size_t n = 0; n < count; ++n) {
        const int32_t value = array_get(type, values, n);
        if (value < type_low(stored) || value > type_high(stored))
            return ZS_ERROR_VALUE;
    }
    const uint32_t blocks = prepare(image, &map, &cell);
    struct place place = {0, 0, 0};
    do {
        for (uint32_t n = 0; n < SEGMENT_PIXELS * cell.channels; ++n) {
            size_t index;
            cell.values[n] = array_index(&map, &cell, &place, n, &index) ? array_get(type, values, index) : 0;
        }
        const uint32_t size = pack_cell(&cell, map.is_dense, bytes);
        memcpy((uint8_t *)device->region.memory + place_offset(image, &map, &place), bytes, size);
    } while (next_place(&place, &map, blocks));
    return flush(device, map.offset, map.size);
}

enum zs_error zs_map_read(struct zs_device *device, uint32_t index, enum zs_type type, void *values, size_t count)
{
    const struct zs_image *image = &device->image;
    struct zs_map map;
    struct cell cell;
    if (!image->bytes)
        return ZS_ERROR_NOT_LOADED;
    if (zs_map_entry(image, index, &map))
        return ZS_ERROR_NO_MAP;
    const enum zs_type stored = zs_map_type(image, &map);
    if (type > ZS_INT32 || type_low(type) > type_low(stored) || type_high(type) < type_high(stored))
        return ZS_ERROR_TYPE;
    if (!count_fits(&map, count))
        return ZS_ERROR_COUNT;
    const enum zs_error error = invalidate(device, map.offset, map.size);
    if (error)
        return error;
    const uint32_t blocks = prepare(image, &map, &cell);
    struct place place = {0, 0, 0};
    do {
        const uint8_t *source = (const uint8_t *)device->region.memory + place_offset(image, &map, &place);
        if (map.is_dense)
            unpack_dense(&cell, source);
        else if (unpack_slot(&cell, source))
            return ZS_ERROR_MAP_CORRUPT;
        for (uint32_t n = 0; n < SEGMENT_PIXELS * cell.channels; ++n) {
            size_t at;
            if (array_index(&map, &cell, &place, n, &at))
                array_set(type, values, at, cell.values[n]);
            else if (cell.values[n])
                return ZS_ERROR_MAP_CORRUPT;
        }
    } while (next_place(&place, &map, blocks));
    return ZS_OK;
}

const char *zs_error_text(enum zs_error error)
{
    switch (error) {
    case ZS_OK: return "No error.";
    case ZS_ERROR_REGISTER: return "A register access failed: check the register address and the bitstream.";
    case ZS_ERROR_CACHE: return "Cache and memory of the DMA region could not be synchronised: check the DMA buffer.";
    case ZS_ERROR_WAIT: return "Waiting for the interrupt failed: the run was stopped.";
    case ZS_ERROR_IDENTITY:
        return "What answers at the register address is no zeroskip accelerator: check address and bitstream.";
    case ZS_ERROR_REGISTER_MAP:
        return "The register map of the accelerator is not the one of this driver: use the driver of its version.";
    case ZS_ERROR_REGION:
        return "The DMA region must start at a multiple of 4096, not at bus address 0, and end below 4 GiB.";
    case ZS_ERROR_IMAGE_TRUNCATED: return "The image is shorter than it says: copy the file again.";
    case ZS_ERROR_IMAGE_MAGIC: return "This is no network image.";
    case ZS_ERROR_IMAGE_VERSION:
        return "The image has another format version than this driver: compile the network again.";
    case ZS_ERROR_IMAGE_HEADER_CRC: return "The header of the image is damaged (CRC): copy the file again.";
    case ZS_ERROR_IMAGE_PAYLOAD_CRC: return "The image is damaged (CRC): copy the file again.";
    case ZS_ERROR_IMAGE_HEADER: return "A header field of the image is out of range: compile the network again.";
    case ZS_ERROR_IMAGE_SEGMENT: return "A segment of the image is out of range: compile the network again.";
    case ZS_ERROR_IMAGE_MAP: return "A map of the image is out of range: compile the network again.";
    case ZS_ERROR_IMAGE_DESCRIPTOR:
        return "A layer descriptor of the image leads out of its memory: compile the network again.";
    case ZS_ERROR_IMAGE_WEIGHTS:
        return "The weights of a layer are not as many as the accelerator reads: compile the network again.";
    case ZS_ERROR_CAPABILITY:
        return "The image was compiled for an accelerator with another array, lanes or value width: compile it for "
               "this one.";
    case ZS_ERROR_CONFIGURATION:
        return "The image was compiled for another configuration of the accelerator: compile it for this one.";
    case ZS_ERROR_REGION_SIZE: return "The DMA region is smaller than the network needs: make it larger.";
    case ZS_ERROR_NOT_LOADED: return "No image is loaded: call zs_load first.";
    case ZS_ERROR_NO_MAP: return "The image has no such map.";
    case ZS_ERROR_NO_LAYER: return "The image has no such layer.";
    case ZS_ERROR_TYPE: return "The type cannot hold the values of the map.";
    case ZS_ERROR_COUNT: return "The array must have channels x height x width values of the map.";
    case ZS_ERROR_VALUE: return "An input value is outside of the range of the input map.";
    case ZS_ERROR_MAP_CORRUPT:
        return "A map in memory breaks its format: it was not written yet, or cache or DMA region are set up wrongly.";
    case ZS_ERROR_TIMEOUT: return "The run took longer than allowed and was stopped.";
    case ZS_ERROR_STUCK: return "The accelerator does not stop: reset it.";
    case ZS_ERROR_STATE: return "The accelerator is neither busy nor done: something else uses it or has reset it.";
    case ZS_ACCELERATOR_READ_RESPONSE:
        return "A read of the accelerator was answered with an AXI error: is error_address memory that it may read?";
    case ZS_ACCELERATOR_WRITE_RESPONSE:
        return "A write of the accelerator was answered with an AXI error: is error_address memory that it may write?";
    case ZS_ACCELERATOR_DESCRIPTOR_FIELD:
        return "The accelerator refuses the descriptor field at error_address: was the region overwritten?";
    case ZS_ACCELERATOR_TILE_TOO_LARGE:
        return "A tile of the layer with the descriptor at error_address does not fit the tile buffer.";
    case ZS_ACCELERATOR_CHUNK_TOO_LARGE:
        return "A chunk of the layer with the descriptor at error_address does not fit the weight buffer.";
    case ZS_ACCELERATOR_PASS_TOO_LARGE:
        return "A pass of the layer with the descriptor at error_address does not fit the partial-sum buffer.";
    case ZS_ACCELERATOR_POOL_TOO_WIDE:
        return "A tile of the layer with the descriptor at error_address is too wide for the pooling row buffer.";
    case ZS_ACCELERATOR_WATCHDOG:
        return "No progress for `watchdog` cycles in the layer with the descriptor at error_address.";
    case ZS_ACCELERATOR_GEOMETRY:
        return "Passes, tiles and addresses of the descriptor at error_address do not agree.";
    case ZS_ACCELERATOR_STOPPED: return "The run was stopped by control.stop.";
    case ZS_ACCELERATOR: break;
    }
    return "The accelerator ended the run with an error code that this driver does not know.";
}
