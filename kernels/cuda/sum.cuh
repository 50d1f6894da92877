// Short float sums of fixed shape: NUMERICS.md, section 4. One warp takes one sum.
#pragma once
#include "base.cuh"

// Elements of a segment; sums of segments are added in order.
#define SEGMENT 4096

// Adds the 32 lanes by halves (16, 8, 4, 2, 1); every lane gets the sum.
DEVICE f32 halve(f32 lane) {
    const u32 self = lane_of_warp();
    for (u32 width = 16; width > 0; width /= 2) {
        const f32 other = __shfl_down_sync(WARP, lane, width);
        lane = self < width ? rn::add(lane, other) : lane;
    }
    return __shfl_sync(WARP, lane, 0);
}

// The sum of `len` elements: element i goes to lane i mod 32, `add(lane, i)` puts it in. All 32
// lanes of the warp call it and get the sum.
template <typename Add> DEVICE f32 fixed_sum(u64 len, Add add) {
    f32 total = 0.0f;
    for (u64 start = 0; start < len; start += SEGMENT) {
        const u64 end = least(len, start + SEGMENT);
        f32 lane = 0.0f;
        for (u64 i = start + lane_of_warp(); i < end; i += 32) lane = add(lane, i);
        total = rn::add(total, halve(lane));
    }
    return total;
}

// sum(x).
DEVICE f32 sum_of(const f32 *x, u64 len) {
    return fixed_sum(len, [&](f32 lane, u64 i) { return rn::add(lane, x[i]); });
}

// sum(a * b), each product fused into its lane.
DEVICE f32 dot_of(const f32 *a, const f32 *b, u64 len) {
    return fixed_sum(len, [&](f32 lane, u64 i) { return rn::fma(a[i], b[i], lane); });
}
