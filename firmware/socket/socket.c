/* The simulated board of another process: `python -m boards.sim.server` (boards/sim/server.py has the protocol). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "program.h"

enum { OP_READ = 1, OP_WRITE = 2, OP_WAIT = 3 };
enum { REQUEST_BYTES = 12, ANSWER_BYTES = 8 };
#define DEFAULT_BASE 0x10000000u

static const char *socket_path, *memory_path;
static uint64_t base = DEFAULT_BASE;
static int connection = -1;
static void *memory;
static size_t memory_bytes;

const char *const board_usage = "--socket S --memory M [--base N]";
const char *const board_help =
    "  --socket S        Unix socket of the server (python -m boards.sim.server)\n"
    "  --memory M        file that is the server's DRAM\n"
    "  --base N          address of the DRAM, as given to the server (0x10000000)\n";

int board_option(const char *name, const char *value)
{
    if (strcmp(name, "--socket") == 0)
        return !*(socket_path = value);
    if (strcmp(name, "--memory") == 0)
        return !*(memory_path = value);
    if (strcmp(name, "--base") == 0)
        return parse_number(value, 4096, 0xfffff000u, &base);
    return 1;
}

static void put32(uint8_t *bytes, uint32_t value)
{
    for (unsigned n = 0; n < 4; ++n)
        bytes[n] = (uint8_t)(value >> 8 * n);
}

static uint32_t get32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* One request and its answer. 0: done. */
static int ask(uint32_t op, uint32_t offset, uint32_t value, uint32_t *answer)
{
    static const char *const reasons[] = {"", "the register answers with an AXI error", "the register does not answer",
                                          "the simulation failed"};
    uint8_t request[REQUEST_BYTES], reply[ANSWER_BYTES];
    put32(request, op);
    put32(request + 4, offset);
    put32(request + 8, value);
    /* Requests are far smaller than what a socket takes at once. */
    if (send(connection, request, sizeof request, MSG_NOSIGNAL) != (ssize_t)sizeof request ||
        recv(connection, reply, sizeof reply, MSG_WAITALL) != (ssize_t)sizeof reply) {
        complain("the server has closed the connection");
        return 1;
    }
    const uint32_t status = get32(reply);
    if (status)
        complain("%s (offset 0x%02x)", status < 4 ? reasons[status] : "the server's answer is not known",
                 (unsigned)offset);
    *answer = get32(reply + 4);
    return status != 0;
}

static int read32(void *context, uint32_t offset, uint32_t *value)
{
    (void)context;
    return ask(OP_READ, offset, 0, value);
}

static int write32(void *context, uint32_t offset, uint32_t value)
{
    uint32_t ignored;
    (void)context;
    return ask(OP_WRITE, offset, value, &ignored);
}

static int wait_for_interrupt(void *context, uint32_t cycles)
{
    uint32_t raised;
    (void)context;
    return ask(OP_WAIT, 0, cycles, &raised);
}

static int connect_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path) {
        complain("the path %s is too long for a socket", socket_path);
        return 2;
    }
    strcpy(address.sun_path, socket_path);
    connection = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address)) {
        complain("cannot connect to %s: %s; is the server running?", socket_path, strerror(errno));
        return 2;
    }
    return 0;
}

static int map_memory(uint32_t region_bytes)
{
    struct stat status;
    const int file = open(memory_path, O_RDWR);
    if (file < 0 || fstat(file, &status)) {
        complain("cannot open %s: %s", memory_path, strerror(errno));
        return 2;
    }
    if (status.st_size < (off_t)region_bytes || (uint64_t)status.st_size > ((uint64_t)1 << 32) - base) {
        complain("%s has %lld bytes; the network needs %lu, below 4 GiB: start the server with other --memory-bytes",
                 memory_path, (long long)status.st_size, (unsigned long)region_bytes);
        close(file);
        return 2;
    }
    memory_bytes = (size_t)status.st_size;
    memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) {
        complain("cannot map %s: %s", memory_path, strerror(errno));
        return 2;
    }
    return 0;
}

int board_connect(uint32_t region_bytes, struct zs_platform *platform, struct zs_region *region)
{
    if (!socket_path || !memory_path) {
        complain("--socket and --memory are needed: those of python -m boards.sim.server");
        return 2;
    }
    int status = connect_socket();
    if (!status)
        status = map_memory(region_bytes);
    if (status)
        return status;
    *platform = (struct zs_platform){.read32 = read32, .write32 = write32, .wait = wait_for_interrupt};
    *region = (struct zs_region){memory, (uint32_t)base, (uint32_t)memory_bytes};
    return 0;
}

void board_disconnect(void)
{
    munmap(memory, memory_bytes);
    close(connection);
}
