//! A run of layers `[start, end)` of the decoder, with the embedding before the first layer and the
//! head after the last.

mod load;

use std::ops::Range;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::Atoms;
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, Ids, KernelError, Tensor};

use super::block::{Block, BlockTape};
use super::cache::KvCache;
use super::embedding::Embedding;
use super::gradients::{Gradients, TensorUse};
use super::head::{HeadLoss, OutputHead};
use super::linear::{Backward, LoraSpec};
use super::pass::{CachePass, MicrobatchPass, PassContext};
use super::values::Values;
use crate::config::DecoderConfig;

/// Bits of the operands of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precisions {
    /// Weights of the model.
    pub weights: Precision,
    /// Activations, gradients and low-rank factors.
    pub activations: Precision,
}

/// The options of a stage, besides its tensors.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// Where it computes.
    pub device: Device,
    /// The model.
    pub config: Arc<DecoderConfig>,
    /// The layers `[start, end)` of the model that the stage holds.
    pub layers: Range<u32>,
    /// Bits of operands.
    pub precisions: Precisions,
    /// Low-rank updates, if any.
    pub lora: Option<LoraSpec>,
    /// Whether every tensor of the stage is trained.
    pub trains_all: bool,
    /// The declared longest length, which is the length of the rotary tables.
    pub positions: usize,
}

/// A run of layers on a device, with the embedding where it has the first layer, and the head where
/// it has the last.
#[derive(Debug)]
pub struct Stage {
    pub(super) options: StageOptions,
    pub(super) ropes: Vec<RopeTable>,
    pub(super) embed: Option<Embedding>, // [v, d]
    pub(super) blocks: Vec<Block>,
    head: Option<OutputHead>,
}

/// The tokens of a microbatch: sequences of one length, each from position 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub sequence_len: usize,
    /// Token ids, `[sequences * sequence_len]`.
    pub tokens: Vec<u32>,
    /// The token that each position predicts; `None` where the loss does not count it.
    pub targets: Vec<Option<u32>>,
}

/// The input of a stage.
#[derive(Debug)]
pub enum StageInput {
    /// The first stage takes the tokens of the batch.
    Tokens,
    /// Others take hidden states `[m, d]`.
    Hidden(Tensor),
}

/// What the backward pass of a stage needs.
#[derive(Debug)]
pub struct StageTape {
    blocks: Vec<BlockTape>,
    positions: Ids,
    /// Only on the first stage.
    tokens: Option<Ids>,
}

impl Stage {
    /// The options that the stage was made with.
    pub fn options(&self) -> &StageOptions {
        &self.options
    }

    /// How many tokens each expert has computed since the stage was loaded, as (index of the layer
    /// in the model, count by expert). Layers without experts are left out.
    pub fn expert_loads(&self) -> Vec<(u32, Vec<u64>)> {
        let layers = self.options.layers.clone().zip(&self.blocks);
        let loads = layers.filter_map(|(layer, block)| {
            let experts = block.feed.experts()?;
            Some((layer, experts.loads.read()))
        });
        loads.collect()
    }

    /// Whether it holds the embedding.
    pub fn is_first(&self) -> bool {
        self.embed.is_some()
    }

    /// Whether it holds the head.
    pub fn is_last(&self) -> bool {
        self.head.is_some()
    }

    /// An empty cache for one sequence.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn cache(&self) -> Result<KvCache, KernelError> {
        let device = &self.options.device;
        let precision = self.options.precisions.activations;
        let _cached = device.account(MemoryPurpose::KeyValues);
        let empty = |block: &Block| device.new_keys(&block.attention.shape, precision);
        let layers: Result<_, KernelError> = self.blocks.iter().map(empty).collect();
        Ok(KvCache::new(layers?))
    }

    /// Hidden states after the stage's layers, `[m, d]`, and the tape for [`Self::backward`].
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the hidden states overflow; [`KernelError::Cuda`] where a
    /// GPU fails.
    pub fn forward(
        &self,
        batch: &Batch,
        input: StageInput,
    ) -> Result<(Tensor, StageTape), KernelError> {
        let device = &self.options.device;
        let _activations = device.account(MemoryPurpose::Activations);
        let positions: Vec<u32> = (0..batch.sequences)
            .flat_map(|_| 0..batch.sequence_len as u32)
            .collect();
        let positions = device.ids(&positions)?;
        let (mut x, tokens) = self.enter(&batch.tokens, input)?;
        let mut pass = MicrobatchPass {
            context: self.context(&positions),
            sequences: batch.sequences,
        };
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, tape) = block.forward(&mut pass, x)?;
            blocks.push(tape);
            x = y;
        }
        device.canonicalise(&mut [("hidden states", &mut x)])?;
        let tape = StageTape {
            blocks,
            positions,
            tokens,
        };
        Ok((x, tape))
    }

    /// Hidden states of new tokens of one sequence, after those in `cache`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the hidden states overflow; [`KernelError::Cuda`] where a
    /// GPU fails.
    pub fn extend(
        &self,
        cache: &mut KvCache,
        tokens: &[u32],
        input: StageInput,
    ) -> Result<Tensor, KernelError> {
        let device = &self.options.device;
        let _activations = device.account(MemoryPurpose::Activations);
        let first = cache.tokens() as u32;
        let (mut x, _) = self.enter(tokens, input)?;
        let count = x.rows_cols().0;
        let positions: Vec<u32> = (first..first + count as u32).collect();
        let positions = device.ids(&positions)?;
        let mut pass = CachePass {
            context: self.context(&positions),
            layer: 0,
            cache,
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.layer = layer;
            x = block.forward(&mut pass, x)?.0;
        }
        cache.advance(count);
        device.canonicalise(&mut [("hidden states", &mut x)])?;
        Ok(x)
    }

    /// The input of the stage's first layer; on the first stage, also the tokens.
    fn enter(
        &self,
        tokens: &[u32],
        input: StageInput,
    ) -> Result<(Tensor, Option<Ids>), KernelError> {
        let device = &self.options.device;
        match (input, &self.embed) {
            (StageInput::Tokens, Some(table)) => {
                let tokens = device.ids(tokens)?;
                Ok((self.embedded(table, &tokens)?, Some(tokens)))
            }
            (StageInput::Hidden(hidden), _) => Ok((device.place(hidden)?, None)),
            (StageInput::Tokens, None) => panic!("only the first stage takes tokens"),
        }
    }

    /// The embeddings of `tokens`, as they enter the first layer.
    pub(super) fn embedded(&self, table: &Embedding, tokens: &Ids) -> Result<Tensor, KernelError> {
        let device = &self.options.device;
        let x = table.of(device, tokens)?;
        match self.options.config.embedding_multiplier {
            Some(factor) => device.scaled(&x, factor),
            None => Ok(x),
        }
    }

    pub(super) fn context<'a>(&'a self, positions: &'a Ids) -> PassContext<'a> {
        PassContext {
            device: &self.options.device,
            ropes: &self.ropes,
            positions,
            precision: self.options.precisions.activations,
        }
    }

    /// Logits `[m, v]` of hidden states `[m, d]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, KernelError> {
        let head = self.head.as_ref().expect("only the last stage has logits");
        let device = &self.options.device;
        let precision = self.options.precisions.activations;
        device.on_its_threads(|| {
            let _activations = device.account(MemoryPurpose::Activations);
            head.logits(device, hidden, precision)
        })
    }

    /// The loss of a microbatch, and the gradients of the head where it is trained.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where loss or gradient overflow; [`KernelError::Cuda`] where a
    /// GPU fails.
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn loss(
        &self,
        batch: &Batch,
        hidden: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<HeadLoss, KernelError> {
        let head = self.head.as_ref().expect("only the last stage has a loss");
        let device = &self.options.device;
        let _gradients = device.account(MemoryPurpose::Gradients);
        let targets = device.targets(&batch.targets)?;
        let atoms = Atoms::new(batch.sequences, batch.sequence_len);
        let mut loss = head.loss(&mut self.run(&atoms, gradients), hidden, &targets)?;
        Tensor::new(&[1], vec![loss.sum])?.check_finite("loss")?;
        device.canonicalise(&mut [("gradient of the loss", &mut loss.d_hidden)])?;
        Ok(loss)
    }

    fn run<'a>(&'a self, atoms: &'a Atoms, gradients: &'a mut Gradients) -> Backward<'a> {
        let precision = self.options.precisions.activations;
        Backward {
            device: &self.options.device,
            atoms,
            rows: None,
            precision,
            gradients,
        }
    }

    /// Computes, from the gradient of the stage's output, the gradients of what it trains and,
    /// except on the first stage, the gradient of its input `[m, d]`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a gradient overflows, naming it; [`KernelError::Cuda`]
    /// where a GPU fails.
    pub fn backward(
        &self,
        batch: &Batch,
        tape: &StageTape,
        d_output: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>, KernelError> {
        let device = &self.options.device;
        let _gradients = device.account(MemoryPurpose::Gradients);
        let atoms = Atoms::new(batch.sequences, batch.sequence_len);
        let context = self.context(&tape.positions);
        let below = !self.is_first() || self.options.trains_all;
        let mut dy = Some(device.place(d_output)?);
        for (index, (block, tape)) in self.blocks.iter().zip(&tape.blocks).enumerate().rev() {
            let wants_dx = index > 0 || below;
            let Some(d_block) = dy else { break };
            let mut run = self.run(&atoms, gradients);
            dy = block.backward(&context, &mut run, tape, &d_block, wants_dx)?;
        }
        if let (Some(d_embedded), Some(table), Some(tokens)) = (&dy, &self.embed, &tape.tokens) {
            let vocab = table.vocab();
            let scaled;
            let d_embedded = match self.options.config.embedding_multiplier {
                Some(factor) => {
                    scaled = device.scaled(d_embedded, factor)?;
                    &scaled
                }
                None => d_embedded,
            };
            let gradient = device.embedding_gradient(d_embedded, tokens, vocab)?;
            let tied = self.options.config.tie_embeddings;
            let end = if tied {
                TensorUse::TiedEmbed
            } else {
                TensorUse::Own
            };
            let name = self.options.config.parts().embed_weight();
            gradients.insert(&name, end, gradient);
            dy = None;
        }
        gradients.canonicalise(device)?;
        if let Some(dx) = &mut dy {
            device.canonicalise(&mut [("gradient of the hidden states", dx)])?;
        }
        Ok(dy)
    }

    /// Takes over new values of trained tensors, by name. Tensors of other stages are ignored.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails: the stage then holds some of the new values.
    pub fn refresh(&mut self, values: &dyn Values) -> Result<(), KernelError> {
        let device = self.options.device.clone();
        let _weights = device.account(MemoryPurpose::Weights);
        values
            .all()
            .try_for_each(|(name, value)| self.set(name, value))
    }
}
