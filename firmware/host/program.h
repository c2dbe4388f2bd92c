/* What program.c needs of a board: one file of a folder host/, socket/ or linux/ defines these. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "zeroskip.h"

/* The end of the first line of the usage text, and a line for each option. */
extern const char *const board_usage, *const board_help;

/* Take the option `name` ("--library") with its value. 0: taken, 1: there is no such option or the value is wrong. */
int board_option(const char *name, const char *value);

/* Connect to registers and DMA memory of `region_bytes` at least. 0: done; else an exit status, after a message. */
int board_connect(uint32_t region_bytes, struct zs_platform *platform, struct zs_region *region);

void board_disconnect(void);

/* Print "error: ..." and a line end to stderr. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void complain(const char *format, ...);

/* The number that `text` is, decimal or with 0x, `low` to `high`. 0: done, 1: it is none. */
int parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *number);

#endif
