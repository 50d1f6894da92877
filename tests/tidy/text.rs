//! Rules on the text of source files.

use crate::sources::{SourceFile, assert_none, code, has_word, lines_where, root, source_files};

/// Lines that a file may have.
const FILE_LINES_MAX: usize = 500;
/// Lines that a function may have.
const FUNCTION_LINES_MAX: usize = 70;

/// Longer functions, as file and name. The list may only shrink.
const LONG_FUNCTIONS: [(&str, &str); 3] = [
    ("coordinator/src/store/write.rs", "write"),
    ("simulator/src/job.rs", "job"),
    ("tests/one_hash.rs", "one_job_has_one_hash_on_every_pool"),
];

/// The only places with unsafe code: SIMD, calls of the libraries of GPUs, the map of a weight file
/// into memory, and the loops that measure what a machine can reach.
const UNSAFE_PLACES: [&str; 9] = [
    "benches/src/bin/gemm/machine.rs",
    "kernels/src/collective/nccl.rs",
    "kernels/src/cpu/",
    "kernels/src/cuda/cublas.rs",
    "kernels/src/cuda/cublaslt.rs",
    "kernels/src/gpu/emulator/library.rs",
    "kernels/src/gpu/nvidia",
    "kernels/src/gpu/nvrtc.rs",
    "models/src/weights/file.rs",
];

/// State machines and readers of texts: no clock, randomness, sockets, disk, threads or async.
const PURE_PLACES: [&str; 4] = [
    "coordinator/src/core/",
    "recipe/src/",
    "runtime/src/training/core/",
    "scheduler/src/",
];
const IMPURE: [&str; 9] = [
    "Instant",
    "SystemTime",
    "getrandom",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
    "tokio",
    "tonic",
];

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for file in source_files("rs") {
        let (name, lines) = (file.name(), file.lines().count());
        if lines > FILE_LINES_MAX {
            broken.push(format!("{name}: {lines} lines"));
        }
    }
    assert_none(&broken, "a file has at most 500 lines: one concept each");
}

/// Functions of a file, as name and number of lines. It relies on rustfmt: the closing brace stands
/// below the first letter of the function's line.
fn functions(file: &SourceFile) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let words = [
            "pub",
            "pub(crate)",
            "pub(super)",
            "const",
            "async",
            "unsafe",
        ];
        let mut rest = text.split(' ').skip_while(|word| words.contains(word));
        if rest.next() != Some("fn") {
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = rest.next().unwrap_or("");
        let name = name.split(|c| !is_name(c)).next().unwrap_or("");
        let indent = &line[..line.len() - text.len()];
        let ends = |line: &&str| line.strip_prefix(indent) == Some("}");
        let stops_at_once = line.ends_with(';') || line.ends_with('}');
        let length = lines[start..].iter().position(ends).unwrap_or(0) + 1;
        functions.push((name.to_string(), if stops_at_once { 1 } else { length }));
    }
    functions
}

#[test]
fn functions_are_short() {
    let mut broken = Vec::new();
    let mut listed = LONG_FUNCTIONS.to_vec();
    for file in source_files("rs") {
        let name = file.name();
        for (function, lines) in functions(&file) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let place = listed.iter().position(|entry| *entry == (&name, &function));
            match place {
                Some(place) => drop(listed.remove(place)),
                None => broken.push(format!("{name}: {function} has {lines} lines")),
            }
        }
    }
    let gone = |(file, function): &(&str, &str)| format!("{file}: {function} is off the list now");
    broken.extend(listed.iter().map(gone));
    assert_none(&broken, "a function has at most 70 lines");
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let broken = lines_where("rs", |file, line| {
        let name = file.name();
        let allowed = UNSAFE_PLACES.iter().any(|place| name.starts_with(place));
        !allowed && has_word(&code(line), "unsafe")
    });
    assert_none(
        &broken,
        "unsafe code stands where instructions, libraries and maps need it, and nowhere else",
    );
}

#[test]
fn places_of_exceptions_are_needed() {
    let files = source_files("rs");
    let mut broken = Vec::new();
    for place in UNSAFE_PLACES {
        let within = files.iter().filter(|file| file.name().starts_with(place));
        let mut lines = within.flat_map(|file| file.text.lines());
        if !lines.any(|line| has_word(&code(line), "unsafe")) {
            broken.push(format!("{place}: no unsafe code, take it off the list"));
        }
    }
    for place in PURE_PLACES {
        if !files.iter().any(|file| file.name().starts_with(place)) {
            broken.push(format!("{place}: no such core; where is it now?"));
        }
    }
    assert_none(&broken, "lists of places say what is");
}

#[test]
fn cores_are_pure() {
    let broken = lines_where("rs", |file, line| {
        let name = file.name();
        let in_core = PURE_PLACES.iter().any(|place| name.starts_with(place));
        let pure = in_core && !name.contains("/tests/");
        let code = code(line);
        pure && IMPURE.iter().any(|word| match word.contains("::") {
            true => code.contains(word),
            false => has_word(&code, word),
        })
    });
    assert_none(&broken, "a core takes time and events, and gives effects");
}

#[test]
fn rust_files_are_ascii() {
    assert_none(&lines_where("rs", |_, line| !line.is_ascii()), "ASCII only");
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    // In two parts, so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let open = |line: &str, word: &str| {
        let after = line.split(word).skip(1);
        has_word(line, word) && after.into_iter().any(|rest| !rest.starts_with("(#"))
    };
    let broken = lines_where("rs", |_, line| words.iter().any(|word| open(line, word)));
    assert_none(&broken, "what is left for later names its issue, as (#12)");
}

#[test]
fn every_channel_is_bounded() {
    let broken = lines_where("rs", |_, line| {
        let code = code(line);
        ["unbounded", "mpsc::channel()"]
            .iter()
            .any(|word| code.contains(word))
    });
    assert_none(&broken, "a channel has a bound");
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    for extension in ["rs", "toml", "md", "yaml", "py", "proto", "sql"] {
        let broken = lines_where(extension, |_, line| {
            places.iter().any(|place| line.contains(place))
        });
        assert_none(&broken, "paths are relative, or come from the user");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for file in source_files("md") {
        let folder = file.path.parent().unwrap_or(root());
        for link in file.text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or("");
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local && !folder.join(target).exists() {
                broken.push(format!("{}: {target}", file.name()));
            }
        }
    }
    assert_none(&broken, "a link leads to a file");
}
