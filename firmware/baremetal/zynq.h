/* What the bare-metal example needs of a Zynq-7000: memory map, console, caches, the interrupt of the fabric.
 *
 * DDR controller, PLLs, UART baud rate and level shifters are set up before (first-stage boot loader or U-Boot).
 * Source: Xilinx UG585, Zynq-7000 Technical Reference Manual; Arm DDI 0406C, DDI 0388, DDI 0246.
 */
#ifndef ZYNQ_H
#define ZYNQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Translation table, L1 and L2 caches, console, interrupt controller; interrupts on. Once, from the start-up code. */
void zynq_init(void);

uint32_t zynq_read(uint32_t address);
/* Earlier writes to memory reach it before this one reaches its device. */
void zynq_write(uint32_t address, uint32_t value);

/* Write cache lines back to DDR; drop them. Any start and size. */
void zynq_flush(const void *start, size_t size);
void zynq_invalidate(const void *start, size_t size);

/* Until IRQ_F2P[0] is high or `loops` rounds are over; whether it was high. */
bool zynq_wait_for_interrupt(uint32_t loops);

/* Console. */
void print(const char *text);
void print_number(uint64_t number);
void print_hex(uint32_t number);

/* From the start-up code. */
void zynq_irq(void);
void zynq_fault(uint32_t kind, uint32_t address);

#endif
