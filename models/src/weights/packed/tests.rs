//! Every format against what its own library decodes, bit for bit (`shared/reference/packed`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::*;
use crate::weights::file::TensorFile;
use crate::weights::shards::TensorHome;

/// The folder of the test vectors, or `None` with a line that says that the test is skipped.
fn vectors() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(beside, PathBuf::from);
    let found = shared.join("reference/packed");
    if found.is_dir() {
        return Some(found);
    }
    println!(
        "skipped: {} is not there; set CONCORD_SHARED",
        found.display()
    );
    None
}

fn method(config: &Value) -> QuantMethod {
    let config = config.as_object().unwrap();
    QuantMethod::read(Path::new("config.json"), config).unwrap()
}

/// The config that a vector's file says it would have.
fn stated(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about = &metadata.metadata().as_ref().unwrap()["about"];
    let about: Value = serde_json::from_str(about).unwrap();
    about["quantization_config"].clone()
}

/// The tensors of a file as parts of the module `m`.
fn parts_of(file: &TensorFile, between: &str) -> BTreeMap<String, TensorHome> {
    let homes = file.names().map(|name| {
        let home = TensorHome {
            file: 0,
            stored: name.to_string(),
        };
        (format!("m{between}{name}"), home)
    });
    homes.collect()
}

/// All rows, read at once and in runs of three, which must be equal.
fn decoded(matrix: PackedMatrix) -> Vec<f32> {
    let (rows, cols) = (
        matrix.shape.iter().rev().skip(1).product::<usize>(),
        *matrix.shape.last().unwrap(),
    );
    let reader = matrix.reader().unwrap();
    let mut all = vec![0.0; rows * cols];
    reader.read(0..rows, &mut all);
    for start in (0..rows).step_by(3) {
        let run = start..rows.min(start + 3);
        let mut some = vec![0.0; run.len() * cols];
        reader.read(run, &mut some);
        let expected = &all[start * cols..][..some.len()];
        assert!(
            some.iter()
                .zip(expected)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }
    all
}

/// All rows as the blocks that are kept, decoded: those that are read at once and those of runs of
/// three are equal.
fn decoded_blocks(matrix: PackedMatrix, format: BlockFormat) -> Vec<f32> {
    let &[rows, cols] = matrix.shape.as_slice() else {
        panic!("{:?}", matrix.shape)
    };
    let width = format.row_bytes(cols).unwrap();
    let reader = matrix.block_reader().unwrap().unwrap();
    let mut all = vec![0; rows * width];
    reader.read_blocks(format, 0..rows, &mut all);
    for start in (0..rows).step_by(3) {
        let run = start..rows.min(start + 3);
        let mut some = vec![0; run.len() * width];
        reader.read_blocks(format, run, &mut some);
        assert_eq!(some, all[start * width..][..some.len()]);
    }
    let mut numbers = vec![0.0; rows * cols];
    format.decode(&all, &mut numbers);
    numbers
}

/// Checks the numbers, and those of the blocks that are kept; the format of these.
fn check(
    path: &Path,
    method: &QuantMethod,
    between: &str,
    module: &str,
    expected: &str,
) -> Option<BlockFormat> {
    check_in_order(
        path,
        method,
        [between, module, expected],
        |shape, values| (shape.to_vec(), values),
    )
}

/// As [`check`], where the library's numbers are in another order.
fn check_in_order(
    path: &Path,
    method: &QuantMethod,
    [between, module, expected]: [&str; 3],
    order: impl Fn(&[usize], Vec<f32>) -> (Vec<usize>, Vec<f32>),
) -> Option<BlockFormat> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let files = [TensorFile::open(path).unwrap()];
    let homes = parts_of(&files[0], between);
    let parts = PackedParts {
        files: &files,
        homes: &homes,
        module,
    };
    let open = || PackedMatrix::open(method, parts).unwrap_or_else(|e| panic!("{name}: {e}"));
    let matrix = open();
    let words = files[0].bytes(expected).unwrap().as_chunks().0.iter();
    let values = words.map(|word| f32::from_le_bytes(*word)).collect();
    let format = matrix.format();
    let (shape, values) = order(files[0].shape(expected).unwrap(), values);
    assert_eq!(matrix.shape, shape, "{name}");
    let kept = format.map(|format| decoded_blocks(open(), format));
    for found in std::iter::once(decoded(matrix)).chain(kept) {
        assert_eq!(found.len(), values.len(), "{name}");
        for (i, (found, expected)) in found.iter().zip(&values).enumerate() {
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{name}: number {i} is {found:e}, not {expected:e}"
            );
        }
    }
    format
}

/// The vectors of which the numbers stay packed, and as what. The others have rows of no whole
/// blocks, groups of inputs that do not follow each other, or levels of a table of their own.
const KEPT: [(&str, &str); 15] = [
    ("awq-4bit-g128", "U4_128"),
    ("awq-4bit-g64", "U4_64"),
    ("bnb-nf4", "NF4"),
    ("bnb-nf4-double", "NF4"),
    ("ct-pack-w4a16-g128-sym", "U4_128"),
    ("ct-pack-w4a16-g32-asym", "U4_32"),
    ("ct-pack-w8a16-g64-sym", "U8_64"),
    ("fp8-block128-whole", "E4M3_64"),
    ("gptq-4bit-g128-sym", "U4_128"),
    ("gptq-4bit-g32-asym", "U4_32"),
    ("gptq-4bit-ragged-last-group", "U4_64"),
    ("gptq-4bit-zero-field-15", "U4_32"),
    ("gptq-8bit-g128-sym", "U8_64"),
    ("gptq-8bit-whole-column", "U8_64"),
    ("gptq_v2-4bit-g128-asym", "U4_128"),
];

#[test]
fn every_format_is_what_its_library_makes_of_it() {
    let Some(folder) = vectors() else { return };
    let (mut count, mut kept) = (0, BTreeMap::new());
    let names = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let is_vector = ["gptq", "awq", "bnb", "ct-", "fp8-block"];
        if !is_vector.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let format = check(&path, &method(&stated(&path)), ".", "m", "decoded");
        if let Some(format) = format {
            kept.insert(name.replace(".safetensors", ""), format.name());
        }
        count += 1;
    }
    assert_eq!(count, 8 + 2 + 7 + 8 + 2);
    let kept: Vec<(&str, &str)> = kept.iter().map(|(name, form)| (&**name, *form)).collect();
    assert_eq!(kept, KEPT);
}

#[test]
fn fp8_with_one_scale() {
    let Some(folder) = vectors() else { return };
    let fp8 = method(&json!({"quant_method": "fp8", "activation_scheme": "static"}));
    for name in ["f32", "scalar-subnormal"] {
        let path = folder.join(format!("fp8-per-tensor-{name}.safetensors"));
        check(&path, &fp8, ".", "m", "decoded");
    }
}

#[test]
fn mxfp4_of_gpt_oss() {
    let Some(folder) = vectors() else { return };
    let path = folder.join("mxfp4-gpt-oss.safetensors");
    let mxfp4 = method(&stated(&path));
    // The vectors are [expert, out, in].
    let transposed = |shape: &[usize], values: Vec<f32>| {
        let &[experts, outs, ins] = shape else {
            panic!("{shape:?}")
        };
        let of = |expert: usize, i: usize, o: usize| values[(expert * outs + o) * ins + i];
        let rows = (0..experts).flat_map(|expert| (0..ins).map(move |i| (expert, i)));
        let moved = rows.flat_map(|(expert, i)| (0..outs).map(move |o| of(expert, i, o)));
        (vec![experts, ins, outs], moved.collect())
    };
    for [module, decoded] in [
        ["mgate_up_proj", "decoded"],
        ["mextreme", "extreme_decoded"],
    ] {
        check_in_order(&path, &mxfp4, ["", module, decoded], transposed);
    }
}

fn refusal(config: Value) -> String {
    let config: Map<String, Value> = config.as_object().unwrap().clone();
    let error = QuantMethod::read(Path::new("a/config.json"), &config).unwrap_err();
    error.to_string()
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let gptq = |key: &str, value: Value| {
        let mut config = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
        config[key] = value;
        config
    };
    for (config, parts) in [
        (json!({"quant_method": "aqlm"}), ["quant_method", "aqlm"]),
        (
            json!({"quant_method": "torchao"}),
            ["quant_method", "torchao"],
        ),
        (gptq("bits", json!(3)), ["bits", "2, 4, 8"]),
        (
            gptq("checkpoint_format", json!("marlin")),
            ["checkpoint_format", "gptq_v2"],
        ),
        (
            gptq("dynamic", json!({"+:.*down.*": {"bits": 8}})),
            ["dynamic", "several ways"],
        ),
        (gptq("group_size", json!(0)), ["group_size", "-1"]),
        (gptq("secret", json!(1)), ["secret", "nothing is known"]),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}),
            ["version", "gemm"],
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "zero_point": false}),
            ["zero_point", "without zeros"],
        ),
        (
            json!({"quant_method": "fp8", "fmt": "e5m2"}),
            ["fmt", "e4m3"],
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128, 0]}),
            ["weight_block_size", "two sizes"],
        ),
        (
            json!({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
                   "config_groups": {"g": {"weights": {"num_bits": 4, "type": "float"}}}}),
            ["format", "pack-quantized"],
        ),
        (
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                   "config_groups": {"g": {"weights": {"num_bits": 4}}},
                   "kv_cache_scheme": {"num_bits": 8}}),
            ["kv_cache_scheme", "more digits"],
        ),
        (
            json!({"quant_method": "bitsandbytes", "x": true}),
            ["x", "nothing is known"],
        ),
    ] {
        let message = refusal(config);
        for part in parts {
            assert!(message.contains(part), "{message} does not say {part}");
        }
        assert!(message.contains("a/config.json"), "{message}");
    }
    let excluded = gptq("dynamic", json!({"-:.*gate$": {}}));
    assert!(matches!(method(&excluded), QuantMethod::Gptq(_)));
}
