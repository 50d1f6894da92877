//! One form of each decoder: what says nothing is left out, so that files that mean the same model
//! come to the same text, and with it to the same identity.

use super::{DecoderConfig, RopeScaling};

/// What `q . k` is multiplied by where nothing else is said: 1 / sqrt(head_dim) in f32.
pub(crate) fn usual_attention_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

impl DecoderConfig {
    /// The same decoder, with every bit that it computes, in its one form.
    pub(super) fn normalised(mut self) -> Self {
        let head_dim = self.head_dim;
        self.rotary_dim = self.rotary_dim.filter(|width| *width != head_dim);
        let usual = usual_attention_scale(head_dim);
        self.attention_scale = self.attention_scale.filter(|scale| *scale != usual);
        // A product with 1 is the number itself, and is left out.
        for multiplier in [
            &mut self.embedding_multiplier,
            &mut self.residual_multiplier,
            &mut self.logit_multiplier,
        ] {
            *multiplier = multiplier.filter(|factor| *factor != 1.0);
        }
        sort(&mut self.unrotated);
        self.normalise_ropes();
        self.normalise_feed_forward();
        self
    }

    /// A second rotary embedding only where some layers have it, and others do not.
    fn normalise_ropes(&mut self) {
        let ropes = [Some(&mut self.rope), self.local_rope.as_mut()];
        for rope in ropes.into_iter().flatten() {
            if matches!(rope.scaling, RopeScaling::Linear { factor } if factor == 1.0) {
                rope.scaling = RopeScaling::None;
            }
        }
        let windows = self.sliding_window.iter().flatten().count();
        let local = self.local_rope.take().filter(|_| windows > 0);
        match local {
            Some(local) if windows == self.layers => self.rope = local,
            local => self.local_rope = local.filter(|local| *local != self.rope),
        }
    }

    /// What says how a feed-forward layer is made, where none is: every layer has experts instead.
    fn normalise_feed_forward(&mut self) {
        self.fused_gate_up &= self.gated;
        let Some(experts) = &mut self.experts else {
            return;
        };
        sort(&mut experts.dense_layers);
        if experts.dense_layers.is_empty() {
            self.intermediate = experts.intermediate;
            self.gated = true;
            self.fused_gate_up = false;
            self.mlp_bias = false;
        } else if experts.dense_layers.len() == self.layers {
            self.experts = None;
        }
    }
}

fn sort(layers: &mut Vec<usize>) {
    layers.sort_unstable();
    layers.dedup();
}
