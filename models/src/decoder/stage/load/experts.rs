//! Loads the experts of a layer from their tensors.

use concord_kernels::Tensor;
use concord_kernels::ops::{RouterKind, Routing};

use super::Loader;
use crate::config::Cut;
use crate::config::{ExpertLayout, ExpertsShape, RouterScores};
use crate::decoder::cut_rows::CutShape;
use crate::decoder::dense::{Dense, Widening};
use crate::decoder::experts::{ExpertBank, Experts, FusedExperts, LoadCounts, SharedExpert};
use crate::decoder::layer_rest::LayerRest;
use crate::decoder::linear::Linear;
use crate::error::ModelError;

/// Takes the index of an expert, its values, and the number of columns of their rows.
type TakeExpert<'a> = dyn FnMut(usize, &[f32], usize) -> Result<(), ModelError> + 'a;

impl Loader<'_> {
    /// The experts of a layer.
    pub(super) fn experts(
        &self,
        layer: usize,
        shape: &ExpertsShape,
    ) -> Result<Experts, ModelError> {
        let config = &self.options.config;
        let names = &shape.names;
        let correction = match shape.correction {
            true => Some(self.placed(&config.in_layer(layer, names.correction))?),
            false => None,
        };
        Ok(Experts {
            router: self.router(layer, names.router, shape.router_bias)?,
            correction,
            routing: routing(shape),
            bank: self.bank(layer, shape)?,
            shared: self.shared(layer, shape)?,
        })
    }

    /// The experts of a layer that the stage has.
    fn bank(&self, layer: usize, shape: &ExpertsShape) -> Result<ExpertBank, ModelError> {
        let (config, names) = (&self.options.config, &shape.names);
        let held = self.options.layers.experts(layer as u32, shape.count);
        let first = held.start;
        let (experts, fused) = match names.layout {
            ExpertLayout::Own { matrices } => {
                let expert = |expert: usize| {
                    let module = format!("{}.{expert}", names.experts);
                    self.expert(&config.in_layer(layer, &module), matrices, shape)
                };
                let experts = held.map(expert);
                (experts.collect::<Result<Vec<_>, _>>()?, None)
            }
            ExpertLayout::Fused => {
                let tensors = names.fused().map(|tensor| config.in_layer(layer, &tensor));
                let [gate_up, gate_up_bias, down, down_bias] = tensors;
                let fused = FusedExperts {
                    gate_up,
                    gate_up_bias,
                    down,
                    down_bias,
                    trains: self.options.trains_all,
                };
                (self.fused_experts(&fused, shape)?, Some(fused))
            }
        };
        Ok(ExpertBank {
            experts,
            first,
            count: shape.count,
            fused,
            loads: LoadCounts::new(shape.count),
        })
    }

    /// The experts of the layer that the stage begins within.
    pub(super) fn rest(&self) -> Result<Option<LayerRest>, ModelError> {
        let (config, start) = (&self.options.config, self.options.layers.start);
        let (Some(shape), Some(experts)) = (
            self.cut_shape(start.layer, start),
            config.experts_of(start.layer as usize),
        ) else {
            return Ok(None);
        };
        Ok(Some(LayerRest {
            layer: start.layer,
            bank: self.bank(start.layer as usize, experts)?,
            shape,
            residual: config.residual_multiplier,
        }))
    }

    /// The sizes of what goes over `cut`, where it is within `layer`.
    pub(super) fn cut_shape(&self, layer: u32, cut: Cut) -> Option<CutShape> {
        let config = &self.options.config;
        let experts = config.experts_of(layer as usize)?;
        (cut.layer == layer && cut.expert > 0).then_some(CutShape {
            hidden: config.hidden,
            experts: experts.count,
            chosen: experts.chosen,
        })
    }

    /// A matrix that no adapter is on.
    fn router(&self, layer: usize, module: &str, bias: bool) -> Result<Linear, ModelError> {
        let config = &self.options.config;
        let module = config.in_layer(layer, module);
        let (name, bias_name) = (format!("{module}.weight"), format!("{module}.bias"));
        Ok(Linear {
            weight: self.weight(&name)?,
            bias: match bias {
                true => Some(self.placed(&bias_name)?),
                false => None,
            },
            lora: None,
            name,
            bias_name,
            trains_weight: self.options.trains_all,
        })
    }

    fn shared(
        &self,
        layer: usize,
        shape: &ExpertsShape,
    ) -> Result<Option<SharedExpert>, ModelError> {
        let Some(shared) = shape.shared else {
            return Ok(None);
        };
        let config = &self.options.config;
        let module = config.in_layer(layer, shape.names.shared);
        let own = ["gate_proj", "up_proj", "down_proj"];
        let as_expert = ExpertsShape {
            intermediate: shared.intermediate,
            ..shape.clone()
        };
        Ok(Some(SharedExpert {
            dense: self.expert(&module, own, &as_expert)?,
            gate: match shared.gated {
                true => Some(self.router(layer, shape.names.shared_gate, false)?),
                false => None,
            },
        }))
    }

    /// The expert `module`.
    fn expert(
        &self,
        module: &str,
        names: [&str; 3],
        shape: &ExpertsShape,
    ) -> Result<Dense, ModelError> {
        let config = &self.options.config;
        let matrices = config.of_expert(module, names, shape.intermediate);
        let matrix = |index: usize| self.matrix(&matrices[index]);
        Ok(Dense {
            widening: Widening::Gated(Box::new([matrix(0)?, matrix(1)?])),
            down: matrix(2)?,
            activation: config.activation,
        })
    }

    /// Experts that are fused in the weights, split one expert at a time.
    fn fused_experts(
        &self,
        fused: &FusedExperts,
        shape: &ExpertsShape,
    ) -> Result<Vec<Dense>, ModelError> {
        let tensors = [
            (&fused.gate_up, self.options.config.hidden),
            (&fused.down, shape.intermediate),
        ];
        let mut linears: Vec<Vec<Linear>> = (0..shape.count).map(|_| Vec::new()).collect();
        let biases = [&fused.gate_up_bias, &fused.down_bias];
        for ((name, rows), bias) in tensors.into_iter().zip(biases) {
            let mut of_biases = Vec::new();
            let bias_values = self.tensor(bias)?;
            for (_, part) in fused.all_parts(bias, shape.count, &bias_values)? {
                of_biases.push(self.options.device.place(part)?);
            }
            let mut of_biases = of_biases.into_iter();
            self.by_experts(name, rows, &mut |expert, values, cols| {
                for (part, value) in fused.parts(name, expert, values, cols)? {
                    let named = fused.names(expert);
                    let own = named.into_iter().find(|[weight, _]| *weight == part);
                    let [name, bias_name] = own.unwrap_or_default();
                    linears[expert].push(Linear {
                        weight: self.code(&value)?.into(),
                        bias: of_biases.next(),
                        lora: None,
                        name,
                        bias_name,
                        trains_weight: self.options.trains_all,
                    });
                }
                Ok(())
            })?;
        }
        let dense = |linears: Vec<Linear>| {
            let [gate, up, down] = <[Linear; 3]>::try_from(linears).map_err(|_| {
                ModelError::Kernel(concord_kernels::KernelError::DoesNotFit(
                    "fused experts of another number than config.json says".to_string(),
                ))
            })?;
            Ok(Dense {
                widening: Widening::Gated(Box::new([gate, up])),
                down,
                activation: self.options.config.activation,
            })
        };
        linears.into_iter().map(dense).collect()
    }

    /// Gives the `[rows, cols]` of each expert of a tensor to `take`, one at a time. Sources give a
    /// tensor of three axes as a whole, so all of it is in memory as f32 meanwhile.
    fn by_experts(
        &self,
        name: &str,
        rows: usize,
        take: &mut TakeExpert<'_>,
    ) -> Result<(), ModelError> {
        let (mut waiting, mut expert) = (Vec::new(), 0);
        let mut slice = |part: Tensor| {
            let cols = part.rows_cols().1;
            let values = part.values()?;
            let mut rest = &values[..];
            // Each number is copied once, however many experts a slice holds.
            while !rest.is_empty() {
                let missing = (rows * cols).saturating_sub(waiting.len());
                let (some, after) = rest.split_at(missing.min(rest.len()));
                waiting.extend_from_slice(some);
                rest = after;
                if waiting.len() >= rows * cols {
                    take(expert, &waiting, cols)?;
                    waiting.clear();
                    expert += 1;
                }
            }
            Ok(())
        };
        match self.values.value(name) {
            Some(value) => slice(value.clone()),
            None => self.source.rows(name, &mut |_, part| slice(part)),
        }
    }
}

fn routing(shape: &ExpertsShape) -> Routing {
    Routing {
        kind: match shape.scores {
            RouterScores::Softmax => RouterKind::Softmax,
            RouterScores::Sigmoid => RouterKind::Sigmoid,
            RouterScores::SoftmaxOfChosen => RouterKind::SoftmaxOfChosen,
        },
        chosen: shape.chosen,
        normalised: shape.normalised,
        factor: shape.factor,
    }
}
