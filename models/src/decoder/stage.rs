//! A run of layers of the decoder, with the embedding before the first layer and the head after the
//! last. A layer of experts may be cut between two stages, or more.

mod head_end;
mod load;

use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::{Atoms, Lengths};
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, Ids, KernelError, Tensor};

use super::block::{Block, BlockTape};
use super::cache::KvCache;
use super::embedding::Embedding;
use super::experts::BankTape;
use super::gradients::{Gradients, TensorUse};
use super::head::OutputHead;
use super::layer_rest::LayerRest;
use super::linear::Backward;
use super::pass::{CachePass, MicrobatchPass, PassContext};
use super::random::{BatchRandom, Drops, StepRegularization};
use super::targets::next_tokens;
use super::values::Values;
use crate::config::{DecoderConfig, LoraSpec, Span};
use crate::peft::Adapter;

/// Bits of the operands of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precisions {
    /// Weights of the model.
    pub weights: Precision,
    /// Activations, gradients and low-rank factors.
    pub activations: Precision,
    /// Keys and values. Training takes that of activations.
    pub key_values: Precision,
}

/// The options of a stage, besides its tensors.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// Where it computes.
    pub device: Device,
    /// The model.
    pub config: Arc<DecoderConfig>,
    /// What it holds of the model: layers `(start..end).into()`, or a [`Span`] with cuts.
    pub layers: Span,
    /// Bits of operands.
    pub precisions: Precisions,
    /// Low-rank updates, if any.
    pub lora: Option<LoraSpec>,
    /// Whether every tensor of the stage is trained.
    pub trains_all: bool,
    /// The declared longest length, which is the length of the rotary tables.
    pub positions: usize,
}

impl StageOptions {
    /// Whether a tensor of the model is trained.
    pub(super) fn trains(&self, name: &str) -> bool {
        self.trains_all || self.saves(name)
    }

    /// Whether it is trained whole beside an adapter.
    fn saves(&self, name: &str) -> bool {
        let lora = self.lora.as_ref();
        lora.is_some_and(|lora| lora.saves(name))
    }

    /// The name by which a tensor of the model is trained.
    pub(super) fn trained_name(&self, name: &str) -> String {
        match self.saves(name) {
            true => Adapter::saved_key(name),
            false => name.to_string(),
        }
    }

    /// The embedding's name in the model.
    pub(super) fn embed_name(&self) -> String {
        self.config.parts().embed_weight()
    }
}

/// A run of layers on a device, with the embedding where it has the first layer, and the head where
/// it has the last.
#[derive(Debug)]
pub struct Stage {
    pub(super) options: StageOptions,
    pub(super) ropes: Vec<RopeTable>,
    pub(super) embed: Option<Embedding>, // [v, d]
    /// Where it begins within a layer.
    pub(super) rest: Option<LayerRest>,
    /// The layers whose attention it has.
    pub(super) blocks: Vec<Block>,
    head: Option<OutputHead>,
}

/// The tokens of a microbatch: sequences one after another, each of one or more documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Tokens of each sequence: gradients are summed over one after another.
    pub sequences: Lengths,
    /// Tokens of each document: positions begin at 0 in each, and no token sees one of another.
    pub documents: Lengths,
    /// Token ids of all sequences.
    pub tokens: Vec<u32>,
    /// The token that each position predicts; `None` where the loss does not count it.
    pub targets: Vec<Option<u32>>,
    /// Dropout, noise and terms of the loss: none, unless a step of training sets them.
    pub regularization: StepRegularization,
}

impl Batch {
    /// The batch whose loss counts the tokens with a `mask` of 1. The first token of a document is
    /// predicted from nothing, and never counted.
    pub fn new(sequences: Lengths, documents: Lengths, tokens: Vec<u32>, mask: &[u8]) -> Self {
        Self {
            targets: next_tokens(&documents, &tokens, mask),
            sequences,
            documents,
            tokens,
            regularization: StepRegularization::default(),
        }
    }

    /// Sequences of `len` tokens, each of one document, whose loss counts every token.
    pub fn whole(len: usize, tokens: Vec<u32>) -> Self {
        let sequences = Lengths::uniform(tokens.len() / len, len);
        let mask = vec![1; tokens.len()];
        Self::new(sequences.clone(), sequences, tokens, &mask)
    }
}

/// The input of a stage.
#[derive(Debug)]
pub enum StageInput {
    /// The first stage takes the tokens of the batch.
    Tokens,
    /// Others take hidden states `[m, d]`; or, where they begin within a layer, what comes over
    /// the cut ([`DecoderConfig::cut_widths`]).
    Hidden(Tensor),
}

/// What a forward pass keeps of each layer for the backward pass. No bit depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All that it needs.
    Tapes,
    /// What enters the layer: the backward pass computes the layer again, so the tape of one layer
    /// is there at a time.
    Inputs,
}

/// What the backward pass of a stage needs.
#[derive(Debug)]
pub struct StageTape {
    rest: Option<BankTape>,
    layers: Vec<LayerTape>,
    positions: Ids,
    random: Option<BatchRandom>,
    /// Only on the first stage.
    tokens: Option<Ids>,
}

/// What is kept of a layer.
#[derive(Debug)]
enum LayerTape {
    Whole(Box<BlockTape>),
    /// What enters it, `[m, d]`.
    Input(Tensor),
}

impl StageTape {
    /// What enters each of the layers of which only that is kept, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().filter_map(|layer| match layer {
            LayerTape::Input(input) => Some(input),
            LayerTape::Whole(_) => None,
        })
    }
}

impl Stage {
    /// The options that the stage was made with.
    pub fn options(&self) -> &StageOptions {
        &self.options
    }

    /// How many tokens each expert of each layer has had since the stage was loaded, by the layer's
    /// index in the model: 0 for experts that other stages have. Layers without experts are left
    /// out.
    pub fn expert_loads(&self) -> Vec<(u32, Vec<u64>)> {
        let rest = self.rest.iter().map(|rest| (rest.layer, &rest.bank));
        let layers = self.options.layers.attention().zip(&self.blocks);
        let whole = layers.filter_map(|(layer, block)| {
            let experts = block.feed.experts()?;
            Some((layer, &experts.bank))
        });
        let loads = rest.chain(whole);
        loads
            .map(|(layer, bank)| (layer, bank.loads.read()))
            .collect()
    }

    /// Whether it holds the embedding.
    pub fn is_first(&self) -> bool {
        self.embed.is_some()
    }

    /// Whether it holds the head.
    pub fn is_last(&self) -> bool {
        self.head.is_some()
    }

    /// Columns of what enters the stage, where these are not tokens, and of what leaves it.
    pub fn widths(&self) -> [usize; 2] {
        let StageOptions { config, layers, .. } = &self.options;
        [layers.start, layers.end].map(|cut| config.cut_widths(cut)[0])
    }

    /// Columns of what a stage gets to train, where it gets it: of what enters it forward, and of
    /// the gradient of what leaves it. Within a layer of experts these are not the same.
    pub fn training_widths(&self) -> [usize; 2] {
        let StageOptions { config, layers, .. } = &self.options;
        let [start, end] = [layers.start, layers.end].map(|cut| config.cut_widths(cut));
        [start[0], end[1]]
    }

    /// An empty cache for one sequence.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn cache(&self) -> Result<KvCache, KernelError> {
        let device = &self.options.device;
        let precision = self.options.precisions.key_values;
        let _cached = device.account(MemoryPurpose::KeyValues);
        let empty = |block: &Block| device.new_keys(&block.attention.shape, precision);
        let layers: Result<_, KernelError> = self.blocks.iter().map(empty).collect();
        Ok(KvCache::new(layers?))
    }

    /// Hidden states after the stage's layers, `[m, d]`, or what goes over a cut within the last
    /// of them, and the tape for [`Self::backward`].
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the hidden states overflow; [`KernelError::Cuda`] where a
    /// GPU fails.
    pub fn forward(
        &self,
        batch: &Batch,
        input: StageInput,
    ) -> Result<(Tensor, StageTape), KernelError> {
        self.forward_keeping(batch, input, Keeps::Tapes)
    }

    /// As [`Self::forward`], with a tape of what `keeps` says.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_keeping(
        &self,
        batch: &Batch,
        input: StageInput,
        keeps: Keeps,
    ) -> Result<(Tensor, StageTape), KernelError> {
        let device = &self.options.device;
        let _activations = device.account(MemoryPurpose::Activations);
        let positions = device.ids(&batch.documents.positions())?;
        let (documents, ids) = (&batch.documents, &batch.tokens);
        let random = BatchRandom::new(device, batch.regularization, documents, ids)?;
        let (mut x, tokens) = self.enter(&batch.tokens, input)?;
        if let (Some(random), true) = (&random, self.is_first()) {
            random.add_noise(device, &self.options.config, documents, &mut x)?;
        }
        let mut pass = MicrobatchPass {
            context: PassContext {
                drops: random.as_ref().and_then(BatchRandom::drops),
                ..self.context(&positions)
            },
            documents: &batch.documents,
        };
        let mut rest = None;
        if let Some(of_layer) = &self.rest {
            let (y, tape) = of_layer.forward(&pass, &x)?;
            rest = Some(tape);
            x = y;
        }
        let mut layers = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, tape) = block.forward(&mut pass, x)?;
            layers.push(match keeps {
                Keeps::Tapes => LayerTape::Whole(Box::new(tape)),
                Keeps::Inputs => LayerTape::Input(tape.into_input()),
            });
            x = y;
        }
        device.canonicalise(&mut [("hidden states", &mut x)])?;
        let tape = StageTape {
            rest,
            layers,
            positions,
            random,
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
        if let Some(rest) = &self.rest {
            x = rest.forward(&pass, &x)?.0;
        }
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
            key_values: self.options.precisions.key_values,
            drops: None,
            is_again: false,
        }
    }

    pub(super) fn run<'a>(
        &'a self,
        atoms: &'a Atoms,
        drops: Option<Drops<'a>>,
        gradients: &'a mut Gradients,
    ) -> Backward<'a> {
        let precision = self.options.precisions.activations;
        Backward {
            device: &self.options.device,
            atoms,
            rows: None,
            precision,
            drops,
            gradients,
        }
    }

    /// From the gradient of the stage's output to the gradients of what it trains; and the
    /// gradient of its input `[m, d]`, but for the first stage. Over a cut within a layer goes what
    /// its experts give back.
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
        let atoms = Atoms::of(batch.sequences.clone());
        let drops = tape.random.as_ref().and_then(BatchRandom::drops);
        let mut pass = MicrobatchPass {
            context: PassContext {
                drops,
                is_again: true,
                ..self.context(&tape.positions)
            },
            documents: &batch.documents,
        };
        let below = !self.is_first() || self.options.trains(&self.options.embed_name());
        let mut dy = Some(device.place(d_output)?);
        for (index, (block, kept)) in self.blocks.iter().zip(&tape.layers).enumerate().rev() {
            let wants_dx = index > 0 || below;
            let Some(d_block) = dy else { break };
            let again;
            let tape = match kept {
                LayerTape::Whole(tape) => tape,
                LayerTape::Input(x) => {
                    let _activations = device.account(MemoryPurpose::Activations);
                    again = block.forward(&mut pass, x.clone())?.1;
                    &again
                }
            };
            let mut run = self.run(&atoms, drops, gradients);
            dy = block.backward(&pass.context, &mut run, tape, &d_block, wants_dx)?;
        }
        if let (Some(rest), Some(of_rest)) = (&self.rest, &tape.rest)
            && let Some(d_rest) = dy.take()
        {
            let mut run = self.run(&atoms, drops, gradients);
            dy = Some(rest.backward(&mut run, of_rest, d_rest)?);
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
            let name = self.options.trained_name(&self.options.embed_name());
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
            .try_for_each(|(name, value)| self.set(name, value))?;
        let precision = self.options.precisions.activations;
        let rest = self.rest.iter_mut();
        let rest = rest.flat_map(|rest| rest.bank.linears_mut());
        let blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        let mut linears = rest.chain(blocks);
        linears.try_for_each(|linear| linear.measure(&device, precision))
    }
}
