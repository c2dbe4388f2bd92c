#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *reg(struct fake *fake, uint32_t offset)
{
    return &fake->registers[offset / 4];
}

static bool access_fails(struct fake *fake, uint32_t offset)
{
    if (offset % 4 || offset / 4 >= sizeof fake->registers / sizeof fake->registers[0])
        return true;
    return fake->accesses_left >= 0 && fake->accesses_left-- == 0;
}

static void finish(struct fake *fake)
{
    uint32_t *status = reg(fake, ZEROSKIP_STATUS_OFFSET);
    *status = fake->end == FAKE_DONE ? ZEROSKIP_STATUS_DONE_MASK : 0;
    if (fake->end == FAKE_ERROR) {
        *status = ZEROSKIP_STATUS_ERROR_MASK;
        *reg(fake, ZEROSKIP_ERROR_CODE_OFFSET) = fake->error_code;
        *reg(fake, ZEROSKIP_ERROR_ADDRESS_OFFSET) = 0x12345678;
        *reg(fake, ZEROSKIP_LAYER_OFFSET) = 7;
    }
}

static int fake_read(void *context, uint32_t offset, uint32_t *value)
{
    struct fake *fake = context;
    if (access_fails(fake, offset))
        return 1;
    if (offset == ZEROSKIP_STATUS_OFFSET && (*reg(fake, offset) & ZEROSKIP_STATUS_BUSY_MASK)) {
        fake->cycles += fake->cycles_per_read;
        if (fake->end != FAKE_NEVER && fake->end_reads-- == 0)
            finish(fake);
    }
    if (offset == ZEROSKIP_CYCLES_LOW_OFFSET) {
        *reg(fake, ZEROSKIP_CYCLES_LOW_OFFSET) = (uint32_t)fake->cycles;
        *reg(fake, ZEROSKIP_CYCLES_HIGH_OFFSET) = (uint32_t)(fake->cycles >> 32);
    }
    *value = *reg(fake, offset);
    return 0;
}

static int fake_write(void *context, uint32_t offset, uint32_t value)
{
    struct fake *fake = context;
    if (access_fails(fake, offset))
        return 1;
    if (offset == ZEROSKIP_STATUS_OFFSET) {
        *reg(fake, offset) &= ~(value & (ZEROSKIP_STATUS_DONE_MASK | ZEROSKIP_STATUS_ERROR_MASK));
    } else if (offset == ZEROSKIP_CONTROL_OFFSET) {
        if (value & ZEROSKIP_CONTROL_START_MASK) {
            ++fake->starts;
            fake->cycles = 0;
            *reg(fake, ZEROSKIP_STATUS_OFFSET) |= ZEROSKIP_STATUS_BUSY_MASK;
        }
        if (value & ZEROSKIP_CONTROL_STOP_MASK) {
            ++fake->stops;
            if (!fake->stuck)
                *reg(fake, ZEROSKIP_STATUS_OFFSET) = ZEROSKIP_STATUS_ERROR_MASK;
        }
    } else {
        *reg(fake, offset) = value;
    }
    return 0;
}

static int fake_flush(void *context, void *start, size_t size)
{
    struct fake *fake = context;
    memcpy(fake->memory + ((uint8_t *)start - fake->cache), start, size);
    return fake->cache_fails;
}

static int fake_invalidate(void *context, void *start, size_t size)
{
    struct fake *fake = context;
    memcpy(start, fake->memory + ((uint8_t *)start - fake->cache), size);
    return fake->cache_fails;
}

static int fake_wait(void *context, uint32_t cycles)
{
    struct fake *fake = context;
    ++fake->waits;
    fake->cycles_to_wait = cycles;
    return fake->wait_fails;
}

void fake_open(struct fake *fake, const struct zs_image *image, uint32_t bytes, uint32_t seed)
{
    memset(fake, 0, sizeof *fake);
    fake->accesses_left = -1;
    fake->cycles_per_read = 100;
    *reg(fake, ZEROSKIP_IDENTITY_OFFSET) = ZEROSKIP_IDENTITY;
    *reg(fake, ZEROSKIP_VERSION_OFFSET) = ZEROSKIP_VERSION;
    *reg(fake, ZEROSKIP_CAPABILITY_OFFSET) = image->capability;
    *reg(fake, ZEROSKIP_CONFIGURATION_OFFSET) = image->configuration;
    fake->bytes = bytes;
    fake->memory = malloc(bytes);
    fake->cache = malloc(bytes);
    for (uint32_t n = 0; n < bytes; ++n) {
        fake->memory[n] = (uint8_t)noise(&seed);
        fake->cache[n] = (uint8_t)noise(&seed);
    }
}

void fake_close(struct fake *fake)
{
    free(fake->memory);
    free(fake->cache);
}

struct zs_platform fake_platform(struct fake *fake, bool interrupt)
{
    return (struct zs_platform){fake, fake_read, fake_write, fake_flush, fake_invalidate,
                                interrupt ? fake_wait : NULL};
}

struct zs_region fake_region(const struct fake *fake)
{
    return (struct zs_region){fake->cache, FAKE_BUS_ADDRESS, fake->bytes};
}

uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    if (fread(bytes, 1, *size, file) != *size) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    fclose(file);
    return bytes;
}

void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(2);
    }
}

uint32_t slow_crc32(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    for (size_t n = 0; n < 8 * count; ++n) {
        const uint32_t bit = (uint32_t)bytes[n / 8] >> n % 8 & 1u;
        crc = (crc ^ bit) & 1u ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

void fix_crcs(uint8_t *image, size_t size)
{
    if (size < 96)
        return;
    const uint32_t file_bytes = get32(image + 12);
    if (file_bytes >= 96 && file_bytes <= size)
        put32(image + 16, slow_crc32(image + 96, file_bytes - 96));
    put32(image + 92, slow_crc32(image, 92));
}

uint32_t get32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void put32(uint8_t *bytes, uint32_t value)
{
    for (unsigned n = 0; n < 4; ++n)
        bytes[n] = (uint8_t)(value >> 8 * n);
}

uint32_t noise(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}
