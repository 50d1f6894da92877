//! Runs the examples: each `examples/NAME.rs` of a package.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup::Features;
use crate::step::{EVERYTHING, cargo, command, run};
use crate::{Outcome, root};

/// Where the demo leaves what it made, from the root of the workspace.
pub const DEMO_FOLDER: &str = "target/kept-demo";

/// The package outside the workspace. Its example links candle, which takes minutes to compile, so
/// that it is run by hand: `benches/README.md` has the command.
const OUTSIDE: &str = "benches";

/// Arguments of the examples that need some.
const ARGUMENTS: [(&str, &[&str]); 1] = [("verify_bundle", &["target/kept-demo/tuned-3/proof"])];

/// Builds all examples with what the tests need, then runs each.
///
/// # Errors
/// The first example that does not build or fails.
pub fn run_all(features: Features) -> Outcome {
    let mut build = cargo(&["build", "--examples", "--features", features.list()]);
    run("examples", build.args(EVERYTHING))?;
    // Where cargo puts what it builds.
    let named = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = root().join(named);
    for name in names() {
        let program = target.join("release/examples").join(&name);
        let arguments = ARGUMENTS.iter().find(|(example, _)| *example == name);
        let arguments = arguments.map_or(&[][..], |(_, arguments)| arguments);
        run(&format!("example {name}"), &mut command(program, arguments))?;
    }
    Ok(())
}

/// Names of the examples of the workspace's packages, in order.
fn names() -> Vec<String> {
    let folders = [root()].into_iter().chain(entries(&root()));
    let folders = folders.filter(|folder| !folder.ends_with(OUTSIDE));
    let packages = folders.filter(|folder| folder.join("Cargo.toml").is_file());
    let mut names: Vec<String> = packages.flat_map(|folder| examples_in(&folder)).collect();
    names.sort();
    names
}

/// Names of the examples of a package, in order.
fn examples_in(package: &Path) -> Vec<String> {
    let files = entries(&package.join("examples")).into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_string());
    files.filter_map(name).collect()
}

/// What lies in the folder, in order; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
