//! A long text is read in bounded memory. A test binary of its own: it measures the process.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use concord_data::{DataLoader, DatasetKind, DatasetSource};
use concord_text::TextTokenizer;

/// What a long text may take more than one of two pieces, however long it is. Its bytes and its
/// tokens together would be more.
const MEMORY_MAX: u64 = 16 << 20;

fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("CONCORD_SHARED").map_or(beside, PathBuf::from);
    let found = folder.join(path);
    let is_there = found.exists();
    if !is_there {
        println!(
            "skipped: {} is not there; set CONCORD_SHARED",
            found.display()
        );
    }
    is_there.then_some(found)
}

/// The most memory that this process has held, in bytes; `None` where the system does not say.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// `CONCORD_TEXT_MB=200` reads a text of 200 MB; 8 by default, which takes some seconds.
#[test]
fn a_long_text_takes_no_more_memory_than_a_short_one() {
    let (Some(model), Some(text)) = (
        shared("models/tinystories-260k"),
        shared("data/tinyshakespeare.txt"),
    ) else {
        return;
    };
    let text = fs::read(text).unwrap();
    let size = std::env::var("CONCORD_TEXT_MB").ok();
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(8) * 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TextTokenizer::open(&model).unwrap();
    let read = |bytes: usize, name: &str| {
        let path = folder.path().join(name);
        let mut file = File::create(&path).unwrap();
        let mut left = bytes;
        while left > 0 {
            let part = &text[..text.len().min(left)];
            file.write_all(part).unwrap();
            left -= part.len();
        }
        drop(file);
        let mut loader = DataLoader {
            tokenizer: Some(&tokenizer),
            chat_template: None,
            vocab: 512,
            max_positions: 512,
            eos: &[2],
            sequence_len: 512,
            progress: &mut |_| {},
        };
        let mut count = 0u64;
        let source = DatasetSource::new(path, DatasetKind::Text);
        loader.each(&[source], &mut |_| count += 1).unwrap();
        (count, peak())
    };
    let (few, before) = read(600_000, "short.txt");
    let (many, after) = read(size, "long.txt");
    assert!(many > 10 * few, "{few} and {many} sequences");
    let Some((before, after)) = before.zip(after) else {
        println!("skipped: this system does not say how much memory a process holds");
        return;
    };
    println!(
        "{many} sequences of {} MB of text: {} MB more",
        size / 1_000_000,
        (after - before) >> 20
    );
    assert!(
        after - before < MEMORY_MAX,
        "{} MB more",
        (after - before) >> 20
    );
}
