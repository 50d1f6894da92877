//! The import rules of ARCHITECTURE.md, checked against what cargo says of the workspace.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::sources::{SourceFile, has_word, root, source_files};

/// Each crate, and those of ours that it may import. Tests may import any but the binary.
const IMPORTS: [(&str, &[&str]); 15] = [
    ("xtask", &[]),
    ("concord-formats", &[]),
    ("concord-kernels", &["concord-formats"]),
    ("concord-proto", &["concord-formats"]),
    ("concord-verify", &["concord-proto"]),
    ("concord-text", &[]),
    ("concord-data", &["concord-text"]),
    ("concord-recipe", &[]),
    ("concord-models", &["concord-kernels", "concord-text"]),
    (
        "concord-runtime",
        &[
            "concord-kernels",
            "concord-models",
            "concord-proto",
            "concord-text",
            "concord-verify",
        ],
    ),
    ("concord-scheduler", &["concord-proto"]),
    (
        "concord-coordinator",
        &["concord-proto", "concord-scheduler", "concord-verify"],
    ),
    (
        "concord-simulator",
        &["concord-coordinator", "concord-proto", "concord-verify"],
    ),
    ("concord-gateway", &["concord-proto", "concord-text"]),
    (
        "concord",
        &[
            "concord-coordinator",
            "concord-data",
            "concord-gateway",
            "concord-kernels",
            "concord-models",
            "concord-proto",
            "concord-recipe",
            "concord-runtime",
            "concord-simulator",
            "concord-text",
            "concord-verify",
        ],
    ),
];

/// The crates that open connections: the others link no gRPC.
const CONNECTED: [&str; 3] = ["concord", "concord-coordinator", "concord-runtime"];

/// Used by generated code alone: no source file names them.
const GENERATED_USES: [&str; 2] = ["prost", "tonic_prost"];

/// A package with tests outside its folder: they use its dependencies.
const TESTS_ELSEWHERE: [(&str, &str); 1] = [("xtask", "tests/tidy")];

pub struct Dependency {
    pub package: String,
    folder: String,
    pub name: String,
    features: Vec<String>,
    pub is_dev: bool,
    pub is_optional: bool,
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

fn features(dependency: &Value) -> Vec<String> {
    let list = dependency["features"].as_array().expect("a list");
    list.iter().map(text).collect()
}

/// What every package of the workspace depends on.
pub fn dependencies() -> Vec<Dependency> {
    let of_package = |package: Value| {
        let manifest = text(&package["manifest_path"]);
        let folder = Path::new(&manifest).parent().expect("a folder");
        let folder = folder.to_str().expect("UTF-8").to_string();
        let list = package["dependencies"].as_array().expect("a list").clone();
        list.into_iter().map(move |dependency| Dependency {
            package: text(&package["name"]),
            folder: folder.clone(),
            name: text(&dependency["name"]),
            features: features(&dependency),
            is_dev: dependency["kind"] == "dev",
            is_optional: dependency["optional"] == true,
        })
    };
    packages().into_iter().flat_map(of_package).collect()
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let known = |name: &str| IMPORTS.iter().find(|(package, _)| *package == name);
    let strangers: Vec<String> = packages()
        .iter()
        .map(|package| text(&package["name"]))
        .filter(|name| known(name).is_none())
        .collect();
    assert!(
        strangers.is_empty(),
        "no import rule for {strangers:?}: add one here and in ARCHITECTURE.md"
    );
    for dependency in dependencies() {
        let (package, name) = (&dependency.package, dependency.name.as_str());
        if known(name).is_none() {
            continue;
        }
        assert_ne!(name, "concord", "{package} imports the binary");
        let (_, allowed) = known(package).expect("a package of the workspace");
        assert!(
            dependency.is_dev || allowed.contains(&name),
            "{package} imports {name}: ARCHITECTURE.md allows {allowed:?}"
        );
    }
}

#[test]
fn every_import_that_is_allowed_exists() {
    let dependencies = dependencies();
    for (package, allowed) in IMPORTS {
        for name in allowed {
            let is_used = |d: &Dependency| d.package == package && d.name == *name && !d.is_dev;
            assert!(
                dependencies.iter().any(is_used),
                "{package} does not import {name}: take it off the list, and out of ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn only_what_opens_connections_links_grpc() {
    for dependency in dependencies() {
        let stubs = dependency.name == "concord-proto"
            && dependency.features.iter().any(|feature| feature == "grpc");
        let links = stubs || ["tonic", "prost"].contains(&dependency.name.as_str());
        let may = CONNECTED.contains(&dependency.package.as_str())
            || dependency.package == "concord-proto"
            || dependency.is_dev;
        assert!(
            may || !links,
            "{} links gRPC by {}: {CONNECTED:?} may",
            dependency.package,
            dependency.name
        );
    }
}

#[test]
fn every_dependency_is_used() {
    let files = source_files("rs");
    let is_unused = |dependency: &Dependency| {
        let crate_name = dependency.name.replace('-', "_");
        // The root package's folder holds the other packages too.
        let elsewhere = TESTS_ELSEWHERE
            .iter()
            .find(|(package, _)| *package == dependency.package);
        let is_of_package = |path: &Path| {
            elsewhere.is_some_and(|(_, folder)| path.starts_with(root().join(folder)))
                || path.strip_prefix(&dependency.folder).is_ok_and(|path| {
                    ["src", "tests", "build.rs"]
                        .iter()
                        .any(|part| path.starts_with(part))
                })
        };
        let names_it = |file: &SourceFile| has_word(&file.text, &crate_name);
        let used = files
            .iter()
            .any(|file| is_of_package(&file.path) && names_it(file));
        !used && !GENERATED_USES.contains(&crate_name.as_str())
    };
    for name in GENERATED_USES {
        let named = files.iter().find(|file| {
            let is_here = file.name().starts_with("tests/tidy/");
            !is_here && has_word(&file.text, name)
        });
        let named = named.map(SourceFile::name);
        assert_eq!(named, None, "it names {name}: take that off the list");
    }
    let unused = dependencies().into_iter().filter(is_unused);
    let unused: Vec<String> = unused
        .map(|d| format!("{}: {}", d.package, d.name))
        .collect();
    assert!(
        unused.is_empty(),
        "dependencies that no file names: {unused:?}"
    );
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        assert_eq!(
            line,
            "source = \"registry+https://github.com/rust-lang/crates.io-index\""
        );
    }
}
