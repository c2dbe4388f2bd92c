/* Bare-metal example: runs the linked-in network once on the linked-in input and prints what came out, on UART1. */
#include "zeroskip.h"
#include "zynq.h"

#ifndef ACCELERATOR_BASE
#define ACCELERATOR_BASE 0x43c00000u
#endif
#define MAX_CYCLES 10000000000u
/* Values of an output that are printed. */
#define SHOWN 16u

extern const uint8_t image_start[], image_end[], input_start[], input_end[];
extern uint8_t __region_start[], __region_end[], __scratch_start[], __ddr_end[];

static int read32(void *context, uint32_t offset, uint32_t *value)
{
    (void)context;
    *value = zynq_read(ACCELERATOR_BASE + offset);
    return 0;
}

static int write32(void *context, uint32_t offset, uint32_t value)
{
    (void)context;
    zynq_write(ACCELERATOR_BASE + offset, value);
    return 0;
}

static int flush(void *context, void *start, size_t size)
{
    (void)context;
    zynq_flush(start, size);
    return 0;
}

static int invalidate(void *context, void *start, size_t size)
{
    (void)context;
    zynq_invalidate(start, size);
    return 0;
}

/* A round of the loop takes about as long as a cycle of the accelerator. */
static int wait(void *context, uint32_t cycles)
{
    (void)context;
    (void)zynq_wait_for_interrupt(cycles);
    return 0;
}

static void print_error(const struct zs_device *device, enum zs_error error)
{
    print("error: ");
    print(zs_error_text(error));
    if (error > ZS_ACCELERATOR) {
        print(" error_address ");
        print_hex(device->error_address);
        print(", layer ");
        print_number(device->error_layer);
    }
    print("\n");
}

static enum zs_error print_counters(struct zs_device *device)
{
    uint64_t counters[ZEROSKIP_COUNTERS], cycles;
    enum zs_error error = ZS_OK;
    for (uint32_t layer = 0; !error && layer < device->image.layer_count; ++layer) {
        error = zs_counters(device, layer, counters);
        print("layer ");
        print_number(layer);
        print(": ");
        print_number(counters[ZEROSKIP_COUNTER_CYCLES]);
        print(" cycles, ");
        print_number(counters[ZEROSKIP_COUNTER_LANE_CYCLES]);
        print(" non-zero MACs\n");
    }
    if (!error)
        error = zs_cycles(device, &cycles);
    if (!error) {
        print("run: ");
        print_number(cycles);
        print(" cycles\n");
    }
    return error;
}

static enum zs_error print_map(struct zs_device *device, uint32_t index)
{
    struct zs_map map;
    int32_t *values = (int32_t *)(void *)__scratch_start;
    (void)zs_map_entry(&device->image, index, &map);
    if (!map.is_output)
        return ZS_OK;
    const size_t count = (size_t)map.channels * map.height * map.width;
    print(map.name);
    if (count > (size_t)(__ddr_end - __scratch_start) / sizeof *values) {
        print(": does not fit the rest of DDR\n");
        return ZS_OK;
    }
    const enum zs_error error = zs_map_read(device, index, ZS_INT32, values, count);
    print(":");
    for (size_t n = 0; !error && n < count && n < SHOWN; ++n) {
        print(values[n] < 0 ? " -" : " ");
        print_number((uint64_t)(values[n] < 0 ? -(int64_t)values[n] : values[n]));
    }
    print(count > SHOWN ? " ...\n" : "\n");
    return error;
}

static enum zs_error run(struct zs_device *device)
{
    static struct zs_image image;
    struct zs_map map;
    const struct zs_platform platform = {NULL, read32, write32, flush, invalidate, wait};
    const struct zs_region region = {__region_start, (uint32_t)(uintptr_t)__region_start,
                                     (uint32_t)(__region_end - __region_start)};
    enum zs_error error = zs_image_check(&image, image_start, (size_t)(image_end - image_start));
    if (error)
        return error;
    print("image ");
    print(image.name);
    print("\n");
    error = zs_init(device, &platform, &region);
    if (!error)
        error = zs_load(device, &image);
    if (error)
        return error;
    (void)zs_map_entry(&image, image.input_map, &map);
    const enum zs_type type = zs_map_type(&image, &map);
    error = zs_input(device, type, input_start, (size_t)(input_end - input_start) / zs_type_bytes(type));
    if (!error)
        error = zs_run(device, MAX_CYCLES);
    if (!error)
        error = print_counters(device);
    for (uint32_t n = 0; !error && n < image.map_count; ++n)
        error = print_map(device, n);
    return error;
}

int main(void)
{
    static struct zs_device device;
    print("zeroskip\n");
    const enum zs_error error = run(&device);
    if (error)
        print_error(&device, error);
    else
        print("done\n");
    return 0;
}
