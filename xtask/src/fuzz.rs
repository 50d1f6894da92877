//! The targets of libFuzzer. They are compiled with its counters by flags of the stable compiler,
//! so that neither another toolchain nor the tool `cargo fuzz` is needed.

use std::fs;
use std::process::Command;

use crate::step::{cargo, printed, run as run_step};
use crate::{Outcome, root};

/// The targets: programs of the package `fuzz`.
const TARGETS: [&str; 7] = [
    "config",
    "gguf",
    "messages",
    "packed",
    "pickle",
    "safetensors",
    "tokenizer",
];

/// Counters of edges and the operands of comparisons, as libFuzzer reads them.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds the targets, and runs one for some seconds, or each.
///
/// # Errors
/// A target that is unknown, does not build, or fails: then the input lies in `fuzz/artifacts`.
pub fn run(target: &str, seconds: &str) -> Outcome {
    let seconds: u32 = seconds
        .parse()
        .map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    if target == "all" {
        return TARGETS.iter().try_for_each(|target| one(target, seconds));
    }
    match TARGETS.contains(&target) {
        true => one(target, seconds),
        false => Err(format!(
            "there is no target `{target}`: name one of all, {}",
            TARGETS.join(", ")
        )),
    }
}

fn one(target: &str, seconds: u32) -> Outcome {
    let [inputs, failed] = ["corpus", "artifacts"].map(|kind| format!("fuzz/{kind}/{target}/"));
    for folder in [&inputs, &failed] {
        fs::create_dir_all(root().join(folder)).map_err(|error| format!("{folder}: {error}"))?;
    }
    let mut command = in_the_package("run")?;
    command.args(["--bin", target, "--", &inputs]);
    command.arg(format!("-artifact_prefix={failed}"));
    command.arg(format!("-max_total_time={seconds}"));
    // An input that takes longer or more memory than any of its size may is a failure, too.
    command.args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=200000"]);
    run_step(&format!("fuzz {target}"), &mut command)
}

/// A command of cargo on the package, which is compiled for this machine as if for another one: so
/// the flags are not for build scripts.
fn in_the_package(action: &str) -> Result<Command, String> {
    let facts = printed(Command::new("rustc").arg("-vV"))?;
    let host = facts.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("`rustc -vV` does not say what the host is")?;
    let mut command = cargo(&[action, "--release", "--locked", "--quiet"]);
    command.args(["--manifest-path", "fuzz/Cargo.toml", "--target", host]);
    // No kernel of a GPU runs there.
    command
        .env_remove("CONCORD_NVRTC")
        .env("RUSTFLAGS", FLAGS.join(" "));
    Ok(command)
}
