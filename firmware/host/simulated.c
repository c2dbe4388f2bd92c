/* The accelerator as a compiled simulation in this process: the library of boards/sim (boards/sim/harness.cpp). */
#include "simulated.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define BUS_ADDRESS 0x20000000u
#define RESET_CYCLES 8u
#define LATENCY 30u
/* What board_run returns when the simulation failed. */
#define RUN_FAULT 2

/* As in boards/sim/dram.h. */
struct dram_settings {
    uint8_t *memory;
    uint64_t base, size;
    uint64_t seed;
    uint32_t read_latency, write_latency;
    uint32_t stall[6];
};

static struct {
    void *(*open)(const struct dram_settings *settings, const char *trace);
    void (*close)(void *board);
    void (*reset)(void *board, uint32_t cycles);
    int (*write)(void *board, uint32_t offset, uint32_t value);
    int (*read)(void *board, uint32_t offset, uint32_t *value);
    int (*run)(void *board, uint64_t max_cycles);
    const char *(*error)(void *board);
    void (*inject_error)(void *board, uint64_t low, uint64_t high);
    void (*clear_errors)(void *board);
} library;

static const char *library_path;
static void *library_handle, *board;
static uint8_t *memory;

const char *const board_usage = "--library FILE";
const char *const board_help =
    "  --library FILE    compiled simulation of the accelerator (firmware/README.md says how to get it)\n";

int board_option(const char *name, const char *value)
{
    if (strcmp(name, "--library") != 0 || !value[0])
        return 1;
    library_path = value;
    return 0;
}

static int check(int failed)
{
    const char *error = library.error(board);
    if (error[0])
        complain("the simulation failed: %s", error);
    return failed || error[0];
}

static int read32(void *context, uint32_t offset, uint32_t *value)
{
    (void)context;
    return check(library.read(board, offset, value));
}

static int write32(void *context, uint32_t offset, uint32_t value)
{
    (void)context;
    return check(library.write(board, offset, value));
}

static int wait_for_interrupt(void *context, uint32_t cycles)
{
    (void)context;
    return check(library.run(board, cycles) == RUN_FAULT);
}

/* POSIX lets a pointer of dlsym be a function; ISO C has no cast for it. */
static int find(const char *name, void *function)
{
    void *symbol = dlsym(library_handle, name);
    memcpy(function, &symbol, sizeof symbol);
    if (!symbol)
        complain("%s has no function %s: is it a library of boards/sim?", library_path, name);
    return symbol == NULL;
}

static int open_library(void)
{
    if (!library_path) {
        complain("--library is needed: the compiled simulation of the accelerator");
        return 2;
    }
    library_handle = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
    if (!library_handle) {
        complain("cannot load %s: %s", library_path, dlerror());
        return 2;
    }
    const bool missing = find("board_open", &library.open) || find("board_close", &library.close) ||
                         find("board_reset", &library.reset) || find("board_write", &library.write) ||
                         find("board_read", &library.read) || find("board_run", &library.run) ||
                         find("board_error", &library.error) || find("board_inject_error", &library.inject_error) ||
                         find("board_clear_errors", &library.clear_errors);
    return missing ? 2 : 0;
}

int board_connect(uint32_t region_bytes, struct zs_platform *platform, struct zs_region *region)
{
    const int status = open_library();
    if (status)
        return status;
    memory = malloc(region_bytes);
    if (!memory) {
        complain("there is no memory for a region of %lu bytes", (unsigned long)region_bytes);
        return 2;
    }
    /* Nothing may depend on what the DRAM held before. */
    memset(memory, 0xa5, region_bytes);
    const struct dram_settings settings = {.memory = memory, .base = BUS_ADDRESS, .size = region_bytes,
                                           .read_latency = LATENCY, .write_latency = LATENCY};
    board = library.open(&settings, NULL);
    library.reset(board, RESET_CYCLES);
    *platform = (struct zs_platform){.read32 = read32, .write32 = write32, .wait = wait_for_interrupt};
    *region = (struct zs_region){memory, BUS_ADDRESS, region_bytes};
    return 0;
}

void board_disconnect(void)
{
    library.close(board);
    dlclose(library_handle);
    free(memory);
}

void simulated_inject(uint32_t low, uint32_t high)
{
    library.inject_error(board, low, high);
}

void simulated_clear(void)
{
    library.clear_errors(board);
}
