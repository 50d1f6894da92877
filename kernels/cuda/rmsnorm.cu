// RMSNorm. Twin of kernels/src/cpu/rmsnorm.rs.
//
// y = (x * r) * w, r = 1 / sqrt(sum(x^2) / cols + eps). Rows that are short have a warp each, long
// ones a block; both add in the order of NUMERICS.md, section 4.
#include "block_sum.cuh"
#include "spread.cuh"

DEVICE f32 inverse_of(f32 squares, f32 cols, f32 eps) {
    return rn::div(1.0f, rn::sqrt(rn::add(rn::div(squares, cols), eps)));
}

DEVICE f32 normed(f32 x, f32 r, f32 w) { return rn::mul(rn::mul(x, r), w); }

// The factor of x in dx: ((sum(g x) * r) * r) / cols.
DEVICE f32 pull_of(f32 sum, f32 r, f32 cols) {
    return rn::div(rn::mul(rn::mul(sum, r), r), cols);
}

DEVICE f32 gradient(f32 dy, f32 x, f32 w, f32 r, f32 pull) {
    return rn::mul(r, rn::fma(-x, pull, rn::mul(dy, w)));
}

// One warp per row.
KERNEL(256) rmsnorm_forward_narrow(const f32 *x, const f32 *w, f32 *y, f32 *inverse, u32 rows,
                                   u32 cols, f32 eps) {
    const u32 warps = gridDim.x * 8;
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x * 8 + warp_of_block(); row < rows; row += warps) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 r = inverse_of(dot_of(x + at, x + at, cols), count, eps);
        if (lane_of_warp() == 0) inverse[row] = r;
        for (u32 c = lane_of_warp(); c < cols; c += 32) y[at + c] = normed(x[at + c], r, w[c]);
    }
}

// One block per row.
KERNEL(256) rmsnorm_forward_wide(const f32 *x, const f32 *w, f32 *y, f32 *inverse, u32 rows,
                                 u32 cols, f32 eps) {
    __shared__ f32 partials[WARPS_MAX];
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const f32 *line = x + static_cast<u64>(row) * cols;
        f32 *out = y + static_cast<u64>(row) * cols;
        const f32 squares = block_fixed_sum(
            cols, partials, [&](f32 lane, u64 i) { return rn::fma(line[i], line[i], lane); });
        const f32 r = inverse_of(squares, count, eps);
        if (threadIdx.x == 0) inverse[row] = r;
        for (u32 c = threadIdx.x; c < cols; c += blockDim.x) out[c] = normed(line[c], r, w[c]);
    }
}

// One warp per row.
KERNEL(256) rmsnorm_dx_narrow(const f32 *dy, const f32 *x, const f32 *w, const f32 *inverse,
                              f32 *dx, u32 rows, u32 cols) {
    const u32 warps = gridDim.x * 8;
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x * 8 + warp_of_block(); row < rows; row += warps) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 r = inverse[row];
        const f32 sum = fixed_sum(cols, [&](f32 lane, u64 i) {
            return rn::fma(rn::mul(dy[at + i], w[i]), x[at + i], lane);
        });
        const f32 pull = pull_of(sum, r, count);
        for (u32 c = lane_of_warp(); c < cols; c += 32) {
            dx[at + c] = gradient(dy[at + c], x[at + c], w[c], r, pull);
        }
    }
}

// One block per row.
KERNEL(256) rmsnorm_dx_wide(const f32 *dy, const f32 *x, const f32 *w, const f32 *inverse, f32 *dx,
                            u32 rows, u32 cols) {
    __shared__ f32 partials[WARPS_MAX];
    const f32 count = static_cast<f32>(cols);
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const u64 at = static_cast<u64>(row) * cols;
        const f32 r = inverse[row];
        const f32 sum = block_fixed_sum(cols, partials, [&](f32 lane, u64 i) {
            return rn::fma(rn::mul(dy[at + i], w[i]), x[at + i], lane);
        });
        const f32 pull = pull_of(sum, r, count);
        for (u32 c = threadIdx.x; c < cols; c += blockDim.x) {
            dx[at + c] = gradient(dy[at + c], x[at + c], w[c], r, pull);
        }
    }
}

// dw of each atom, [atoms, cols]: a thread takes a column and walks the rows of the atom in order.
// A sequence has `sequence_rows` rows, an atom at most `atom_rows`.
KERNEL(64) rmsnorm_dw_atoms(const f32 *dy, const f32 *x, const f32 *inverse, f32 *partials,
                            u32 cols, u32 atoms, u64 sequence_rows, u64 atom_rows) {
    const u64 per_sequence = div_ceil(sequence_rows, atom_rows);
    for_each_in(atoms, cols, [&](u32 atom, u32 c) {
        const u64 start = (atom % per_sequence) * atom_rows;
        const u64 first = (atom / per_sequence) * sequence_rows + start;
        const u64 end = first + least(atom_rows, sequence_rows - start);
        f32 dw = 0.0f;
#pragma unroll 8
        for (u64 row = first; row < end; row++) {
            const u64 at = row * cols + c;
            dw = rn::fma(dy[at], rn::mul(x[at], inverse[row]), dw);
        }
        partials[static_cast<u64>(atom) * cols + c] = dw;
    });
}
