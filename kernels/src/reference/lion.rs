//! Lion (Chen et al. 2023, Symbolic Discovery of Optimization Algorithms), one element.

/// The scalars of one step, the same for all elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionStep {
    /// Gradient sums are multiplied by it: clipping over the number of predicted tokens.
    pub gradient_scale: f32,
    /// The step's rate, after warm-up and schedule.
    pub learning_rate: f32,
    /// The share of the momentum in the direction.
    pub beta1: f32,
    /// Decay of the momentum.
    pub beta2: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// New (value, momentum) of one element.
#[inline(always)]
pub fn step_one(s: &LionStep, gradient: f32, value: f32, m: f32) -> (f32, f32) {
    let g = gradient * s.gradient_scale;
    let mixed = s.beta1.mul_add(m, (1.0 - s.beta1) * g);
    let sign = if mixed > 0.0 {
        1.0
    } else if mixed < 0.0 {
        -1.0
    } else {
        0.0
    };
    let decayed = (-(s.learning_rate * s.weight_decay)).mul_add(value, value);
    let value = (-s.learning_rate).mul_add(sign, decayed);
    (value, s.beta2.mul_add(m, (1.0 - s.beta2) * g))
}

/// Updates value and momentum in place.
pub fn step(s: &LionStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    for (i, &g) in gradient.iter().enumerate() {
        (value[i], m[i]) = step_one(s, g, value[i], m[i]);
    }
}
