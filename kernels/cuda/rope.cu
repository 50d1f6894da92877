// Rotary position embedding. Twin of kernels/src/cpu/rope.rs.
#include "math.cuh"
#include "spread.cuh"

// Rotates the first 2 * half elements of each head of each token of x [tokens, width] in place:
// y1 = fma(x1, cos, -(x2 * sin)), y2 = fma(x2, cos, x1 * sin), for the pairs (i, i + half), or
// (2 i, 2 i + 1) where they are neighbours. A position outside of the table gives NaN, which is
// caught where results are checked.
KERNEL(256) rope_rotate(f32 *x, const f32 *cos, const f32 *sin, const u32 *positions, u32 tokens,
                        u32 width, u32 head_dim, u32 half, u32 table_positions, u32 neighbours,
                        u32 inverse) {
    for_each_in(tokens, width / head_dim * half, [&](u32 token, u32 pair) {
        const u32 i = pair % half;
        const u64 head = static_cast<u64>(token) * width + (pair / half) * head_dim;
        const u64 low = head + (neighbours != 0 ? 2 * i : i);
        const u64 high = low + (neighbours != 0 ? 1 : half);
        const u32 position = positions[token];
        const bool known = position < table_positions;
        const u64 at = static_cast<u64>(position) * half + i;
        const f32 c = known ? cos[at] : QUIET_NAN;
        const f32 turn = known ? sin[at] : QUIET_NAN;
        const f32 s = inverse != 0 ? -turn : turn;
        const f32 x1 = x[low];
        const f32 x2 = x[high];
        x[low] = rn::fma(x1, c, -rn::mul(x2, s));
        x[high] = rn::fma(x2, c, rn::mul(x1, s));
    });
}
