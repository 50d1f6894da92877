// Activations, alone and as gates. Twin of kernels/src/cpu/activation.rs.
#include "math.cuh"
#include "spread.cuh"

// Must match the numbers in kernels/src/cuda/activation.rs.
#define SILU 0u
#define GELU 1u
#define GELU_TANH 2u
#define QUICK_GELU 3u
#define RELU 4u
#define RELU_SQUARED 5u
#define CLAMPED_SWIGLU 6u

#define SQRT_HALF from_bits(0x3f3504f3u)
// 1 / sqrt(2 pi).
#define DENSITY from_bits(0x3ecc422au)
#define SQRT_TWO_OVER_PI from_bits(0x3f4c422au)
#define CUBE 0.044715f
#define QUICK 1.702f
// From here on the slope of GELU_TANH is 0 or 1, and squares would overflow later.
#define STEEP 16.0f

// An activation and its parameters, the same for all threads.
struct Act {
    u32 kind;
    f32 alpha, limit;
};

struct ValueAndSlope {
    f32 value, slope;
};

DEVICE f32 sigmoid(f32 x) { return rn::div(1.0f, rn::add(1.0f, exp_of(-x))); }

// x * sigmoid(x), s * fma(x, 1 - s, 1).
DEVICE ValueAndSlope silu(f32 x) {
    const f32 s = sigmoid(x);
    return {rn::mul(x, s), rn::mul(s, rn::fma(x, rn::sub(1.0f, s), 1.0f))};
}

// x * sigmoid(factor * x), without the overflow of factor * x in the slope.
DEVICE ValueAndSlope steep_silu(f32 x, f32 factor) {
    const f32 s = sigmoid(rn::mul(factor, x));
    const f32 y = rn::mul(x, s);
    return {y, rn::fma(rn::mul(factor, y), rn::sub(1.0f, s), s)};
}

DEVICE ValueAndSlope gelu(f32 x) {
    const f32 below = rn::mul(0.5f, rn::add(1.0f, erf_of(rn::mul(x, SQRT_HALF))));
    const f32 density = rn::mul(DENSITY, exp_of(-rn::mul(0.5f, rn::mul(x, x))));
    return {rn::mul(x, below), rn::fma(x, density, below)};
}

DEVICE f32 inner_of(f32 x) {
    return rn::mul(rn::mul(SQRT_TWO_OVER_PI, x), rn::fma(CUBE, rn::mul(x, x), 1.0f));
}

DEVICE ValueAndSlope gelu_tanh(f32 x) {
    const f32 y = rn::mul(rn::mul(0.5f, x), rn::add(1.0f, tanh_of(inner_of(x))));
    f32 near = x > STEEP ? STEEP : x;
    near = near < -STEEP ? -STEEP : near;
    const f32 t = tanh_of(inner_of(near));
    const f32 thrice = rn::mul(3.0f, CUBE);
    const f32 grows = rn::mul(SQRT_TWO_OVER_PI, rn::fma(thrice, rn::mul(near, near), 1.0f));
    const f32 rises = rn::mul(rn::mul(0.5f, near), rn::fma(-t, t, 1.0f));
    return {y, rn::fma(rises, grows, rn::mul(0.5f, rn::add(1.0f, t)))};
}

DEVICE f32 positive(f32 x) { return x <= 0.0f ? 0.0f : x; }

DEVICE ValueAndSlope value_and_slope(Act act, f32 x) {
    switch (act.kind) {
    case SILU: return silu(x);
    case GELU: return gelu(x);
    case GELU_TANH: return gelu_tanh(x);
    case QUICK_GELU: return steep_silu(x, QUICK);
    case RELU: return {positive(x), x <= 0.0f ? 0.0f : 1.0f};
    case RELU_SQUARED: {
        const f32 y = positive(x);
        return {rn::mul(y, y), rn::add(y, y)};
    }
    default: {
        const ValueAndSlope at = steep_silu(x > act.limit ? act.limit : x, act.alpha);
        return {at.value, x > act.limit ? 0.0f : at.slope};
    }
    }
}

// The factor of the gate: u, or 1 + u clamped to [-limit, limit] for CLAMPED_SWIGLU.
DEVICE f32 gated_part(Act act, f32 u) {
    if (act.kind != CLAMPED_SWIGLU) return u;
    f32 clamped = u > act.limit ? act.limit : u;
    clamped = clamped < -act.limit ? -act.limit : clamped;
    return rn::add(1.0f, clamped);
}

// y = act(g) * u.
KERNEL(256) activation_gated(const f32 *g, const f32 *u, f32 *y, u64 len, u32 kind, f32 alpha,
                             f32 limit) {
    const Act act = {kind, alpha, limit};
    for_each_of(len, [&](u64 i) {
        y[i] = rn::mul(value_and_slope(act, g[i]).value, gated_part(act, u[i]));
    });
}

// dg = (dy * u) * slope(g), du = dy * act(g), but 0 where u is clamped.
KERNEL(256) activation_gated_backward(const f32 *dy, const f32 *g, const f32 *u, f32 *dg, f32 *du,
                                      u64 len, u32 kind, f32 alpha, f32 limit) {
    const Act act = {kind, alpha, limit};
    for_each_of(len, [&](u64 i) {
        const ValueAndSlope at = value_and_slope(act, g[i]);
        const bool beyond = kind == CLAMPED_SWIGLU && (u[i] > limit || u[i] < -limit);
        dg[i] = rn::mul(rn::mul(dy[i], gated_part(act, u[i])), at.slope);
        du[i] = beyond ? 0.0f : rn::mul(dy[i], at.value);
    });
}

// y = act(x).
KERNEL(256) activation_forward(const f32 *x, f32 *y, u64 len, u32 kind, f32 alpha, f32 limit) {
    const Act act = {kind, alpha, limit};
    for_each_of(len, [&](u64 i) { y[i] = value_and_slope(act, x[i]).value; });
}

// dx = dy * slope(x).
KERNEL(256) activation_backward(const f32 *dy, const f32 *x, f32 *dx, u64 len, u32 kind, f32 alpha,
                                f32 limit) {
    const Act act = {kind, alpha, limit};
    for_each_of(len, [&](u64 i) { dx[i] = rn::mul(dy[i], value_and_slope(act, x[i]).slope); });
}
