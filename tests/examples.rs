//! The programs of `examples/` run and come to a good end, without a network.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `cargo test` puts the examples, beside the folder of this test.
fn built() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a path");
    let profile = own.parent().and_then(Path::parent);
    profile
        .expect("a test lies in target/PROFILE/deps")
        .join("examples")
}

#[test]
fn every_example_runs() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let listed = std::fs::read_dir(sources).expect("the folder of examples");
    let mut names: Vec<String> = listed
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_string))
        .collect();
    names.sort();
    assert!(names.contains(&"serve_in_process".to_string()), "{names:?}");
    for name in names {
        let program = built().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if !program.is_file() {
            println!("skipped: the example {name} is not built: `cargo test` alone builds it");
            continue;
        }
        let output = Command::new(program).output().expect("the example starts");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {words}");
        assert!(!output.stdout.is_empty(), "{name} shows nothing");
    }
}
