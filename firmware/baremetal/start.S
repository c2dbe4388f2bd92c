/* Vectors and start-up of the bare-metal example, for one Cortex-A9 core in secure supervisor mode. */
    .syntax unified
    .cpu    cortex-a9
    .arm

    .equ MODE_IRQ, 0x12
    .equ MODE_SVC, 0x13
    .equ MODE_ABT, 0x17
    .equ MODE_UND, 0x1b
    .equ SCTLR_M, 1 << 0
    .equ SCTLR_C, 1 << 2
    .equ SCTLR_I, 1 << 12
    .equ SCTLR_V, 1 << 13
    .equ L2_BASE, 0xf8f02000
    .equ L2_SYNC, 0x730
    .equ L2_CLEAN_INVALIDATE_WAYS, 0x7fc
    .equ L2_WAYS, 0xff
    .equ L1_LINE, 32
    .equ L1_LAST_SET, 255 * 32
    .equ L1_WAY, 0x40000000

    .section .vectors, "ax"
    .balign 32
    .global _start
    /* The reset vector is the first word of the program: it can be entered there. */
_start:
vectors:
    b   start
    b   on_undefined
    b   on_undefined
    b   on_prefetch_abort
    b   on_data_abort
    b   on_undefined
    b   on_irq
    b   on_undefined

    .text
start:
    cpsid   if, #MODE_SVC

    /* A loader may have left this program in its caches: they are written back before they are turned off. If they are
     * off, what is in the first-level cache is not valid. */
    mrc     p15, 0, r4, c1, c0, 0
    mov     r2, #0
1:  ldr     r1, =L1_LAST_SET
2:  orr     r0, r1, r2
    tst     r4, #SCTLR_C
    mcrne   p15, 0, r0, c7, c14, 2
    mcreq   p15, 0, r0, c7, c6, 2
    subs    r1, r1, #L1_LINE
    bpl     2b
    adds    r2, r2, #L1_WAY
    bcc     1b
    dsb
    tst     r4, #SCTLR_C
    beq     4f
    ldr     r5, =L2_BASE
    mov     r0, #L2_WAYS
    str     r0, [r5, #L2_CLEAN_INVALIDATE_WAYS]
3:  ldr     r0, [r5, #L2_CLEAN_INVALIDATE_WAYS]
    tst     r0, #L2_WAYS
    bne     3b
    mov     r0, #0
    str     r0, [r5, #L2_SYNC]
    dsb
4:
    ldr     r0, =SCTLR_M | SCTLR_C | SCTLR_I | SCTLR_V
    bic     r4, r4, r0
    mcr     p15, 0, r4, c1, c0, 0
    isb
    mov     r0, #0
    mcr     p15, 0, r0, c8, c7, 0       /* TLB */
    mcr     p15, 0, r0, c7, c5, 0       /* instruction cache */
    mcr     p15, 0, r0, c7, c5, 6       /* branch predictor */
    ldr     r0, =vectors
    mcr     p15, 0, r0, c12, c0, 0      /* VBAR */
    dsb
    isb

    cps     #MODE_IRQ
    ldr     sp, =__irq_stack
    cps     #MODE_ABT
    ldr     sp, =__fault_stack
    cps     #MODE_UND
    ldr     sp, =__fault_stack
    cps     #MODE_SVC
    ldr     sp, =__stack

    mov     r0, #0
    ldr     r1, =__bss_start
    ldr     r2, =__bss_end
5:  cmp     r1, r2
    strlo   r0, [r1], #4
    blo     5b

    bl      zynq_init
    bl      main
6:  wfi
    b       6b

on_irq:
    sub     lr, lr, #4
    push    {r0-r3, r12, lr}
    bl      zynq_irq
    ldmfd   sp!, {r0-r3, r12, pc}^

on_undefined:
    mov     r0, #0
    sub     r1, lr, #4
    b       zynq_fault
on_prefetch_abort:
    mov     r0, #1
    sub     r1, lr, #4
    b       zynq_fault
on_data_abort:
    mov     r0, #2
    sub     r1, lr, #8
    b       zynq_fault
