//! Where a model is cut, and what lies between two cuts.

use std::fmt;
use std::io::{Read, Write};
use std::ops::Range;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::training::ModelPlace;

/// In the encoding, that an expert follows the layer. No model has so many layers.
const WITHIN: u32 = 1 << 31;

/// A cut of a model: before a layer, or between two experts of one. Of a layer that is cut, the
/// first part has all that is no expert.
///
/// In words it is the number of the layer, with an expert `LAYER+EXPERT`. It is encoded as the
/// number of the layer; between experts with the highest bit set, and the expert behind it.
///
/// ```
/// use concord_proto::{Edge, Layers, canonical};
///
/// let edge = Edge { layer: 3, expert: 4 };
/// assert_eq!(Layers::new(0, edge).to_string(), "0..3+4");
/// assert_eq!(canonical::encode(&Edge::from(3)), canonical::encode(&3_u32));
/// assert_eq!(canonical::encode(&edge), [3, 0, 0, 128, 4, 0, 0, 0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The layer, below 2^31.
    pub layer: u32,
    /// 0 before the layer; else the first expert behind the cut.
    pub expert: u32,
}

impl From<u32> for Edge {
    fn from(layer: u32) -> Self {
        Self { layer, expert: 0 }
    }
}

impl PartialEq<u32> for Edge {
    fn eq(&self, layer: &u32) -> bool {
        *self == Self::from(*layer)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.expert {
            0 => self.layer.to_string(),
            expert => format!("{}+{expert}", self.layer),
        };
        f.pad(&text)
    }
}

impl BorshSerialize for Edge {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        let layer = self.layer & !WITHIN;
        match self.expert {
            0 => layer.serialize(writer),
            expert => (layer | WITHIN, expert).serialize(writer),
        }
    }
}

impl BorshDeserialize for Edge {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let layer = u32::deserialize_reader(reader)?;
        let expert = match layer & WITHIN {
            0 => 0,
            _ => u32::deserialize_reader(reader)?,
        };
        let layer = layer & !WITHIN;
        Ok(Self { layer, expert })
    }
}

/// The decoder layers `[start, end)` of a stage; of the first and the last perhaps a run of the
/// experts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Layers {
    /// Where they begin: before a layer as its number (u32); between its experts with the highest
    /// bit set, and the number of the first expert of the stage behind it (u32, not 0).
    pub start: Edge,
    /// Where they end, in the same way.
    pub end: Edge,
}

impl Layers {
    /// From one cut, or the number of a layer, to another.
    pub fn new(start: impl Into<Edge>, end: impl Into<Edge>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
        }
    }

    /// Whether a tensor `name` at `place` belongs to this stage of a model of `count` layers. A
    /// tensor of an expert has `.experts.`, the expert's number and a dot in its name.
    pub fn holds(self, place: ModelPlace, name: &str, count: u32) -> bool {
        let (first, last) = (self.start == 0, self.end == count);
        match place {
            ModelPlace::Embed => first,
            ModelPlace::Layer(layer) => {
                let expert = expert_of(name).unwrap_or(0);
                (self.start..self.end).contains(&Edge { layer, expert })
            }
            ModelPlace::Head => last,
            ModelPlace::EmbedAndHead => first || last,
        }
    }

    /// The layers of which it has a part.
    pub fn touched(self) -> Range<u32> {
        self.start.layer..self.end.layer + u32::from(self.end.expert > 0)
    }

    /// The layers of which it has attention and all else that is no expert.
    pub fn attended(self) -> Range<u32> {
        let layers = self.touched();
        layers.start + u32::from(self.start.expert > 0)..layers.end
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

fn expert_of(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once(".experts.")?;
    let (number, _) = rest.split_once('.')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Edge, Layers, ModelPlace};

    #[test]
    fn every_tensor_of_a_cut_layer_is_held_once() {
        let cut = |layer, expert| Edge { layer, expert };
        let stages = [
            Layers::new(0, cut(1, 2)),
            Layers::new(cut(1, 2), cut(1, 4)),
            Layers::new(cut(1, 4), 3),
        ];
        let holder = |layer: u32, part: &str| {
            let name = format!("model.layers.{layer}.{part}.weight");
            let holds = |stage: &Layers| stage.holds(ModelPlace::Layer(layer), &name, 3);
            let found: Vec<usize> = (0..3).filter(|&at| holds(&stages[at])).collect();
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            found[0]
        };
        for part in ["self_attn.q_proj", "mlp.gate", "mlp.shared_expert.up_proj"] {
            assert_eq!([0, 1, 2].map(|layer| holder(layer, part)), [0, 0, 2]);
        }
        let expert = |expert: u32| holder(1, &format!("mlp.experts.{expert}.up_proj"));
        assert_eq!([0, 1, 2, 3, 4, 7].map(expert), [0, 0, 1, 1, 2, 2]);
        assert_eq!(holder(2, "mlp.experts.0.up_proj"), 2);
        assert_eq!(stages.map(Layers::touched), [0..2, 1..2, 1..3]);
        assert_eq!(stages.map(|stage| stage.attended().len()), [2, 0, 1]);
    }
}
