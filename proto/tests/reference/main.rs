//! `docs/protocol.md`: every message, who sends it to whom, its fields and bounds. It is made from
//! the schema, the types and the tables below; `CONCORD_WRITE_DOCS=1` writes it, and without that
//! the test fails where it differs.

mod source;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use concord_proto::limits;
use source::{Types, wrapped};

/// What a gRPC method carries: the two directions, and the bound on each message.
struct Call {
    method: &'static str,
    asks: &'static str,
    answers: &'static str,
    bound: &'static str,
}

const fn call(
    method: &'static str,
    asks: &'static str,
    answers: &'static str,
    bound: &'static str,
) -> Call {
    Call {
        method,
        asks,
        answers,
        bound,
    }
}

const CALLS: [Call; 11] = [
    call(
        "Coordinator.Session",
        "`ToCoordinator`, each signed, from a worker or checker",
        "`ToWorker`, each signed by the coordinator",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Coordinator.Call",
        "`ClientRequest` from a client",
        "`ClientResponse`",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Coordinator.Watch",
        "`WatchRequest` from a client",
        "`JobEvent`, one after another",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Coordinator.GetBlob",
        "the `Digest` of a blob, from anybody",
        "its bytes",
        "BLOB_BYTES_MAX",
    ),
    call(
        "Coordinator.PutBlob",
        "the bytes of a blob, from anybody",
        "their `Digest`",
        "BLOB_BYTES_MAX",
    ),
    call(
        "Coordinator.Lane",
        "a signed `StageStreamHello`, then `FromStage`, from the holder of a stage",
        "`ToStage`",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Worker.Push",
        "`FrameHeader`, then tensors, from a worker of the same plan",
        "nothing",
        "FRAME_BYTES_MAX",
    ),
    call(
        "Worker.Open",
        "`OpenRequest` from a checker",
        "`Opening`",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Worker.Prove",
        "`AddressChallenge` from the coordinator",
        "`AddressProof`",
        "MESSAGE_BYTES_MAX",
    ),
    call(
        "Worker.GetBlob",
        "the `Digest` of a blob, from a checker",
        "its bytes",
        "BLOB_BYTES_MAX",
    ),
    call(
        "Worker.Pass",
        "`PassHeader`, then hidden states, from the stage before",
        "nothing",
        "FRAME_BYTES_MAX",
    ),
];

/// What is signed or stored beside the calls, and where it is found.
const RECORDS: [(&str, &str); 18] = [
    ("JobSpec", "a blob, and `job.spec` of a bundle"),
    ("ModelManifest", "a blob"),
    ("DataManifest", "a blob, and `data.manifest` of a bundle"),
    ("StateManifest", "a blob, and `state.initial` of a bundle"),
    ("AdapterManifest", "a blob"),
    ("TensorHeader", "the first bytes of the blob of a tensor"),
    (
        "MomentHeader",
        "in the blob of a moment in 8 bits, after its mark",
    ),
    (
        "FirstHalf",
        "signed by a worker, in `ToCoordinator::Computed` and `claims.steps`",
    ),
    (
        "Claim",
        "signed by a worker, in `ToCoordinator::Updated` and `claims.steps`",
    ),
    ("StepRecord", "`chain.records` of a bundle"),
    (
        "LedgerEntry",
        "signed by the coordinator, in `ledger.entries` of a bundle",
    ),
    (
        "Verdict",
        "signed by a checker, in `ToCoordinator::Verdict` and the ledger",
    ),
    (
        "Enrolment",
        "signed by an auditor, in `ToCoordinator::Enrolled` and the ledger",
    ),
    (
        "Reveal",
        "signed by an auditor, in `ToCoordinator::Revealed` and the ledger",
    ),
    (
        "StageClaim",
        "signed by the holder of a stage, in `FromStage::Claimed` and a receipt",
    ),
    ("Receipt", "in a `BatchedReceipt`"),
    (
        "ReceiptBatch",
        "signed by the coordinator, in a `BatchedReceipt`",
    ),
    (
        "BatchedReceipt",
        "a blob, and `signed` in the file that is given to who asked for the answer",
    ),
];

/// Fields with a bound of their own. All others are bounded by the message that they are in.
const FIELD_BOUNDS: [(&str, &str, &str); 14] = [
    ("JobSpec", "steps", "STEPS_MAX"),
    ("JobSpec", "microbatches", "MICROBATCHES_MAX"),
    ("TensorHeader", "shape", "RANK_MAX"),
    ("MomentHeader", "shape", "RANK_MAX"),
    ("DeviceInfo", "name", "NAME_BYTES_MAX"),
    ("Hello", "endpoint", "ADDRESS_BYTES_MAX"),
    ("Claim", "device", "NAME_BYTES_MAX"),
    ("FrameHeader", "bytes", "FRAME_BYTES_MAX"),
    ("LedgerEvent", "conviction", "CONVICTION_BYTES_MAX"),
    ("RunOptions", "auditors", "AUDITORS_MAX"),
    ("GenerationSpec", "stop_texts", "STOP_TEXTS_MAX"),
    ("GenerationSpec", "readings", "READINGS_MAX"),
    ("TokenReading", "bytes", "READING_BYTES_MAX"),
    ("TokenLogprob", "top", "TOP_LOGPROBS_MAX"),
];

/// The values of the bounds, as the program has them.
const LIMITS: [(&str, u64); 17] = [
    ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX as u64),
    ("BLOB_BYTES_MAX", limits::BLOB_BYTES_MAX),
    ("CHUNK_BYTES", limits::CHUNK_BYTES as u64),
    ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX),
    ("CONVICTION_BYTES_MAX", limits::CONVICTION_BYTES_MAX as u64),
    ("RANK_MAX", limits::RANK_MAX as u64),
    ("MICROBATCHES_MAX", limits::MICROBATCHES_MAX as u64),
    ("STEPS_MAX", limits::STEPS_MAX as u64),
    ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
    ("ADDRESS_BYTES_MAX", limits::ADDRESS_BYTES_MAX as u64),
    ("AUDITORS_MAX", limits::AUDITORS_MAX as u64),
    ("CHECKERS_MAX", limits::CHECKERS_MAX as u64),
    ("STOP_TEXTS_MAX", limits::STOP_TEXTS_MAX as u64),
    ("STOP_TEXT_BYTES_MAX", limits::STOP_TEXT_BYTES_MAX as u64),
    ("READINGS_MAX", limits::READINGS_MAX as u64),
    ("READING_BYTES_MAX", limits::READING_BYTES_MAX as u64),
    ("TOP_LOGPROBS_MAX", limits::TOP_LOGPROBS_MAX as u64),
];

const HEAD: &str = "# Protocol reference

Generated from the code: `CONCORD_WRITE_DOCS=1 cargo test -p concord-proto --test reference` writes
it, and the same test fails where it differs. What the messages mean, and which rules they keep, is
in [PROTOCOL.md](../PROTOCOL.md).

A message is one canonical encoding (borsh) of a type below: fields in this order, integers
little-endian, lists and texts after a u32 of their length, variants by a byte that counts them from
0. What is over its bound, has bytes left over or does not re-encode to the same bytes is refused.
";

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documented constants of `limits.rs`.
fn limit_docs() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("src/limits.rs").expect("the limits");
    let mut docs = BTreeMap::new();
    let mut doc = String::new();
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            doc = [doc.as_str(), words].join(" ").trim().to_string();
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().expect("a name");
            docs.insert(name.to_string(), std::mem::take(&mut doc));
        } else {
            // What was said was of something else, such as a function.
            doc.clear();
        }
    }
    docs
}

/// `1234567` as `1,234,567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3);
    let groups = groups.map(|group| String::from_utf8_lossy(group).to_string());
    let all = (!head.is_empty())
        .then(|| head.to_string())
        .into_iter()
        .chain(groups);
    all.collect::<Vec<_>>().join(",")
}

/// Each method of the schema with its request, its response and its comment.
fn methods() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string("schema/concord.proto").expect("the schema");
    let (mut service, mut comment, mut all) = (String::new(), String::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.trim_end_matches(" {").to_string();
        } else if let Some(words) = line.strip_prefix("// ") {
            comment = [comment.as_str(), words].join(" ").trim().to_string();
            continue;
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            let (name, rest) = rest.split_once('(').expect("a request");
            let frames = rest.trim_end_matches(';').replace(") returns (", " -> ");
            let frames = frames.trim_end_matches(')').to_string();
            let comment = std::mem::take(&mut comment);
            all.push((format!("{service}.{name}"), frames, comment));
            continue;
        }
        comment.clear();
    }
    all
}

fn calls() -> String {
    let mut text = String::from("\n## Calls\n");
    let methods = methods();
    let in_schema: Vec<&str> = methods.iter().map(|(name, ..)| name.as_str()).collect();
    let in_table: Vec<&str> = CALLS.iter().map(|call| call.method).collect();
    assert_eq!(
        in_schema, in_table,
        "CALLS has not the methods of the schema"
    );
    for (call, (name, frames, comment)) in CALLS.iter().zip(&methods) {
        let _ = write!(text, "\n### `{name}`\n\n");
        if !comment.is_empty() {
            text += &wrapped("", comment);
            text += "\n";
        }
        text += &wrapped("* ", &format!("asks: {}", call.asks));
        text += &wrapped("* ", &format!("answers: {}", call.answers));
        text += &wrapped("* ", &format!("bound: `{}`", call.bound));
        text += &wrapped("* ", &format!("framed as: `{frames}`"));
    }
    text
}

fn bounds() -> String {
    let mut text = String::from("\n## Bounds\n\n");
    let docs = limit_docs();
    let documented: Vec<&String> = docs.keys().collect();
    let mut known: Vec<&str> = LIMITS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(
        documented, known,
        "LIMITS has not the constants of limits.rs"
    );
    for (name, value) in LIMITS {
        let line = format!("`{name}` = {}. {}", grouped(value), docs[name]);
        text += &wrapped("* ", &line);
    }
    text
}

fn roots() -> Vec<String> {
    let texts = CALLS.iter().flat_map(|call| [call.asks, call.answers]);
    let named = texts.flat_map(|text| text.split('`').skip(1).step_by(2));
    let stored = RECORDS.iter().map(|(name, _)| *name);
    named.chain(stored).map(str::to_string).collect()
}

fn records() -> String {
    let mut text = String::from("\n## Signed or stored beside the calls\n\n");
    for (name, place) in RECORDS {
        text += &wrapped("* ", &format!("`{name}`: {place}"));
    }
    text
}

fn messages(types: &Types) -> String {
    let mut text = String::from("\n## Types\n");
    let bound_of = |name: &str, field: &str| {
        let all = FIELD_BOUNDS.iter();
        let mut of = all.filter(|(kind, of, _)| (*kind, *of) == (name, field));
        of.next().map(|(.., bound)| *bound)
    };
    for (name, field, _) in FIELD_BOUNDS {
        let found = types.get(name).fields.iter().any(|f| f.name == field);
        assert!(found, "{name} has no field {field}: FIELD_BOUNDS");
    }
    for name in types.reachable(&roots()) {
        let of = types.get(&name);
        assert!(!of.doc.is_empty(), "{name} has no sentence");
        let _ = write!(text, "\n### `{name}`\n\n");
        text += &wrapped("", &of.doc);
        if !of.fields.is_empty() {
            text += "\n";
        }
        for field in &of.fields {
            let shape = match field.shape.as_str() {
                "" => String::new(),
                shape => format!(" `{shape}`"),
            };
            let bound = match bound_of(&name, &field.name) {
                Some(bound) => format!(" At most `{bound}`."),
                None => String::new(),
            };
            let doc = match field.doc.as_str() {
                "" => String::new(),
                doc => format!(": {doc}"),
            };
            let line = format!("`{}`{shape}{doc}{bound}", field.name);
            text += &wrapped(&format!("{}* ", "  ".repeat(field.depth)), &line);
        }
    }
    text
}

#[test]
fn the_reference_is_what_the_code_says() {
    let types = Types::read(&["src", "../formats/src"]);
    let text = [HEAD, &calls(), &records(), &bounds(), &messages(&types)].concat();
    let path = repository().join("docs/protocol.md");
    if std::env::var_os("CONCORD_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs/");
        std::fs::write(&path, &text).expect("docs/protocol.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let same = found
        .lines()
        .zip(text.lines())
        .take_while(|(a, b)| a == b)
        .count();
    assert!(
        found == text,
        "docs/protocol.md differs from the code at line {}: run this test with \
         CONCORD_WRITE_DOCS=1",
        same + 1
    );
}
