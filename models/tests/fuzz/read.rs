//! What is done with every changed file.

use std::path::Path;

use concord_kernels::packed::BlockFormat;
use concord_models::config::DecoderConfig;
use concord_models::weights::ModelFolder;

/// Opens a model and reads all that it has; what is refused.
pub fn read_all(path: &Path) -> Result<(), String> {
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
        if let Ok(whole) = &whole {
            check_blocks(&model, &spec.name, whole.data());
        }
        let _ = model.blocks(&spec.name);
        let _ = model.each_stored(&spec.name, &mut |_| Ok(()));
        refused = refused.or_else(|| whole.err().map(|error| error.to_string()));
    }
    refused.map_or(Ok(()), Err)
}

/// What is kept in memory and what is sent have the numbers of the tensor, to the bit.
fn check_blocks(model: &ModelFolder, name: &str, numbers: &[f32]) {
    let is_same = |format: BlockFormat, bytes: &[u8]| {
        let mut found = vec![0.0; bytes.len() / format.bytes() * format.elements()];
        format.decode(bytes, &mut found);
        let pairs = found.iter().zip(numbers);
        found.len() == numbers.len() && pairs.into_iter().all(|(a, b)| a.to_bits() == b.to_bits())
    };
    if let Some(blocks) = model.blocks(name).unwrap() {
        assert!(is_same(blocks.format, blocks.bytes()), "{name} as blocks");
    }
    let (form, mut sent) = (model.stored_form(name).unwrap(), Vec::new());
    let taken = model.each_stored(name, &mut |bytes| {
        sent.extend_from_slice(bytes);
        Ok(())
    });
    taken.unwrap();
    assert!(is_same(form.format, &sent), "{name} as it is sent");
}
