//! Gradient descent, without and with momentum (Sutskever et al. 2013), one element.

/// The scalars of one step, the same for all elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Gradient sums are multiplied by it: clipping over the number of predicted tokens.
    pub gradient_scale: f32,
    /// The step's rate, after warm-up and schedule.
    pub learning_rate: f32,
    /// Decay of the momentum; 0 for none, which is then not kept.
    pub momentum: f32,
    /// Whether the step looks ahead along the momentum, as Nesterov's does.
    pub nesterov: bool,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
}

/// New (value, momentum) of one element.
#[inline(always)]
pub fn step_one(s: &SgdStep, gradient: f32, value: f32, m: f32) -> (f32, f32) {
    let g = s.weight_decay.mul_add(value, gradient * s.gradient_scale);
    let mean = s.momentum.mul_add(m, g);
    let direction = if s.nesterov {
        s.momentum.mul_add(mean, g)
    } else {
        mean
    };
    ((-s.learning_rate).mul_add(direction, value), mean)
}

/// New value of one element without momentum.
#[inline(always)]
pub fn plain_one(s: &SgdStep, gradient: f32, value: f32) -> f32 {
    let g = s.weight_decay.mul_add(value, gradient * s.gradient_scale);
    (-s.learning_rate).mul_add(g, value)
}

/// Updates value and momentum in place. `m` is empty where the momentum is 0.
pub fn step(s: &SgdStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    for (i, &g) in gradient.iter().enumerate() {
        if s.momentum == 0.0 {
            value[i] = plain_one(s, g, value[i]);
        } else {
            (value[i], m[i]) = step_one(s, g, value[i], m[i]);
        }
    }
}
