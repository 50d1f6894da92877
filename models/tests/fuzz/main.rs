//! Files of every format that is read, changed at random: each is taken or refused with the name of
//! its file, in bounded memory, and nothing panics.
//!
//! A run is decided by its seed. It takes a few seconds; `CONCORD_FUZZ_SECONDS=600` gives each
//! target so many, from another seed each time (`CONCORD_FUZZ_SEED` names one).

mod files;
#[path = "../packed/gguf_writer.rs"]
#[allow(dead_code, reason = "the tests of packed weights use the rest")]
mod gguf_writer;
mod mutate;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use concord_models::config::DecoderConfig;
use concord_models::weights::ModelFolder;
use files::Target;
use mutate::Draw;

/// Changed files of each target where no time is named.
const INPUTS: usize = 150;

/// What this process may have held at most: the files are of some KB.
const MEMORY_MAX_KIB: u64 = 1 << 20;

/// Opens a model and reads all that it has; what is refused.
fn read_all(path: &Path) -> Result<(), String> {
    let model = ModelFolder::open(path).map_err(|error| error.to_string())?;
    let text = model.config().canonical();
    let back = DecoderConfig::from_canonical(&text).map_err(|error| error.to_string())?;
    assert_eq!(back.canonical(), text);
    let _ = model.tokenizer();
    let _ = model.chat_template();
    let _ = model.generation();
    let mut refused = None;
    for spec in model.config().tensors() {
        let whole = model.load(&spec.name);
        let by_rows = model.load_rows(&spec.name, &mut |_, _| Ok(()));
        assert_eq!(whole.is_ok(), by_rows.is_ok(), "{}", spec.name);
        let _ = model.blocks(&spec.name);
        let _ = model.stored_form(&spec.name);
        let _ = model.each_stored(&spec.name, &mut |_| Ok(()));
        refused = refused.or_else(|| whole.err().map(|error| error.to_string()));
    }
    refused.map_or(Ok(()), Err)
}

/// The most memory that this process has held, in KiB, where the system says it.
fn peak_memory_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A number of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(target: &Target, index: u64) {
    let seconds = number("CONCORD_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("CONCORD_FUZZ_SEED").unwrap_or_else(|| match seconds {
        Some(_) => std::process::id().into(),
        None => 1,
    });
    let mut draw = Draw::new(seed.wrapping_mul(1_000).wrapping_add(index));
    let folder = tempfile::tempdir().unwrap();
    target.write(folder.path(), None);
    assert_eq!(
        read_all(&target.opened(folder.path())),
        Ok(()),
        "{}",
        target.name
    );
    let (start, mut refused, mut inputs) = (Instant::now(), 0, 0);
    while seconds.map_or(inputs < INPUTS, |seconds| start.elapsed() < seconds) {
        let bytes = target.mutated(&mut draw);
        target.write(folder.path(), Some(&bytes));
        if let Err(error) = read_all(&target.opened(folder.path())) {
            refused += 1;
            let named = folder.path().to_string_lossy();
            let names_it = error.contains(&*named);
            assert!(names_it, "{} (seed {seed}): {error}", target.name);
        }
        inputs += 1;
    }
    println!("{}: {refused} of {inputs} refused", target.name);
    assert!(
        refused * 10 > inputs,
        "{}: {refused} of {inputs}",
        target.name
    );
}

#[test]
fn files_changed_at_random_are_taken_or_refused_by_name() {
    for (index, target) in files::targets().iter().enumerate() {
        run(target, index as u64);
    }
    let peak = peak_memory_kib();
    assert!(
        peak.is_none_or(|peak| peak < MEMORY_MAX_KIB),
        "{peak:?} KiB"
    );
}
