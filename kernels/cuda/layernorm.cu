// LayerNorm. Twin of kernels/src/cpu/layernorm.rs.
//
// y = fma((x - mean) * r, w, b), r = 1 / sqrt(sum((x - mean)^2) / cols + eps). Rows that are short
// have a warp each, long ones a block; both add in the order of NUMERICS.md, section 4.
#include "block_sum.cuh"
#include "spread.cuh"

DEVICE f32 inverse_of(f32 squares, f32 cols, f32 eps) {
    return rn::div(1.0f, rn::sqrt(rn::add(rn::div(squares, cols), eps)));
}

DEVICE f32 normed(f32 x, f32 mean, f32 r) { return rn::mul(rn::sub(x, mean), r); }

// Element c of y; `b` may be null.
DEVICE f32 output(f32 x, f32 mean, f32 r, const f32 *w, const f32 *b, u32 c) {
    const f32 h = normed(x, mean, r);
    return b != nullptr ? rn::fma(h, w[c], b[c]) : rn::mul(h, w[c]);
}

// r * fma(-h, c, g - a), with a and c the means of g and g h.
DEVICE f32 gradient(f32 g, f32 h, f32 r, f32 a, f32 c) {
    return rn::mul(r, rn::fma(-h, c, rn::sub(g, a)));
}

// One warp per row.
KERNEL(256) layernorm_forward_narrow(const f32 *x, const f32 *w, const f32 *b, f32 *y, f32 *means,
                                     f32 *inverse, u32 rows, u32 cols, f32 eps) {
    const u32 warps = gridDim.x * 8;
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x * 8 + warp_of_block(); row < rows; row += warps) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 mean = rn::div(sum_of(x + at, cols), count);
        const f32 squares = fixed_sum(cols, [&](f32 lane, u64 i) {
            const f32 d = rn::sub(x[at + i], mean);
            return rn::fma(d, d, lane);
        });
        const f32 r = inverse_of(squares, count, eps);
        if (lane_of_warp() == 0) {
            means[row] = mean;
            inverse[row] = r;
        }
        for (u32 c = lane_of_warp(); c < cols; c += 32) {
            y[at + c] = output(x[at + c], mean, r, w, b, c);
        }
    }
}

// One block per row.
KERNEL(256) layernorm_forward_wide(const f32 *x, const f32 *w, const f32 *b, f32 *y, f32 *means,
                                   f32 *inverse, u32 rows, u32 cols, f32 eps) {
    __shared__ f32 partials[WARPS_MAX];
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 sum = block_fixed_sum(
            cols, partials, [&](f32 lane, u64 i) { return rn::add(lane, x[at + i]); });
        const f32 mean = rn::div(sum, count);
        const f32 squares = block_fixed_sum(cols, partials, [&](f32 lane, u64 i) {
            const f32 d = rn::sub(x[at + i], mean);
            return rn::fma(d, d, lane);
        });
        const f32 r = inverse_of(squares, count, eps);
        if (threadIdx.x == 0) {
            means[row] = mean;
            inverse[row] = r;
        }
        for (u32 c = threadIdx.x; c < cols; c += blockDim.x) {
            y[at + c] = output(x[at + c], mean, r, w, b, c);
        }
    }
}

// One warp per row.
KERNEL(256) layernorm_dx_narrow(const f32 *dy, const f32 *x, const f32 *w, const f32 *means,
                                const f32 *inverse, f32 *dx, u32 rows, u32 cols) {
    const u32 warps = gridDim.x * 8;
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x * 8 + warp_of_block(); row < rows; row += warps) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 mean = means[row], r = inverse[row];
        const f32 sum = fixed_sum(cols, [&](f32 lane, u64 i) {
            return rn::add(lane, rn::mul(dy[at + i], w[i]));
        });
        const f32 product = fixed_sum(cols, [&](f32 lane, u64 i) {
            return rn::fma(rn::mul(dy[at + i], w[i]), normed(x[at + i], mean, r), lane);
        });
        const f32 a = rn::div(sum, count), b = rn::div(product, count);
        for (u32 c = lane_of_warp(); c < cols; c += 32) {
            const f32 g = rn::mul(dy[at + c], w[c]);
            dx[at + c] = gradient(g, normed(x[at + c], mean, r), r, a, b);
        }
    }
}

// One block per row.
KERNEL(256) layernorm_dx_wide(const f32 *dy, const f32 *x, const f32 *w, const f32 *means,
                              const f32 *inverse, f32 *dx, u32 rows, u32 cols) {
    __shared__ f32 partials[WARPS_MAX];
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 mean = means[row], r = inverse[row];
        const f32 sum = block_fixed_sum(cols, partials, [&](f32 lane, u64 i) {
            return rn::add(lane, rn::mul(dy[at + i], w[i]));
        });
        const f32 product = block_fixed_sum(cols, partials, [&](f32 lane, u64 i) {
            return rn::fma(rn::mul(dy[at + i], w[i]), normed(x[at + i], mean, r), lane);
        });
        const f32 a = rn::div(sum, count), b = rn::div(product, count);
        for (u32 c = threadIdx.x; c < cols; c += blockDim.x) {
            const f32 g = rn::mul(dy[at + c], w[c]);
            dx[at + c] = gradient(g, normed(x[at + c], mean, r), r, a, b);
        }
    }
}

// dw of each atom, [atoms, cols]: a thread takes a column and walks the rows of the atom in order.
// A sequence has `sequence_rows` rows, an atom at most `atom_rows`.
KERNEL(64) layernorm_dw_atoms(const f32 *dy, const f32 *x, const f32 *means, const f32 *inverse,
                              f32 *partials, u32 cols, u32 atoms, u64 sequence_rows,
                              u64 atom_rows) {
    const u64 per_sequence = div_ceil(sequence_rows, atom_rows);
    for_each_in(atoms, cols, [&](u32 atom, u32 c) {
        const u64 start = (atom % per_sequence) * atom_rows;
        const u64 first = (atom / per_sequence) * sequence_rows + start;
        const u64 end = first + least(atom_rows, sequence_rows - start);
        f32 dw = 0.0f;
#pragma unroll 8
        for (u64 row = first; row < end; row++) {
            const u64 at = row * cols + c;
            dw = rn::fma(dy[at], normed(x[at], means[row], inverse[row]), dw);
        }
        partials[static_cast<u64>(atom) * cols + c] = dw;
    });
}
