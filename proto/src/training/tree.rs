//! The binary tree over a logical index that every sum over microbatches follows.
//!
//! A run of `count` elements splits at the largest power of two below `count`. A worker that holds
//! a contiguous run sends the nodes of its [`cover`]: at most `2 log2(count)` partial sums, and
//! their sum does not depend on who held what.
//!
//! ```
//! use concord_proto::tree::{Node, cover};
//!
//! // Of 8 microbatches, the run 2, 3, 4 is one node of two and one leaf.
//! assert_eq!(cover(8, 2, 5), [Node { start: 2, end: 4 }, Node::leaf(4)]);
//! ```

use borsh::{BorshDeserialize, BorshSerialize};

/// The elements `[start, end)` below one node of the tree.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Node {
    /// First element.
    pub start: u32,
    /// One past the last element.
    pub end: u32,
}

impl Node {
    /// The node of one element.
    pub fn leaf(index: u32) -> Self {
        Self {
            start: index,
            end: index + 1,
        }
    }

    /// Number of elements.
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether the node has no element; false for every node of a tree.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The two halves, or `None` for a single element.
    pub fn children(self) -> Option<(Self, Self)> {
        let half = match self.len() {
            0 | 1 => return None,
            len => 1 << (len - 1).ilog2(),
        };
        let middle = self.start + half;
        Some((
            Self {
                start: self.start,
                end: middle,
            },
            Self {
                start: middle,
                end: self.end,
            },
        ))
    }
}

/// The largest nodes of the tree over `count` elements that lie inside `[start, end)`, in order.
pub fn cover(count: u32, start: u32, end: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    collect(
        Node {
            start: 0,
            end: count,
        },
        start,
        end,
        &mut nodes,
    );
    nodes
}

fn collect(node: Node, start: u32, end: u32, nodes: &mut Vec<Node>) {
    if node.is_empty() || node.end <= start || end <= node.start {
        return;
    }
    if start <= node.start && node.end <= end {
        nodes.push(node);
    } else if let Some((left, right)) = node.children() {
        collect(left, start, end, nodes);
        collect(right, start, end, nodes);
    }
}

/// The sum of `values` along the tree, or `None` where there are no values.
pub(crate) fn sum(values: &[f32]) -> Option<f32> {
    let end = u32::try_from(values.len()).ok()?;
    let Some((left, _)) = (Node { start: 0, end }).children() else {
        return values.first().copied();
    };
    let (left, right) = values.split_at(left.len() as usize);
    Some(sum(left)? + sum(right)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_is_contiguous_and_short() {
        for count in 1..70 {
            for start in 0..count {
                for end in start + 1..=count {
                    let nodes = cover(count, start, end);
                    assert_eq!(nodes[0].start, start);
                    assert_eq!(nodes[nodes.len() - 1].end, end);
                    assert!(nodes.windows(2).all(|pair| pair[0].end == pair[1].start));
                    assert!(nodes.len() as u32 <= 2 * (count.ilog2() + 1));
                }
            }
        }
    }

    #[test]
    fn a_sum_follows_the_tree() {
        // One after another, each 1 would be lost; side by side they are added first.
        let values = [16_777_216.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(sum(&values), Some(16_777_218.0));
        assert_eq!(values.iter().sum::<f32>(), 16_777_216.0);
        assert_eq!((sum(&[]), sum(&[3.0])), (None, Some(3.0)));
    }

    #[test]
    fn five_elements_split_at_four() {
        let five = Node { start: 0, end: 5 };
        let (left, right) = five.children().unwrap();
        assert_eq!((left.len(), right.len()), (4, 1));
        assert_eq!(cover(8, 3, 6), [Node::leaf(3), Node { start: 4, end: 6 }]);
    }
}
