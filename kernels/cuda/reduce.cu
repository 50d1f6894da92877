// Short float sums of fixed shape over whole tensors, and the tree over atoms. Twin of
// kernels/src/cpu/reduce.rs.
#include "spread.cuh"
#include "sum.cuh"

// Segments whose sums a block adds in one go.
#define STAGED 2048

template <typename Add> DEVICE void segment_sums(u64 len, f32 *sums, Add add) {
    const u64 segments = div_ceil<u64>(len, SEGMENT);
    const u64 warps = static_cast<u64>(gridDim.x) * (blockDim.x / 32);
    u64 segment = static_cast<u64>(blockIdx.x) * (blockDim.x / 32) + warp_of_block();
    for (; segment < segments; segment += warps) {
        const u64 end = least<u64>(len, (segment + 1) * SEGMENT);
        f32 lane = 0.0f;
        for (u64 i = segment * SEGMENT + lane_of_warp(); i < end; i += 32) lane = add(lane, i);
        const f32 sum = halve(lane);
        if (lane_of_warp() == 0) sums[segment] = sum;
    }
}

// The sum of each segment of x: a warp takes one.
KERNEL(256) reduce_segments(const f32 *x, f32 *sums, u64 len) {
    segment_sums(len, sums, [&](f32 lane, u64 i) { return rn::add(lane, x[i]); });
}

// The sum of squares of each segment of x: a warp takes one.
KERNEL(256) reduce_square_segments(const f32 *x, f32 *sums, u64 len) {
    segment_sums(len, sums, [&](f32 lane, u64 i) { return rn::fma(x[i], x[i], lane); });
}

// Adds the segments [starts[b], starts[b + 1]) of `sums` in order, for each block b. The chain of
// additions is serial: the block loads the sums into shared memory, one thread adds them.
KERNEL(256) reduce_in_order(const f32 *sums, const u64 *starts, f32 *totals) {
    __shared__ f32 staged[STAGED];
    const u64 end = starts[blockIdx.x + 1];
    f32 total = 0.0f;
    for (u64 start = starts[blockIdx.x]; start < end; start += STAGED) {
        const u32 count = static_cast<u32>(least<u64>(STAGED, end - start));
        for (u32 i = threadIdx.x; i < count; i += blockDim.x) staged[i] = sums[start + i];
        __syncthreads();
        if (threadIdx.x == 0) {
            for (u32 i = 0; i < count; i++) total = rn::add(total, staged[i]);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

// Adds `count` rows of `partials` [count, len] by the tree over their index into out [len]; the
// partials are used up. Adding neighbours, then pairs, then fours splits every run at the largest
// power of two below its length, as ops::tree_sum does.
KERNEL(256) reduce_tree(f32 *partials, f32 *out, u32 count, u64 len) {
    for_each_of(len, [&](u64 i) {
        for (u64 width = 1; width < count; width *= 2) {
            for (u64 row = 0; row + width < count; row += 2 * width) {
                f32 *into = partials + row * len + i;
                *into = rn::add(*into, into[width * len]);
            }
        }
        out[i] = partials[i];
    });
}
