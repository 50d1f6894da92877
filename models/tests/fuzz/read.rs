//! What is done with every changed file.

use std::path::Path;

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
        let _ = model.blocks(&spec.name);
        let _ = model.stored_form(&spec.name);
        let _ = model.each_stored(&spec.name, &mut |_| Ok(()));
        refused = refused.or_else(|| whole.err().map(|error| error.to_string()));
    }
    refused.map_or(Ok(()), Err)
}
