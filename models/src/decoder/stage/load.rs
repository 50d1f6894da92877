//! Making a stage from its tensors, and putting new values into it.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::AttentionShape;
use concord_kernels::tables::{self, RopeTable};
use concord_kernels::{Device, KernelError, Tensor};

use super::{Stage, StageOptions};
use crate::config::{DecoderConfig, Projection, RopeScaling};
use crate::decoder::block::Block;
use crate::decoder::gradients::TensorUse;
use crate::decoder::head::OutputHead;
use crate::decoder::linear::{Linear, Lora, LoraSpec};
use crate::decoder::norm::Norm;
use crate::decoder::source::TensorSource;
use crate::decoder::values::Values;
use crate::error::ModelError;
use crate::peft::Adapter;

pub(super) const EMBED: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

impl Stage {
    /// Loads the stage's tensors, and no others, from `source`; trained values come from `values`.
    /// Low-rank factors that `values` lacks are zeros.
    ///
    /// On the host it never takes more than the stage and a slice of one matrix: what becomes codes
    /// is coded slice by slice, which gives the same bits, since no row's code depends on another
    /// row.
    ///
    /// # Errors
    /// [`ModelError`] where a tensor is missing, broken or not finite, or a GPU fails.
    pub fn load(
        options: StageOptions,
        source: &dyn TensorSource,
        values: &dyn Values,
    ) -> Result<Self, ModelError> {
        let _weights = options.device.account(MemoryPurpose::Weights);
        let loader = Loader {
            options: &options,
            source,
            values,
        };
        let config = &options.config;
        // The largest tensors first: a source without slices needs their f32 while little is held.
        let embed = match options.layers.start {
            0 => Some(loader.placed(EMBED)?),
            _ => None,
        };
        let is_last = options.layers.end as usize == config.layers;
        let head = match is_last {
            true => Some(loader.head(embed.as_ref())?),
            false => None,
        };
        let blocks = options
            .layers
            .clone()
            .map(|layer| loader.block(layer))
            .collect::<Result<_, _>>()?;
        let rope = rope_table(config, options.positions);
        let rope = options.device.place_rope(rope)?;
        Ok(Self {
            rope,
            embed,
            blocks,
            head,
            options,
        })
    }

    /// Takes over the value of one trained tensor, if it is of this stage.
    pub(super) fn set(&mut self, name: &str, value: &Tensor) -> Result<(), KernelError> {
        let options = &self.options;
        let device = &options.device;
        if name == EMBED
            && let Some(table) = &mut self.embed
        {
            *table = device.place(value.clone())?;
        }
        if let Some(head) = &mut self.head {
            if name == head.name {
                let width = value.rows_cols().1;
                head.weight = device.code(value, width, options.precisions.weights)?;
            }
            set_norm(&mut head.norm, options, name, value)?;
        }
        for block in &mut self.blocks {
            let Block {
                attention_norm,
                mlp_norm,
                qk_norm,
                q,
                k,
                v,
                o,
                gate,
                up,
                down,
                ..
            } = block;
            set_norm(attention_norm, options, name, value)?;
            set_norm(mlp_norm, options, name, value)?;
            if let Some((q_norm, k_norm)) = qk_norm {
                set_norm(q_norm, options, name, value)?;
                set_norm(k_norm, options, name, value)?;
            }
            for linear in [q, k, v, o, gate, up, down] {
                set_linear(linear, options, name, value)?;
            }
        }
        Ok(())
    }
}

fn set_norm(
    norm: &mut Norm,
    options: &StageOptions,
    name: &str,
    value: &Tensor,
) -> Result<(), KernelError> {
    if norm.name == name {
        norm.weight = options.device.place(value.clone())?;
    }
    Ok(())
}

fn set_linear(
    linear: &mut Linear,
    options: &StageOptions,
    name: &str,
    value: &Tensor,
) -> Result<(), KernelError> {
    let device = &options.device;
    let code = |precision: Precision| device.code(value, value.rows_cols().1, precision);
    if linear.name == name {
        linear.weight = code(options.precisions.weights)?;
    } else if linear.bias_name == name {
        linear.bias = Some(device.place(value.clone())?);
    } else if let Some(lora) = &mut linear.lora {
        if lora.name_a == name {
            lora.a = code(options.precisions.activations)?;
        } else if lora.name_b == name {
            lora.b = code(options.precisions.activations)?;
        }
    }
    Ok(())
}

struct Loader<'a> {
    options: &'a StageOptions,
    source: &'a dyn TensorSource,
    values: &'a dyn Values,
}

impl Loader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        match self.values.value(name) {
            Some(value) => Ok(value.clone()),
            None => self.source.tensor(name),
        }
    }

    fn placed(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.options.device.place(self.tensor(name)?)?)
    }

    fn block(&self, layer: u32) -> Result<Block, ModelError> {
        let config = &self.options.config;
        let linear = |projection| self.linear(layer, projection);
        let norm = |part: &str| self.norm(&format!("model.layers.{layer}.{part}.weight"));
        let head_norm = |part: &str| norm(&format!("self_attn.{part}_norm"));
        Ok(Block {
            attention_norm: norm("input_layernorm")?,
            q: linear(Projection::Q)?,
            k: linear(Projection::K)?,
            v: linear(Projection::V)?,
            o: linear(Projection::O)?,
            qk_norm: match config.qk_norm {
                true => Some((head_norm("q")?, head_norm("k")?)),
                false => None,
            },
            mlp_norm: norm("post_attention_layernorm")?,
            gate: linear(Projection::Gate)?,
            up: linear(Projection::Up)?,
            down: linear(Projection::Down)?,
            shape: AttentionShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                window: config.sliding_window[layer as usize],
                scale: 1.0 / (config.head_dim as f32).sqrt(),
                soft_cap: None,
            },
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, ModelError> {
        Ok(Norm {
            weight: self.placed(name)?,
            eps: self.options.config.rms_eps,
            name: name.to_string(),
            trains: self.options.trains_all,
        })
    }

    fn linear(&self, layer: u32, projection: Projection) -> Result<Linear, ModelError> {
        let module = format!("model.layers.{layer}.{}", projection.module());
        let (name, bias_name) = (format!("{module}.weight"), format!("{module}.bias"));
        let bias = match projection.has_bias(&self.options.config) {
            true => Some(self.placed(&bias_name)?),
            false => None,
        };
        Ok(Linear {
            weight: self.coded(&name)?,
            bias,
            lora: self.lora(layer, projection)?,
            name,
            bias_name,
            trains_weight: self.options.trains_all,
        })
    }

    fn lora(&self, layer: u32, projection: Projection) -> Result<Option<Lora>, ModelError> {
        let adapted = |spec: &&LoraSpec| spec.targets.contains(&projection);
        let Some(spec) = self.options.lora.as_ref().filter(adapted) else {
            return Ok(None);
        };
        let [out, input] = projection.shape(&self.options.config);
        let rank = spec.rank as usize;
        let (name_a, name_b) = (
            Adapter::key_a(layer, projection),
            Adapter::key_b(layer, projection),
        );
        let (device, precision) = (&self.options.device, self.options.precisions.activations);
        let factor = |name: &str, shape: [usize; 2]| match self.values.value(name) {
            Some(value) => device.code(value, shape[1], precision),
            None => device.code(&Tensor::zeros(&shape), shape[1], precision),
        };
        Ok(Some(Lora {
            a: factor(&name_a, [rank, input])?,
            b: factor(&name_b, [out, rank])?,
            scale: spec.scale,
            name_a,
            name_b,
        }))
    }

    /// The head; where it is the embedding, of the table that the first stage holds anyway.
    fn head(&self, embed: Option<&Tensor>) -> Result<OutputHead, ModelError> {
        let tied = self.options.config.tie_embeddings;
        let name = if tied { EMBED } else { HEAD };
        let weight = match embed.filter(|_| tied) {
            Some(table) => self.code(table)?,
            None => self.coded(name)?,
        };
        Ok(OutputHead {
            norm: self.norm(FINAL_NORM)?,
            weight,
            name: name.to_string(),
            trains: self.options.trains_all,
            end: if tied {
                TensorUse::TiedHead
            } else {
                TensorUse::Own
            },
        })
    }

    /// The codes of a matrix.
    fn coded(&self, name: &str) -> Result<Coded, ModelError> {
        if let Some(value) = self.values.value(name) {
            return Ok(self.code(value)?);
        }
        if matches!(self.options.device, Device::Cuda(_)) {
            // Codes of slices would have to be put together on the host.
            return Ok(self.code(&self.source.tensor(name)?)?);
        }
        let mut whole: Option<Coded> = None;
        self.source.rows(name, &mut |total, rows| {
            let mut part = self.code(&rows)?;
            match &mut whole {
                Some(whole) => whole.append(&part)?,
                None => {
                    part.reserve(total.saturating_sub(part.rows))?;
                    whole = Some(part);
                }
            }
            Ok(())
        })?;
        match whole {
            Some(whole) => Ok(whole),
            // A matrix without rows.
            None => Ok(self.code(&self.source.tensor(name)?)?),
        }
    }

    fn code(&self, tensor: &Tensor) -> Result<Coded, KernelError> {
        let width = tensor.rows_cols().1;
        let options = self.options;
        options
            .device
            .code(tensor, width, options.precisions.weights)
    }
}

fn rope_table(config: &DecoderConfig, positions: usize) -> RopeTable {
    let scaling = match &config.rope.scaling {
        RopeScaling::None => tables::FrequencyScaling::None,
        RopeScaling::Linear { factor } => tables::FrequencyScaling::Linear { factor: *factor },
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => tables::FrequencyScaling::Llama3 {
            factor: *factor,
            low_freq_factor: *low_freq_factor,
            high_freq_factor: *high_freq_factor,
            original_max_positions: *original_max_positions as f64,
        },
    };
    RopeTable::new(config.head_dim, config.rope.theta, scaling, positions)
}
