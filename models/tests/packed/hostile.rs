//! Broken and hostile files: refused with file, tensor and cause, and never a panic.

use std::fs;
use std::path::Path;

use concord_models::weights::ModelFolder;
use serde_json::json;

use crate::gguf_writer::{GgufWriter, text};
use crate::methods::{Store, Stored, methods};
use crate::storages::{q4_k, write_packed};

/// The refusal of a file, if it is refused, of opening or of loading.
fn refusal(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    load_all(&path)
}

/// Opens a model and loads all its tensors; the error, if there is one.
fn load_all(path: &Path) -> Option<String> {
    let model = match ModelFolder::open(path) {
        Ok(model) => model,
        Err(error) => return Some(error.to_string()),
    };
    let _ = model.tokenizer();
    let _ = model.chat_template();
    let loaded = model.config().tensors().into_iter().map(|spec| {
        let whole = model.load(&spec.name);
        let by_rows = model.load_rows(&spec.name, &mut |_, _| Ok(()));
        assert_eq!(whole.is_ok(), by_rows.is_ok(), "{}", spec.name);
        whole.map(|_| ())
    });
    loaded
        .filter_map(Result::err)
        .map(|error| error.to_string())
        .next()
}

#[track_caller]
fn refuses(bytes: &[u8], parts: &[&str]) {
    let message = refusal(bytes).expect("it is taken");
    for part in ["model.gguf"].iter().chain(parts) {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn a_gguf_file_cut_short_anywhere() {
    let whole = q4_k().whole();
    assert_eq!(refusal(&whole), None);
    for length in (0..2_000)
        .step_by(7)
        .chain((2_000..whole.len()).step_by(9_973))
    {
        refuses(&whole[..length], &[]);
    }
    refuses(
        &whole[..whole.len() - 1],
        &["output_norm.weight", "cut short"],
    );
    refuses(&[], &[]);
}

#[test]
fn counts_and_lengths_beyond_the_file() {
    let whole = q4_k().whole();
    let huge = u64::MAX.to_le_bytes();
    for at in [8, 16] {
        for count in [
            huge,
            (u64::MAX / 2).to_le_bytes(),
            1_000_000_u64.to_le_bytes(),
        ] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&count);
            refuses(&bytes, &[]);
        }
    }
    for (value, parts) in [
        // A text, and lists of numbers, texts, and lists.
        ((8, huge.to_vec()), ["`x.y`", "cut short"]),
        (
            (9, [&4_u32.to_le_bytes()[..], &huge].concat()),
            ["`x.y`", "elements"],
        ),
        (
            (9, [&8_u32.to_le_bytes()[..], &huge].concat()),
            ["`x.y`", "cut short"],
        ),
        ((9, nested(64)), ["`x.y`", "deep"]),
        ((7, vec![2]), ["`x.y`", "bool"]),
        ((77, vec![]), ["`x.y`", "77"]),
    ] {
        let mut file = q4_k();
        file.pair("x.y", value.0, value.1);
        refuses(&file.whole(), &parts);
    }
}

/// Lists of one list each.
fn nested(depth: usize) -> Vec<u8> {
    [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()]
        .concat()
        .repeat(depth)
}

#[test]
fn what_no_gguf_file_may_say() {
    let with = |edit: &dyn Fn(&mut GgufWriter)| {
        let mut file = q4_k();
        edit(&mut file);
        file.whole()
    };
    let number = |key: &str, value: u32| with(&|file| file.u32(key, value));
    for (bytes, parts) in [
        (number("llama.block_count", 3), ["layers.2", "missing"]),
        (
            number("llama.block_count", u32::MAX),
            ["num_hidden_layers", "4294967295"],
        ),
        (
            number("llama.attention.head_count_kv", 3),
            ["num_key_value_heads", "divide"],
        ),
        (
            number("llama.attention.head_count", 0),
            ["num_attention_heads", "0"],
        ),
        (
            number("llama.embedding_length", 512),
            ["shape", "token_embd"],
        ),
        (
            number("llama.rope.dimension_count", 32),
            ["rope.dimension_count", "64"],
        ),
        (
            number("llama.attention.temperature_scale", 1),
            ["temperature_scale", "nothing is known"],
        ),
        (
            number("general.alignment", 24),
            ["multiple of 24", "download"],
        ),
        (number("general.alignment", 7), ["general.alignment", "8"]),
        (number("split.count", 0), ["split.count", "0"]),
        (
            with(&|file| file.string("general.architecture", "mamba")),
            ["mamba", "qwen3"],
        ),
        (
            with(&|file| file.string("llama.rope.scaling.type", "warp")),
            ["rope.scaling.factor", "must be there"],
        ),
        (
            with(&|file| file.tensor("blk.0.attn_q.bias2", &[1], 0, vec![0; 4])),
            ["attn_q.bias2", "would not be used"],
        ),
        (
            with(&|file| file.tensor("token_embd.weight", &[1], 0, vec![0; 4])),
            ["token_embd.weight", "twice"],
        ),
        (
            with(&|file| file.tensor("x", &[usize::MAX, 64], 0, vec![])),
            ["`x`", "counted"],
        ),
        (
            with(&|file| file.tensor("x", &[1 << 40, 1 << 20], 2, vec![])),
            ["`x`", "cut short"],
        ),
    ] {
        refuses(&bytes, &parts);
    }
    let ragged = with(&|file| file.tensor("x", &[2, 100], 12, vec![]));
    refuses(&ragged, &["`x`", "whole blocks"]);
}

#[test]
fn places_and_versions_that_cannot_be() {
    let overlapping = q4_k().bytes(|index, offset| if index == 3 { 0 } else { offset });
    refuses(&overlapping, &["overlap"]);
    let odd = q4_k().bytes(|index, offset| if index == 3 { offset + 1 } else { offset });
    refuses(&odd, &["multiple of 32"]);
    let far = q4_k().bytes(|index, offset| if index == 3 { u64::MAX - 31 } else { offset });
    refuses(&far, &["beyond the end"]);
    let mut swapped = q4_k().whole();
    swapped[4..8].reverse();
    refuses(&swapped, &["big-endian"]);
    swapped[4..8].copy_from_slice(&1_u32.to_le_bytes());
    refuses(&swapped, &["version 1"]);
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (kind, name) in [(16, "IQ2_XXS"), (34, "TQ1_0"), (40, "NVFP4"), (99, "99")] {
        let file = crate::storages::gguf(kind, 256, |_| vec![0; 64]);
        refuses(&file.whole(), &[name, "Q2_K to Q6_K"]);
    }
}

#[test]
fn a_broken_scale_is_named_by_its_number() {
    let mut file = crate::storages::gguf(8, 32, |levels| {
        let codes = levels.iter().map(|level| *level as u8);
        [vec![0, 0x28], codes.collect()].concat()
    });
    file.u32("general.file_type", 7);
    let mut bytes = file.whole();
    // The last block of the last matrix, whose scale becomes NaN.
    let at = bytes.len() - 2 * 4 * 256;
    let vectors = (0..5).map(|_| 256 * 4).sum::<usize>();
    let last = bytes.len() - vectors - 34;
    bytes[last..last + 2].copy_from_slice(&[0, 0x7e]);
    assert!(at > last);
    refuses(&bytes, &["weight", "element", "NaN"]);
}

#[test]
fn parts_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: u32, count: u32| {
        folder
            .path()
            .join(format!("m-{number:05}-of-{count:05}.gguf"))
    };
    let part = |number: u16, count: u16| {
        let mut file = match number {
            0 => q4_k(),
            _ => GgufWriter::default(),
        };
        file.pair("split.no", 2, number.to_le_bytes().to_vec());
        file.pair("split.count", 2, count.to_le_bytes().to_vec());
        file.whole()
    };
    fs::write(path(1, 2), part(0, 2)).unwrap();
    let error = load_all(&path(1, 2)).unwrap();
    assert!(error.contains("00002-of-00002"), "{error}");
    fs::write(path(2, 2), part(1, 2)).unwrap();
    assert_eq!(load_all(&path(1, 2)), None);
    assert_eq!(load_all(folder.path()), None, "the folder is named");
    let error = load_all(&path(2, 2)).unwrap();
    assert!(
        error.contains("split.no") && error.contains("name the first one"),
        "{error}"
    );
    // A part that says that it is the first, and so leads to itself.
    fs::write(path(2, 2), part(0, 2)).unwrap();
    let error = load_all(&path(1, 2)).unwrap();
    assert!(
        error.contains("split.no") && error.contains("it must be 1"),
        "{error}"
    );
    // More parts than there are.
    fs::write(path(1, 2), part(0, u16::MAX)).unwrap();
    let error = load_all(&path(1, 2)).unwrap();
    assert!(error.contains("split.count"), "{error}");
    fs::write(folder.path().join("other.gguf"), q4_k().whole()).unwrap();
    let error = load_all(folder.path()).unwrap();
    assert!(
        error.contains("other.gguf") && error.contains("m-00001"),
        "{error}"
    );
}

/// A generator of numbers from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A file with some bytes changed, cut out, doubled, or set to extremes.
fn mutated(bytes: &[u8], reach: usize, draw: &mut Draw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(reach.min(bytes.len()));
        match draw.below(5) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][draw.below(5)],
            2 => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill([0, 0xff, 0x7f][draw.below(3)]);
            }
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + draw.below(16)))),
            _ => {
                let some = bytes[at..bytes.len().min(at + 1 + draw.below(16))].to_vec();
                drop(bytes.splice(at..at, some));
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn gguf_files_changed_at_random_never_panic() {
    let mut file = q4_k();
    file.string("tokenizer.ggml.model", "llama");
    file.strings(
        "tokenizer.ggml.tokens",
        &["<unk>", "a", "b", "ab", "<0x00>"],
    );
    let scores = [0.0_f32, -3.0, -4.0, -1.0, 0.0]
        .map(f32::to_le_bytes)
        .concat();
    let list = [&6_u32.to_le_bytes()[..], &5_u64.to_le_bytes(), &scores].concat();
    file.pair("tokenizer.ggml.scores", 9, list);
    file.string("tokenizer.chat_template", "{{ messages[0]['content'] }}");
    let whole = file.whole();
    let mut draw = Draw(11);
    let refused = (0..400).filter(|_| refusal(&mutated(&whole, 4_000, &mut draw)).is_some());
    let refused = refused.count();
    assert!(
        (100..400).contains(&refused),
        "{refused} of 400 were refused"
    );
    let _ = text("");
}

#[test]
fn packed_folders_changed_at_random_never_panic() {
    let mut draw = Draw(12);
    for (name, quantization, store) in methods() {
        let folder = tempfile::tempdir().unwrap();
        write_packed(folder.path(), quantization, store);
        let path = folder.path().join("model.safetensors");
        let whole = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let mut refused = 0;
        for _ in 0..60 {
            // Header and data of the first tensors.
            let reach = header + 4_000;
            fs::write(&path, mutated(&whole, reach, &mut draw)).unwrap();
            refused += usize::from(load_all(folder.path()).is_some());
        }
        assert!(refused > 20, "{name}: {refused} of 60 were refused");
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let gptq = || {
        methods()
            .into_iter()
            .find(|method| method.0 == "GPTQ")
            .unwrap()
    };
    for (key, value, parts) in [
        ("bits", json!(8), ["qzeros", "shape"]),
        ("group_size", json!(64), ["scales", "groups"]),
        ("group_size", json!(-1), ["scales", "groups"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (_, mut quantization, store) = gptq();
        quantization[key] = value;
        write_packed(folder.path(), quantization, store);
        let error = load_all(folder.path()).unwrap();
        for part in ["model.safetensors", "layers.0"].iter().chain(&parts) {
            assert!(error.contains(part), "{error} does not say {part}");
        }
    }
    // Another method than the tensors are of.
    let folder = tempfile::tempdir().unwrap();
    let (_, _, store) = gptq();
    write_packed(
        folder.path(),
        json!({"quant_method": "bitsandbytes"}),
        store,
    );
    let error = load_all(folder.path()).unwrap();
    assert!(error.contains("packed so"), "{error}");
}

/// A shape that is stated with no columns, or no rows, makes no matrix of the parts beside it.
#[test]
fn a_stated_shape_of_nothing_is_refused() {
    fn stated(rows: u64, cols: u64) -> impl Fn([usize; 2], &[i8]) -> Stored {
        move |shape, levels| {
            let compressed = methods().into_iter().nth(3).unwrap().2;
            let mut parts = compressed(shape, levels);
            parts[1].3 = [rows, cols].map(u64::to_le_bytes).concat();
            parts
        }
    }
    fn no_columns(shape: [usize; 2], levels: &[i8]) -> Stored {
        stated(shape[0] as u64, 0)(shape, levels)
    }
    fn no_rows(shape: [usize; 2], levels: &[i8]) -> Stored {
        stated(0, shape[1] as u64)(shape, levels)
    }
    fn below_zero(shape: [usize; 2], levels: &[i8]) -> Stored {
        stated(shape[0] as u64, u64::MAX)(shape, levels)
    }
    for (store, reason) in [
        (no_columns as Store, "a dimension is 0"),
        (no_rows, "a dimension is 0"),
        (below_zero, "below 0"),
    ] {
        let (name, quantization, _) = methods().into_iter().nth(3).unwrap();
        assert_eq!(name, "compressed-tensors");
        let folder = tempfile::tempdir().unwrap();
        write_packed(folder.path(), quantization, store);
        let error = load_all(folder.path()).unwrap();
        for part in ["model.safetensors", "weight_shape", reason] {
            assert!(error.contains(part), "{error} does not say {part}");
        }
    }
}
