//! What makes a step of training differ from the model as it is served: dropout, noise, and terms
//! of the loss. All random numbers are functions of the seed of the job, the step, the tensor, the
//! document's tokens, the position and the column: so neither cuts, batches nor packing change one.

use concord_kernels::coded::Coded;
use concord_kernels::ops::{Dropout, Lengths, LossForm, RandomRows};
use concord_kernels::{Device, Ids, KernelError, Tensor};

use crate::config::DecoderConfig;

/// Domains of the keys: a document's and a tensor's.
const DOCUMENT: &str = "concord 1 random numbers of training: document";
const TENSOR: &str = "concord 1 random numbers of training: tensor";

/// The name under which noise on embeddings is drawn.
const NOISE: &str = "embedding noise";

/// How a batch is regularised. By default it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepRegularization {
    /// The share of the inputs of low-rank updates that is dropped, to 1/65,536.
    pub lora_dropout: f32,
    /// NEFTune's alpha: embeddings get noise in `+-alpha / sqrt(tokens of the document * hidden)`.
    pub embedding_noise: f32,
    /// The share of each target that is spread over the vocabulary.
    pub label_smoothing: f32,
    /// The factor on the squared log-sum-exp of the logits that is added to the loss.
    pub z_loss: f32,
    /// The seed of the job.
    pub seed: u64,
    /// The step.
    pub step: u32,
}

impl StepRegularization {
    /// The loss.
    pub(super) fn loss(&self) -> LossForm {
        LossForm {
            smoothing: self.label_smoothing,
            z_loss: self.z_loss,
        }
    }

    /// Of 65,536 inputs of a low-rank update so many are dropped.
    pub fn dropped(&self) -> u16 {
        (f64::from(self.lora_dropout) * 65_536.0).round() as u16
    }

    /// What the random numbers of a tensor are drawn under.
    fn key(&self, name: &str) -> u64 {
        let parts: [&[u8]; 3] = [
            &self.seed.to_le_bytes(),
            &self.step.to_le_bytes(),
            name.as_bytes(),
        ];
        first_word(blake3::derive_key(TENSOR, &parts.concat()))
    }
}

fn first_word(key: [u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The random numbers of a batch.
#[derive(Clone, Debug)]
pub(super) struct BatchRandom {
    of: StepRegularization,
    /// `[m, 3]`, as [`RandomRows`] takes them.
    tokens: Ids,
}

impl BatchRandom {
    /// Those of the tokens of these documents; `None` where nothing is drawn.
    pub(super) fn new(
        device: &Device,
        of: StepRegularization,
        documents: &Lengths,
        ids: &[u32],
    ) -> Result<Option<Self>, KernelError> {
        if of.dropped() == 0 && of.embedding_noise == 0.0 {
            return Ok(None);
        }
        let mut tokens = Vec::with_capacity(3 * ids.len());
        for range in documents.ranges() {
            let bytes = ids[range].iter().flat_map(|id| id.to_le_bytes());
            let bytes: Vec<u8> = bytes.collect();
            let document = first_word(blake3::derive_key(DOCUMENT, &bytes));
            let (low, high) = (document as u32, (document >> 32) as u32);
            let positions = 0..(bytes.len() / 4) as u32;
            tokens.extend(positions.flat_map(|position| [position, low, high]));
        }
        let tokens = device.ids(&tokens)?;
        Ok(Some(Self { of, tokens }))
    }

    /// What low-rank updates drop.
    pub(super) fn drops(&self) -> Option<Drops<'_>> {
        let draws = self.of.dropped() > 0;
        draws.then_some(Drops {
            random: self,
            rows: None,
        })
    }

    /// Adds noise to embeddings x `[m, d]`.
    pub(super) fn add_noise(
        &self,
        device: &Device,
        config: &DecoderConfig,
        documents: &Lengths,
        x: &mut Tensor,
    ) -> Result<(), KernelError> {
        if self.of.embedding_noise == 0.0 {
            return Ok(());
        }
        let alpha = f64::from(self.of.embedding_noise) * config.noise_multiplier();
        let mut reach = Vec::with_capacity(x.rows_cols().0);
        for range in documents.ranges() {
            let elements = (range.len() * config.hidden) as f64;
            let of_each = (alpha / elements.sqrt()) as f32;
            reach.extend(range.map(|_| of_each));
        }
        let reach = device.place(Tensor::new(&[reach.len()], reach)?)?;
        device.add_noise(x, self.of.key(NOISE), &self.tokens, &reach)
    }
}

/// What is dropped of the rows of some tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops<'a> {
    random: &'a BatchRandom,
    /// The token of each row, where only some tokens have one, as in an expert.
    rows: Option<&'a Ids>,
}

impl<'a> Drops<'a> {
    /// Those of the rows of these tokens.
    pub(super) fn of_rows(self, rows: &'a Ids) -> Self {
        Self {
            rows: Some(rows),
            ..self
        }
    }

    fn rows(&self) -> RandomRows<'a> {
        RandomRows {
            tokens: &self.random.tokens,
            rows: self.rows,
        }
    }

    fn dropout(&self, name: &str) -> Dropout {
        Dropout {
            key: self.random.of.key(name),
            threshold: self.random.of.dropped(),
        }
    }

    /// The codes of the input of the low-rank update whose first factor is `name`.
    pub(super) fn codes(
        &self,
        device: &Device,
        x: &Coded,
        name: &str,
    ) -> Result<Coded, KernelError> {
        device.dropped(x, self.dropout(name), self.rows())
    }

    /// The same, of the gradient of that input.
    pub(super) fn assign(
        &self,
        device: &Device,
        dx: &mut Tensor,
        name: &str,
    ) -> Result<(), KernelError> {
        device.drop_assign(dx, self.dropout(name), self.rows())
    }

    /// The factor of an update, so that its mean over all draws is that without dropout.
    pub(super) fn scale(&self, scale: f32) -> f32 {
        let kept = 65_536.0 - f32::from(self.random.of.dropped());
        scale * 65_536.0 / kept
    }
}
