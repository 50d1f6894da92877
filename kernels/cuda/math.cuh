// The elementary functions of kernels/src/math.rs: the same steps on the same constants.
#pragma once
#include "base.cuh"

#define LOG2_E from_bits(0x3fb8aa3bu)
#define LN_2 from_bits(0x3f317218u)
// The upper bits of ln(2): times an integer below 2^9 it is exact.
#define LN_2_HI from_bits(0x3f317200u)
#define LN_2_LO from_bits(0x35bfbe8eu)
// Adding and subtracting it rounds to an integer, to nearest even, below 2^22.
#define ROUNDER 12582912.0f
#define NEG_INFINITY from_bits(0xff800000u)
#define QUIET_NAN from_bits(0x7fc00000u)

// The exponent of a row of zeros, whose power of two counts as 0.
#define EMPTY (-(1 << 20))
// The exponent of a row that holds a NaN or an infinity, whose power of two counts as NaN.
#define POISON (1 << 20)

// 2^exp: exact from -1,022 to 1,023, 0 below, NaN above.
DEVICE f64 pow2_f64(i32 exp) {
    if (exp < -1022) return 0.0;
    if (exp > 1023) return __longlong_as_double(0x7ff8000000000000ll);
    return __longlong_as_double(static_cast<i64>(exp + 1023) << 52);
}

// 2^exp for exp in [-126, 127].
DEVICE f32 pow2_f32(i32 exp) { return from_bits(static_cast<u32>(exp + 127) << 23); }

// p * 2^n with one rounding, for n in [-150, 128]: two factors keep each in range.
DEVICE f32 scale_by_pow2(f32 p, i32 n) {
    const i32 half = n >> 1;
    return rn::mul(rn::mul(p, pow2_f32(half)), pow2_f32(n - half));
}

// The integer that n is; 0 for NaN.
DEVICE i32 to_int(f32 n) {
    const i32 value = static_cast<i32>(bits_of(rn::add(n, ROUNDER)) - bits_of(ROUNDER));
    return n != n ? 0 : value;
}

DEVICE f32 exp2_of(f32 x) {
    f32 clamped = x < -150.0f ? -150.0f : x;
    clamped = clamped > 128.0f ? 128.0f : clamped;
    const f32 n = rn::sub(rn::add(clamped, ROUNDER), ROUNDER);
    const f32 r = rn::sub(clamped, n);
    f32 p = from_bits(0x377fe5feu);
    p = rn::fma(p, r, from_bits(0x39218489u));
    p = rn::fma(p, r, from_bits(0x3aaec3ffu));
    p = rn::fma(p, r, from_bits(0x3c1d955bu));
    p = rn::fma(p, r, from_bits(0x3d635847u));
    p = rn::fma(p, r, from_bits(0x3e75fdf0u));
    p = rn::fma(p, r, from_bits(0x3f317218u));
    p = rn::fma(p, r, 1.0f);
    return scale_by_pow2(p, to_int(n));
}

DEVICE f32 exp_of(f32 x) {
    f32 clamped = x < -104.0f ? -104.0f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const f32 n = rn::sub(rn::fma(clamped, LOG2_E, ROUNDER), ROUNDER);
    f32 r = rn::fma(n, -LN_2_HI, clamped);
    r = rn::fma(n, -LN_2_LO, r);
    f32 p = 1.0f / 5040.0f;
    p = rn::fma(r, p, 1.0f / 720.0f);
    p = rn::fma(r, p, 1.0f / 120.0f);
    p = rn::fma(r, p, 1.0f / 24.0f);
    p = rn::fma(r, p, 1.0f / 6.0f);
    p = rn::fma(r, p, 0.5f);
    p = rn::fma(r, p, 1.0f);
    p = rn::fma(r, p, 1.0f);
    return scale_by_pow2(p, to_int(n));
}

// ln(x): NaN below 0, minus infinity at 0.
DEVICE f32 ln_of(f32 x) {
    const bool subnormal = x < from_bits(0x00800000u);
    const f32 scaled = subnormal ? rn::mul(x, 8388608.0f) : x;
    const i32 shift = subnormal ? -23 : 0;
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    const i32 bits = static_cast<i32>(bits_of(scaled));
    const i32 exponent = static_cast<i32>(static_cast<u32>(bits) - 0x3f3504f3u) >> 23;
    const f32 mantissa = from_bits(static_cast<u32>(bits) - (static_cast<u32>(exponent) << 23));
    const f32 f = rn::sub(mantissa, 1.0f);
    const f32 s = rn::div(f, rn::add(2.0f, f));
    const f32 z = rn::mul(s, s);
    f32 p = 2.0f / 11.0f;
    p = rn::fma(z, p, 2.0f / 9.0f);
    p = rn::fma(z, p, 2.0f / 7.0f);
    p = rn::fma(z, p, 2.0f / 5.0f);
    p = rn::fma(z, p, 2.0f / 3.0f);
    const f32 r = rn::mul(z, p);
    const f32 half_square = rn::mul(rn::mul(0.5f, f), f);
    const f32 k = __int2float_rn(exponent + shift);
    const f32 tail = rn::fma(s, rn::add(half_square, r), rn::mul(k, LN_2_LO));
    f32 value = rn::fma(k, LN_2_HI, rn::sub(f, rn::sub(half_square, tail)));
    value = bits_of(x) == 0x7f800000u ? x : value;
    value = x == 0.0f ? NEG_INFINITY : value;
    return x < 0.0f || x != x ? QUIET_NAN : value;
}

#define MAGNITUDE 0x7fffffffu

// `magnitude` with the sign of x.
DEVICE f32 with_sign_of(f32 magnitude, f32 x) {
    return from_bits(bits_of(magnitude) | (bits_of(x) & ~MAGNITUDE));
}

// tanh(x): -1 and 1 at the ends, -0 of -0.
DEVICE f32 tanh_of(f32 x) {
    const f32 a = from_bits(bits_of(x) & MAGNITUDE);
    const f32 z = rn::mul(a, a);
    f32 p = from_bits(0xba26950eu);
    p = rn::fma(p, z, from_bits(0x3b42f62du));
    p = rn::fma(p, z, from_bits(0xbc0ce984u));
    p = rn::fma(p, z, from_bits(0x3cb2a227u));
    p = rn::fma(p, z, from_bits(0xbd5d0504u));
    p = rn::fma(p, z, from_bits(0x3e088865u));
    p = rn::fma(p, z, from_bits(0xbeaaaaaau));
    const f32 near = rn::fma(a, rn::mul(z, p), a);
    const f32 clamped = a > 10.0f ? 10.0f : a;
    const f32 grown = rn::add(exp_of(rn::add(clamped, clamped)), 1.0f);
    const f32 far = rn::sub(1.0f, rn::div(2.0f, grown));
    return with_sign_of(a < 0.75f ? near : far, x);
}

// erf(x): -1 and 1 at the ends, -0 of -0.
DEVICE f32 erf_of(f32 x) {
    const f32 a = from_bits(bits_of(x) & MAGNITUDE);
    const f32 z = rn::mul(a, a);
    f32 p = from_bits(0x38a57263u);
    p = rn::fma(p, z, from_bits(0xba5242f4u));
    p = rn::fma(p, z, from_bits(0x3baa0cfau));
    p = rn::fma(p, z, from_bits(0xbcdbfddau));
    p = rn::fma(p, z, from_bits(0x3de71690u));
    p = rn::fma(p, z, from_bits(0xbec0939fu));
    p = rn::fma(p, z, from_bits(0x3e0375d4u));
    const f32 near = rn::fma(a, p, a);
    const f32 clamped = a > 4.0f ? 4.0f : a;
    f32 q = from_bits(0xb9436f06u);
    q = rn::fma(q, clamped, from_bits(0x3b412da5u));
    q = rn::fma(q, clamped, from_bits(0xbcb2e5cfu));
    q = rn::fma(q, clamped, from_bits(0x3dd329abu));
    q = rn::fma(q, clamped, from_bits(0x3f235d74u));
    q = rn::fma(q, clamped, from_bits(0x3f904476u));
    q = rn::fma(q, clamped, from_bits(0x39b30d0bu));
    const f32 far = rn::sub(1.0f, exp_of(-q));
    return with_sign_of(a < 1.0f ? near : far, x);
}

// The smallest integer not below x, clamped to +-2^20; 0 for NaN.
DEVICE i32 ceil_to_int(f32 x) {
    f32 clamped = x < -1048576.0f ? -1048576.0f : x;
    clamped = clamped > 1048576.0f ? 1048576.0f : clamped;
    const f32 nearest = rn::sub(rn::add(clamped, ROUNDER), ROUNDER);
    return to_int(nearest) + (nearest < clamped ? 1 : 0);
}

// round_f32(2^(ea + eb) * sum), as kernels/src/reference/matmul.rs writes it.
DEVICE f32 rounded_product(i64 sum, i32 ea, i32 eb) {
    const f64 scaled = __dmul_rn(__dmul_rn(__ll2double_rn(sum), pow2_f64(ea)), pow2_f64(eb));
    return __double2float_rn(scaled);
}
