// The memory model alone, pin by pin: its tests play the master from Python.
#include "dram.h"

extern "C" {

Dram *pins_open(const DramSettings *settings) { return new Dram(*settings); }
void pins_close(Dram *dram) { delete dram; }
void pins_edge(Dram *dram, AxiPins *pins) { dram->edge(*pins); }
void pins_inject_error(Dram *dram, uint64_t low, uint64_t high) { dram->inject_error(low, high); }
const char *pins_error(Dram *dram) { return dram->error().c_str(); }

}
