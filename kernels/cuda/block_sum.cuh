// The sums and the maximum of a row that a whole block works on, in the order of sum.cuh.
#pragma once
#include "sum.cuh"

// The most warps that a block may have.
#define WARPS_MAX 32

// The sum of `len` elements, as fixed_sum gives it: warps take segments, whose sums are added in
// order. `partials` is shared memory for a number of each warp. All threads of the block call it,
// get the sum, and see what others wrote in `add`.
template <typename Add> DEVICE f32 block_fixed_sum(u64 len, f32 *partials, Add add) {
    const u32 warps = blockDim.x / 32;
    f32 total = 0.0f;
    for (u64 start = 0; start < len; start += static_cast<u64>(warps) * SEGMENT) {
        const u64 first = start + static_cast<u64>(warp_of_block()) * SEGMENT;
        const u64 end = least<u64>(len, first + SEGMENT);
        f32 lane = 0.0f;
        for (u64 i = first + lane_of_warp(); i < end; i += 32) lane = add(lane, i);
        const f32 sum = halve(lane);
        // Until here other warps may still read the partials of the round before.
        __syncthreads();
        if (lane_of_warp() == 0) partials[warp_of_block()] = sum;
        __syncthreads();
        const u64 segments = least<u64>(warps, div_ceil<u64>(len - start, SEGMENT));
        for (u32 s = 0; s < segments; s++) total = rn::add(total, partials[s]);
    }
    return total;
}

// The largest of one number per thread, ignoring NaN; minus infinity where all are NaN. All threads
// of the block call it and get the maximum.
DEVICE f32 block_max(f32 mine, f32 *partials) {
    mine = mine != mine ? from_bits(0xff800000u) : mine;
    for (u32 width = 16; width > 0; width /= 2) {
        mine = greatest(mine, __shfl_xor_sync(WARP, mine, width));
    }
    __syncthreads();
    if (lane_of_warp() == 0) partials[warp_of_block()] = mine;
    __syncthreads();
    f32 max = partials[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) max = greatest(max, partials[warp]);
    return max;
}
