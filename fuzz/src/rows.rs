//! Data sets. The first byte of an input says of which kind and form its file is, the others are
//! the file. Files of columns are read by a library, and only with the feature `parquet`.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use concord_data::{DataError, DataLoader, DatasetKind, DatasetSource};
use concord_text::{ChatTemplate, TextTokenizer};
use tempfile::TempDir;

use crate::broken_forms::{Form, forms};
use crate::broken_shapes::{CHATML, SHAPES};
use crate::{fixtures, seeds};

/// Embeddings of the model.
const VOCAB: usize = 300;

/// What a file may be: the kinds as lines of JSON, then the forms of files.
fn places() -> Vec<(String, DatasetKind, u32)> {
    let lines = SHAPES
        .iter()
        .map(|shape| ("rows.jsonl".to_string(), shape.kind, shape.sequence_len()));
    let forms = forms()
        .into_iter()
        .map(|form| (form.name.to_string(), form.kind, form.sequence_len));
    lines.chain(forms).collect()
}

/// Writes the first inputs: what is right, and what is broken in some way.
pub fn write_seeds() {
    let lines = SHAPES.iter().map(|shape| {
        let broken = shape.broken.iter().map(|(row, _)| row.as_bytes().to_vec());
        let right = shape.good.as_bytes().to_vec();
        std::iter::once(right).chain(broken).collect::<Vec<_>>()
    });
    let forms = forms().into_iter().map(|Form { good, broken, .. }| {
        let broken = broken.into_iter().map(|(file, _)| file);
        std::iter::once(good).chain(broken).collect()
    });
    let inputs = lines.chain(forms).zip(0_u8..).flat_map(|(files, place)| {
        files
            .into_iter()
            .map(move |file| [&[place], &file[..]].concat())
    });
    seeds::write("rows", inputs);
}

/// What every input is read with.
struct Reader {
    folder: TempDir,
    places: Vec<(String, DatasetKind, u32)>,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
}

impl Reader {
    fn new() -> Self {
        let folder = crate::models::folder();
        fixtures::write_tokenizer(folder.path());
        let tokenizer = TextTokenizer::open(folder.path()).expect("a right tokenizer");
        let template = ChatTemplate::for_tokenizer(CHATML, &tokenizer);
        Self {
            places: places(),
            template: template.expect("a right template"),
            tokenizer,
            folder,
        }
    }

    fn read(&self, which: u8, file: &[u8]) {
        let (name, kind, sequence_len) = &self.places[usize::from(which) % self.places.len()];
        let path = self.folder.path().join(name);
        fs::write(&path, file).expect("a file can be written");
        let _ = concord_data::guess(&path, true);
        let loaded = self.load(&DatasetSource::new(&path, *kind), *sequence_len);
        match loaded {
            Ok(()) => {}
            Err(DataError::Text(_)) => {}
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(path_text(&path)), "{message}");
            }
        }
    }

    fn load(&self, source: &DatasetSource, sequence_len: u32) -> Result<(), DataError> {
        let mut loader = DataLoader {
            tokenizer: Some(&self.tokenizer),
            chat_template: Some(&self.template),
            vocab: VOCAB,
            max_positions: 256,
            eos: &[257],
            sequence_len,
            progress: &mut |_| {},
        };
        let loaded = loader.load(source)?;
        for index in 0..loaded.count() {
            let (tokens, mask) = (loaded.tokens_of(index), loaded.mask_of(index));
            assert!((1..=sequence_len as usize).contains(&tokens.len()));
            assert_eq!(tokens.len(), mask.len());
            assert!(tokens.iter().all(|id| (*id as usize) < VOCAB));
        }
        Ok(())
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Reads an input: it becomes sequences, or is refused by the name of its file.
///
/// # Panics
/// Where it is neither.
pub fn read(input: &[u8]) {
    thread_local! {
        static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
    }
    let Some((which, file)) = input.split_first() else {
        return;
    };
    READER.with_borrow_mut(|reader| reader.get_or_insert_with(Reader::new).read(*which, file));
}
