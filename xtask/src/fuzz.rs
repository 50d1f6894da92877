//! The targets of libFuzzer. They are compiled with its counters by flags of the stable compiler,
//! so that neither another toolchain nor the tool `cargo fuzz` is needed.

use std::fs;
use std::process::Command;

use crate::step::{cargo, printed, run_told};
use crate::{Outcome, root};

/// The targets: programs of the package `fuzz`.
const TARGETS: [&str; 12] = [
    "bundle",
    "config",
    "gguf",
    "messages",
    "packed",
    "pickle",
    "recipe",
    "request",
    "rows",
    "safetensors",
    "template",
    "tokenizer",
];

/// What libFuzzer writes before the number of inputs that it has tried.
const COUNT: &str = "stat::number_of_executed_units:";

/// Counters of edges and the operands of comparisons, as libFuzzer reads them.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds the targets, and runs one for some seconds, or each; prints how many inputs were tried.
///
/// # Errors
/// A target that is unknown, does not build, or fails: then the input lies in `fuzz/artifacts`, and
/// the others are run all the same.
pub fn run(target: &str, seconds: &str) -> Outcome {
    let seconds: u32 = seconds
        .parse()
        .map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    let targets = match TARGETS.iter().position(|known| *known == target) {
        None if target == "all" => &TARGETS[..],
        Some(place) => &TARGETS[place..=place],
        None => {
            return Err(format!(
                "there is no target `{target}`: name one of all, {}",
                TARGETS.join(", ")
            ));
        }
    };
    let (mut counts, mut failed) = (Vec::new(), Vec::new());
    for target in targets {
        let mut count = 0;
        failed.extend(one(target, seconds, &mut count).err());
        counts.push(count);
    }
    println!();
    for (target, count) in targets.iter().zip(&counts) {
        println!("{count:>12} {target}");
    }
    println!("{:>12} inputs tried", counts.iter().sum::<u64>());
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n")),
    }
}

/// Bytes of the longest input that is made for a target. Short ones are tried sooner, and messages
/// have all their parts in few bytes.
fn longest(target: &str) -> u32 {
    match target {
        "messages" => 8_192,
        "recipe" | "request" | "template" => 16_384,
        _ => 200_000,
    }
}

/// Runs a target, and counts the inputs that it has tried.
fn one(target: &str, seconds: u32, count: &mut u64) -> Outcome {
    let [inputs, failed] = ["corpus", "artifacts"].map(|kind| format!("fuzz/{kind}/{target}/"));
    for folder in [&inputs, &failed] {
        fs::create_dir_all(root().join(folder)).map_err(|error| format!("{folder}: {error}"))?;
    }
    let mut command = in_the_package("run")?;
    command.args(["--bin", target, "--", &inputs]);
    command.arg(format!("-artifact_prefix={failed}"));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={}", longest(target)));
    // An input that takes longer or more memory than any of its size may is a failure, too.
    command.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    run_told(&format!("fuzz {target}"), &mut command, &mut |line| {
        let tried = line.strip_prefix(COUNT);
        *count = tried
            .and_then(|tried| tried.trim().parse().ok())
            .unwrap_or(*count);
    })
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
