// Softmax cross-entropy over the vocabulary. Twin of kernels/src/cpu/cross_entropy.rs.
#include "block_sum.cuh"
#include "math.cuh"
#include "spread.cuh"

// A token without a target.
#define NONE 0xffffffffu

// Turns each row of logits [rows, vocab] into probabilities in place and gives the loss of each
// row. A row without a target has loss 0 and probabilities 0; one whose target lies outside of the
// vocabulary has loss NaN. One block per row.
KERNEL(512) cross_entropy_rows(f32 *logits, const u32 *targets, f32 *losses, u32 rows, u32 vocab) {
    __shared__ f32 partials[WARPS_MAX];
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        f32 *line = logits + static_cast<u64>(row) * vocab;
        const u32 target = targets[row];
        if (target == NONE) {
            for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) line[i] = 0.0f;
            if (threadIdx.x == 0) losses[row] = 0.0f;
            continue;
        }
        const f32 score = target < vocab ? rn::mul(line[target], LOG2_E) : QUIET_NAN;
        f32 largest = NEG_INFINITY;
        for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
            const f32 t = rn::mul(line[i], LOG2_E);
            largest = t > largest ? t : largest;
        }
        const f32 max = __int2float_rn(ceil_to_int(block_max(largest, partials)));
        const f32 sum = block_fixed_sum(vocab, partials, [&](f32 lane, u64 i) {
            const f32 p = exp2_of(rn::sub(rn::mul(line[i], LOG2_E), max));
            line[i] = p;
            return rn::add(lane, p);
        });
        for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) line[i] = rn::div(line[i], sum);
        if (threadIdx.x == 0) losses[row] = rn::fma(rn::sub(max, score), LN_2, ln_of(sum));
    }
}

// As cross_entropy_rows, of a loss with smoothed targets and a factor on the squared logarithm of
// the sum; rows become the part of its gradient that depends on the logits.
KERNEL(512) cross_entropy_formed(f32 *logits, const u32 *targets, f32 *losses, u32 rows, u32 vocab,
                                 f32 smoothing, f32 z_loss) {
    __shared__ f32 partials[WARPS_MAX];
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        f32 *line = logits + static_cast<u64>(row) * vocab;
        const u32 target = targets[row];
        if (target == NONE) {
            for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) line[i] = 0.0f;
            if (threadIdx.x == 0) losses[row] = 0.0f;
            continue;
        }
        const f32 score = target < vocab ? rn::mul(line[target], LOG2_E) : QUIET_NAN;
        f32 largest = NEG_INFINITY;
        for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
            const f32 t = rn::mul(line[i], LOG2_E);
            largest = t > largest ? t : largest;
        }
        const f32 max = __int2float_rn(ceil_to_int(block_max(largest, partials)));
        const f32 all = block_fixed_sum(vocab, partials, [&](f32 lane, u64 i) {
            return rn::add(lane, rn::mul(line[i], LOG2_E));
        });
        const f32 mean = rn::div(all, __uint2float_rn(vocab));
        const f32 sum = block_fixed_sum(vocab, partials, [&](f32 lane, u64 i) {
            const f32 p = exp2_of(rn::sub(rn::mul(line[i], LOG2_E), max));
            line[i] = p;
            return rn::add(lane, p);
        });
        const f32 ln_sum = ln_of(sum);
        const f32 log_sum = rn::fma(max, LN_2, ln_sum);
        const f32 factor = rn::fma(rn::mul(2.0f, z_loss), log_sum, 1.0f);
        for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
            line[i] = rn::mul(rn::div(line[i], sum), factor);
        }
        if (threadIdx.x == 0) {
            const f32 own = rn::fma(rn::sub(max, score), LN_2, ln_sum);
            const f32 spread = rn::fma(rn::sub(max, mean), LN_2, ln_sum);
            const f32 smoothed = rn::fma(smoothing, rn::sub(spread, own), own);
            losses[row] = rn::fma(rn::mul(z_loss, log_sum), log_sum, smoothed);
        }
    }
}

// 1 in the rows of ones [rows, vocab] that have a target, 0 in others.
KERNEL(256) cross_entropy_ones(f32 *ones, const u32 *targets, u32 rows, u32 vocab) {
    for_each_in(rows, vocab, [&](u32 row, u32 c) {
        ones[static_cast<u64>(row) * vocab + c] = targets[row] == NONE ? 0.0f : 1.0f;
    });
}

// dx [rows, hidden] -= the decoded row of w [vocab, hidden] at each row's target, times the row's
// share [rows] where these are not null. With a share of 1 the fma gives the bits of the plain
// difference.
KERNEL(256) cross_entropy_take_weight(f32 *dx, const i16 *q, const i32 *exp, const u32 *targets,
                                      const f32 *shares, u32 rows, u32 hidden, u32 vocab) {
    for_each_in(rows, hidden, [&](u32 row, u32 c) {
        const u32 target = targets[row];
        if (target >= vocab) return;
        const f64 code = __int2double_rn(q[static_cast<u64>(target) * hidden + c]);
        const f32 weight = __double2float_rn(__dmul_rn(code, pow2_f64(exp[target])));
        const u64 at = static_cast<u64>(row) * hidden + c;
        const f32 share = shares != nullptr ? shares[row] : 1.0f;
        dx[at] = rn::fma(-share, weight, dx[at]);
    });
}
