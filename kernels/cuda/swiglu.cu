// SwiGLU. Twin of kernels/src/cpu/swiglu.rs.
#include "math.cuh"
#include "spread.cuh"

DEVICE f32 sigmoid(f32 g) { return rn::div(1.0f, rn::add(1.0f, exp_of(-g))); }

// y = (g * s) * u, s = 1 / (1 + exp(-g)).
KERNEL(256) swiglu_forward(const f32 *g, const f32 *u, f32 *y, u64 len) {
    for_each_of(len, [&](u64 i) { y[i] = rn::mul(rn::mul(g[i], sigmoid(g[i])), u[i]); });
}

// du = dy * (g * s), dg = (dy * u) * (s * fma(g, 1 - s, 1)).
KERNEL(256) swiglu_backward(const f32 *dy, const f32 *g, const f32 *u, f32 *dg, f32 *du, u64 len) {
    for_each_of(len, [&](u64 i) {
        const f32 s = sigmoid(g[i]);
        const f32 slope = rn::mul(s, rn::fma(g[i], rn::sub(1.0f, s), 1.0f));
        dg[i] = rn::mul(rn::mul(dy[i], u[i]), slope);
        du[i] = rn::mul(dy[i], rn::mul(g[i], s));
    });
}
