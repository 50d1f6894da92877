//! What a stage holds of a decoder: from one cut to another. A cut stands before a layer, or
//! between two experts of one.
//!
//! Of a layer that is cut, the first part has all but experts: attention, norms, the router, the
//! shared expert. Every part has a run of the experts.

use std::fmt;
use std::ops::Range;

use super::{DecoderConfig, ExpertLayout, TensorSpec};

/// A place where a decoder is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    /// The layer.
    pub layer: u32,
    /// 0 before the layer; else the first of its experts behind the cut.
    pub expert: u32,
}

impl Cut {
    /// The cut before a layer.
    pub fn before(layer: u32) -> Self {
        Self { layer, expert: 0 }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}", self.layer)?;
        match self.expert {
            0 => Ok(()),
            expert => write!(f, " expert {expert}"),
        }
    }
}

/// A run of layers, or of the experts of layers, from one cut to another.
///
/// ```
/// use concord_models::config::{Cut, Span};
///
/// let whole = Span::from(2..5);
/// assert_eq!(whole.attention(), 2..5);
/// // The rest of the experts of layer 1, layer 2, and layer 3 with its first four experts.
/// let (start, end) = (Cut { layer: 1, expert: 2 }, Cut { layer: 3, expert: 4 });
/// let span = Span { start, end };
/// assert_eq!((span.attention(), span.layers()), (2..4, 1..4));
/// assert_eq!([1, 2, 3].map(|layer| span.experts(layer, 8)), [2..8, 0..8, 0..4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where it begins.
    pub start: Cut,
    /// Where it ends.
    pub end: Cut,
}

impl From<Range<u32>> for Span {
    fn from(layers: Range<u32>) -> Self {
        Self {
            start: Cut::before(layers.start),
            end: Cut::before(layers.end),
        }
    }
}

impl Span {
    /// The layers of which it has a part.
    pub fn layers(&self) -> Range<u32> {
        self.start.layer..self.end.layer + u32::from(self.end.expert > 0)
    }

    /// The layers of which it has attention and all else that is no expert.
    pub fn attention(&self) -> Range<u32> {
        let layers = self.layers();
        layers.start + u32::from(self.start.expert > 0)..layers.end
    }

    /// Which of the `count` experts of a layer it has.
    pub fn experts(&self, layer: u32, count: usize) -> Range<usize> {
        let at = |cut: Cut| match cut.layer.cmp(&layer) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => cut.expert as usize,
            std::cmp::Ordering::Greater => count,
        };
        at(self.start)..at(self.end)
    }

    /// Whether it has the module or tensor `name` of a layer.
    pub fn holds(&self, layer: u32, name: &str) -> bool {
        match expert_of(name) {
            None => self.attention().contains(&layer),
            Some(expert) => (self.start..self.end).contains(&Cut { layer, expert }),
        }
    }

    /// Whether it begins with the embedding.
    pub fn is_first(&self) -> bool {
        self.start == Cut::before(0)
    }

    /// Whether it ends with the head of a decoder of so many layers.
    pub fn is_last(&self, layers: usize) -> bool {
        self.end == Cut::before(layers as u32)
    }

    /// A sum over its layers, of which each counts `layer` as a whole, and each of its `count`
    /// experts `expert` of that.
    pub fn sum(&self, count: usize, layer: u64, expert: u64) -> u64 {
        let count = count as u64;
        let before = |cut: Cut| u64::from(cut.layer) * count + u64::from(cut.expert);
        let experts = before(self.end).saturating_sub(before(self.start));
        let rest = layer.saturating_sub(count * expert);
        let layers = self.attention().len() as u64;
        layers
            .saturating_mul(rest)
            .saturating_add(experts.saturating_mul(expert))
    }
}

/// Of which expert the module or tensor `name` is, if it is one's: of `3` in
/// `model.layers.0.mlp.experts.3.up_proj`.
pub(crate) fn expert_of(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once(".experts.")?;
    let (number, _) = rest.split_once('.')?;
    number.parse().ok()
}

impl DecoderConfig {
    /// How many experts a layer has between which it can be cut, if it can: all layers have
    /// experts, each with matrices of its own, and what they give is added to the residual stream
    /// without a norm.
    pub fn experts_to_cut(&self) -> Option<usize> {
        let experts = self.experts.as_ref()?;
        let own = matches!(experts.names.layout, ExpertLayout::Own { .. });
        let added = !self.parallel_residual && self.parts().feed_out.is_none();
        (own && added && experts.dense_layers.is_empty()).then_some(experts.count)
    }

    /// The matrices of one expert of a layer that can be cut; else none.
    pub(crate) fn expert_matrices(&self) -> Vec<TensorSpec> {
        if self.experts_to_cut().is_none() {
            return Vec::new();
        }
        let mut specs = self.layer_tensors(0);
        specs.retain(|spec| expert_of(&spec.name) == Some(0));
        specs
    }

    /// Whether the cuts of `span` stand where this decoder can be cut.
    pub fn has_span(&self, span: &Span) -> bool {
        let count = self.experts_to_cut().unwrap_or(0) as u32;
        let fits = |cut: &Cut| cut.expert == 0 || cut.expert < count;
        let ends = [span.start, span.end];
        span.start < span.end && span.layers().end as usize <= self.layers && ends.iter().all(fits)
    }

    /// Columns of what goes from one stage to the next at `cut`, and of its gradient: hidden
    /// states `[m, d]`; or, within a layer, what its other experts need and give back.
    pub fn cut_widths(&self, cut: Cut) -> [usize; 2] {
        match &self.experts {
            Some(experts) if cut.expert > 0 => {
                let (d, chosen) = (self.hidden, experts.chosen);
                [3 * d + 2 * chosen, d + chosen + chosen * d]
            }
            _ => [self.hidden; 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, Span};

    #[test]
    fn parts_of_a_layer_sum_up_to_it() {
        let cut = |layer, expert| Cut { layer, expert };
        let cuts = [
            cut(0, 0),
            cut(1, 3),
            cut(1, 5),
            cut(2, 0),
            cut(3, 7),
            cut(4, 0),
        ];
        let span = |ends: &[Cut]| Span {
            start: ends[0],
            end: ends[1],
        };
        let parts = cuts.windows(2).map(|ends| span(ends).sum(8, 1_000, 100));
        assert_eq!(parts.collect::<Vec<_>>(), [1_500, 200, 300, 1_900, 100]);
        assert_eq!(Span::from(0..4).sum(8, 1_000, 100), 4_000);
    }
}
