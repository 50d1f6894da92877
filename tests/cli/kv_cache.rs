//! `--kv-cache-dtype`: keys and values of 8 bits, which change answers and halve their memory.

use std::fs;

use serde_json::Value;

use crate::logits::{logits, write_ids};
use crate::program::{Ran, arg, concord, shared};
use crate::tiny_model::TinyModel;

const INT8: [&str; 2] = ["--kv-cache-dtype", "int8"];

/// A text is the same on every instruction set, and on the reference.
#[test]
fn answers_over_8_bits_are_one_however_they_are_computed() {
    let Some(shared) = shared() else { return };
    let model = shared.join("models/tinystories-260k");
    let generate = |more: &[&str]| {
        let args = [
            "generate",
            "--model",
            arg(&model),
            "--prompt",
            "Once upon a time",
        ];
        let seed = ["--seed", "3", "--temperature", "1", "--max-tokens", "150"];
        concord([&args[..], &seed, more].concat()).good().stdout
    };
    let text = generate(&INT8);
    assert!(text.len() > 200, "{text}");
    for other in [&["--threads", "1"][..], &["--isa", "portable"]] {
        assert_eq!(generate(&[&INT8[..], other].concat()), text, "{other:?}");
    }
    let plain = generate(&[]);
    assert_ne!(plain, text);
    assert_eq!(generate(&["--kv-cache-dtype", "auto"]), plain);
}

#[test]
fn logits_take_the_option_and_differ() {
    let model = TinyModel::new();
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("ids"), folder.path().join("logits"));
    write_ids(&input, "input_ids", &[1, 6], &[3, 4, 5, 6, 7, 8]);
    let of = |more: &[&str]| {
        logits(model.dir(), &input, &out, more).good();
        fs::read(&out).unwrap()
    };
    let coarse = of(&INT8);
    assert!(coarse == of(&[&INT8[..], &["--device", "reference"]].concat()));
    assert!(coarse != of(&[]));
}

fn serving(ran: Ran) -> Value {
    let mut objects = ran.good().objects().into_iter();
    objects.find(|object| object["event"] == "serving").unwrap()
}

#[test]
fn a_plan_counts_about_half_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    concord(["make-model", "--shape", "tiny", arg(&model)]).good();
    let kv = |more: &[&str]| {
        let told = serving(concord([&["plan", "--json", arg(&model)], more].concat()));
        told["stages"][0]["kv_bytes"].as_u64().unwrap() as f64
    };
    let share = kv(&INT8) / kv(&[]);
    // Each key and value also has its powers of two.
    assert!((0.5..0.65).contains(&share), "{share}");
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let model = TinyModel::new();
    for dtype in ["fp8", "fp8_e4m3", "int4"] {
        for command in ["generate", "serve", "chat", "logits"] {
            let args = [
                command,
                "--model",
                arg(model.dir()),
                "--kv-cache-dtype",
                dtype,
            ];
            let ran = concord(args);
            assert_eq!(ran.code, Some(2), "{ran:#?}");
            for word in [&format!("'{dtype}'"), "--kv-cache-dtype", "auto, int8"] {
                assert!(ran.stderr.contains(word), "{ran:#?}");
            }
        }
    }
    let remote = ["chat", "--server", "http://127.0.0.1:1"];
    let ran = concord([&remote[..], &INT8].concat());
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let job = concord([&["plan", "--job", "job.yaml"][..], &INT8].concat());
    assert_eq!(job.code, Some(2), "{job:#?}");
}
