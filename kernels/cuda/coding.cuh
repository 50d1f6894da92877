// The steps of row coding (NUMERICS.md, section 2), an element at a time: the key of a magnitude,
// the exponent of a row from its largest key, the code of an element. They give the bits of the f64
// code in kernels/src/reference/code.rs for every f32, every fold and every exponent, without f64.
#pragma once
#include "math.cuh"

// The upper bits of |value * 2^fold| as f64 has them: exponent, then 15 bits of mantissa. They say
// everything that the exponent of a row depends on, and are ordered as the magnitudes are: a row
// takes the greatest. 0 is zero, KEY_POISON what is not finite.
#define KEY_MANTISSA 15
#define KEY_POISON (2047u << KEY_MANTISSA)

DEVICE u32 magnitude_key(f32 value, i32 fold) {
    const u32 bits = bits_of(value) & 0x7fffffffu;
    if (bits >= 0x7f800000u || fold > 1023) return KEY_POISON;
    if (bits == 0 || fold < -1022) return 0;
    // A subnormal shifted up until its leading bit is where a normal number hides it.
    const i32 shift = bits < 0x00800000u ? __clz(static_cast<i32>(bits)) - 8 : 0;
    const u32 mantissa = (bits << shift) & 0x007fffffu;
    const i32 exponent = greatest(static_cast<i32>(bits >> 23), 1) - 127 - shift + fold;
    if (exponent > 1023) return KEY_POISON;
    if (exponent >= -1022)
        return static_cast<u32>(exponent + 1023) << KEY_MANTISSA | mantissa >> (23 - KEY_MANTISSA);
    // Subnormal in f64: all that counts is whether it rounds to zero.
    return exponent > -1075 || (exponent == -1075 && mantissa != 0) ? 1 : 0;
}

// As above without a fold.
DEVICE u32 magnitude_key(f32 value) { return magnitude_key(value, 0); }

// floor(log2(limit)) for the limits of the precisions: 127, 8,127 and 32,639.
DEVICE i32 log2_of_limit(i32 limit) { return 31 - __clz(limit); }

// The exponent of a row whose greatest key is `key`: bumped where the magnitude would round above
// `limit`, which is odd, so that `limit + 1/2` rounds up.
DEVICE i32 exponent_of_key(u32 key, i32 limit) {
    if (key >= KEY_POISON) return POISON;
    if (key == 0) return EMPTY;
    const i32 log2 = log2_of_limit(limit);
    const u32 significand = (key & ((1u << KEY_MANTISSA) - 1)) | 1u << KEY_MANTISSA;
    const u32 above = static_cast<u32>(2 * limit + 1) << (KEY_MANTISSA - 1 - log2);
    const i32 exponent = static_cast<i32>(key >> KEY_MANTISSA) - 1023 - log2;
    // 2^-exponent does not exist in f64 below -1,023: the reference bumps there too.
    return significand >= above || exponent < -1023 ? exponent + 1 : exponent;
}

// Two factors whose product is 2^(fold - exponent), or 0 where every such element codes as 0.
struct CodeFactors {
    f32 first;
    f32 second;
};

DEVICE CodeFactors code_factors(i32 fold, i32 exponent) {
    if (exponent == POISON || exponent < -1023 || fold < -1022) return {0.0f, 0.0f};
    // Below -252 every f32 rounds to 0; above 252 only zeros can meet the shift.
    const i32 shift = least(greatest(fold - exponent, -252), 252);
    return {pow2_f32(shift >> 1), pow2_f32(shift - (shift >> 1))};
}

// round(value * 2^(fold - exponent)). Where the first factor leaves the range of normal numbers
// downwards the code is 0 anyway; upwards it cannot, as codes keep their limit.
DEVICE i32 code_of(f32 value, CodeFactors by) {
    return by.first == 0.0f ? 0 : __float2int_rn(rn::mul(rn::mul(value, by.first), by.second));
}

DEVICE i32 code_of(f32 value, i32 fold, i32 exponent) {
    return code_of(value, code_factors(fold, exponent));
}
