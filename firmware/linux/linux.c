/* A Zynq board with Linux: registers by UIO or /dev/mem, DMA memory by u-dma-buf, bitstream by the FPGA manager. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

#define REGISTER_BYTES 4096u
#define WAIT_MILLISECONDS 100
#define PATH_BYTES 1024

static const char *root = "", *uio = "/dev/uio0", *buffer = "udmabuf0", *bitstream;
static uint64_t address;    /* 0: by UIO. */
static int uio_file = -1;
static volatile uint32_t *registers;
static uint8_t *memory;
static uint64_t memory_bytes;
static char buffer_folder[PATH_BYTES];

const char *const board_usage = "[--uio DEVICE | --mem ADDRESS] [--udmabuf NAME] [--bitstream FILE]";
const char *const board_help =
    "  --uio DEVICE      UIO device of the registers (/dev/uio0)\n"
    "  --mem ADDRESS     reach the registers at ADDRESS through /dev/mem instead, and poll\n"
    "  --udmabuf NAME    u-dma-buf device of the shared memory (udmabuf0)\n"
    "  --bitstream FILE  load this .bin file through the FPGA manager first\n"
    "  --root FOLDER     find /dev, /sys and /lib/firmware in FOLDER\n";

int board_option(const char *name, const char *value)
{
    const struct { const char *name, **place; } options[] = {
        {"--uio", &uio}, {"--udmabuf", &buffer}, {"--bitstream", &bitstream}, {"--root", &root},
    };
    if (strcmp(name, "--mem") == 0)
        return parse_number(value, 4096, 0xfffff000u, &address) || address % 4096;
    for (size_t n = 0; n < sizeof options / sizeof options[0]; ++n)
        if (strcmp(name, options[n].name) == 0) {
            *options[n].place = value;
            return !value[0];
        }
    return 1;
}

/* Earlier accesses to memory are over before later ones to a device, and the other way round. */
static void barrier(void)
{
#if defined(__arm__)
    __asm__ volatile("dsb" ::: "memory");
#else
    __sync_synchronize();
#endif
}

/* --- Files --- */

/* `root` and two parts of a path; 0: it fits. */
static int join(char *path, const char *folder, const char *name)
{
    if (snprintf(path, PATH_BYTES, "%s%s%s", root, folder, name) < PATH_BYTES)
        return 0;
    complain("the path %s%s is too long", folder, name);
    return 1;
}

static int write_text(const char *path, const char *text)
{
    const int file = open(path, O_WRONLY);
    const bool written = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
    const bool closed = file >= 0 && close(file) == 0;
    if (!written || !closed)
        complain("cannot write %s: %s", path, strerror(errno));
    return !written || !closed;
}

static int read_text(const char *path, char *text, size_t size)
{
    const int file = open(path, O_RDONLY);
    const ssize_t count = file >= 0 ? read(file, text, size - 1) : -1;
    if (file >= 0)
        close(file);
    if (count < 0) {
        complain("cannot read %s: %s", path, strerror(errno));
        return 1;
    }
    text[count] = 0;
    text[strcspn(text, "\n")] = 0;
    return 0;
}

/* --- Bitstream --- */

static bool same_file(const char *first, const char *second)
{
    struct stat a, b;
    return stat(first, &a) == 0 && stat(second, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int copy_file(const char *from, const char *to)
{
    char bytes[4096];
    if (same_file(from, to))
        return 0;
    const int source = open(from, O_RDONLY), target = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t count = source < 0 || target < 0 ? -1 : 0;
    while (count >= 0 && (count = read(source, bytes, sizeof bytes)) > 0)
        if (write(target, bytes, (size_t)count) != count)
            count = -1;
    if (count < 0)
        complain("cannot copy %s to %s: %s", from, to, strerror(errno));
    if (source >= 0)
        close(source);
    if (target >= 0 && close(target) && count >= 0) {
        complain("cannot write %s: %s", to, strerror(errno));
        count = -1;
    }
    return count < 0;
}

static int load_bitstream(void)
{
    static const char manager[] = "/sys/class/fpga_manager/fpga0/";
    char target[PATH_BYTES], flags[PATH_BYTES], firmware[PATH_BYTES], state[PATH_BYTES], text[64];
    const char *slash = strrchr(bitstream, '/');
    const char *name = slash ? slash + 1 : bitstream;
    if (join(target, "/lib/firmware/", name) || join(flags, manager, "flags") ||
        join(firmware, manager, "firmware") || join(state, manager, "state"))
        return 2;
    if (access(firmware, W_OK)) {
        complain("cannot use %s: %s; without it, load the bitstream with the device tree overlay (firmware/README.md)",
                 firmware, strerror(errno));
        return 2;
    }
    if (copy_file(bitstream, target) || write_text(flags, "0") || write_text(firmware, name) ||
        read_text(state, text, sizeof text))
        return 2;
    if (strcmp(text, "operating") != 0) {
        complain("the FPGA manager is in state \"%s\" after %s: is it a .bin file for this chip?", text, bitstream);
        return 2;
    }
    return 0;
}

/* --- Registers --- */

static int read32(void *context, uint32_t offset, uint32_t *value)
{
    (void)context;
    *value = registers[offset / 4];
    barrier();
    return 0;
}

static int write32(void *context, uint32_t offset, uint32_t value)
{
    (void)context;
    barrier();
    registers[offset / 4] = value;
    return 0;
}

static int wait_for_interrupt(void *context, uint32_t cycles)
{
    struct pollfd poll_file = {.fd = uio_file, .events = POLLIN};
    uint32_t number = 1;
    (void)context;
    /* The clock of the fabric is not known here: the driver counts, and calls again. */
    (void)cycles;
    if (write(uio_file, &number, sizeof number) != (ssize_t)sizeof number) {
        complain("cannot enable the interrupt of %s: %s", uio, strerror(errno));
        return 1;
    }
    const int ready = poll(&poll_file, 1, WAIT_MILLISECONDS);
    if (ready == 0 || (ready < 0 && errno == EINTR))
        return 0;
    if (ready < 0 || read(uio_file, &number, sizeof number) != (ssize_t)sizeof number) {
        complain("cannot wait for the interrupt of %s: %s", uio, strerror(errno));
        return 1;
    }
    return 0;
}

static int map_registers(void)
{
    char path[PATH_BYTES];
    const bool by_uio = !address;
    if (join(path, by_uio ? uio : "/dev/mem", ""))
        return 2;
    const int file = open(path, O_RDWR | O_SYNC);
    void *mapped = file < 0 ? MAP_FAILED
                            : mmap(NULL, REGISTER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)address);
    if (mapped == MAP_FAILED) {
        complain("cannot map the registers of %s: %s; %s", path, strerror(errno),
                 by_uio ? "is the overlay loaded, and uio_pdrv_genirq with of_id=generic-uio?" : "are you root?");
        if (file >= 0)
            close(file);
        return 2;
    }
    registers = mapped;
    if (by_uio)
        uio_file = file;
    else
        close(file);
    return 0;
}

/* --- Memory --- */

static int set_attribute(const char *name, uint64_t value)
{
    char path[PATH_BYTES + 32], text[32];
    snprintf(path, sizeof path, "%s/%s", buffer_folder, name);
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return write_text(path, text);
}

static int get_attribute(const char *name, uint64_t *value)
{
    char path[PATH_BYTES + 32], text[32];
    snprintf(path, sizeof path, "%s/%s", buffer_folder, name);
    if (read_text(path, text, sizeof text))
        return 1;
    if (parse_number(text, 0, UINT64_MAX, value)) {
        complain("%s holds %s, which is no number", path, text);
        return 1;
    }
    return 0;
}

static int synchronise(const char *attribute, const void *start, size_t size)
{
    return set_attribute("sync_offset", (uint64_t)((const uint8_t *)start - memory)) ||
           set_attribute("sync_size", size) || set_attribute(attribute, 1);
}

static int flush(void *context, void *start, size_t size)
{
    (void)context;
    return synchronise("sync_for_device", start, size);
}

static int invalidate(void *context, void *start, size_t size)
{
    (void)context;
    return synchronise("sync_for_cpu", start, size);
}

/* Older versions of u-dma-buf call their class udmabuf. */
static int find_buffer(void)
{
    if (join(buffer_folder, "/sys/class/u-dma-buf/", buffer))
        return 2;
    if (access(buffer_folder, F_OK) == 0)
        return 0;
    if (join(buffer_folder, "/sys/class/udmabuf/", buffer))
        return 2;
    if (access(buffer_folder, F_OK) == 0)
        return 0;
    complain("there is no u-dma-buf device %s; load the overlay, or the module: modprobe u-dma-buf udmabuf0=67108864",
             buffer);
    return 2;
}

static int map_memory(uint32_t region_bytes, uint64_t *bus_address)
{
    char path[PATH_BYTES];
    int status = find_buffer();
    if (status)
        return status;
    /* Direction 0: both ways. */
    if (join(path, "/dev/", buffer) || get_attribute("phys_addr", bus_address) ||
        get_attribute("size", &memory_bytes) || set_attribute("sync_direction", 0))
        return 2;
    if (memory_bytes < region_bytes || *bus_address + memory_bytes > (uint64_t)1 << 32) {
        complain("%s has %llu bytes at 0x%llx; the network needs %lu below 4 GiB", buffer,
                 (unsigned long long)memory_bytes, (unsigned long long)*bus_address, (unsigned long)region_bytes);
        return 2;
    }
    /* Without O_SYNC: cached, so that maps are decoded at full speed. */
    const int file = open(path, O_RDWR);
    void *mapped = file < 0 ? MAP_FAILED
                            : mmap(NULL, (size_t)memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        complain("cannot map %s: %s", path, strerror(errno));
    if (file >= 0)
        close(file);
    memory = mapped;
    return mapped == MAP_FAILED ? 2 : 0;
}

int board_connect(uint32_t region_bytes, struct zs_platform *platform, struct zs_region *region)
{
    uint64_t bus_address;
    int status = bitstream ? load_bitstream() : 0;
    if (!status)
        status = map_registers();
    if (!status)
        status = map_memory(region_bytes, &bus_address);
    if (status)
        return status;
    *platform = (struct zs_platform){.read32 = read32, .write32 = write32, .flush = flush, .invalidate = invalidate,
                                     .wait = address ? NULL : wait_for_interrupt};
    *region = (struct zs_region){memory, (uint32_t)bus_address, (uint32_t)memory_bytes};
    return 0;
}

void board_disconnect(void)
{
    munmap(memory, (size_t)memory_bytes);
    munmap((void *)(uintptr_t)registers, REGISTER_BYTES);
    if (uio_file >= 0)
        close(uio_file);
}
