// Rotary position embedding. Twin of kernels/src/cpu/rope.rs.
#include "math.cuh"
#include "spread.cuh"

// Rotates each head of each token of x [tokens, width] in place: y1 = fma(x1, cos, -(x2 * sin)), y2
// = fma(x2, cos, x1 * sin) for the pair (i, i + half). A position outside of the table gives NaN,
// which is caught where results are checked.
KERNEL(256) rope_rotate(f32 *x, const f32 *cos, const f32 *sin, const u32 *positions, u32 tokens,
                        u32 width, u32 half, u32 table_positions, u32 inverse) {
    for_each_in(tokens, width / 2, [&](u32 token, u32 pair) {
        const u32 i = pair % half;
        const u64 low = static_cast<u64>(token) * width + (pair / half) * 2 * half + i;
        const u32 position = positions[token];
        const bool known = position < table_positions;
        const u64 at = static_cast<u64>(position) * half + i;
        const f32 c = known ? cos[at] : QUIET_NAN;
        const f32 turn = known ? sin[at] : QUIET_NAN;
        const f32 s = inverse != 0 ? -turn : turn;
        const f32 x1 = x[low];
        const f32 x2 = x[low + half];
        x[low] = rn::fma(x1, c, -rn::mul(x2, s));
        x[low + half] = rn::fma(x2, c, rn::mul(x1, s));
    });
}
