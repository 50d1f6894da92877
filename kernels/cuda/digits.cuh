// The two 8-bit digits of codes, four at a time: q = 256 * high + low with both in [-128, 127].
// Every product takes its operands as these bytes.
#pragma once
#include "base.cuh"

// The low digits of four codes, which come as two pairs of 16 bits, the first in the low half.
DEVICE u32 low_digits(u32 first, u32 second) { return __byte_perm(first, second, 0x6420); }

// Their high digits.
DEVICE u32 high_digits(u32 first, u32 second) {
    const u32 high = __byte_perm(first, second, 0x7531);
    // A negative low digit borrowed from the high one.
    const u32 borrowed = low_digits(first, second) >> 7 & 0x01010101u;
    return ((high & 0x7f7f7f7fu) + borrowed) ^ (high & 0x80808080u);
}

// Transposes a square of 4 x 4 bytes: byte j of word i becomes byte i of word j.
DEVICE void transpose_bytes(u32 (&x)[4]) {
    const u32 a = __byte_perm(x[0], x[1], 0x5140), b = __byte_perm(x[2], x[3], 0x5140);
    const u32 c = __byte_perm(x[0], x[1], 0x7362), d = __byte_perm(x[2], x[3], 0x7362);
    x[0] = __byte_perm(a, b, 0x5410);
    x[1] = __byte_perm(a, b, 0x7632);
    x[2] = __byte_perm(c, d, 0x5410);
    x[3] = __byte_perm(c, d, 0x7632);
}
