#include "zynq.h"

#define UART1 0xe0001000u
#define UART_CONTROL (UART1 + 0x00)
#define UART_CONTROL_ENABLE 0x14u              /* Transmitter and receiver. */
#define UART_STATUS (UART1 + 0x2c)
#define UART_STATUS_FULL (1u << 4)
#define UART_FIFO (UART1 + 0x30)

#define GIC_CPU 0xf8f00100u
#define GIC_CPU_CONTROL (GIC_CPU + 0x00)
#define GIC_CPU_PRIORITY (GIC_CPU + 0x04)
#define GIC_CPU_ACKNOWLEDGE (GIC_CPU + 0x0c)
#define GIC_CPU_END (GIC_CPU + 0x10)
#define GIC 0xf8f01000u
#define GIC_CONTROL (GIC + 0x000)
#define GIC_ENABLE(id) (GIC + 0x100 + (id) / 32 * 4)
#define GIC_DISABLE(id) (GIC + 0x180 + (id) / 32 * 4)
#define GIC_PRIORITY(id) (GIC + 0x400 + (id) / 4 * 4)
#define GIC_TARGET(id) (GIC + 0x800 + (id) / 4 * 4)
#define GIC_SENSE(id) (GIC + 0xc00 + (id) / 16 * 4)
#define IRQ_F2P_0 61u

#define SLCR_UNLOCK 0xf8000008u
#define SLCR_UNLOCK_KEY 0xdf0du
/* "L2 cache RAM": UG585 asks for this value before the cache is enabled. */
#define SLCR_L2_RAM 0xf8000a1cu
#define SLCR_L2_RAM_VALUE 0x00020202u
#define L2 0xf8f02000u
#define L2_CONTROL (L2 + 0x100)
#define L2_AUXILIARY (L2 + 0x104)
#define L2_AUXILIARY_VALUE 0x72360000u         /* UG585: 8 ways of 64 KB, prefetch, early write response. */
#define L2_TAG_LATENCY (L2 + 0x108)
#define L2_TAG_LATENCY_VALUE 0x111u
#define L2_DATA_LATENCY (L2 + 0x10c)
#define L2_DATA_LATENCY_VALUE 0x121u
#define L2_SYNC (L2 + 0x730)
#define L2_INVALIDATE_LINE (L2 + 0x770)
#define L2_INVALIDATE_WAYS (L2 + 0x77c)
#define L2_CLEAN_LINE (L2 + 0x7b0)
#define L2_WAYS 0xffu
#define LINE 32u

/* First-level descriptors: a section of 1 MB, read and write for all, domain 0. */
#define SECTION_BITS 20
#define SECTION_NORMAL 0x1c0eu                 /* Write-back, write-allocate, not shared. */
#define SECTION_DEVICE 0x0c16u                 /* Device, never executed. */
/* MMU, data cache, branch prediction, instruction cache. */
#define SCTLR_ON (1u << 0 | 1u << 2 | 1u << 11 | 1u << 12)

extern const uint8_t __ddr_end[];

static uint32_t translation_table[4096] __attribute__((aligned(16384), section(".table")));
static volatile bool interrupted;

static void barrier(void)
{
    __asm__ volatile("dsb" ::: "memory");
}

uint32_t zynq_read(uint32_t address)
{
    const uint32_t value = *(volatile uint32_t *)(uintptr_t)address;
    barrier();
    return value;
}

void zynq_write(uint32_t address, uint32_t value)
{
    barrier();
    *(volatile uint32_t *)(uintptr_t)address = value;
}

static void set_field(uint32_t address, unsigned low, uint32_t mask, uint32_t value)
{
    zynq_write(address, (zynq_read(address) & ~(mask << low)) | value << low);
}

/* --- Memory map and caches --- */

static void build_table(void)
{
    const uint32_t ddr_sections = (uint32_t)((uintptr_t)__ddr_end >> SECTION_BITS);
    for (uint32_t n = 0; n < 4096; ++n) {
        uint32_t attributes = 0;
        /* Section 0 is not mapped: DDR starts behind it, and a null pointer is found. */
        if (n >= 1 && n < ddr_sections)
            attributes = SECTION_NORMAL;
        else if ((n >= 0x400 && n < 0xc00) || n >= 0xe00)
            attributes = SECTION_DEVICE;
        translation_table[n] = attributes ? n << SECTION_BITS | attributes : 0;
    }
}

static void enable_l2(void)
{
    zynq_write(SLCR_UNLOCK, SLCR_UNLOCK_KEY);
    zynq_write(SLCR_L2_RAM, SLCR_L2_RAM_VALUE);
    zynq_write(L2_CONTROL, 0);
    zynq_write(L2_AUXILIARY, L2_AUXILIARY_VALUE);
    zynq_write(L2_TAG_LATENCY, L2_TAG_LATENCY_VALUE);
    zynq_write(L2_DATA_LATENCY, L2_DATA_LATENCY_VALUE);
    zynq_write(L2_INVALIDATE_WAYS, L2_WAYS);
    while (zynq_read(L2_INVALIDATE_WAYS) & L2_WAYS)
        ;
    zynq_write(L2_SYNC, 0);
    zynq_write(L2_CONTROL, 1);
}

static void enable_mmu(void)
{
    uint32_t control;
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 2" ::"r"(0));                        /* TTBCR */
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 0" ::"r"(translation_table));        /* TTBR0 */
    __asm__ volatile("mcr p15, 0, %0, c3, c0, 0" ::"r"(1));                        /* Domain 0: as the sections say. */
    barrier();
    __asm__ volatile("mrc p15, 0, %0, c1, c0, 0" : "=r"(control));
    __asm__ volatile("mcr p15, 0, %0, c1, c0, 0\n\tisb" ::"r"(control | SCTLR_ON) : "memory");
}

/* First-level lines go to the second level before that goes to DDR. */
void zynq_flush(const void *start, size_t size)
{
    const uintptr_t first = (uintptr_t)start & ~(uintptr_t)(LINE - 1), end = (uintptr_t)start + size;
    barrier();
    for (uintptr_t line = first; line < end; line += LINE)
        __asm__ volatile("mcr p15, 0, %0, c7, c10, 1" ::"r"(line) : "memory");
    barrier();
    for (uintptr_t line = first; line < end; line += LINE)
        *(volatile uint32_t *)L2_CLEAN_LINE = (uint32_t)line;
    zynq_write(L2_SYNC, 0);
    barrier();
}

/* The second level first: otherwise the first could be filled from it again. */
void zynq_invalidate(const void *start, size_t size)
{
    const uintptr_t first = (uintptr_t)start & ~(uintptr_t)(LINE - 1), end = (uintptr_t)start + size;
    barrier();
    for (uintptr_t line = first; line < end; line += LINE)
        *(volatile uint32_t *)L2_INVALIDATE_LINE = (uint32_t)line;
    zynq_write(L2_SYNC, 0);
    barrier();
    for (uintptr_t line = first; line < end; line += LINE)
        __asm__ volatile("mcr p15, 0, %0, c7, c6, 1" ::"r"(line) : "memory");
    barrier();
}

/* --- Console --- */

void print(const char *text)
{
    for (; *text; ++text) {
        if (*text == '\n')
            print("\r");
        while (zynq_read(UART_STATUS) & UART_STATUS_FULL)
            ;
        zynq_write(UART_FIFO, (uint8_t)*text);
    }
}

void print_number(uint64_t number)
{
    char text[21];
    char *first = text + sizeof text - 1;
    *first = 0;
    do {
        *--first = (char)('0' + (char)(number % 10));
        number /= 10;
    } while (number);
    print(first);
}

void print_hex(uint32_t number)
{
    char text[11] = "0x";
    for (unsigned n = 0; n < 8; ++n)
        text[2 + n] = "0123456789abcdef"[number >> (28 - 4 * n) & 15u];
    text[10] = 0;
    print(text);
}

/* --- Interrupt and faults --- */

static void enable_gic(void)
{
    zynq_write(GIC_CONTROL, 0);
    set_field(GIC_PRIORITY(IRQ_F2P_0), IRQ_F2P_0 % 4 * 8, 0xff, 0xa0);
    set_field(GIC_TARGET(IRQ_F2P_0), IRQ_F2P_0 % 4 * 8, 0xff, 1);
    set_field(GIC_SENSE(IRQ_F2P_0), IRQ_F2P_0 % 16 * 2, 3, 1);                     /* High level. */
    zynq_write(GIC_CONTROL, 1);
    zynq_write(GIC_CPU_PRIORITY, 0xff);
    zynq_write(GIC_CPU_CONTROL, 1);
    __asm__ volatile("cpsie i" ::: "memory");
}

void zynq_irq(void)
{
    const uint32_t acknowledged = zynq_read(GIC_CPU_ACKNOWLEDGE);
    if ((acknowledged & 0x3ffu) == IRQ_F2P_0) {
        /* The line stays high until the driver clears the status. */
        zynq_write(GIC_DISABLE(IRQ_F2P_0), 1u << IRQ_F2P_0 % 32);
        interrupted = true;
    }
    zynq_write(GIC_CPU_END, acknowledged);
}

bool zynq_wait_for_interrupt(uint32_t loops)
{
    interrupted = false;
    zynq_write(GIC_ENABLE(IRQ_F2P_0), 1u << IRQ_F2P_0 % 32);
    while (!interrupted && loops--)
        ;
    zynq_write(GIC_DISABLE(IRQ_F2P_0), 1u << IRQ_F2P_0 % 32);
    return interrupted;
}

void zynq_fault(uint32_t kind, uint32_t address)
{
    static const char *const kinds[] = {"undefined instruction", "prefetch abort", "data abort"};
    uint32_t data_address;
    __asm__ volatile("mrc p15, 0, %0, c6, c0, 0" : "=r"(data_address));
    print("\nerror: ");
    print(kinds[kind]);
    print(" at ");
    print_hex(address);
    if (kind == 2) {
        print(", data address ");
        print_hex(data_address);
        print(": if that is a register, is the bitstream loaded, and its address right?");
    }
    print("\n");
    for (;;)
        __asm__ volatile("wfi");
}

void zynq_init(void)
{
    build_table();
    enable_l2();
    enable_mmu();
    zynq_write(UART_CONTROL, UART_CONTROL_ENABLE);
    enable_gic();
}
