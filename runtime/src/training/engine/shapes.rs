//! The shapes that tensors of others must have: what a neighbour sends is multiplied here, and a
//! wrong shape would end this worker instead of its sender.

use std::sync::Arc;

use concord_kernels::Tensor;
use concord_proto::{GradientPart, JobSpec, Layers, ModelPlace};

use crate::training::leaf_work;

/// Whether a tensor has a row of `width` for each of `tokens`.
pub(super) fn is_of_tokens(tensor: &Tensor, tokens: usize, width: usize) -> bool {
    tensor.shape() == [tokens, width]
}

/// Whether tensors have the shapes of a part of the gradients of a stage.
pub(super) fn are_gradients(
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
    use super::super::tests::{config, job_spec};
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
