//! `docs/api.md` equals what is made from the tables in the code.

use std::fs;
use std::path::Path;

#[test]
fn the_reference_of_the_api_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let made = concord_gateway::api_reference();
    if std::env::var_os("CONCORD_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        fs::write(&path, &made).expect("the file can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = made
        .lines()
        .zip(written.lines())
        .find(|(made, written)| made != written);
    assert!(
        made == written,
        "docs/api.md differs from the code, first in {line:?}: write it again by\n\
         CONCORD_WRITE_DOCS=1 cargo test -p concord-gateway --test reference"
    );
}

/// Lines that are not rows of a table fit into a terminal.
#[test]
fn lines_are_short() {
    for line in concord_gateway::api_reference().lines() {
        assert!(
            line.starts_with('|') || line.chars().count() <= 100,
            "{line}"
        );
    }
}
