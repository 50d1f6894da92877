//! A run of layers `[start, end)` of the decoder, with the embedding before the first layer and the
//! head after the last.

mod load;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::Atoms;
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, KernelError, Tensor};

use super::block::{Block, BlockTape, Pass};
use super::cache::KvCache;
use super::gradients::{End, Gradients};
use super::head::{Head, HeadLoss};
use super::linear::{Backward, LoraSpec};
use crate::config::DecoderConfig;

/// Bits of the operands of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precisions {
    /// Weights of the model.
    pub weights: Precision,
    /// Activations, gradients and low-rank factors.
    pub activations: Precision,
}

/// What a stage is made of, beyond the tensors.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// Where it computes.
    pub device: Device,
    /// The model.
    pub config: Arc<DecoderConfig>,
    /// Its layers.
    pub layers: Range<u32>,
    /// Bits of operands.
    pub precisions: Precisions,
    /// Low-rank updates, if any.
    pub lora: Option<LoraSpec>,
    /// Whether every tensor of the stage is trained.
    pub trains_all: bool,
    /// Positions that will be needed: the length of the rotary table.
    pub positions: usize,
}

/// A stage.
#[derive(Debug)]
pub struct Stage {
    options: StageOptions,
    rope: RopeTable,
    embed: Option<Tensor>, // [v, d]
    blocks: Vec<Block>,
    head: Option<Head>,
}

/// The tokens of a microbatch: sequences of one length, each from position 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub sequence_len: usize,
    /// Token ids, `[sequences * sequence_len]`.
    pub tokens: Vec<u32>,
    /// What each position is to predict.
    pub targets: Vec<Option<u32>>,
}

/// What enters a stage.
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
}

impl Stage {
    /// The options that the stage was made with.
    pub fn options(&self) -> &StageOptions {
        &self.options
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
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.blocks.len())
    }

    /// Hidden states after the stage's layers, `[m, d]`, and the tape for [`Self::backward`].
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the hidden states overflow.
    pub fn forward(
        &self,
        batch: &Batch,
        input: StageInput,
    ) -> Result<(Tensor, StageTape), KernelError> {
        let positions: Vec<u32> = (0..batch.sequences)
            .flat_map(|_| 0..batch.sequence_len as u32)
            .collect();
        let pass = self.pass(Atoms::new(batch.sequences, batch.sequence_len), &positions);
        let mut x = self.enter(&batch.tokens, input);
        let mut tape = StageTape {
            blocks: Vec::with_capacity(self.blocks.len()),
        };
        for block in &self.blocks {
            let (y, block_tape) = block.forward(&pass, x, None);
            tape.blocks.push(block_tape);
            x = y;
        }
        x.canonicalise("hidden states")?;
        Ok((x, tape))
    }

    /// Hidden states of new tokens of one sequence, which follow those in `cache`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the hidden states overflow.
    pub fn extend(
        &self,
        cache: &mut KvCache,
        tokens: &[u32],
        input: StageInput,
    ) -> Result<Tensor, KernelError> {
        let first = cache.tokens() as u32;
        let mut x = self.enter(tokens, input);
        let count = x.rows_cols().0;
        let positions: Vec<u32> = (first..first + count as u32).collect();
        let pass = self.pass(Atoms::new(1, count), &positions);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&pass, x, Some((layer, cache))).0;
        }
        cache.advance(count);
        x.canonicalise("hidden states")?;
        Ok(x)
    }

    fn enter(&self, tokens: &[u32], input: StageInput) -> Tensor {
        match (input, &self.embed) {
            (StageInput::Tokens, Some(table)) => self.options.device.embedding(table, tokens),
            (StageInput::Hidden(hidden), _) => hidden,
            (StageInput::Tokens, None) => panic!("only the first stage takes tokens"),
        }
    }

    fn pass<'a>(&'a self, atoms: Atoms, positions: &'a [u32]) -> Pass<'a> {
        Pass {
            device: &self.options.device,
            rope: &self.rope,
            positions,
            atoms,
            precision: self.options.precisions.activations,
        }
    }

    /// Logits `[m, v]` of hidden states `[m, d]`.
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let head = self.head.as_ref().expect("only the last stage has logits");
        head.logits(
            &self.options.device,
            hidden,
            self.options.precisions.activations,
        )
    }

    /// The loss of a microbatch, and the gradients of the head where it is trained.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where loss or gradient overflow.
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
        let atoms = Atoms::new(batch.sequences, batch.sequence_len);
        let mut loss = head.loss(&mut self.run(&atoms, gradients), hidden, &batch.targets);
        Tensor::new(&[1], vec![loss.sum])?.check_finite("loss")?;
        loss.d_hidden.canonicalise("gradient of the loss")?;
        Ok(loss)
    }

    fn run<'a>(&'a self, atoms: &'a Atoms, gradients: &'a mut Gradients) -> Backward<'a> {
        let precision = self.options.precisions.activations;
        Backward {
            device: &self.options.device,
            atoms,
            precision,
            gradients,
        }
    }

    /// From the gradient of the stage's output to the gradients of what it trains; and the
    /// gradient of its input `[m, d]`, but for the first stage.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a gradient overflows, naming it.
    pub fn backward(
        &self,
        batch: &Batch,
        tape: &StageTape,
        d_output: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>, KernelError> {
        let positions: Vec<u32> = (0..batch.sequences)
            .flat_map(|_| 0..batch.sequence_len as u32)
            .collect();
        let atoms = Atoms::new(batch.sequences, batch.sequence_len);
        let pass = self.pass(atoms, &positions);
        let below = !self.is_first() || self.options.trains_all;
        let mut dy = Some(d_output);
        for (index, (block, tape)) in self.blocks.iter().zip(&tape.blocks).enumerate().rev() {
            let wants_dx = index > 0 || below;
            let Some(d_block) = dy else { break };
            dy = block.backward(
                &pass,
                &mut self.run(&atoms, gradients),
                tape,
                &d_block,
                wants_dx,
            );
        }
        if let (Some(d_embedded), Some(table)) = (&dy, &self.embed) {
            let vocab = table.rows_cols().0;
            let device = &self.options.device;
            let gradient = device.embedding_gradient(d_embedded, &batch.tokens, vocab);
            let tied = self.options.config.tie_embeddings;
            let end = if tied { End::TiedEmbed } else { End::Own };
            gradients.insert(load::EMBED, end, gradient);
            dy = None;
        }
        for (key, gradient) in &mut gradients.0 {
            gradient.canonicalise(&format!("gradient of {}", key.name))?;
        }
        if let Some(dx) = &mut dy {
            dx.canonicalise("gradient of the hidden states")?;
        }
        Ok(dy)
    }

    /// Takes over new values of trained tensors, by name. Tensors of other stages are passed over.
    pub fn refresh(&mut self, values: &BTreeMap<String, Tensor>) {
        for (name, value) in values {
            self.set(name, value);
        }
    }
}
