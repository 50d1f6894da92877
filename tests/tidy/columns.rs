//! Lines of at most 100 columns: two files stand side by side, and a comment is read in one go.

use crate::sources::{SourceFile, assert_none, lines_of, source_files};

const COLUMNS_MAX: usize = 100;

/// What people write. Pages, styles and data are not in it.
const EXTENSIONS: [&str; 8] = ["rs", "md", "toml", "cu", "cuh", "cpp", "h", "c"];

/// Records of what was measured, with tables and command lines as they were, and a generated table.
const RECORDS: [&str; 2] = ["benches/runs/", "kernels/cuda/resources.md"];

/// Longer lines that a file may have. The list may only shrink.
const LONG_LINES: [(&str, usize); 0] = [];

/// Whether a line is too long, and could be broken.
fn is_long(file: &SourceFile, line: &str) -> bool {
    // A row of a table is one line, whatever it holds; nobody can break a URL.
    let is_row = file.name().ends_with(".md") && line.trim_start().starts_with('|');
    let has_break = line
        .trim_start()
        .trim_start_matches(['/', '!', '*', '-', '#', ' '])
        .contains(' ');
    line.chars().count() > COLUMNS_MAX && !is_row && has_break
}

#[test]
fn lines_have_100_columns() {
    let mut broken = Vec::new();
    let mut listed = LONG_LINES.to_vec();
    for file in EXTENSIONS
        .iter()
        .flat_map(|extension| source_files(extension))
    {
        let name = file.name();
        if RECORDS.iter().any(|record| name.starts_with(record)) {
            continue;
        }
        let long = lines_of(&file, |line| is_long(&file, line));
        match listed.iter().position(|(path, _)| *path == name) {
            None => broken.extend(long),
            Some(at) => {
                let (_, max) = listed.remove(at);
                if long.len() > max {
                    broken.extend(long);
                } else if long.len() < max {
                    broken.push(format!(
                        "{name}: {} long lines now, put that into the list",
                        long.len()
                    ));
                }
            }
        }
    }
    broken.extend(
        listed
            .iter()
            .map(|(path, _)| format!("{path}: is gone, take it off the list")),
    );
    assert_none(&broken, "a line has at most 100 columns");
}
