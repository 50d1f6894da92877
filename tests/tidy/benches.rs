//! `benches` and `fuzz` are workspaces of their own that no check compiles: their lock files have
//! the dependencies that our crates have now, or `--locked` refuses them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::imports::{Dependency, dependencies};
use crate::sources::{assert_none, root};

/// The packages of a lock file, each with the names that it depends on.
fn locked(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut packages = BTreeMap::new();
    for entry in text.split("[[package]]").skip(1) {
        let names: Vec<&str> = entry.split('"').skip(1).step_by(2).collect();
        let (_, list) = entry.split_once("dependencies = [").unwrap_or(("", ""));
        // If there are two versions of a package, its version follows the name.
        let name = |line: &str| {
            line.split('"')
                .nth(1)?
                .split(' ')
                .next()
                .map(str::to_string)
        };
        packages.insert(
            names[0].to_string(),
            list.lines().filter_map(name).collect(),
        );
    }
    packages
}

#[test]
fn the_lock_of_the_benchmarks_has_our_dependencies() {
    check_lock_of("benches");
}

#[test]
fn the_lock_of_the_fuzz_targets_has_our_dependencies() {
    check_lock_of("fuzz");
}

fn check_lock_of(folder: &str) {
    let file = root().join(folder).join("Cargo.lock");
    let packages = locked(&fs::read_to_string(file).expect("it can be read"));
    let all = dependencies();
    let mut broken = Vec::new();
    for (package, locked) in &packages {
        let of_package = |dependency: &&Dependency| dependency.package == *package;
        let ours = all.iter().filter(of_package).filter(|d| !d.is_dev);
        let (optional, needed): (Vec<_>, Vec<_>) = ours.partition(|d| d.is_optional);
        if optional.is_empty() && needed.is_empty() {
            continue;
        }
        let is_known = |name: &&String| {
            all.iter()
                .any(|d| d.package == *package && d.name == **name)
        };
        let missing = needed.iter().filter(|d| !locked.contains(&d.name));
        broken.extend(missing.map(|d| format!("{package}: {} is missing", d.name)));
        let strange = locked.iter().filter(|name| !is_known(name));
        broken.extend(strange.map(|name| format!("{package}: {name} is no dependency of it")));
    }
    assert!(packages.contains_key("concord-kernels"), "{packages:?}");
    assert_none(
        &broken,
        &format!(
            "{folder}/Cargo.lock: `cargo update --workspace --manifest-path {folder}/Cargo.toml`"
        ),
    );
}

/// What `cargo xtask fuzz` knows, what the package has, and the files: one list.
#[test]
fn every_fuzz_target_is_known() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it can be read");
    let [command, manifest] = ["xtask/src/fuzz.rs", "fuzz/Cargo.toml"].map(read);
    let files = fs::read_dir(root().join("fuzz/targets")).expect("a folder");
    let mut count = 0;
    for file in files {
        let path = file.expect("a file").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("UTF-8");
        let is_known = command.contains(&format!("    \"{name}\",\n"))
            && manifest.contains(&format!(
                "name = \"{name}\"\npath = \"targets/{name}.rs\"\n"
            ));
        assert!(
            is_known,
            "{name} is in neither or one of xtask/src/fuzz.rs and fuzz/Cargo.toml"
        );
        count += 1;
    }
    assert_eq!(manifest.matches("[[bin]]").count(), count);
}
