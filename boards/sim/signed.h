// Verilator's sign extensions and signed products as shifts: the same values, but compilers know the pattern, drop the
// extensions that follow each other and multiply with the instruction for narrow factors. Included before all else.
#pragma once
#include "verilated.h"

#define SIGNED(bits, x) \
    (static_cast<QData>(static_cast<int64_t>(static_cast<QData>(x) << (64 - (bits))) >> (64 - (bits))))
#define VL_EXTENDS_QQ(out_bits, bits, x) SIGNED(bits, x)
#define VL_EXTENDS_QI(out_bits, bits, x) SIGNED(bits, x)
#define VL_MULS_QQQ(bits, x, y) (SIGNED(bits, x) * SIGNED(bits, y))
