/* Driver of a zeroskip accelerator: loads a network image, runs it, reads maps and counters.
 *
 * C11, no heap, no input or output; of the C library it uses memcpy, memset and strcmp. One device is used by one
 * thread at a time. Formats: docs/network-image.md, golden/README.md, docs/registers.md.
 *
 * Order of calls: zs_init, zs_image_check, zs_load, then zs_input, zs_run, zs_map_read for every input.
 */
#ifndef ZEROSKIP_H
#define ZEROSKIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zeroskip_regs.h"

/* What a function returns. zs_error_text has a sentence for each. */
enum zs_error {
    ZS_OK = 0,
    /* The platform. */
    ZS_ERROR_REGISTER,           /* A register access failed. */
    ZS_ERROR_CACHE,              /* The platform could not flush or invalidate. */
    ZS_ERROR_WAIT,               /* Waiting for the interrupt failed. */
    ZS_ERROR_IDENTITY,           /* What answers is no zeroskip accelerator. */
    ZS_ERROR_REGISTER_MAP,       /* Its register map is not the one of this driver. */
    ZS_ERROR_REGION,             /* The DMA region is not usable: null, not aligned, or beyond 32-bit addresses. */
    /* The image: zs_image.fault is the byte of the file that shows it. */
    ZS_ERROR_IMAGE_TRUNCATED,
    ZS_ERROR_IMAGE_MAGIC,
    ZS_ERROR_IMAGE_VERSION,
    ZS_ERROR_IMAGE_HEADER_CRC,
    ZS_ERROR_IMAGE_PAYLOAD_CRC,
    ZS_ERROR_IMAGE_HEADER,
    ZS_ERROR_IMAGE_SEGMENT,
    ZS_ERROR_IMAGE_MAP,
    ZS_ERROR_IMAGE_DESCRIPTOR,
    ZS_ERROR_IMAGE_WEIGHTS,      /* Intersect array: the header of a kernel block and its weights do not agree. */
    /* Image and device. */
    ZS_ERROR_CAPABILITY,         /* The image was compiled for an accelerator of another kind. */
    ZS_ERROR_CONFIGURATION,      /* ... of the same kind with other buffer sizes. */
    ZS_ERROR_REGION_SIZE,        /* The DMA region is smaller than zs_image.region_bytes. */
    ZS_ERROR_NOT_LOADED,         /* zs_load has not succeeded yet. */
    /* Arguments. */
    ZS_ERROR_NO_MAP,
    ZS_ERROR_NO_LAYER,
    ZS_ERROR_TYPE,               /* The type cannot hold every value of the map. */
    ZS_ERROR_COUNT,              /* The array does not have channels * height * width values. */
    ZS_ERROR_VALUE,              /* An input value is outside of the range of the map. */
    /* Results. */
    ZS_ERROR_MAP_CORRUPT,        /* A map in memory breaks its format. */
    ZS_ERROR_TIMEOUT,            /* The run took more than max_cycles and was stopped. */
    ZS_ERROR_STUCK,              /* The accelerator does not stop: reset it. */
    ZS_ERROR_STATE,              /* The accelerator is neither busy nor done: someone else uses it. */
    /* The accelerator ended the run: ZS_ACCELERATOR + error_code, see zs_device.error_address and .error_layer. */
    ZS_ACCELERATOR = 256,
    ZS_ACCELERATOR_READ_RESPONSE = ZS_ACCELERATOR + ZEROSKIP_ERROR_READ_RESPONSE,
    ZS_ACCELERATOR_WRITE_RESPONSE = ZS_ACCELERATOR + ZEROSKIP_ERROR_WRITE_RESPONSE,
    ZS_ACCELERATOR_DESCRIPTOR_FIELD = ZS_ACCELERATOR + ZEROSKIP_ERROR_DESCRIPTOR_FIELD,
    ZS_ACCELERATOR_TILE_TOO_LARGE = ZS_ACCELERATOR + ZEROSKIP_ERROR_TILE_TOO_LARGE,
    ZS_ACCELERATOR_CHUNK_TOO_LARGE = ZS_ACCELERATOR + ZEROSKIP_ERROR_CHUNK_TOO_LARGE,
    ZS_ACCELERATOR_PASS_TOO_LARGE = ZS_ACCELERATOR + ZEROSKIP_ERROR_PASS_TOO_LARGE,
    ZS_ACCELERATOR_POOL_TOO_WIDE = ZS_ACCELERATOR + ZEROSKIP_ERROR_POOL_TOO_WIDE,
    ZS_ACCELERATOR_WATCHDOG = ZS_ACCELERATOR + ZEROSKIP_ERROR_WATCHDOG,
    ZS_ACCELERATOR_GEOMETRY = ZS_ACCELERATOR + ZEROSKIP_ERROR_GEOMETRY,
    ZS_ACCELERATOR_STOPPED = ZS_ACCELERATOR + ZEROSKIP_ERROR_STOPPED,
};

/* How the driver reaches the accelerator. Functions that return int return 0 for success.
 *
 * write32 must not reach the accelerator before earlier writes to the DMA region have reached memory, and the processor
 * must not read the DMA region before a read32 that comes first: on ARM both need a barrier (DSB).
 */
struct zs_platform {
    void *context;                                                      /* First argument of every callback. */
    int (*read32)(void *context, uint32_t offset, uint32_t *value);     /* Register at byte `offset`. */
    int (*write32)(void *context, uint32_t offset, uint32_t value);
    /* Write the cache lines of a range of the DMA region back to memory; NULL: memory is coherent or not cached. */
    int (*flush)(void *context, void *start, size_t size);
    /* Drop the cache lines of a range, so that the processor sees memory; NULL likewise. Everything that the driver has
     * written to the region has been flushed then: lines that the range shares with others may be dropped too. */
    int (*invalidate)(void *context, void *start, size_t size);
    /* Sleep until the interrupt line is high, for `cycles` clock cycles of the accelerator at most, as well as the
     * platform can tell. It may return early: the driver looks at the status and calls again. NULL: the driver polls.
     */
    int (*wait)(void *context, uint32_t cycles);
};

/* Memory that processor and accelerator share. From zs_load on, nothing but driver and accelerator writes to it. */
struct zs_region {
    void *memory;            /* Address for the processor. */
    uint32_t bus_address;    /* Address for the accelerator, a multiple of 4096. */
    uint32_t size;           /* Bytes. */
};

/* A checked image: a view of the caller's bytes, which must stay as they are while it is in use. Read only. */
struct zs_image {
    const uint8_t *bytes;
    uint32_t file_bytes;
    uint32_t capability, configuration;
    uint32_t link_base, region_bytes;
    uint32_t descriptor_offset, layer_count, log_offset;
    uint32_t segment_count, map_count, input_map;
    uint32_t array, value_width, block, lanes;  /* From capability. */
    const char *name;                      /* Of the network, UTF-8. */
    uint32_t fault;                        /* After a failed check: the byte of the file that shows the error. */
};

/* An entry of the map table. */
struct zs_map {
    const char *name;                      /* UTF-8. */
    uint32_t offset, size;                 /* In the region; bytes. */
    uint32_t channels, height, width;
    bool is_signed, is_dense, is_output;
    uint32_t dense_shift;                  /* Dense: log2 of the channels stored for a pixel. */
    uint32_t row_bytes, segment_bytes;
    double scale;                          /* Real value of 1; 0: not the same in all channels. */
    uint32_t layer;                        /* That writes it; 0xFFFF: the input. */
};

/* Types of the values of an array. */
enum zs_type { ZS_INT8, ZS_UINT8, ZS_INT16, ZS_UINT16, ZS_INT32 };

/* A device. Fields are for reading. */
struct zs_device {
    struct zs_platform platform;
    struct zs_region region;
    struct zs_image image;                 /* The one in the region; bytes is NULL before zs_load. */
    uint32_t capability, configuration;    /* Registers of these names. */
    uint32_t error_address, error_layer;   /* Of the last run that ended with ZS_ACCELERATOR_...: bus address, layer. */
};

/* Fill `device`, check that the accelerator is one that this driver knows, and stop it if it runs.
 *
 * Copies `platform` and `region`. The region's size may be anything here; zs_load compares it with an image.
 * Errors: ZS_ERROR_REGION, _REGISTER, _IDENTITY, _REGISTER_MAP, _STUCK.
 */
enum zs_error zs_init(struct zs_device *device, const struct zs_platform *platform, const struct zs_region *region);

/* Check the `length` bytes of an image file and fill `image`. Never reads outside of the bytes.
 *
 * An image that passes keeps accelerator and driver inside of a region of zs_image.region_bytes: every segment, every
 * map, the log, and all that any descriptor makes the accelerator read or write. No run can change the descriptors,
 * nor the weights of the intersect array, whose contents say how much of them is read.
 * Bytes behind the image's own size are ignored. Errors: ZS_ERROR_IMAGE_..., with image->fault.
 */
enum zs_error zs_image_check(struct zs_image *image, const void *bytes, size_t length);

/* Copy a checked image to the device's region, relocate its descriptors, and flush the region.
 *
 * Maps and log keep what was there: zs_input is still to come. The device keeps a copy of the view `image`.
 * Errors: ZS_ERROR_CAPABILITY, _CONFIGURATION, _REGION_SIZE, _CACHE; the device then has no image.
 */
enum zs_error zs_load(struct zs_device *device, const struct zs_image *image);

/* Write the input: `count` values of `type`, in the order channel, row, column.
 *
 * count = channels * height * width of the input map. Every value must be in the range of the map (value_width bits,
 * signed or not); otherwise nothing is written.
 * Errors: ZS_ERROR_NOT_LOADED, _TYPE (there is no such type), _COUNT, _VALUE, _CACHE.
 */
enum zs_error zs_input(struct zs_device *device, enum zs_type type, const void *values, size_t count);

/* Run the network once, until it is done or an error ends it.
 *
 * max_cycles: clock cycles of the accelerator that the run may take; it is stopped (control.stop) after more.
 * The accelerator is idle and ready for the next run afterwards, except after ZS_ERROR_STUCK and ZS_ERROR_REGISTER.
 * Errors: ZS_ERROR_NOT_LOADED, _REGISTER, _WAIT, _TIMEOUT, _STUCK, _STATE; ZS_ACCELERATOR_..., with error_address (an
 * address as the accelerator sees it) and error_layer (the number of finished layers) in `device`.
 */
enum zs_error zs_run(struct zs_device *device, uint64_t max_cycles);

/* Clock cycles of the last run, from start to the end. Errors: ZS_ERROR_REGISTER. */
enum zs_error zs_cycles(struct zs_device *device, uint64_t *cycles);

/* Counters of layer 0 .. image.layer_count - 1 in the last run that ended without error, by ZEROSKIP_COUNTER_... .
 *
 * Errors: ZS_ERROR_NOT_LOADED, _NO_LAYER, _CACHE.
 */
enum zs_error zs_counters(struct zs_device *device, uint32_t layer, uint64_t counters[ZEROSKIP_COUNTERS]);

/* Entry 0 .. map_count - 1 of the map table of a checked image. Errors: ZS_ERROR_NO_MAP. */
enum zs_error zs_map_entry(const struct zs_image *image, uint32_t index, struct zs_map *map);

/* The index of the map called `name` in a checked image. Errors: ZS_ERROR_NO_MAP. */
enum zs_error zs_find_map(const struct zs_image *image, const char *name, uint32_t *index);

/* Decode map `index` of the loaded image: `count` values of `type`, in the order channel, row, column.
 *
 * count = channels * height * width. The type must be able to hold all values of the map: ZS_INT32 always is. What lies
 * in memory is not trusted: ZS_ERROR_MAP_CORRUPT if it breaks the format, and `values` is partly written then.
 * Errors: ZS_ERROR_NOT_LOADED, _NO_MAP, _TYPE, _COUNT, _CACHE, _MAP_CORRUPT.
 */
enum zs_error zs_map_read(struct zs_device *device, uint32_t index, enum zs_type type, void *values, size_t count);

/* The type that the values of `map` have in an image: ZS_INT8, ZS_UINT8, ZS_INT16 or ZS_UINT16. */
enum zs_type zs_map_type(const struct zs_image *image, const struct zs_map *map);

/* Bytes of one value of `type`. */
size_t zs_type_bytes(enum zs_type type);

/* A sentence: what is wrong, and what to do. Never NULL. */
const char *zs_error_text(enum zs_error error);

#endif
