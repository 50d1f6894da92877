// Gradient descent, without and with momentum. Twin of kernels/src/reference/sgd.rs.
#include "spread.cuh"

// Updates value and momentum m in place from the summed gradient. There is no m where momentum is
// 0; nesterov is 0 or 1.
KERNEL(256) sgd_step(const f32 *gradient, f32 *value, f32 *m, u64 len, f32 gradient_scale,
                     f32 learning_rate, f32 momentum, u32 nesterov, f32 weight_decay) {
    for_each_of(len, [&](u64 i) {
        const f32 scaled = rn::mul(gradient[i], gradient_scale);
        const f32 g = rn::fma(weight_decay, value[i], scaled);
        f32 direction = g;
        if (momentum != 0.0f) {
            const f32 mean = rn::fma(momentum, m[i], g);
            direction = nesterov != 0 ? rn::fma(momentum, mean, g) : mean;
            m[i] = mean;
        }
        value[i] = rn::fma(-learning_rate, direction, value[i]);
    });
}
