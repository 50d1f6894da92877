//! What each command of the README is to do.

/// How a command is followed, and what shows that it did what the page says.
pub enum Way {
    /// It ends well, and its standard output has these words.
    Says(&'static [&'static str]),
    /// A way to start the binary that builds it first: the command that stands for it here.
    AsBinary(&'static str, &'static [&'static str]),
    /// The same with a reader who types something.
    Typed(&'static str, &'static [&'static str]),
    /// It runs on; a line with this word shows that it does.
    Serves(&'static str),
    /// The same, after what ran before was ended with SIGTERM, as it takes the same port.
    ServesAlone(&'static str),
    /// It works on a machine with a GPU; elsewhere it fails with these words.
    NeedsGpu(&'static [&'static str]),
    /// It fails here, with these words.
    Refuses(&'static [&'static str]),
    /// `.ci/run` runs it, or `cargo xtask ci`, word by word.
    InCi,
}

use Way::{AsBinary, InCi, NeedsGpu, Refuses, Says, Serves, ServesAlone, Typed};

/// Said once the pool takes requests; before that, "not ready: ..." says why it does not.
const SERVES: &str = "ready: pipeline 0 serves";
const NO_GPU: &[&str] = &["error: "];

/// Each command, as it stands in the README.
pub const WAYS: &[(&str, Way)] = &[
    (
        "cargo run --release -- demo",
        AsBinary("concord demo", &["mallory is convicted", "one hash"]),
    ),
    ("./test", InCi),
    ("cargo install --path .", InCi),
    (
        "concord demo --keep demo",
        Says(&["kept in demo", "one hash"]),
    ),
    (
        "concord train --keys",
        Says(&["base_model", "sequence_len", "recompute"]),
    ),
    (
        "concord train job.yaml",
        Says(&["done: 30 steps", "hash ", "out/mine/proof"]),
    ),
    (
        "concord train job.yaml --overwrite --workers local:3",
        Says(&["done: 30 steps", "hash "]),
    ),
    (
        "concord generate --model out/mine --prompt \"Seven\" --raw",
        // The text that follows, and nothing else.
        Says(&[]),
    ),
    (
        "concord verify out/mine/proof --model out/mine --job job.yaml --replay all",
        Says(&[
            "proven ",
            "every step of the job",
            "as the last step left it",
            "as it was trained on",
        ]),
    ),
    (
        "concord compare out/mine demo/tuned-1",
        Says(&["last loss", "hash"]),
    ),
    (
        "concord init demo/tuned-1 demo/data.txt --output new.yaml",
        Says(&["new.yaml is written"]),
    ),
    (
        "concord train new.yaml --explain",
        Says(&["Concord's default", "line "]),
    ),
    (
        "concord train new.yaml --dry-run --set max_steps=20",
        Says(&["steps ", "memory ", "disk "]),
    ),
    (
        "concord merge out/mine -o out/merged",
        Says(&["written in ", "out/merged"]),
    ),
    (
        "concord export out/mine --gguf q8_0 -o mine.gguf",
        Says(&["written as q8_0: mine.gguf"]),
    ),
    (
        "concord push out/mine owner/name",
        // The reader of the test has no access to the hub.
        Refuses(&["HF_HUB_OFFLINE"]),
    ),
    (
        "concord coordinator --listen 0.0.0.0:7700",
        Serves("listens on"),
    ),
    (
        "concord worker  --coordinator concord://KEY@HOST:7700 --listen 0.0.0.0:7701 \
         --advertise concord://ME:7701",
        Serves(" at concord://127.0.0.1:"),
    ),
    (
        "concord checker --coordinator concord://KEY@HOST:7700",
        Serves("checker "),
    ),
    (
        "concord train job.yaml --overwrite --coordinator concord://KEY@HOST:7700",
        Says(&["done: 30 steps", "hash "]),
    ),
    (
        "concord status  --coordinator concord://KEY@HOST:7700",
        Says(&["worker", "checker"]),
    ),
    (
        "concord serve --model out/mine",
        ServesAlone("ready: pipeline"),
    ),
    (
        "concord chat --server http://127.0.0.1:8000",
        Typed("Seven\n", &[]),
    ),
    (
        "curl -s --json '{\"prompt\": \"Seven\", \"max_tokens\": 8}' \
         http://127.0.0.1:8000/v1/completions > answer.json",
        Says(&[]),
    ),
    (
        "curl -s http://127.0.0.1:8000/v1/receipts/$(grep -o 'cmpl-[^\"]*' answer.json) \
         > receipt.json",
        Says(&[]),
    ),
    (
        "concord verify receipt.json --model demo/tuned-1 --adapter out/mine",
        Says(&["proven ", "each drawn again"]),
    ),
    (
        "concord serve --model demo/tuned-1 --workers 3 --stages 3",
        ServesAlone(SERVES),
    ),
    (
        "concord serve --model demo/tuned-1 --adapter poet=out/mine",
        ServesAlone(SERVES),
    ),
    (
        "concord load --server http://127.0.0.1:8000",
        Says(&["tokens/s"]),
    ),
    (
        "concord serve --model demo/tuned-1 --preview",
        Says(&["predicted: first token"]),
    ),
    (
        "concord plan demo/tuned-1 --workers 8G,4G",
        Says(&["serving", "training", "needs"]),
    ),
    (
        "concord worker --device cuda:0 --coordinator concord://KEY@HOST:7700",
        NeedsGpu(NO_GPU),
    ),
    (
        "concord generate --device cuda:0 --model out/mine --prompt \"Seven\"",
        NeedsGpu(NO_GPU),
    ),
    ("concord gpu-suite --device cuda:0", NeedsGpu(NO_GPU)),
    (
        "concord simulate --liars --seeds 0..100",
        Says(&["100 jobs", "liars convicted"]),
    ),
];
