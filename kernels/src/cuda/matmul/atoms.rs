//! Gradients of weights: exact products over atoms of tokens, added by the tree.

use super::operand::GpuOperand;
use super::{LEFT_SIDES, choose, multiply};
use crate::coded::{Coded, Precision};
use crate::cuda::code::CodedAtoms;
use crate::cuda::{Cuda, Result, Slice, code, elementwise};
use crate::reference::tree::Atoms;

/// `dW = dy^T x` over the tokens of `atoms`: dy `[m, cols]`, x `[m, k]`, dW `[cols, k]`. Each atom
/// is exact and rounded once; atoms are added by the tree.
pub(crate) fn weight_gradient(
    cuda: &Cuda,
    dy: &Slice<f32>,
    cols: usize,
    x: &Coded,
    atoms: &Atoms,
    precision: Precision,
) -> Result<Slice<f32>> {
    let coded = code::atoms(cuda, dy, cols, &x.exp.on(cuda)?, atoms, precision)?;
    let tree = AtomTree {
        cuda,
        coded,
        cols,
        x: GpuOperand::by_cols(cuda, x)?,
        atoms,
        precision,
    };
    tree.sum(0, atoms.count(), &[])
}

/// The products of all atoms, to be added by the tree of [`crate::reference::tree::tree_sum`].
struct AtomTree<'a> {
    cuda: &'a Cuda,
    coded: CodedAtoms,
    cols: usize,
    x: GpuOperand,
    atoms: &'a Atoms,
    precision: Precision,
}

impl AtomTree<'_> {
    /// `l2 + (l1 + (l0 + tree))` for the tree over atoms `[start, start + count)` and the left
    /// sides l0, l1, l2 of the nodes above it, in the memory of the last of them: the kernel of the
    /// last atom adds them all. At most `log2(atoms) + 1` results are alive.
    fn sum(&self, start: usize, count: usize, left: &[&Slice<f32>]) -> Result<Slice<f32>> {
        assert!(count > 0, "a tree sum of nothing");
        if count == 1 {
            let out = match left.last() {
                Some(&out) => out.clone(),
                None => self.cuda.alloc(self.cols * self.x.rows)?,
            };
            self.add_atom(start, &out, left)?;
            return Ok(out);
        }
        let half = 1 << (count - 1).ilog2();
        let ours = self.sum(start, half, &[])?;
        let (start, count) = (start + half, count - half);
        if left.len() + 1 + nodes_to_the_last(count) <= LEFT_SIDES {
            let mut sides = vec![&ours];
            sides.extend(left);
            return self.sum(start, count, &sides);
        }
        // Only nodes above which nothing waits have so many below them.
        let right = self.sum(start, count, &[])?;
        elementwise::add_assign(self.cuda, &ours, &right)?;
        Ok(ours)
    }

    /// `out = left + dy^T x` over one atom.
    fn add_atom(&self, index: usize, out: &Slice<f32>, left: &[&Slice<f32>]) -> Result<()> {
        let (start, tokens) = self.atoms.range(index);
        let (q, exp) = self.coded.atom(index);
        let dy = GpuOperand {
            q,
            rows: self.cols,
            depth: tokens,
            row_stride: self.coded.stride,
            depth_stride: 1,
            exp: Some(exp),
            precision: self.precision,
        };
        let x = self.x.along(start, tokens);
        multiply(self.cuda, choose(self.cuda, &dy, &x), &dy, &x, out, left)
    }
}

/// Nodes between the root of a tree over `count` leaves and its last leaf, the root with them.
fn nodes_to_the_last(mut count: usize) -> usize {
    let mut nodes = 0;
    while count > 1 {
        count -= 1 << (count - 1).ilog2();
        nodes += 1;
    }
    nodes
}
