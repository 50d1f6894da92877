//! The interface between a layer and the pass in which it is computed. A layer is written once;
//! only products and attention differ between a microbatch, a cache, and pages of many sequences.

use std::ops::Range;

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::{AttentionCodes, AttentionOut, AttentionShape, Lengths};
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, Ids, KernelError, Tensor};

use super::cache::KvCache;
use super::linear::{Linear, LinearTape};
use super::random::Drops;

/// What all layers of a stage share in one pass.
#[derive(Clone, Copy)]
pub(super) struct PassContext<'a> {
    pub(super) device: &'a Device,
    /// The rotary tables of the stage.
    pub(super) ropes: &'a [RopeTable],
    /// The position of every token.
    pub(super) positions: &'a Ids,
    pub(super) precision: Precision,
    /// Bits of the codes of keys and values.
    pub(super) key_values: Precision,
    /// What low-rank updates drop of their inputs, in training.
    pub(super) drops: Option<Drops<'a>>,
    /// Whether it was computed before: then nothing is counted.
    pub(super) is_again: bool,
}

/// The result of attention.
#[derive(Debug)]
pub(super) enum Attended {
    /// With what the backward pass needs.
    Taped(Box<AttentionTape>),
    /// `[m, q]`, without a tape: keys and values are in a cache or in pages.
    Plain(Tensor),
}

/// The attention of all sequences of a microbatch.
#[derive(Debug)]
pub(super) struct AttentionTape {
    pub(super) codes: AttentionCodes,
    pub(super) out: AttentionOut,
    /// No token sees one of another.
    pub(super) documents: Lengths,
}

impl Attended {
    /// The result `[m, q]`.
    pub(super) fn out(&self) -> &Tensor {
        match self {
            Self::Taped(tape) => &tape.out.out,
            Self::Plain(out) => out,
        }
    }

    /// # Panics
    /// Where keys and values are in a cache or in pages: what is served has no backward pass.
    pub(super) fn tape(&self) -> &AttentionTape {
        match self {
            Self::Taped(tape) => tape,
            Self::Plain(_) => panic!("what is served has no backward pass"),
        }
    }
}

/// The rows of the `count` tokens from `first` on, given `(first, count)`.
pub(super) type PlaceOfTokens<'a> = dyn Fn(usize, usize) -> Range<usize> + 'a;

/// Where only some tokens have a row.
pub(super) struct SomeRows<'a> {
    pub(super) place: &'a PlaceOfTokens<'a>,
    /// The token of each row.
    pub(super) tokens: &'a Ids,
}

/// How the layers of one pass multiply and attend.
pub(super) trait LayerPass {
    fn context(&self) -> PassContext<'_>;

    /// y `[m, out]` from the codes of x `[m, in]`.
    fn linear(&self, linear: &Linear, x: &Coded) -> Result<(Tensor, LinearTape), KernelError>;

    /// As [`Self::linear`], for x `[n, in]` of some of the tokens.
    fn linear_of_rows(
        &self,
        linear: &Linear,
        x: &Coded,
        _rows: &SomeRows<'_>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        self.linear(linear, x)
    }

    /// Attention of q `[m, q]` over k and v `[m, k]` and the keys and values before them, with the
    /// logits of sinks where there are any.
    fn attend(
        &mut self,
        how: (&AttentionShape, Option<&Tensor>),
        qkv: [&Tensor; 3],
    ) -> Result<Attended, KernelError>;
}

/// A microbatch: each document on its own, from position 0.
pub(super) struct MicrobatchPass<'a> {
    pub(super) context: PassContext<'a>,
    /// Attention sees no token of another.
    pub(super) documents: &'a Lengths,
}

impl LayerPass for MicrobatchPass<'_> {
    fn context(&self) -> PassContext<'_> {
        self.context
    }

    fn linear(&self, linear: &Linear, x: &Coded) -> Result<(Tensor, LinearTape), KernelError> {
        let context = &self.context;
        linear.forward(context.device, x, context.precision, context.drops)
    }

    fn linear_of_rows(
        &self,
        linear: &Linear,
        x: &Coded,
        rows: &SomeRows<'_>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        let context = &self.context;
        let drops = context.drops.map(|drops| drops.of_rows(rows.tokens));
        linear.forward(context.device, x, context.precision, drops)
    }

    fn attend(
        &mut self,
        (shape, sinks): (&AttentionShape, Option<&Tensor>),
        [q, k, v]: [&Tensor; 3],
    ) -> Result<Attended, KernelError> {
        let PassContext {
            device,
            precision: p,
            key_values,
            ..
        } = self.context;
        let codes = device.attention_codes(q, k, v, shape, p, key_values)?;
        let out = device.attention(&codes, self.documents, shape, sinks, p)?;
        Ok(Attended::Taped(Box::new(AttentionTape {
            codes,
            out,
            documents: self.documents.clone(),
        })))
    }
}

/// New tokens of one sequence, after those in a cache.
pub(super) struct CachePass<'a> {
    pub(super) context: PassContext<'a>,
    /// The layer's index in the stage.
    pub(super) layer: usize,
    pub(super) cache: &'a mut KvCache,
}

impl LayerPass for CachePass<'_> {
    fn context(&self) -> PassContext<'_> {
        self.context
    }

    fn linear(&self, linear: &Linear, x: &Coded) -> Result<(Tensor, LinearTape), KernelError> {
        linear.forward(self.context.device, x, self.context.precision, None)
    }

    fn attend(
        &mut self,
        (shape, sinks): (&AttentionShape, Option<&Tensor>),
        [q, k, v]: [&Tensor; 3],
    ) -> Result<Attended, KernelError> {
        let PassContext {
            device,
            precision: p,
            key_values,
            ..
        } = self.context;
        let codes = device.attention_codes(q, k, v, shape, p, key_values)?;
        let first = self.cache.tokens();
        let keys = self.cache.layer(self.layer);
        {
            let _cached = device.account(MemoryPurpose::KeyValues);
            device.append_keys(keys, &codes.kv)?;
        }
        let queries = &codes.queries;
        let out = device.attention_cached(queries, keys, first, shape, sinks, p)?;
        Ok(Attended::Plain(out))
    }
}
