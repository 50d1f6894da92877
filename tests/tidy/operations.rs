//! Every operation has one name in all trees of the kernels: a file in each of them, or a reason.

use std::collections::BTreeSet;
use std::fs;

use crate::sources::root;

/// Folders with a file for each operation.
struct Tree {
    folders: &'static [&'static str],
    extension: &'static str,
    /// Operations that have no file there, with the reason.
    without: &'static [(&'static str, &'static str)],
    /// Files there that belong to no operation.
    parts: &'static [&'static str],
}

/// The operations are the files of this tree.
const OPERATIONS: Tree = Tree {
    folders: &["kernels/src/ops"],
    extension: "rs",
    without: &[],
    // `place` moves tensors and computes nothing.
    parts: &["mod", "place"],
};

const GROWS: &str = "a list that grows: its attention is that of `attention`";
const LIBRARY: &str = "the crate blake3 has the digest, for every instruction set";

const TREES: [Tree; 6] = [
    Tree {
        folders: &["kernels/src/reference"],
        extension: "rs",
        without: &[("blake3", LIBRARY), ("keys", GROWS)],
        parts: &["lengths", "mod", "tree"],
    },
    Tree {
        folders: &["kernels/src/cpu"],
        extension: "rs",
        without: &[
            ("blake3", LIBRARY),
            ("columns", "rows are copied, as the reference does"),
            ("embedding", "rows are copied, as the reference does"),
        ],
        parts: &["awake", "mod"],
    },
    Tree {
        folders: &["kernels/src/cuda"],
        extension: "rs",
        without: &[(
            "logprobs",
            "computed on the host, for rows of requests that ask",
        )],
        parts: &["mod", "cublas", "cublaslt", "grids", "page_codes", "peak"],
    },
    Tree {
        folders: &["kernels/cuda"],
        extension: "cu",
        without: &[
            ("keys", "attention.cu appends to pages"),
            (
                "logprobs",
                "computed on the host, for rows of requests that ask",
            ),
            ("pages", "attention.cu reads and writes pages"),
        ],
        parts: &["attention_backward", "peak"],
    },
    Tree {
        folders: &["kernels/src/conformance"],
        extension: "rs",
        without: &[],
        parts: &["mod", "input", "lengths"],
    },
    // The conformance suite runs in both; a file tests what the suite does not reach.
    Tree {
        folders: &["kernels/tests/cpu", "kernels/tests/emulated"],
        extension: "rs",
        without: &[],
        parts: &["main", "conformance", "elementary", "gpus", "random"],
    },
];

/// The names of the files of a tree, without what follows the dot.
fn names(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in tree.folders {
        let folder = root().join(folder);
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some(stem), true) =
                (stem, path.extension().is_some_and(|e| e == tree.extension))
            {
                names.insert(stem.to_string());
            }
        }
    }
    names
}

fn operations() -> BTreeSet<String> {
    let mut operations = names(&OPERATIONS);
    for part in OPERATIONS.parts {
        assert!(
            operations.remove(*part),
            "{part} is no file of ops any more"
        );
    }
    operations
}

#[test]
fn every_operation_has_its_name_in_every_tree() {
    let operations = operations();
    let mut broken = Vec::new();
    for tree in TREES {
        let (names, place) = (names(&tree), tree.folders.join(" and "));
        for operation in &operations {
            let has_reason = tree.without.iter().any(|(name, _)| name == operation);
            match (names.contains(operation), has_reason) {
                (false, false) => broken.push(format!("{place}: {operation} is missing")),
                (true, true) => broken.push(format!("{place}: {operation} is off the list now")),
                _ => {}
            }
        }
        let known = |name: &str| operations.contains(name) || tree.parts.contains(&name);
        let strangers = names.iter().filter(|name| !known(name));
        broken.extend(strangers.map(|name| format!("{place}: {name} is of no operation")));
        let gone = tree.parts.iter().filter(|part| !names.contains(**part));
        broken.extend(gone.map(|part| format!("{place}: {part} is off the list now")));
        for (name, reason) in tree.without {
            if !operations.contains(*name) || reason.is_empty() {
                broken.push(format!("{place}: {name} is no operation, or has no reason"));
            }
        }
    }
    let broken = broken.join("\n");
    assert!(
        broken.is_empty(),
        "one operation, one name in every tree:\n{broken}"
    );
}
