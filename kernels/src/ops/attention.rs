//! Causal grouped-query attention of the sequences of a microbatch.

use super::keys::KeyValues;
use super::matmul::tensor;
use crate::coded::{Coded, Precision};
use crate::math::LOG2_E;
use crate::reference::attention::{
    AttentionCodes, AttentionGradients, AttentionOut, AttentionShape, BackwardInput, CodedKv,
    SequenceGradients, SequenceOut,
};
use crate::reference::lengths::Lengths;
use crate::reference::tree::Atoms;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Codes q `[tokens, heads * head_dim]`, k and v `[tokens, kv_heads * head_dim]` of a run of
    /// tokens, each head of each token on its own; k and v with the bits of `key_values`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn attention_codes(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
        precision: Precision,
        key_values: Precision,
    ) -> Result<AttentionCodes, KernelError> {
        let scaled = self.scaled(q, shape.scale * LOG2_E)?;
        Ok(AttentionCodes {
            queries: self.code(&scaled, shape.head_dim, precision)?,
            kv: CodedKv {
                k: self.code(k, shape.head_dim, key_values)?,
                v: self.code(v, shape.head_dim, key_values)?,
            },
        })
    }

    /// Attention of runs of tokens that see only themselves, each from position 0: the documents
    /// of a microbatch. `sinks` `[heads]` are logits that the softmax of every query has beside
    /// those of its keys.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn attention(
        &self,
        codes: &AttentionCodes,
        documents: &Lengths,
        shape: &AttentionShape,
        sinks: Option<&Tensor>,
        precision: Precision,
    ) -> Result<AttentionOut, KernelError> {
        check_sinks(sinks, shape);
        assert_eq!(
            codes.queries.rows,
            shape.heads * documents.tokens(),
            "attention: rows of queries"
        );
        if let Self::Cuda(gpu) = self {
            return cuda::attention::forward(gpu, codes, documents, shape, sinks, precision);
        }
        let sinks = sinks.map(Tensor::values).transpose()?;
        let mut all = SequenceOut::default();
        for tokens in documents.ranges() {
            let one = codes.part(tokens, shape);
            let (queries, kv) = (one.queries.on_host()?, one.kv.on_host()?);
            all.append(self.host_attention(&queries, &kv, 0, shape, sinks.as_deref(), precision));
        }
        whole(all, shape)
    }

    fn host_attention(
        &self,
        queries: &Coded,
        kv: &CodedKv,
        first: usize,
        shape: &AttentionShape,
        sinks: Option<&[f32]>,
        precision: Precision,
    ) -> SequenceOut {
        match self {
            Self::Cpu(cpu) => {
                cpu::attention::forward(cpu, queries, kv, first, shape, sinks, precision)
            }
            _ => reference::attention::forward(queries, kv, first, shape, sinks, precision),
        }
    }

    /// Attention of the coded `queries` of one sequence, whose first token stands at
    /// `first_position`, over all `keys` up to each query's own position, and `sinks` as for
    /// [`Self::attention`]: `[tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] for keys of another device; [`KernelError::Cuda`] where a GPU
    /// fails.
    pub fn attention_cached(
        &self,
        queries: &Coded,
        keys: &KeyValues,
        first_position: usize,
        shape: &AttentionShape,
        sinks: Option<&Tensor>,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        check_sinks(sinks, shape);
        assert_eq!(queries.rows % shape.heads, 0, "attention: rows of queries");
        let (first, tokens) = (first_position, queries.rows / shape.heads);
        assert!(
            keys.tokens(shape) >= first + tokens,
            "attention: keys are missing"
        );
        if let (Self::Cuda(gpu), KeyValues::Cuda(pages)) = (self, keys) {
            return cuda::attention::cached(gpu, queries, pages, first, shape, sinks, precision);
        }
        let queries = queries.on_host()?;
        let sinks = sinks.map(Tensor::values).transpose()?;
        let sinks = sinks.as_deref();
        let out = match (self, keys) {
            (_, KeyValues::Host(kv)) => {
                self.host_attention(&queries, kv, first, shape, sinks, precision)
                    .out
            }
            (Self::Cpu(cpu), KeyValues::Pages(pages)) => {
                cpu::keys::attend(cpu, &queries, pages, first, shape, sinks, precision)
            }
            _ => {
                let reason = format!("keys of another device, read by {}", self.name());
                return Err(KernelError::DoesNotFit(reason));
            }
        };
        self.place(tensor(&[tokens, shape.heads * shape.head_dim], out)?)
    }

    /// The backward pass. d_out `[tokens, heads * head_dim]`; `documents`, `shape` and `sinks` are
    /// those of the forward pass. The gradients of sinks are sums over all `atoms`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn attention_backward(
        &self,
        codes: &AttentionCodes,
        forward: &AttentionOut,
        d_out: &Tensor,
        (documents, atoms): (&Lengths, &Atoms),
        shape: &AttentionShape,
        sinks: Option<&Tensor>,
        precision: Precision,
    ) -> Result<AttentionGradients, KernelError> {
        check_sinks(sinks, shape);
        assert_eq!(d_out.len(), forward.out.len(), "attention_backward: shapes");
        let d_out_coded = self.code(d_out, shape.head_dim, precision)?;
        let (gradients, terms) = if let Self::Cuda(gpu) = self {
            let d_out = (d_out, &d_out_coded);
            cuda::attention::backward(
                gpu, codes, forward, d_out, documents, shape, sinks, precision,
            )?
        } else {
            let d_out = (d_out, &d_out_coded);
            self.host_attention_backward(codes, forward, d_out, documents, shape, sinks, precision)?
        };
        let Some(terms) = terms else {
            return Ok(gradients);
        };
        // Without tokens there are no atoms.
        let d_sinks = if terms.is_empty() {
            tensor(&[shape.heads], vec![0.0; shape.heads])?
        } else {
            self.bias_gradient(&terms, atoms)?
        };
        Ok(AttentionGradients {
            d_sinks: Some(d_sinks),
            ..gradients
        })
    }

    /// The gradients without those of sinks, and what each query adds to these,
    /// `[tokens, heads]`.
    fn host_attention_backward(
        &self,
        codes: &AttentionCodes,
        forward: &AttentionOut,
        (d_out, d_out_coded): (&Tensor, &Coded),
        documents: &Lengths,
        shape: &AttentionShape,
        sinks: Option<&Tensor>,
        precision: Precision,
    ) -> Result<(AttentionGradients, Option<Tensor>), KernelError> {
        let (out, d_out) = (forward.out.values()?, d_out.values()?);
        let (max, sum) = (forward.max.values()?, forward.sum.values()?);
        let sinks = sinks.map(Tensor::values).transpose()?;
        let mut all = SequenceGradients::default();
        for tokens in documents.ranges() {
            let rows_at = tokens.start * shape.heads..tokens.end * shape.heads;
            let at = rows_at.start * shape.head_dim..rows_at.end * shape.head_dim;
            let coded = d_out_coded.part(rows_at.start, rows_at.len());
            let one = codes.part(tokens, shape);
            let input = BackwardInput {
                queries: &*one.queries.on_host()?,
                kv: &*one.kv.on_host()?,
                out: &out[at.clone()],
                max: &max[rows_at.clone()],
                sum: &sum[rows_at],
                d_out: &d_out[at],
                d_out_coded: &coded,
                sinks: sinks.as_deref(),
            };
            all.append(match self {
                Self::Cpu(cpu) => cpu::attention::backward(cpu, input, shape, precision),
                _ => reference::attention::backward(input, shape, precision),
            });
        }
        let tokens = codes.queries.rows / shape.heads;
        let width = |heads: usize| [tokens, heads * shape.head_dim];
        let gradients = AttentionGradients {
            dq: tensor(&width(shape.heads), all.dq)?,
            dk: tensor(&width(shape.kv_heads), all.dk)?,
            dv: tensor(&width(shape.kv_heads), all.dv)?,
            d_sinks: None,
        };
        let terms = |_| tensor(&[tokens, shape.heads], all.sink_terms);
        Ok((gradients, sinks.map(terms).transpose()?))
    }
}

/// Checks that there is one sink per head, where there are sinks.
pub(super) fn check_sinks(sinks: Option<&Tensor>, shape: &AttentionShape) {
    let heads = sinks.map_or(shape.heads, Tensor::len);
    assert_eq!(heads, shape.heads, "attention: sinks");
}

fn whole(all: SequenceOut, shape: &AttentionShape) -> Result<AttentionOut, KernelError> {
    let rows = all.sum.len();
    let width = shape.heads * shape.head_dim;
    Ok(AttentionOut {
        out: tensor(&[rows / shape.heads, width], all.out)?,
        max: all.max.into(),
        sum: tensor(&[rows], all.sum)?,
    })
}
