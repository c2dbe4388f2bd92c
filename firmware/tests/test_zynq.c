/* Start-up code, interrupt, caches and fault handler of the bare-metal example, for QEMU: no accelerator is needed. */
#include "zynq.h"

#define PENDING_61 0xf8f01204u

int main(void)
{
    static uint32_t words[64];
    static uint32_t data = 0x11223344u;
    print("start\n");
    print(data == 0x11223344u && words[7] == 0 ? "data and bss\n" : "data or bss is wrong\n");
    print_number(18446744073709551615ull);
    print(" ");
    print_hex(0x0123cdefu);
    print("\n");
    print(zynq_wait_for_interrupt(1000) ? "interrupt out of nothing\n" : "no interrupt\n");
    zynq_write(PENDING_61, 1u << 29);
    print(zynq_wait_for_interrupt(100000000) ? "interrupt\n" : "interrupt is lost\n");
    print(zynq_wait_for_interrupt(1000) ? "interrupt once more\n" : "no interrupt\n");
    words[5] = 5;
    zynq_flush(words, sizeof words);
    zynq_invalidate(words, sizeof words);
    print(words[5] == 5 ? "caches\n" : "cache is wrong\n");
    /* The first MB is not mapped. */
    data = zynq_read(0x00000010u);
    print("no fault\n");
    return (int)data;
}
