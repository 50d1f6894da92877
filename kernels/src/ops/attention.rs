//! Causal grouped-query attention of one sequence.

use super::matmul::tensor;
use super::{AttentionOut, AttentionShape, CodedKv};
use crate::coded::{Coded, Precision};
use crate::math::LOG2_E;
use crate::reference::attention::BackwardInput;
use crate::{Device, Tensor, cpu, reference};

/// Coded queries, keys and values of a run of tokens.
#[derive(Clone, Debug)]
pub struct AttentionCodes {
    /// Queries times `scale * log2(e)`, `[tokens * heads, head_dim]`.
    pub queries: Coded,
    /// Keys and values.
    pub kv: CodedKv,
}

/// Gradients of queries, keys and values, as [`Device::attention_codes`] took them.
#[derive(Clone, Debug)]
pub struct AttentionGradients {
    /// `[tokens, heads * head_dim]`.
    pub dq: Tensor,
    /// `[tokens, kv_heads * head_dim]`.
    pub dk: Tensor,
    /// `[tokens, kv_heads * head_dim]`.
    pub dv: Tensor,
}

impl Device {
    /// Codes q, k and v of a run of tokens, each head of each token on its own.
    pub fn attention_codes(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        shape: &AttentionShape,
        precision: Precision,
    ) -> AttentionCodes {
        let factor = shape.scale * LOG2_E;
        let scaled: Vec<f32> = q.iter().map(|q| q * factor).collect();
        let code = |x: &[f32]| self.code(x, shape.head_dim, precision);
        AttentionCodes {
            queries: code(&scaled),
            kv: CodedKv {
                k: code(k),
                v: code(v),
            },
        }
    }

    /// Attention of `queries`, whose first token stands at `first_position`, over all keys of `kv`
    /// up to each query's own position.
    pub fn attention(
        &self,
        queries: &Coded,
        kv: &CodedKv,
        first_position: usize,
        shape: &AttentionShape,
        precision: Precision,
    ) -> AttentionOut {
        assert_eq!(queries.rows % shape.heads, 0, "attention: rows of queries");
        let seen = (first_position + queries.rows / shape.heads) * shape.kv_heads;
        assert!(
            kv.k.rows >= seen && kv.v.rows >= seen,
            "attention: keys are missing"
        );
        match self {
            Self::Reference => {
                reference::attention::forward(queries, kv, first_position, shape, precision)
            }
            Self::Cpu(cpu) => {
                cpu::attention::forward(cpu, queries, kv, first_position, shape, precision)
            }
        }
    }

    /// The backward pass of a whole sequence. d_out `[tokens, heads * head_dim]`.
    pub fn attention_backward(
        &self,
        codes: &AttentionCodes,
        forward: &AttentionOut,
        d_out: &[f32],
        shape: &AttentionShape,
        precision: Precision,
    ) -> AttentionGradients {
        assert_eq!(d_out.len(), forward.out.len(), "attention_backward: shapes");
        let d_out_coded = self.code(d_out, shape.head_dim, precision);
        let input = BackwardInput {
            queries: &codes.queries,
            kv: &codes.kv,
            forward,
            d_out,
            d_out_coded: &d_out_coded,
        };
        let gradients = match self {
            Self::Reference => reference::attention::backward(input, shape, precision),
            Self::Cpu(cpu) => cpu::attention::backward(cpu, input, shape, precision),
        };
        let tokens = codes.queries.rows / shape.heads;
        let width = |heads: usize| [tokens, heads * shape.head_dim];
        AttentionGradients {
            dq: tensor(&width(shape.heads), gradients.dq),
            dk: tensor(&width(shape.kv_heads), gradients.dk),
            dv: tensor(&width(shape.kv_heads), gradients.dv),
        }
    }
}
