//! Gradients of microbatches, added along the tree as they come: once two halves of a node are
//! there, only their sum is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, KernelError, Tensor};
use concord_proto::tree::Node;

use super::leaf_work;

/// The sums of one part over the nodes that cover a run of microbatches. With all microbatches up
/// to one there, it holds a sum for each node of the cover that is done, and one for each level of
/// the tree below the node that is not.
#[derive(Default)]
pub(crate) struct PartialSums {
    /// By the first microbatch of the node.
    held: BTreeMap<u32, (Node, Vec<Arc<Tensor>>)>,
}

impl PartialSums {
    /// Takes in the gradients of a microbatch, which belongs to the node `whole` of the cover.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub(crate) fn insert(
        &mut self,
        device: &Device,
        microbatch: u32,
        whole: Node,
        gradients: Vec<Arc<Tensor>>,
    ) -> Result<(), KernelError> {
        let (mut node, mut sum) = (Node::leaf(microbatch), gradients);
        while node != whole {
            let Some((left, right)) = halves(whole, node) else {
                break;
            };
            let other = if node == left { right } else { left };
            let is_there = self
                .held
                .get(&other.start)
                .is_some_and(|(held, _)| *held == other);
            let Some((_, held)) = is_there.then(|| self.held.remove(&other.start)).flatten() else {
                break;
            };
            sum = match node == left {
                true => added(device, sum, held)?,
                false => added(device, held, sum)?,
            };
            node = Node {
                start: left.start,
                end: right.end,
            };
        }
        self.held.insert(node.start, (node, sum));
        Ok(())
    }

    /// The sum over a node of the cover, once all its microbatches are there.
    pub(crate) fn take(&mut self, whole: Node) -> Option<Vec<Arc<Tensor>>> {
        let is_whole = self.held.get(&whole.start)?.0 == whole;
        is_whole
            .then(|| self.held.remove(&whole.start))?
            .map(|(_, sum)| sum)
    }
}

fn added(
    device: &Device,
    mut left: Vec<Arc<Tensor>>,
    right: Vec<Arc<Tensor>>,
) -> Result<Vec<Arc<Tensor>>, KernelError> {
    leaf_work::add(device, &mut left, right)?;
    Ok(left)
}

/// The halves of the node above `node`, in the tree below `whole`.
fn halves(whole: Node, node: Node) -> Option<(Node, Node)> {
    let mut above = whole;
    loop {
        let (left, right) = above.children()?;
        if left == node || right == node {
            return Some((left, right));
        }
        above = if node.start < right.start {
            left
        } else {
            right
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(microbatch: u32) -> Vec<Arc<Tensor>> {
        // Sums of these differ in the last bits by the order.
        let value = |i: u32| 1.0 / (3 + 7 * microbatch + i) as f32;
        let values: Vec<f32> = (0..5).map(value).collect();
        vec![Arc::new(Tensor::new(&[5], values).unwrap())]
    }

    /// Bits and memory, in the order in which microbatches mostly come, and in others.
    #[test]
    fn the_sum_is_that_of_the_tree_and_few_are_held() {
        let device = Device::Reference;
        for count in 1..20 {
            let whole = Node {
                start: 0,
                end: count,
            };
            let all: Vec<_> = (0..count).map(gradients).collect();
            let leaf = |microbatch: u32| &all[microbatch as usize][..];
            let expected = leaf_work::reduce(&device, whole, &leaf).unwrap();
            for step in [1, 3, 7] {
                let mut sums = PartialSums::default();
                for i in 0..count {
                    // A permutation where the step and the count have no common factor.
                    let microbatch = match count % step {
                        0 => i,
                        _ => i * step % count,
                    };
                    sums.insert(&device, microbatch, whole, gradients(microbatch))
                        .unwrap();
                    let levels = count.ilog2() as usize + 1;
                    assert!(step > 1 || sums.held.len() <= levels, "{count}: {i}");
                }
                assert_eq!(sums.held.len(), 1);
                let sum = sums.take(whole).unwrap();
                assert_eq!(sum, expected, "{count} by {step}");
            }
        }
    }

    #[test]
    fn a_sum_that_is_not_whole_is_not_given() {
        let whole = Node { start: 4, end: 8 };
        let mut sums = PartialSums::default();
        for microbatch in [4, 5, 6] {
            sums.insert(&Device::Reference, microbatch, whole, gradients(microbatch))
                .unwrap();
        }
        assert_eq!(sums.take(whole), None);
        sums.insert(&Device::Reference, 7, whole, gradients(7))
            .unwrap();
        assert!(sums.take(whole).is_some(), "what was held is still there");
    }
}
