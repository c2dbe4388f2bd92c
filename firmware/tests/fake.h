/* A fake accelerator behind a cache, for tests of the driver on a PC.
 *
 * `memory` is what the accelerator sees, `cache` what the driver sees: only flush and invalidate copy between them.
 * Maps and log are what the test puts into `memory`.
 */
#ifndef FAKE_H
#define FAKE_H

#include "zeroskip.h"

#define FAKE_BUS_ADDRESS 0x30000000u

enum fake_end { FAKE_DONE, FAKE_ERROR, FAKE_NEVER, FAKE_VANISH };

struct fake {
    uint32_t registers[ZEROSKIP_CONFIGURATION_OFFSET / 4 + 1];
    uint8_t *memory, *cache;
    uint32_t bytes;
    enum fake_end end;               /* How the next run ends, ... */
    uint32_t end_reads;              /* ... after so many reads of the status, */
    uint32_t error_code;             /* ... with this error. */
    uint64_t cycles, cycles_per_read;
    bool stuck;                      /* control.stop does nothing. */
    uint32_t starts, stops, waits, cycles_to_wait;
    bool wait_fails, cache_fails;
    int64_t accesses_left;           /* Register accesses until one fails; negative: none does. */
};

/* A region of `bytes` of noise in exactly sized blocks, and an accelerator that `image` was compiled for. */
void fake_open(struct fake *fake, const struct zs_image *image, uint32_t bytes, uint32_t seed);
void fake_close(struct fake *fake);

/* Callbacks for `fake`; `interrupt`: with wait, otherwise the driver polls. */
struct zs_platform fake_platform(struct fake *fake, bool interrupt);
struct zs_region fake_region(const struct fake *fake);

/* The file's bytes in a block of exactly that size, or a message and exit status 2. */
uint8_t *read_file(const char *path, size_t *size);
void write_file(const char *path, const void *bytes, size_t size);

/* CRC-32 as the format asks for, and both CRCs of an image made right again after a change. */
uint32_t slow_crc32(const uint8_t *bytes, size_t count);
void fix_crcs(uint8_t *image, size_t size);

uint32_t get32(const uint8_t *bytes);
void put32(uint8_t *bytes, uint32_t value);

/* A pseudo-random number; `state` is any seed but 0. */
uint32_t noise(uint32_t *state);

#endif
