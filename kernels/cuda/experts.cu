// Rows of experts: gathered, added to their tokens, and back. Twin of
// kernels/src/reference/experts.rs.
#include "math.cuh"
#include "spread.cuh"
#include "sum.cuh"

// The rows of coded x [x_rows, cols] at `from`, into q [rows, cols] and exp [rows]. An index beyond
// the rows of x gives zeros with the exponent POISON, so every product with them is NaN.
KERNEL(256) experts_gather(const i16 *x_q, const i32 *x_exp, const u32 *from, i16 *q, i32 *exp,
                           u32 rows, u32 cols, u32 x_rows) {
    for_each_in(rows, cols, [&](u32 row, u32 c) {
        const u32 at = from[row];
        const bool is_there = at < x_rows;
        q[static_cast<u64>(row) * cols + c] =
            is_there ? x_q[static_cast<u64>(at) * cols + c] : static_cast<i16>(0);
        if (c == 0) exp[row] = is_there ? x_exp[at] : POISON;
    });
}

// y [tokens, cols] = fma(weight, row, y) over the rows [tokens * k, cols] of each token, which
// slots [tokens, k] names in their order. Without weights all are 1.
KERNEL(256) experts_combine(f32 *y, const f32 *rows, const u32 *slots, const f32 *weights,
                            u32 tokens, u32 cols, u32 k) {
    for_each_in(tokens, cols, [&](u32 token, u32 c) {
        const u64 first = static_cast<u64>(token) * k;
        f32 sum = y[static_cast<u64>(token) * cols + c];
        for (u32 j = 0; j < k; j++) {
            const f32 weight = weights != nullptr ? weights[first + j] : 1.0f;
            sum = rn::fma(weight, rows[static_cast<u64>(slots[first + j]) * cols + c], sum);
        }
        y[static_cast<u64>(token) * cols + c] = sum;
    });
}

// d_rows [count, cols] = weight * dy of the row's token, d_weights [count] = sum(dy * row): a warp
// takes one of the places of slots [count], k of them a token.
KERNEL(256) experts_combine_backward(const f32 *dy, const f32 *rows, const u32 *slots,
                                     const f32 *weights, f32 *d_rows, f32 *d_weights, u32 count,
                                     u32 cols, u32 k) {
    const u64 warps = static_cast<u64>(gridDim.x) * (blockDim.x / 32);
    u64 place = static_cast<u64>(blockIdx.x) * (blockDim.x / 32) + warp_of_block();
    for (; place < count; place += warps) {
        const f32 *of_token = dy + place / k * cols;
        const f32 *row = rows + static_cast<u64>(slots[place]) * cols;
        f32 *d_row = d_rows + static_cast<u64>(slots[place]) * cols;
        const f32 weight = weights[place];
        for (u32 c = lane_of_warp(); c < cols; c += 32) d_row[c] = rn::mul(weight, of_token[c]);
        const f32 sum = dot_of(of_token, row, cols);
        if (lane_of_warp() == 0) d_weights[place] = sum;
    }
}
