//! The experts of a decoder: how many there are, how the router chooses among them, and the names
//! of their tensors.

use serde::{Deserialize, Serialize};

use super::{DecoderConfig, Projection};

/// How a router turns its logits into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouterScores {
    /// A softmax over all experts.
    Softmax,
    /// A sigmoid of each logit.
    Sigmoid,
    /// A softmax over the chosen experts only.
    SoftmaxOfChosen,
}

/// The expert that every token goes through, beside the chosen ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedExpertShape {
    /// Its inner width.
    pub intermediate: usize,
    /// Whether its output is multiplied by a sigmoid gate of its own.
    pub gated: bool,
}

/// How the experts of a layer are stored in the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertLayout {
    /// Each has three matrices of its own, of these names.
    Own {
        /// Gate, up and down projection.
        matrices: [&'static str; 3],
    },
    /// One tensor holds the gate and up projections of all experts, their columns alternating,
    /// and one the down projections; both are transposed, `[expert, in, out]`, and have biases
    /// (gpt-oss).
    Fused,
}

/// The names of the modules of a layer with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router.
    pub router: &'static str,
    /// The prefix of an expert's number, or of the fused tensors.
    pub experts: &'static str,
    /// How the experts are stored.
    pub layout: ExpertLayout,
    /// The shared expert.
    pub shared: &'static str,
    /// The gate of the shared expert.
    pub shared_gate: &'static str,
    /// The bias that is added to the router's scores when experts are chosen, but not to the
    /// weights of the chosen ones.
    pub correction: &'static str,
}

impl ExpertNames {
    /// The names in Qwen, which most families use.
    pub(crate) const QWEN: ExpertNames = ExpertNames {
        router: "mlp.gate",
        experts: "mlp.experts",
        layout: ExpertLayout::Own {
            matrices: ["gate_proj", "up_proj", "down_proj"],
        },
        shared: "mlp.shared_expert",
        shared_gate: "mlp.shared_expert_gate",
        correction: "mlp.gate.e_score_correction_bias",
    };

    /// The names in Mixtral.
    pub(crate) const MIXTRAL: ExpertNames = ExpertNames {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        layout: ExpertLayout::Own {
            matrices: ["w1", "w3", "w2"],
        },
        ..ExpertNames::QWEN
    };

    /// The names in gpt-oss.
    pub(crate) const GPT_OSS: ExpertNames = ExpertNames {
        router: "mlp.router",
        layout: ExpertLayout::Fused,
        ..ExpertNames::QWEN
    };
}

/// [`ExpertNames`] are serialized as the name of the family that used them first.
mod expert_names {
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    use super::ExpertNames;

    const ALL: [(&str, ExpertNames); 3] = [
        ("qwen", ExpertNames::QWEN),
        ("mixtral", ExpertNames::MIXTRAL),
        ("gpt_oss", ExpertNames::GPT_OSS),
    ];

    pub(super) fn serialize<S: Serializer>(
        names: &ExpertNames,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let known = ALL.iter().find(|(_, known)| known == names);
        let (name, _) = known.ok_or_else(|| ser::Error::custom("names that no family has"))?;
        serializer.serialize_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ExpertNames, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = ALL.iter().find(|(known, _)| *known == name);
        let known = known.map(|(_, names)| *names);
        known.ok_or_else(|| de::Error::custom("experts by names that no family has"))
    }
}

/// The experts of a decoder.
///
/// Invariants, checked when a configuration is read: `chosen` is at most `count`, and the sizes are
/// within the limits in `expert_fields.rs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertsShape {
    /// Experts in a layer.
    pub count: usize,
    /// Experts to which a token is routed.
    pub chosen: usize,
    /// The inner width of an expert.
    pub intermediate: usize,
    /// How the router turns its logits into scores.
    pub scores: RouterScores,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalised: bool,
    /// The factor on those weights.
    pub factor: f32,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// Whether a bias is added to the scores when experts are chosen
    /// ([`ExpertNames::correction`]).
    pub correction: bool,
    /// The expert that every token goes through, if there is one.
    pub shared: Option<SharedExpertShape>,
    /// Layers, by index, that have a plain feed-forward layer instead of experts.
    pub dense_layers: Vec<usize>,
    /// The names of the modules.
    #[serde(with = "expert_names")]
    pub names: ExpertNames,
}

/// A matrix of a layer that multiplies activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMatrix {
    /// The projection that it counts as for LoRA's targets.
    pub projection: Projection,
    /// Its module, such as `model.layers.0.mlp.experts.3.up_proj`.
    pub module: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Whether it has a bias of `out` elements.
    pub bias: bool,
}

impl DecoderConfig {
    /// The experts of a layer, if it has any.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsShape> {
        let experts = self.experts.as_ref()?;
        (!experts.dense_layers.contains(&layer)).then_some(experts)
    }

    /// Whether no layer has feed-forward matrices that LoRA can adapt.
    pub(super) fn has_fused_experts_alone(&self) -> bool {
        self.experts.as_ref().is_some_and(|experts| {
            experts.names.layout == ExpertLayout::Fused
                && experts.dense_layers.is_empty()
                && experts.shared.is_none()
        })
    }

    /// The matrices of a layer that LoRA can adapt, in the order of the computation. Fused experts
    /// are not among them: they are tensors of three axes.
    pub fn layer_matrices(&self, layer: usize) -> Vec<LayerMatrix> {
        let experts = self.experts_of(layer);
        let is_feed = |projection: &Projection| projection.is_of_feed_forward();
        let own = self.projections().into_iter();
        let own = own.filter(|projection| experts.is_none() || !is_feed(projection));
        let mut matrices: Vec<LayerMatrix> = own
            .map(|projection| self.matrix(layer, projection))
            .collect();
        let Some(experts) = experts else {
            return matrices;
        };
        if let Some(shared) = experts.shared {
            let module = self.in_layer(layer, experts.names.shared);
            let names = ["gate_proj", "up_proj", "down_proj"];
            matrices.extend(self.of_expert(&module, names, shared.intermediate));
        }
        if let ExpertLayout::Own { matrices: names } = experts.names.layout {
            let modules = self.in_layer(layer, experts.names.experts);
            for expert in 0..experts.count {
                let module = format!("{modules}.{expert}");
                matrices.extend(self.of_expert(&module, names, experts.intermediate));
            }
        }
        matrices
    }

    /// A matrix of a layer that does not belong to an expert.
    pub(crate) fn matrix(&self, layer: usize, projection: Projection) -> LayerMatrix {
        LayerMatrix {
            projection,
            module: self.module_path(layer, projection),
            shape: projection.shape(self),
            bias: projection.has_bias(self),
        }
    }

    /// The first tensor of the experts of a layer, where they are all in one.
    pub(crate) fn fused_experts(&self, layer: usize) -> Option<String> {
        let names = &self.experts_of(layer)?.names;
        let [gate_up, ..] = names.fused();
        (names.layout == ExpertLayout::Fused).then(|| self.in_layer(layer, &gate_up))
    }

    /// The matrices of the expert `module`.
    pub(crate) fn of_expert(
        &self,
        module: &str,
        names: [&str; 3],
        width: usize,
    ) -> [LayerMatrix; 3] {
        let kinds = [Projection::Gate, Projection::Up, Projection::Down];
        let shapes = [
            [width, self.hidden],
            [width, self.hidden],
            [self.hidden, width],
        ];
        std::array::from_fn(|i| LayerMatrix {
            projection: kinds[i],
            module: format!("{module}.{}", names[i]),
            shape: shapes[i],
            bias: false,
        })
    }

    /// Multiply-adds of one token in the matrices of a layer. Only the experts that it is routed
    /// to count.
    pub fn layer_macs(&self, layer: usize) -> u64 {
        let elements = |[out, input]: [usize; 2]| (out * input) as u64;
        let own = self.projections().into_iter();
        let Some(experts) = self.experts_of(layer) else {
            return own.map(|projection| elements(projection.shape(self))).sum();
        };
        let own = own.filter(|projection| !projection.is_of_feed_forward());
        let attention: u64 = own.map(|projection| elements(projection.shape(self))).sum();
        let shared = experts.shared.map_or(0, |shared| shared.intermediate);
        let width = 3 * (experts.chosen * experts.intermediate + shared) + experts.count;
        attention + (width * self.hidden) as u64
    }

    /// Inner activations of one token in the widest feed-forward part of any layer.
    pub fn feed_width(&self) -> usize {
        let Some(experts) = &self.experts else {
            return self.intermediate;
        };
        let shared = experts.shared.map_or(0, |shared| shared.intermediate);
        let width = experts.chosen * experts.intermediate + shared;
        match experts.dense_layers.is_empty() {
            true => width,
            false => width.max(self.intermediate),
        }
    }

    /// The full name of a module of a layer.
    pub(crate) fn in_layer(&self, layer: usize, module: &str) -> String {
        format!("{}.{layer}.{module}", self.parts().layers)
    }

    /// The tensors of the experts of a layer that are not among its [`Self::layer_matrices`], with
    /// their shapes, in the order of the computation.
    pub(super) fn expert_tensors(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let Some(experts) = self.experts_of(layer) else {
            return Vec::new();
        };
        let names = &experts.names;
        let mut specs = Vec::new();
        let mut add = |module: &str, shape: &[usize]| {
            specs.push((self.in_layer(layer, module), shape.to_vec()));
        };
        let (count, width, hidden) = (experts.count, experts.intermediate, self.hidden);
        add(&format!("{}.weight", names.router), &[count, hidden]);
        if experts.router_bias {
            add(&format!("{}.bias", names.router), &[count]);
        }
        if experts.correction {
            add(names.correction, &[count]);
        }
        if experts.shared.is_some_and(|shared| shared.gated) {
            add(&format!("{}.weight", names.shared_gate), &[1, hidden]);
        }
        if names.layout == ExpertLayout::Fused {
            let [gate_up, gate_up_bias, down, down_bias] = names.fused();
            add(&gate_up, &[count, hidden, 2 * width]);
            add(&gate_up_bias, &[count, 2 * width]);
            add(&down, &[count, width, hidden]);
            add(&down_bias, &[count, hidden]);
        }
        specs
    }
}

impl ExpertNames {
    /// The names of the fused tensors: gate and up projection, their bias, down projection, its
    /// bias.
    pub(crate) fn fused(&self) -> [String; 4] {
        let tensor = |part: &str| format!("{}.{part}", self.experts);
        [
            tensor("gate_up_proj"),
            tensor("gate_up_proj_bias"),
            tensor("down_proj"),
            tensor("down_proj_bias"),
        ]
    }
}
