// The choice of experts by a router, one warp per token. Twin of kernels/src/reference/route.rs.
#include "math.cuh"
#include "sum.cuh"

// Kinds of routers: RouterKind of the twin.
#define SOFTMAX 0
#define SIGMOID 1
#define SOFTMAX_OF_CHOSEN 2

// What is added to the sum that sigmoids are normalised by.
#define LEAST_SUM 1e-20f

// Calls `body(row)` for each row: a warp takes one at a time.
template <typename Body> DEVICE void for_each_row(u32 rows, Body body) {
    const u64 warps = static_cast<u64>(gridDim.x) * (blockDim.x / 32);
    u64 row = static_cast<u64>(blockIdx.x) * (blockDim.x / 32) + warp_of_block();
    for (; row < rows; row += warps) body(row);
}

// The larger; `a` where they are equal or one is NaN.
DEVICE f32 larger(f32 a, f32 b) { return b > a ? b : a; }

// The scores of a row of logits [experts]. All lanes of the warp call it, and see all scores.
DEVICE void score_row(const f32 *logits, f32 *scores, u32 experts, u32 kind) {
    const u32 lane = lane_of_warp();
    if (kind == SOFTMAX) {
        f32 largest = NEG_INFINITY;
        for (u32 e = lane; e < experts; e += 32) {
            largest = larger(largest, rn::mul(logits[e], LOG2_E));
        }
        for (u32 width = 16; width > 0; width /= 2) {
            largest = larger(largest, __shfl_xor_sync(WARP, largest, width));
        }
        const f32 max = __int2float_rn(ceil_to_int(largest));
        const f32 sum = fixed_sum(experts, [&](f32 sum_of_lane, u64 e) {
            const f32 p = exp2_of(rn::sub(rn::mul(logits[e], LOG2_E), max));
            scores[e] = p;
            return rn::add(sum_of_lane, p);
        });
        // A lane reads what it has written: element e is of lane e mod 32 in both loops.
        for (u32 e = lane; e < experts; e += 32) scores[e] = rn::div(scores[e], sum);
    } else {
        for (u32 e = lane; e < experts; e += 32) {
            const f32 sigmoid = rn::div(1.0f, rn::add(1.0f, exp_of(-logits[e])));
            scores[e] = kind == SIGMOID ? sigmoid : logits[e];
        }
    }
    __syncwarp();
}

// Whether (a, expert_a) comes before (b, expert_b): by value falling, then by index rising.
DEVICE bool is_before(f32 a, u32 expert_a, f32 b, u32 expert_b) {
    return a > b || (a == b && expert_a < expert_b);
}

// The first k experts in that order, by rising index, into chosen [k]. All lanes call it; lane 0
// writes.
DEVICE void choose_experts(const f32 *scores, const f32 *correction, u32 *chosen, u32 experts,
                           u32 k) {
    f32 last = 0.0f;
    u32 last_expert = 0;
    for (u32 count = 0; count < k; count++) {
        f32 best = NEG_INFINITY;
        u32 best_expert = experts;
        for (u32 e = lane_of_warp(); e < experts; e += 32) {
            f32 value = correction != nullptr ? rn::add(scores[e], correction[e]) : scores[e];
            value = value != value ? NEG_INFINITY : value;
            const bool is_left = count == 0 || is_before(last, last_expert, value, e);
            const bool is_first = best_expert == experts || is_before(value, e, best, best_expert);
            if (is_left && is_first) {
                best = value;
                best_expert = e;
            }
        }
        for (u32 width = 16; width > 0; width /= 2) {
            const f32 other = __shfl_xor_sync(WARP, best, width);
            const u32 expert = __shfl_xor_sync(WARP, best_expert, width);
            const bool wins = best_expert == experts || is_before(other, expert, best, best_expert);
            if (expert < experts && wins) {
                best = other;
                best_expert = expert;
            }
        }
        last = best;
        last_expert = best_expert;
        if (lane_of_warp() == 0) {
            u32 at = count;
            for (; at > 0 && chosen[at - 1] > best_expert; at--) chosen[at] = chosen[at - 1];
            chosen[at] = best_expert;
        }
    }
}

// The weights of the chosen experts before the factor, and the sum they were divided by, or 1. One
// lane calls it.
DEVICE f32 weigh_chosen(const f32 *scores, const u32 *chosen, f32 *weights, u32 k, u32 kind,
                        u32 normalised) {
    for (u32 j = 0; j < k; j++) weights[j] = scores[chosen[j]];
    if (kind == SOFTMAX_OF_CHOSEN) {
        f32 largest = NEG_INFINITY;
        for (u32 j = 0; j < k; j++) largest = larger(largest, rn::mul(weights[j], LOG2_E));
        const f32 max = __int2float_rn(ceil_to_int(largest));
        for (u32 j = 0; j < k; j++) {
            weights[j] = exp2_of(rn::sub(rn::mul(weights[j], LOG2_E), max));
        }
    } else if (normalised == 0) {
        return 1.0f;
    }
    f32 sum = 0.0f;
    for (u32 j = 0; j < k; j++) sum = rn::add(sum, weights[j]);
    if (kind == SIGMOID) sum = rn::add(sum, LEAST_SUM);
    for (u32 j = 0; j < k; j++) weights[j] = rn::div(weights[j], sum);
    return sum;
}

// Experts and weights [rows, k] for logits [rows, experts]; `scores` is scratch memory, as large as
// logits.
KERNEL(256) route_forward(const f32 *logits, const f32 *correction, f32 *scores, u32 *chosen,
                          f32 *weights, u32 rows, u32 experts, u32 k, u32 kind, u32 normalised,
                          f32 factor) {
    for_each_row(rows, [&](u64 row) {
        f32 *of_row = scores + row * experts;
        score_row(logits + row * experts, of_row, experts, kind);
        choose_experts(of_row, correction, chosen + row * k, experts, k);
        if (lane_of_warp() != 0) return;
        f32 *line = weights + row * k;
        weigh_chosen(of_row, chosen + row * k, line, k, kind, normalised);
        for (u32 j = 0; j < k; j++) line[j] = rn::mul(line[j], factor);
    });
}

// The gradient of logits [rows, experts] from that of the weights [rows, k]; `scores` and `weights`
// are scratch memory.
KERNEL(256) route_backward(const f32 *logits, const u32 *chosen, const f32 *d_weights, f32 *scores,
                           f32 *weights, f32 *d_logits, u32 rows, u32 experts, u32 k, u32 kind,
                           u32 normalised, f32 factor) {
    for_each_row(rows, [&](u64 row) {
        f32 *of_row = scores + row * experts, *out = d_logits + row * experts;
        f32 *line = weights + row * k;
        const u32 *experts_of_row = chosen + row * k;
        const f32 *d_line = d_weights + row * k;
        score_row(logits + row * experts, of_row, experts, kind);
        f32 sum = 0.0f, mean = 0.0f;
        if (lane_of_warp() == 0) {
            sum = weigh_chosen(of_row, experts_of_row, line, k, kind, normalised);
            for (u32 j = 0; j < k; j++) mean = rn::fma(line[j], rn::mul(factor, d_line[j]), mean);
        }
        mean = __shfl_sync(WARP, mean, 0);
        const bool shares = kind == SOFTMAX && normalised == 0;
        for (u32 e = lane_of_warp(); e < experts; e += 32) {
            out[e] = shares ? rn::mul(of_row[e], rn::sub(0.0f, mean)) : 0.0f;
        }
        __syncwarp();
        if (lane_of_warp() != 0) return;
        for (u32 j = 0; j < k; j++) {
            const f32 s = of_row[experts_of_row[j]], d = rn::mul(factor, d_line[j]);
            const f32 slope = rn::mul(s, rn::sub(1.0f, s));
            f32 gradient = rn::mul(line[j], rn::sub(d, mean));
            if (kind == SIGMOID && normalised != 0) {
                gradient = rn::mul(rn::div(rn::sub(d, mean), sum), slope);
            } else if (kind == SIGMOID) {
                gradient = rn::mul(d, slope);
            }
            out[experts_of_row[j]] = gradient;
        }
    });
}
