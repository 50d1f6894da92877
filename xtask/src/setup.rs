//! What building and testing needs besides Rust and a C compiler: found, installed where that is
//! allowed, or named with the line that installs it.

use std::env;
use std::path::{Path, PathBuf};

use crate::step::{command, run, succeeds};
use crate::{Outcome, nvrtc, root};

/// NVIDIA's run-time compiler, 90 MB: the last release line that knows Pascal and Volta.
const NVRTC: &str = "nvidia-cuda-nvrtc-cu12==12.9.*";
/// Clients that people use, by their names on PyPI and in Python.
const CLIENTS: [(&str, &str); 2] = [
    ("openai", "openai"),
    ("langchain-openai", "langchain_openai"),
];

/// Variables of the environment that tell builds and tests where something is.
pub type NamedPaths = Vec<(String, PathBuf)>;

/// Which features the workspace is built with.
#[derive(Clone, Copy)]
pub struct Features {
    has_emulator: bool,
}

impl Features {
    /// As cargo takes them.
    pub fn list(self) -> &'static str {
        match self.has_emulator {
            true => "liars,emulator",
            false => "liars",
        }
    }
}

/// What tests are given, and what they are not.
pub struct Ready {
    pub variables: NamedPaths,
    /// What is missing: what is skipped without it, and how to get it.
    pub missing: Vec<String>,
}

/// A program of Debian's.
struct Tool {
    /// Commands that show that it is there: each succeeds.
    probes: &'static [&'static [&'static str]],
    packages: &'static [&'static str],
    /// What is skipped without it.
    without: &'static str,
}

const CXX: Tool = Tool {
    probes: &[&["c++", "--version"]],
    packages: &["g++"],
    without: "emulated GPUs: there is no C++ compiler",
};
const PYTHON: Tool = Tool {
    probes: &[&["python3", "-c", "import ensurepip, venv"]],
    packages: &["python3", "python3-venv"],
    without: "there is no python3 with venv",
};
const BROWSER: Tool = Tool {
    probes: &[&["chromedriver", "--version"]],
    packages: &["chromium", "chromium-driver"],
    without: "the page of the gateway: there is no chromedriver",
};
const CURL: Tool = Tool {
    probes: &[&["curl", "--version"], &["bash", "--version"]],
    packages: &["curl", "bash"],
    without: "the README's requests: there is no curl or bash",
};

impl Tool {
    fn is_there(&self) -> bool {
        self.probes
            .iter()
            .all(|probe| succeeds(probe[0], &probe[1..]))
    }
}

/// Adds a component of the toolchain.
///
/// # Errors
/// It is not there, and rustup cannot add it.
pub fn rust_component(name: &str) -> Outcome {
    let subcommand = if name == "rustfmt" { "fmt" } else { name };
    if succeeds("cargo", &[subcommand, "--version"]) {
        return Ok(());
    }
    run(
        "set-up",
        &mut command("rustup", &["component", "add", name]),
    )
}

/// The features that can be built with what is there.
pub fn features_at_hand() -> Features {
    Features {
        has_emulator: CXX.is_there(),
    }
}

/// Gets what building needs: the C++ compiler, and the compiler of kernels. Returns what is missing
/// all the same: what is skipped without it, and how to get it.
pub fn before_the_build() -> Vec<String> {
    let mut missing = install(&[CXX]);
    if let Err(reason) = fetch_nvrtc() {
        missing.push(format!("machine code for GPUs: {reason}"));
    }
    missing
}

/// What only running tests need, and may be fetched while they are built.
pub fn meanwhile() -> Ready {
    let mut missing = install(&[BROWSER, CURL]);
    let mut variables = NamedPaths::new();
    match clients() {
        Ok(Some(python)) => variables.push(("CONCORD_CLIENTS".to_string(), python)),
        Ok(None) => {}
        Err(reason) => missing.push(format!("clients in Python: {reason}")),
    }
    Ready { variables, missing }
}

/// Installs what is not there; returns what still is not, with the line that installs it.
fn install(tools: &[Tool]) -> Vec<String> {
    let absent = || tools.iter().filter(|tool| !tool.is_there());
    let packages: Vec<&str> = absent().flat_map(|tool| tool.packages).copied().collect();
    if packages.is_empty() {
        return Vec::new();
    }
    if let Some(words) = administrator()
        && let Err(reason) = apt(words, &packages)
    {
        println!("{reason}");
    }
    let line = |tool: &Tool| {
        let packages = tool.packages.join(" ");
        format!(
            "{} (on Debian and Ubuntu: sudo apt-get install {packages})",
            tool.without
        )
    };
    absent().map(line).collect()
}

/// Installs packages; `words` stand before `apt-get`. Without a network it gives up soon, and it
/// waits for another installation to end.
fn apt(words: &[&str], packages: &[&str]) -> Outcome {
    let line: Vec<&str> = words.iter().copied().chain(["apt-get"]).collect();
    let patience = [
        "Acquire::http::Timeout=20",
        "Acquire::https::Timeout=20",
        "Acquire::Retries=1",
        "DPkg::Lock::Timeout=120",
    ];
    let step = |arguments: &[&str]| {
        let mut command = command(line[0], &line[1..]);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        for option in patience {
            command.args(["-o", option]);
        }
        run("set-up", command.args(arguments))
    };
    step(&["update", "-q"])?;
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    step(&[&install[..], packages].concat())
}

/// What stands before `apt-get` where this process may call it; nothing where it may not. It asks
/// for no password, and takes `sudo` only on machines of continuous integration, which set `CI`.
fn administrator() -> Option<&'static [&'static str]> {
    if forbidden() || !succeeds("apt-get", &["--version"]) {
        return None;
    }
    let is_root = || {
        let id = crate::step::printed(&mut command("id", &["-u"]));
        id.is_ok_and(|id| id.trim() == "0")
    };
    if is_root() {
        return Some(&[]);
    }
    let sudo: &[&str] = &["sudo", "-n"];
    (env::var_os("CI").is_some() && succeeds("sudo", &["-n", "true"])).then_some(sudo)
}

fn forbidden() -> bool {
    env::var_os("CONCORD_NO_INSTALL").is_some_and(|value| !value.is_empty())
}

fn fetch_nvrtc() -> Outcome {
    if nvrtc::is_named() || nvrtc::fetched().is_some() {
        return Ok(());
    }
    let python = python()?;
    pip(&python, &["--no-deps", "--target", nvrtc::FOLDER, NVRTC])
}

/// A Python with the clients, made if it is not there; nothing if the variable names one.
fn clients() -> Result<Option<PathBuf>, String> {
    if env::var_os("CONCORD_CLIENTS").is_some_and(|value| !value.is_empty()) {
        return Ok(None);
    }
    let python = python()?;
    let imports: Vec<String> = CLIENTS
        .iter()
        .map(|(_, module)| format!("import {module}"))
        .collect();
    if !succeeds(&python, &["-c", &imports.join("; ")]) {
        pip(&python, &CLIENTS.map(|(package, _)| package))?;
    }
    Ok(Some(python))
}

/// A Python of our own, made if it is not there, so that nothing of the machine's is changed.
fn python() -> Result<PathBuf, String> {
    let folder = root().join("target/clients");
    let python = folder.join("bin/python");
    if succeeds(&python, &["-m", "pip", "--version"]) {
        return Ok(python);
    }
    if let Some(missing) = install(&[PYTHON]).pop() {
        return Err(missing);
    }
    let target = folder.to_string_lossy();
    run(
        "set-up",
        &mut command("python3", &["-m", "venv", "--clear", &target]),
    )?;
    Ok(python)
}

fn pip(python: &Path, arguments: &[&str]) -> Outcome {
    if forbidden() {
        let words = arguments.join(" ");
        return Err(format!("not installed (python3 -m pip install {words})"));
    }
    let mut pip = command(
        python,
        &["-m", "pip", "install", "--quiet", "--retries", "1"],
    );
    run("set-up", pip.args(arguments))
}

/// Instruction sets that tests compare, where this machine has them.
const FLAGS: [&str; 7] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
];

/// What the tests leave out as this machine's processor lacks it; nothing where it has all.
pub fn missing_instructions() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags: Vec<&str> = info.split_whitespace().collect();
    let absent: Vec<&str> = FLAGS
        .into_iter()
        .filter(|flag| !flags.contains(flag))
        .collect();
    let reason = |names: String| format!("instruction sets: this machine lacks {names}");
    (!absent.is_empty()).then(|| reason(absent.join(", ")))
}
