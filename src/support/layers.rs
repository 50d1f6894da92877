//! Layers, as events have them.

use concord_proto::{Edge, Layers};
use serde_json::{Value, json};

/// Both ends: the number of the layer that a cut is before; within a layer `"LAYER+EXPERT"`.
pub fn ends(layers: Layers) -> Value {
    let edge = |edge: Edge| match edge.expert {
        0 => json!(edge.layer),
        _ => json!(edge.to_string()),
    };
    json!([edge(layers.start), edge(layers.end)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_within_a_layer_is_a_text() {
        let edge = Edge {
            layer: 1,
            expert: 4,
        };
        assert_eq!(ends(Layers::new(0, edge)).to_string(), r#"[0,"1+4"]"#);
    }
}
