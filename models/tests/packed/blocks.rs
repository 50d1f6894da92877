//! Blocks of GGUF against gguf-py and libggml, which agree on every bit.

use concord_kernels::packed::BlockFormat;
use concord_models::weights::TensorFile;

use crate::vectors::{assert_bits, bits, packed};

#[test]
fn every_block_format_is_what_ggml_makes_of_it() {
    let mut vectors = 0;
    for format in BlockFormat::ALL {
        // Numbers as they are, and a format that GGUF does not have.
        if matches!(format, BlockFormat::F32 | BlockFormat::Nf4) {
            continue;
        }
        let name = format!("gguf-{}.safetensors", format.name().to_lowercase());
        let Some(path) = packed(&name) else { return };
        let file = TensorFile::open(&path).unwrap();
        let names: Vec<String> = file.names().map(str::to_string).collect();
        for decoded in names.iter().filter(|name| name.ends_with("decoded")) {
            let blocks = match decoded.as_str() {
                "decoded" => "blocks".to_string(),
                "one_block_decoded" => "one_block_rows".to_string(),
                other => other.replace("decoded", "blocks"),
            };
            let bytes = file.bytes(&blocks).unwrap();
            let expected = bits(&file, decoded);
            let mut found = vec![0.0; expected.len()];
            format.decode(bytes, &mut found);
            assert_bits(&found, &expected, &format!("{name} {decoded}"));
            vectors += 1;
        }
    }
    assert!(vectors >= 29, "{vectors} vectors");
}
