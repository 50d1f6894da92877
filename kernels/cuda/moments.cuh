// Moments in 8 bits: a block of numbers has a scale, a number the code of a level. Twin of
// kernels/src/reference/adamw_8bit.rs.
#pragma once
#include "spread.cuh"

// Numbers of a block of moments, and its words: the scale, then four codes a word.
#define MOMENT_BLOCK 256
#define BLOCK_WORDS 65

// What lies in shared memory: levels and borders of the first moment, then of the second.
#define TABLE 256

// The largest magnitude of a number per thread, by its bits: NaN and infinity are larger than all
// numbers. All threads of the block call it and get it.
DEVICE u32 block_scale(f32 mine, u32 *partials) {
    u32 bits = bits_of(mine) & 0x7fffffffu;
    for (u32 width = 16; width > 0; width /= 2) {
        bits = greatest(bits, __shfl_xor_sync(WARP, bits, width));
    }
    __syncthreads();
    if (lane_of_warp() == 0) partials[warp_of_block()] = bits;
    __syncthreads();
    u32 scale = partials[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) scale = greatest(scale, partials[warp]);
    return scale;
}

// The code of the level that is nearest to x; of two, the lower one.
DEVICE u32 nearest(f32 x, const f32 *borders) {
    u32 code = 0;
    for (u32 width = 128; width > 0; width /= 2) code += x > borders[code + width - 1] ? width : 0;
    return code;
}

DEVICE u32 encode(f32 x, u32 scale_bits, const f32 *borders) {
    const f32 share = scale_bits == 0 ? 0.0f : rn::div(x, from_bits(scale_bits));
    return nearest(share, borders);
}
