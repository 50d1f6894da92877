// Lion (Chen et al. 2023). Twin of kernels/src/reference/lion.rs.
#include "spread.cuh"

// Updates value and momentum m in place from the summed gradient.
KERNEL(256) lion_step(const f32 *gradient, f32 *value, f32 *m, u64 len, f32 gradient_scale,
                      f32 learning_rate, f32 beta1, f32 beta2, f32 weight_decay) {
    for_each_of(len, [&](u64 i) {
        const f32 g = rn::mul(gradient[i], gradient_scale);
        const f32 mixed = rn::fma(beta1, m[i], rn::mul(rn::sub(1.0f, beta1), g));
        const f32 sign = mixed > 0.0f ? 1.0f : mixed < 0.0f ? -1.0f : 0.0f;
        const f32 decayed = rn::fma(-rn::mul(learning_rate, weight_decay), value[i], value[i]);
        value[i] = rn::fma(-learning_rate, sign, decayed);
        m[i] = rn::fma(beta2, m[i], rn::mul(rn::sub(1.0f, beta2), g));
    });
}
