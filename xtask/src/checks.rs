//! The quick check, and all checks but the tests.

use std::process::Command;

use crate::setup::{self, Features};
use crate::step::{EVERYTHING, cargo, printed, run};
use crate::{Outcome, examples, licences, nvrtc, root};

/// Crates whose unit tests take seconds.
const LIGHT: [&str; 4] = [
    "concord-proto",
    "concord-verify",
    "concord-text",
    "concord-scheduler",
];

/// Commands of the README that build, word by word; `tests/readme` looks for them here, and runs
/// the other ones.
const DEMO: &str = "cargo run --release -- demo";
const INSTALL: &str = "cargo install --path .";

/// Format, lints, the rules on the text, and the tests of the light crates.
///
/// # Errors
/// The first check that fails.
pub fn quick() -> Outcome {
    setup::rust_component("rustfmt")?;
    setup::rust_component("clippy")?;
    let features = setup::features_at_hand();
    run("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    lints(features)?;
    run(
        "rules",
        &mut cargo(&["test", "--release", "--locked", "-q", "-p", "xtask"]),
    )?;
    let mut tests = cargo(&["test", "--release", "--locked", "-q", "--lib"]);
    for package in LIGHT {
        tests.args(["-p", package]);
    }
    run("tests of the light crates", &mut tests)
}

/// Everything that a change must pass, but the tests.
///
/// # Errors
/// The first check that fails.
pub fn all() -> Outcome {
    setup::rust_component("rustfmt")?;
    setup::rust_component("clippy")?;
    for missing in setup::before_the_build() {
        println!("missing: {missing}");
    }
    let features = setup::features_at_hand();
    run("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    lints(features)?;
    documents(features)?;
    licences::check()?;
    build_without_features()?;
    // What the demo leaves there is for the example that verifies a proof.
    let kept = root().join(examples::DEMO_FOLDER);
    if kept.exists() {
        std::fs::remove_dir_all(&kept).map_err(|error| format!("{}: {error}", kept.display()))?;
    }
    let mut demo = in_the_readme(DEMO);
    run("the demo", demo.args(["--keep", examples::DEMO_FOLDER]))?;
    let mut install = in_the_readme(INSTALL);
    run(
        "install",
        install.args(["--locked", "--root", "target/installed"]),
    )?;
    examples::run_all(features)
}

/// A command of cargo's as the README has it.
fn in_the_readme(line: &str) -> Command {
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    without_nvrtc(&words)
}

/// A command of cargo's that builds without features, and without machine code for GPUs: NVRTC
/// takes minutes for all kernels and targets, and the build with features makes it.
fn without_nvrtc(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    if nvrtc::fetched().is_some() {
        command.env_remove("CONCORD_NVRTC");
    }
    command
}

fn lints(features: Features) -> Outcome {
    let mut clippy = cargo(&["clippy"]);
    clippy
        .args(EVERYTHING)
        .args(["--all-targets", "--features", features.list()]);
    run("lints", clippy.args(["--", "-D", "warnings"]))
}

fn documents(features: Features) -> Outcome {
    let mut doc = cargo(&["doc"]);
    doc.args(EVERYTHING)
        .args(["--no-deps", "--features", features.list()]);
    run("documents", doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Features only add code: what is unused without them is a warning of the compiler. Cargo repeats
/// the warnings of what is built already, so that no second run of clippy is needed.
fn build_without_features() -> Outcome {
    run(
        "build",
        &mut without_nvrtc(&["build", "--release", "--locked"]),
    )?;
    let again = ["build", "--release", "--locked", "--message-format", "json"];
    let messages = printed(&mut without_nvrtc(&again))?;
    let is_warning = |line: &&str| line.contains("\"level\":\"warning\"");
    match messages.lines().filter(is_warning).count() {
        0 => Ok(()),
        count => Err(format!(
            "the build without features has {count} warnings, printed above"
        )),
    }
}
