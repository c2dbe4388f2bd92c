/* The simulated board beyond program.h: errors on its bus. */
#ifndef SIMULATED_H
#define SIMULATED_H

#include <stdint.h>

/* Bus addresses low to high - 1 answer SLVERR from now on; simulated_clear takes all of that back. */
void simulated_inject(uint32_t low, uint32_t high);
void simulated_clear(void);

#endif
