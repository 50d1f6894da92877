// AdamW (Loshchilov and Hutter 2019). Twin of kernels/src/cpu/adamw.rs.
#include "spread.cuh"

// Updates value, first moment m and second moment v in place from the summed gradient.
KERNEL(256) adamw_step(const f32 *gradient, f32 *value, f32 *m, f32 *v, u64 len,
                       f32 gradient_scale, f32 learning_rate, f32 beta1, f32 beta2, f32 bias1,
                       f32 bias2, f32 epsilon, f32 weight_decay) {
    for_each_of(len, [&](u64 i) {
        const f32 g = rn::mul(gradient[i], gradient_scale);
        const f32 first = rn::fma(beta1, m[i], rn::mul(rn::sub(1.0f, beta1), g));
        const f32 second = rn::fma(beta2, v[i], rn::mul(rn::sub(1.0f, beta2), rn::mul(g, g)));
        const f32 decayed = rn::fma(-rn::mul(learning_rate, weight_decay), value[i], value[i]);
        const f32 root = rn::add(rn::sqrt(rn::div(second, bias2)), epsilon);
        const f32 direction = rn::div(rn::div(first, bias1), root);
        value[i] = rn::fma(-learning_rate, direction, decayed);
        m[i] = first;
        v[i] = second;
    });
}
