//! AdamW (Loshchilov and Hutter 2019), one element.

/// The scalars of one step, the same for all elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Gradient sums are multiplied by it: clipping over the number of predicted tokens.
    pub gradient_scale: f32,
    /// The step's rate, after warm-up and schedule.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 - beta1^t`.
    pub bias1: f32,
    /// `1 - beta2^t`.
    pub bias2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// New (value, first moment, second moment) of one element.
#[inline(always)]
pub fn step_one(s: &AdamStep, gradient: f32, value: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let g = gradient * s.gradient_scale;
    let m = s.beta1.mul_add(m, (1.0 - s.beta1) * g);
    let v = s.beta2.mul_add(v, (1.0 - s.beta2) * (g * g));
    let decayed = (-(s.learning_rate * s.weight_decay)).mul_add(value, value);
    let direction = (m / s.bias1) / ((v / s.bias2).sqrt() + s.epsilon);
    ((-s.learning_rate).mul_add(direction, decayed), m, v)
}

/// Updates values and moments in place.
pub fn step(s: &AdamStep, gradient: &[f32], value: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    for (i, &g) in gradient.iter().enumerate() {
        (value[i], m[i], v[i]) = step_one(s, g, value[i], m[i], v[i]);
    }
}
