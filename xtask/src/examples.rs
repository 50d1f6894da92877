//! Runs the examples: each `examples/NAME.rs` of a package, and each package `examples/NAME` of its
//! own.

use std::fs;
use std::path::PathBuf;

use crate::setup::Features;
use crate::step::{EVERYTHING, cargo, command, run};
use crate::{Outcome, root};

/// Where the demo leaves what it made, from the root of the workspace.
pub const DEMO_FOLDER: &str = "target/kept-demo";

/// Arguments of the examples that need some.
const ARGUMENTS: [(&str, &[&str]); 1] = [("verify_bundle", &["target/kept-demo/tuned-3/proof"])];

/// Builds all examples with what the tests need, then runs each.
///
/// # Errors
/// The first example that does not build or fails.
pub fn run_all(features: Features) -> Outcome {
    let mut build = cargo(&["build", "--examples", "--features", features.list()]);
    run("examples", build.args(EVERYTHING))?;
    let target = root().join("target");
    for name in names() {
        let program = target.join("release/examples").join(&name);
        let arguments = ARGUMENTS.iter().find(|(example, _)| *example == name);
        let arguments = arguments.map_or(&[][..], |(_, arguments)| arguments);
        run(&format!("example {name}"), &mut command(program, arguments))?;
    }
    for manifest in packages() {
        let mut example = cargo(&["run", "--release", "--locked", "--manifest-path"]);
        example.arg(&manifest).arg("--target-dir").arg(&target);
        run("example", &mut example)?;
    }
    Ok(())
}

/// Names of the examples of the workspace's packages, in order.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![root()];
    folders.extend(entries(root()));
    for folder in folders
        .iter()
        .filter(|folder| folder.join("Cargo.toml").is_file())
    {
        let files = entries(folder.join("examples"));
        let files = files
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "rs"));
        names.extend(files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())));
    }
    names.sort();
    names
}

/// Manifests of examples that are packages of their own, as their dependencies are no one else's.
fn packages() -> Vec<PathBuf> {
    let manifests = entries(root().join("examples")).into_iter();
    let manifests = manifests.map(|folder| folder.join("Cargo.toml"));
    manifests.filter(|manifest| manifest.is_file()).collect()
}

/// What lies in the folder, in order; nothing where there is none.
fn entries(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
