//! Makes a stage from its tensors, and sets new values of them.

mod experts;
mod rope;

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::packed::{BlockFormat, PackedRows, SharedBytes};
use concord_kernels::{Device, KernelError, Tensor, Weight};

use super::{Stage, StageOptions};
use crate::config::{DecoderConfig, LayerMatrix, Projection, QkNorm, SINKS, Span};
use crate::decoder::attention::{Attention, Sinks};
use crate::decoder::block::Block;
use crate::decoder::dense::{Dense, Widening};
use crate::decoder::embedding::Embedding;
use crate::decoder::feed_forward::FeedForward;
use crate::decoder::gradients::TensorUse;
use crate::decoder::head::OutputHead;
use crate::decoder::linear::dora::{Magnitudes, squared_norms};
use crate::decoder::linear::{Linear, Lora};
use crate::decoder::norm::Norm;
use crate::decoder::qkv::Qkv;
use crate::decoder::source::TensorSource;
use crate::decoder::values::Values;
use crate::error::ModelError;
use crate::peft::Adapter;

impl Stage {
    /// Loads the stage's tensors, and no others, from `source`; trained values come from `values`.
    /// Low-rank factors that `values` lacks are zeros.
    ///
    /// On the host, loading never takes more memory than the stage and a slice of one matrix. A
    /// matrix that becomes codes is coded slice by slice, with the same bits, since no row's code
    /// depends on another row; fused experts are read a whole tensor at a time. A matrix that is
    /// not trained, and packed or of 16 bits in `source`, stays as it is there.
    ///
    /// # Errors
    /// [`ModelError`] where a tensor is missing, broken or not finite, a GPU fails, or the model
    /// cannot be cut where the stage begins or ends.
    pub fn load(
        options: StageOptions,
        source: &dyn TensorSource,
        values: &dyn Values,
    ) -> Result<Self, ModelError> {
        if !options.config.has_span(&options.layers) {
            let Span { start, end } = options.layers;
            let reason = format!("a stage from {start} to {end}, where the model has no such cuts");
            return Err(KernelError::DoesNotFit(reason).into());
        }
        let _weights = options.device.account(MemoryPurpose::Weights);
        let loader = Loader {
            options: &options,
            source,
            values,
        };
        let config = &options.config;
        // The largest tensors first: a source without slices needs their f32 while little is held.
        let span = options.layers;
        let embed = match span.is_first() {
            true => Some(loader.embedding(&config.parts().embed_weight())?),
            false => None,
        };
        let head = match span.is_last(config.layers) {
            true => Some(loader.head(embed.as_ref())?),
            false => None,
        };
        let rest = loader.rest()?;
        let blocks = span
            .attention()
            .map(|layer| loader.block(layer))
            .collect::<Result<_, _>>()?;
        let ropes = rope::rope_tables(config, options.positions).into_iter();
        let ropes = ropes.map(|table| options.device.place_rope(table));
        let ropes = ropes.collect::<Result<_, KernelError>>()?;
        Ok(Self {
            ropes,
            embed,
            rest,
            blocks,
            head,
            options,
        })
    }

    /// Takes over the value of one trained tensor, if it belongs to this stage.
    pub(super) fn set(&mut self, name: &str, value: &Tensor) -> Result<(), KernelError> {
        let options = &self.options;
        let device = &options.device;
        if name == options.trained_name(&options.embed_name())
            && let Some(table) = &mut self.embed
        {
            *table = Embedding::Table(device.place(value.clone())?);
        }
        if let Some(head) = &mut self.head {
            if name == head.name {
                let width = value.rows_cols().1;
                head.weight = device
                    .code(value, width, options.precisions.weights)?
                    .into();
            }
            if name == head.bias_name {
                head.bias = Some(device.place(value.clone())?);
            }
            set_norm(&mut head.norm, options, name, value)?;
        }
        if let Some(rest) = &mut self.rest {
            // Experts to cut have matrices of their own.
            for linear in rest.bank.linears_mut() {
                set_linear(linear, options, name, value)?;
            }
        }
        for (layer, block) in options.layers.attention().zip(&mut self.blocks) {
            // A layer of experts has many matrices: others are not looked at.
            if !name.contains(&options.config.in_layer(layer as usize, "")) {
                continue;
            }
            for norm in block.norms_mut() {
                set_norm(norm, options, name, value)?;
            }
            if let Some(sinks) = &mut block.attention.sinks
                && sinks.name == name
            {
                sinks.logits = device.place(value.clone())?;
            }
            for (name, value) in &block.feed.parts(name, value)? {
                for linear in block.linears_mut() {
                    set_linear(linear, options, name, value)?;
                }
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
        norm.weight = Norm::effective(&options.device, norm.kind, value)?;
    } else if norm.bias_name == name {
        norm.bias = Some(options.device.place(value.clone())?);
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
        linear.weight = code(options.precisions.weights)?.into();
    } else if linear.bias_name == name {
        linear.bias = Some(device.place(value.clone())?);
    } else if let Some(lora) = &mut linear.lora {
        if lora.name_a == name {
            lora.a = code(options.precisions.activations)?;
        } else if lora.name_b == name {
            lora.b = code(options.precisions.activations)?;
        } else if let Some(magnitudes) = &mut lora.magnitudes
            && magnitudes.name == name
        {
            magnitudes.trained = value.on_host()?.into_owned();
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
    /// The trained value of a tensor of the model, if there is one.
    fn value(&self, name: &str) -> Option<&Tensor> {
        self.values.value(&self.options.trained_name(name))
    }

    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        match self.value(name) {
            Some(value) => Ok(value.clone()),
            None => self.source.tensor(name),
        }
    }

    fn placed(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.options.device.place(self.tensor(name)?)?)
    }

    fn block(&self, layer: u32) -> Result<Block, ModelError> {
        let config = &self.options.config;
        let parts = config.parts();
        let norm = |part: Option<&str>| {
            let part = part.map(|part| self.norm(&named(config, layer, part)));
            part.transpose()
        };
        Ok(Block {
            attention_in: norm(parts.attention_in)?,
            attention: self.attention(layer)?,
            attention_out: norm(parts.attention_out)?,
            feed_in: norm(parts.feed_in)?,
            feed: self.feed(layer)?,
            feed_out: norm(parts.feed_out)?,
            parallel: config.parallel_residual,
            residual: config.residual_multiplier,
            cut: self.cut_shape(layer, self.options.layers.end),
        })
    }

    fn attention(&self, layer: u32) -> Result<Attention, ModelError> {
        let config = &self.options.config;
        let linear = |projection| self.linear(layer, projection);
        let shape = config.attention_shape(layer as usize);
        let qkv = match config.fused_qkv {
            None => Qkv::Apart(Box::new([
                linear(Projection::Q)?,
                linear(Projection::K)?,
                linear(Projection::V)?,
            ])),
            Some(layout) => {
                let columns = Qkv::columns(layout, &shape);
                Qkv::Fused(Box::new(linear(Projection::Qkv)?), columns)
            }
        };
        let norm = |part: &str| self.norm(&named(config, layer, part));
        Ok(Attention {
            qkv,
            o: linear(Projection::O)?,
            qk_norm: match config.qk_norm {
                Some(_) => Some((norm(QkNorm::Q_NAME)?, norm(QkNorm::K_NAME)?)),
                None => None,
            },
            rope: config.rope_of(layer as usize),
            sinks: self.sinks(layer)?,
            shape,
        })
    }

    fn sinks(&self, layer: u32) -> Result<Option<Sinks>, ModelError> {
        let config = &self.options.config;
        if !config.sinks {
            return Ok(None);
        }
        let name = named(config, layer, SINKS);
        Ok(Some(Sinks {
            logits: self.placed(&name)?,
            name,
            trains: self.options.trains_all,
        }))
    }

    fn feed(&self, layer: u32) -> Result<FeedForward, ModelError> {
        let config = &self.options.config;
        match config.experts_of(layer as usize) {
            None => Ok(FeedForward::Dense(Box::new(self.dense(layer)?))),
            Some(shape) => {
                let experts = self.experts(layer as usize, shape)?;
                Ok(FeedForward::Experts(Box::new(experts)))
            }
        }
    }

    fn dense(&self, layer: u32) -> Result<Dense, ModelError> {
        let config = &self.options.config;
        let linear = |projection| self.linear(layer, projection);
        let widening = match (config.gated, config.fused_gate_up) {
            (true, false) => Widening::Gated(Box::new([
                linear(Projection::Gate)?,
                linear(Projection::Up)?,
            ])),
            (true, true) => Widening::Fused(Box::new(linear(Projection::GateUp)?)),
            (false, _) => Widening::Plain(Box::new(linear(Projection::Up)?)),
        };
        Ok(Dense {
            widening,
            down: linear(Projection::Down)?,
            activation: config.activation,
        })
    }

    fn norm(&self, module: &str) -> Result<Norm, ModelError> {
        let config = &self.options.config;
        let (name, bias_name) = (format!("{module}.weight"), format!("{module}.bias"));
        let device = &self.options.device;
        let weight = Norm::effective(device, config.norm, &self.tensor(&name)?)?;
        Ok(Norm {
            kind: config.norm,
            weight,
            bias: match config.norm.has_bias() {
                true => Some(self.placed(&bias_name)?),
                false => None,
            },
            eps: config.norm_eps,
            trains: self.options.trains(&name),
            name: self.options.trained_name(&name),
            bias_name: self.options.trained_name(&bias_name),
        })
    }

    fn linear(&self, layer: u32, projection: Projection) -> Result<Linear, ModelError> {
        let config = &self.options.config;
        self.matrix(&config.matrix(layer as usize, projection))
    }

    fn matrix(&self, matrix: &LayerMatrix) -> Result<Linear, ModelError> {
        let module = &matrix.module;
        let (name, bias_name) = (format!("{module}.weight"), format!("{module}.bias"));
        let bias = match matrix.bias {
            true => Some(self.placed(&bias_name)?),
            false => None,
        };
        let mut linear = Linear {
            weight: self.weight(&name)?,
            bias,
            lora: self.lora(matrix)?,
            trains_weight: self.options.trains(&name),
            name: self.options.trained_name(&name),
            bias_name: self.options.trained_name(&bias_name),
        };
        linear.measure(&self.options.device, self.options.precisions.activations)?;
        Ok(linear)
    }

    fn lora(&self, matrix: &LayerMatrix) -> Result<Option<Lora>, ModelError> {
        let spec = self.options.lora.as_ref();
        let Some(update) = spec.and_then(|spec| spec.of(matrix)) else {
            return Ok(None);
        };
        let [out, input] = matrix.shape;
        let rank = update.rank as usize;
        let [name_a, name_b] = Adapter::keys(&matrix.module);
        let (device, precision) = (&self.options.device, self.options.precisions.activations);
        let factor = |name: &str, shape: [usize; 2]| match self.values.value(name) {
            Some(value) => device.code(value, shape[1], precision),
            None => device.code(&Tensor::zeros(&shape), shape[1], precision),
        };
        let is_decomposed = spec.is_some_and(|spec| spec.use_dora);
        Ok(Some(Lora {
            magnitudes: match is_decomposed {
                true => Some(Box::new(self.magnitudes(&matrix.module)?)),
                false => None,
            },
            a: factor(&name_a, [rank, input])?,
            b: factor(&name_b, [out, rank])?,
            scale: update.scale(),
            name_a,
            name_b,
        }))
    }

    fn magnitudes(&self, module: &str) -> Result<Magnitudes, ModelError> {
        let name = Adapter::magnitude_key(module);
        let squares = squared_norms(self.source, &format!("{module}.weight"))?;
        let value = self.values.value(&name);
        Ok(Magnitudes::new(name, squares, value)?)
    }

    /// The head. Where it is tied, its codes are made from the embedding, if the stage holds that.
    fn head(&self, embed: Option<&Embedding>) -> Result<OutputHead, ModelError> {
        let config = &self.options.config;
        let (tied, parts) = (config.tie_embeddings, config.parts());
        let name = match tied {
            true => parts.embed_weight(),
            false => parts.head_weight(),
        };
        let weight = match embed.filter(|_| tied) {
            Some(Embedding::Table(table)) => self.code(table)?.into(),
            Some(Embedding::Packed(packed)) => packed.clone().into(),
            None => self.weight(&name)?,
        };
        Ok(OutputHead {
            norm: self.norm(parts.final_norm)?,
            weight,
            bias: match config.head_bias {
                true => Some(self.placed(&parts.head_bias())?),
                false => None,
            },
            bias_name: self.options.trained_name(&parts.head_bias()),
            trains: self.options.trains(&name),
            name: self.options.trained_name(&name),
            multiplier: config.logit_multiplier,
            soft_cap: config.logit_soft_cap,
            end: if tied {
                TensorUse::TiedHead
            } else {
                TensorUse::Own
            },
        })
    }

    fn embedding(&self, name: &str) -> Result<Embedding, ModelError> {
        Ok(match self.packed(name)? {
            Some(packed) => Embedding::Packed(packed),
            None => Embedding::Table(self.placed(name)?),
        })
    }

    /// A matrix that multiplies activations: packed, or as codes.
    fn weight(&self, name: &str) -> Result<Weight, ModelError> {
        Ok(match self.packed(name)? {
            Some(packed) => packed.into(),
            None => self.coded(name)?.into(),
        })
    }

    /// The matrix as it is packed in its source, if it can stay so: on the host, where it is not
    /// trained. A GPU gets codes of every matrix.
    fn packed(&self, name: &str) -> Result<Option<PackedRows>, ModelError> {
        let options = self.options;
        let is_frozen = !options.trains(name) && self.value(name).is_none();
        if !is_frozen || matches!(options.device, Device::Cuda(_)) {
            return Ok(None);
        }
        // f32 takes twice the bytes of codes, so such a matrix is coded.
        let blocks = self.source.blocks(name)?;
        let Some(blocks) = blocks.filter(|blocks| blocks.format != BlockFormat::F32) else {
            return Ok(None);
        };
        let Some(bytes) = SharedBytes::new(blocks.owner, blocks.range) else {
            return Ok(None);
        };
        let (shape, precision) = ([blocks.rows, blocks.cols], options.precisions.weights);
        let packed = options
            .device
            .packed_rows(blocks.format, shape, bytes, precision)?;
        if let Err(error) = packed.check_finite(name) {
            // Reading the rows gives the source's error, which also names the file.
            self.source.rows(name, &mut |_, _| Ok(()))?;
            return Err(error.into());
        }
        Ok(Some(packed))
    }

    /// The codes of a matrix.
    fn coded(&self, name: &str) -> Result<Coded, ModelError> {
        if let Some(value) = self.value(name) {
            return Ok(self.code(value)?);
        }
        if matches!(self.options.device, Device::Cuda(_)) {
            // The codes of slices could only be joined on the host.
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

/// The module `part` of a layer.
fn named(config: &DecoderConfig, layer: u32, part: &str) -> String {
    format!("{}.{layer}.{part}", config.parts().layers)
}
