// Soft caps. Twin of kernels/src/cpu/soft_cap.rs.
#include "math.cuh"
#include "spread.cuh"

// A token without a target.
#define NONE 0xffffffffu

// 1 - t^2, t = y / cap.
DEVICE f32 slope_at(f32 y, f32 cap) {
    const f32 t = rn::div(y, cap);
    return rn::fma(-t, t, 1.0f);
}

// y = cap * tanh(x / cap).
KERNEL(256) soft_cap_forward(const f32 *x, f32 *y, u64 len, f32 cap) {
    for_each_of(len, [&](u64 i) { y[i] = rn::mul(cap, tanh_of(rn::div(x[i], cap))); });
}

// dx = dy * slope, from the output y.
KERNEL(256) soft_cap_backward(const f32 *dy, const f32 *y, f32 *dx, u64 len, f32 cap) {
    for_each_of(len, [&](u64 i) { dx[i] = rn::mul(dy[i], slope_at(y[i], cap)); });
}

// The slope at each row's target among capped logits y [rows, vocab]: 0 without one, NaN where it
// lies outside of the vocabulary.
KERNEL(256) soft_cap_targets(const f32 *y, const u32 *targets, f32 *slopes, u64 rows, u32 vocab,
                             f32 cap) {
    for_each_of(rows, [&](u64 row) {
        const u32 target = targets[row];
        const f32 at = target < vocab ? y[row * vocab + target] : QUIET_NAN;
        slopes[row] = target == NONE ? 0.0f : slope_at(at, cap);
    });
}
