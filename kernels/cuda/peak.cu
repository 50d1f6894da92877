// How fast a GPU multiplies integers when nothing is read: the ceiling that the speed of products
// is compared with. Each kernel keeps sums in registers, and writes one number per thread so that
// they are used.
#include "mma.cuh"

// Sums of a thread that do not wait for each other.
#define PEAK_SUMS 8

// PEAK_SUMS products of four bytes per thread and round.
KERNEL(256) peak_dot(i32 *out, u32 rounds) {
    const u32 thread = blockIdx.x * 256 + threadIdx.x;
    const i32 a = static_cast<i32>(thread * 0x01010101u);
    i32 sums[PEAK_SUMS];
#pragma unroll
    for (u32 i = 0; i < PEAK_SUMS; ++i) sums[i] = static_cast<i32>(i);
    for (u32 round = 0; round < rounds; ++round) {
        const i32 b = static_cast<i32>(round);
#pragma unroll
        for (u32 i = 0; i < PEAK_SUMS; ++i) sums[i] = __dp4a(a + static_cast<i32>(i), b, sums[i]);
    }
    i32 sum = 0;
#pragma unroll
    for (u32 i = 0; i < PEAK_SUMS; ++i) sum += sums[i];
    out[thread] = sum;
}

// PEAK_SUMS products of 16 x 32 by 32 x 8 per warp and round.
KERNEL(256) peak_int8(i32 *out, u32 rounds) {
#if defined(CONCORD_EMULATED) || ARCH >= 75
    const u32 thread = blockIdx.x * 256 + threadIdx.x;
    const u32 a[4] = {thread, thread + 1, thread + 2, thread + 3};
    const u32 b[2] = {thread + 4, thread + 5};
    i32 sums[PEAK_SUMS][4] = {};
    for (u32 round = 0; round < rounds; ++round) {
#pragma unroll
        for (u32 i = 0; i < PEAK_SUMS; ++i) mma(sums[i], a, b);
    }
    i32 sum = 0;
#pragma unroll
    for (u32 i = 0; i < PEAK_SUMS * 4; ++i) sum += sums[i / 4][i % 4];
    out[thread] = sum;
#endif
}

// PEAK_SUMS / 2 products of 16 x 16 by 16 x 16 per warp and round.
KERNEL(256) peak_half(i32 *out, u32 rounds) {
#if defined(CONCORD_EMULATED) || ARCH >= 70
    const u32 thread = blockIdx.x * 256 + threadIdx.x;
    HalfFragment a, b;
    FloatFragment sums[PEAK_SUMS / 2];
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        // Two f16 ones.
        a.word[i] = 0x3c003c00u;
        b.word[i] = 0x3c003c00u;
#pragma unroll
        for (u32 s = 0; s < PEAK_SUMS / 2; ++s) sums[s].value[i] = 0.0f;
    }
    for (u32 round = 0; round < rounds; ++round) {
#pragma unroll
        for (u32 s = 0; s < PEAK_SUMS / 2; ++s) mma(sums[s], a, b);
    }
    i32 sum = 0;
#pragma unroll
    for (u32 i = 0; i < PEAK_SUMS * 4; ++i) sum += __float2int_rn(sums[i / 8].value[i % 8]);
    out[thread] = sum;
#endif
}
