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
mod packed;
mod read;

use std::fs;
use std::time::{Duration, Instant};

use files::Target;
use mutate::Draw;
use read::read_all;

/// Changed files of each target where no time is named.
const INPUTS: usize = 150;

/// What this process may have held at most: the files are of some KB.
const MEMORY_MAX_KIB: u64 = 1 << 20;

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
    target.write(folder.path());
    assert_eq!(
        read_all(&target.opened(folder.path())),
        Ok(()),
        "{}",
        target.name
    );
    let (start, mut refused, mut inputs) = (Instant::now(), 0, 0);
    while seconds.map_or(inputs < INPUTS, |seconds| start.elapsed() < seconds) {
        let bytes = target.mutated(&mut draw);
        target.change(folder.path(), &bytes);
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
