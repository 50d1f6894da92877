//! Merkle trees over digests. Leaves, inner nodes and roots have tags of their own, and the number
//! of leaves is in the root.
//!
//! ```
//! use concord_proto::{Digest, Domain, merkle};
//!
//! let leaves = [1_u32, 2, 3].map(|row| Digest::of_value(Domain::Row, &row));
//! let root = merkle::root(&leaves);
//! let path = merkle::path(&leaves, 2).expect("a leaf");
//! assert!(merkle::proves(&root, &leaves[2], &path));
//! assert!(!merkle::proves(&root, &leaves[1], &path));
//! ```

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher};

/// A proof that a leaf is in a tree: the siblings from the leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MerklePath {
    /// Position of the leaf.
    pub index: u32,
    /// Number of leaves in the tree.
    pub count: u32,
    /// The sibling at each level that has one, from the leaf up.
    pub siblings: Vec<Digest>,
}

/// The root over `leaves`. The last node of a level of odd length is passed up unchanged.
pub fn root(leaves: &[Digest]) -> Digest {
    let mut level: Vec<Digest> = leaves.iter().map(leaf_node).collect();
    while level.len() > 1 {
        level = next_level(&level);
    }
    sealed(
        leaves.len() as u32,
        level.first().copied().unwrap_or_default(),
    )
}

/// The path of leaf `index`, or `None` where there is no such leaf.
pub fn path(leaves: &[Digest], index: u32) -> Option<MerklePath> {
    leaves.get(index as usize)?;
    let mut level: Vec<Digest> = leaves.iter().map(leaf_node).collect();
    let mut position = index as usize;
    let mut siblings = Vec::new();
    while level.len() > 1 {
        siblings.extend(level.get(position ^ 1));
        level = next_level(&level);
        position /= 2;
    }
    Some(MerklePath {
        index,
        count: leaves.len() as u32,
        siblings,
    })
}

/// Whether `path` leads from `leaf` to `root`.
pub fn proves(root: &Digest, leaf: &Digest, path: &MerklePath) -> bool {
    if path.index >= path.count {
        return false;
    }
    let mut siblings = path.siblings.iter();
    let mut node = leaf_node(leaf);
    let (mut position, mut width) = (path.index, path.count);
    while width > 1 {
        if position ^ 1 < width {
            let Some(sibling) = siblings.next() else {
                return false;
            };
            node = if position % 2 == 0 {
                inner(&node, sibling)
            } else {
                inner(sibling, &node)
            };
        }
        position /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none() && sealed(path.count, node) == *root
}

fn next_level(level: &[Digest]) -> Vec<Digest> {
    let join = |pair: &[Digest]| match pair {
        [left, right] => inner(left, right),
        alone => alone[0],
    };
    level.chunks(2).map(join).collect()
}

fn leaf_node(leaf: &Digest) -> Digest {
    Digest::of(Domain::MerkleLeaf, &leaf.0)
}

fn inner(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::new(Domain::MerkleNode);
    hasher.update(&left.0);
    hasher.update(&right.0);
    hasher.finish()
}

fn sealed(count: u32, top: Digest) -> Digest {
    let mut hasher = Hasher::new(Domain::MerkleRoot);
    hasher.update(&count.to_le_bytes());
    hasher.update(&top.0);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|i| Digest::of(Domain::Leaf, &[i])).collect()
    }

    #[test]
    fn every_leaf_of_every_size_has_a_path_and_no_other_leaf_fits_it() {
        for count in 1..20 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index as u32).unwrap();
                assert!(proves(&root, leaf, &path));
                let stranger = Digest::of(Domain::Leaf, &[200]);
                assert!(!proves(&root, &stranger, &path));
                let longer = MerklePath {
                    siblings: [&path.siblings[..], &[stranger]].concat(),
                    ..path
                };
                assert!(!proves(&root, leaf, &longer));
            }
        }
    }

    #[test]
    fn the_number_of_leaves_is_in_the_root() {
        let three = leaves(3);
        let doubled = [&three[..], &three[2..]].concat();
        assert_ne!(root(&three), root(&doubled));
        assert_ne!(root(&[]), root(&leaves(1)));
    }
}
