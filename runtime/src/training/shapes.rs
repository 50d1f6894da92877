//! The shapes that tensors of others must have: what a neighbour sends, or a worker opens to a
//! checker, is multiplied here, and a wrong shape would end this process instead of its sender.

use std::sync::Arc;

use concord_kernels::Tensor;
use concord_models::decoder::{Batch, Stage};
use concord_proto::{GradientPart, JobSpec, Layers, ModelPlace};

use crate::training::leaf_work;

/// Whether a tensor has a row of `width` for each of `tokens`.
pub(crate) fn is_of_tokens(tensor: &Tensor, tokens: usize, width: usize) -> bool {
    tensor.shape() == [tokens, width]
}

/// Whether what a stage got of a microbatch is what it must have: no hidden states on the first
/// stage, no gradient on the last (or where none `is_due`), and else a row for each token.
pub(crate) fn fits_stage(
    stage: &Stage,
    batch: &Batch,
    activation: Option<&Tensor>,
    (gradient, is_due): (Option<&Tensor>, bool),
) -> bool {
    let [into, back] = stage.training_widths();
    let tokens = batch.tokens.len();
    let fits = |tensor: Option<&Tensor>, is_due: bool, width| match tensor {
        None => !is_due,
        Some(tensor) => is_due && is_of_tokens(tensor, tokens, width),
    };
    fits(activation, !stage.is_first(), into) && fits(gradient, is_due && !stage.is_last(), back)
}

/// Whether tensors have the shapes of a part of the gradients of a stage.
pub(crate) fn are_gradients(
    tensors: &[Arc<Tensor>],
    spec: &JobSpec,
    layers: Layers,
    part: GradientPart,
) -> bool {
    let trained = |index: u32| &spec.trainable[index as usize];
    let is_tied = |index: u32| trained(index).place == ModelPlace::EmbedAndHead;
    let held = leaf_work::held_names(spec, layers).into_iter();
    let expected: Vec<u32> = held
        .map(|(index, _)| index)
        .filter(|&index| is_tied(index) == (part != GradientPart::Own))
        .collect();
    let has_shape = |(tensor, &index): (&Arc<Tensor>, &u32)| {
        let shape = tensor.shape().iter().map(|&dim| dim as u64);
        shape.eq(trained(index).shape.iter().copied())
    };
    tensors.len() == expected.len() && tensors.iter().zip(&expected).all(has_shape)
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{config, job_spec};
    use super::*;

    #[test]
    fn a_row_for_each_token_and_nothing_else() {
        let tensor = Tensor::zeros(&[6, 4]);
        assert!(is_of_tokens(&tensor, 6, 4));
        let others = [[6, 5], [5, 4], [4, 6], [12, 2], [24, 1]];
        assert!(others.iter().all(|[a, b]| !is_of_tokens(&tensor, *a, *b)));
        assert!(!is_of_tokens(&Tensor::zeros(&[24]), 6, 4));
    }

    #[test]
    fn gradients_have_the_shapes_that_the_spec_gives() {
        let spec = job_spec(&config());
        let layers = Layers::new(0, spec.layers);
        let of_shape = |shape: &[u64]| {
            let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
            Arc::new(Tensor::zeros(&shape))
        };
        let right: Vec<_> = spec
            .trainable
            .iter()
            .map(|one| of_shape(&one.shape))
            .collect();
        let fits =
            |tensors: &[Arc<Tensor>]| are_gradients(tensors, &spec, layers, GradientPart::Own);
        assert!(fits(&right));
        assert!(!fits(&right[1..]) && !fits(&[]));
        let mut turned = right.clone();
        turned[0] = of_shape(&[&spec.trainable[0].shape[..], &[1]].concat());
        assert!(!fits(&turned));
        assert!(!are_gradients(
            &right,
            &spec,
            layers,
            GradientPart::TiedEmbed
        ));
    }
}
