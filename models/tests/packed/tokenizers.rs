//! Tokenizers of GGUF files.

use concord_models::weights::ModelFolder;
use concord_text::TextTokenizer;

use crate::gguf_writer::GgufWriter;
use crate::vectors::packed;

const TEXTS: [&str; 6] = [
    "Once upon a time, there was a little girl.",
    "",
    " two  spaces and\na line",
    "caf\u{e9} \u{1f600} \u{4f60}\u{597d}",
    "<s>not a token</s> here",
    "123 4567 don't",
];

#[test]
fn sentence_pieces_are_those_of_the_folder() {
    let (Some(file), Some(folder)) = (
        packed("tinystories-260k-Q8_0.gguf"),
        packed("../../models/tinystories-260k"),
    ) else {
        return;
    };
    let model = ModelFolder::open(&file).unwrap();
    let (found, expected) = (
        model.tokenizer().unwrap(),
        TextTokenizer::open(&folder).unwrap(),
    );
    for text in TEXTS {
        for add_special in [true, false] {
            let ids = found.encode(text, add_special).unwrap();
            assert_eq!(ids, expected.encode(text, add_special).unwrap(), "{text:?}");
            assert_eq!(
                found.decode(&ids, true).unwrap(),
                expected.decode(&ids, true).unwrap(),
                "{text:?}"
            );
        }
    }
    assert_eq!(found.eos_ids(), expected.eos_ids());
    assert!(model.chat_template().unwrap().is_some());
}

/// A byte-level vocabulary: the 256 bytes, two pairs, and a control token.
fn byte_level(pre: &str) -> GgufWriter {
    let mut file = crate::storages::q4_k();
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100_u32..;
    let letters = (0..=255_u8).map(|byte| match printable(byte) {
        true => char::from(byte),
        false => char::from_u32(others.next().unwrap()).unwrap(),
    });
    let mut tokens: Vec<String> = letters.map(String::from).collect();
    tokens.extend(["in", "ing", "<|end|>"].map(str::to_string));
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut kinds = vec![1; 258];
    kinds.push(3);
    file.string("tokenizer.ggml.model", "gpt2");
    file.string("tokenizer.ggml.pre", pre);
    file.strings("tokenizer.ggml.tokens", &tokens);
    file.i32s("tokenizer.ggml.token_type", &kinds);
    file.strings("tokenizer.ggml.merges", &["i n", "in g"]);
    file.u32("tokenizer.ggml.eos_token_id", 258);
    file
}

fn open(file: &GgufWriter) -> Result<TextTokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, file.whole()).unwrap();
    let model = ModelFolder::open(&path).map_err(|error| error.to_string())?;
    model.tokenizer().map_err(|error| error.to_string())
}

#[test]
fn byte_level_vocabularies_by_the_name_of_their_rule() {
    for pre in [
        "qwen2",
        "llama-bpe",
        "gpt-2",
        "gpt-4o",
        "tekken",
        "smollm",
        "dbrx",
    ] {
        let mut file = byte_level(pre);
        // The model has 64 rows of tokens; its tokenizer may know more.
        file.u32("tokenizer.ggml.eos_token_id", 58);
        let tokenizer = open(&file).unwrap();
        let ids = tokenizer.encode("singing <|end|>", false).unwrap();
        assert_eq!(ids, [115, 257, 257, 32, 258], "{pre}");
        assert_eq!(
            tokenizer.decode(&ids, false).unwrap(),
            "singing <|end|>",
            "{pre}"
        );
    }
    let error = open(&{
        let mut file = byte_level("klingon");
        file.u32("tokenizer.ggml.eos_token_id", 58);
        file
    });
    let error = error.unwrap_err();
    for part in [
        "tokenizer.ggml.pre",
        "klingon",
        "qwen2",
        "tokenizer.json beside",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

/// Of a token every cut is looked at: one that is too long for that is refused.
#[test]
fn tokens_that_are_too_long_to_be_cut() {
    let with = |length: usize| {
        let mut file = crate::storages::q4_k();
        file.string("tokenizer.ggml.model", "llama");
        let long = "a".repeat(length);
        file.strings("tokenizer.ggml.tokens", &["<unk>", "a", "aa", &long]);
        let scores = [0.0_f32, -3.0, -4.0, -1.0].map(f32::to_le_bytes).concat();
        let list = [&6_u32.to_le_bytes()[..], &4_u64.to_le_bytes(), &scores].concat();
        file.pair("tokenizer.ggml.scores", 9, list);
        open(&file)
    };
    assert!(with(512).is_ok());
    let error = with(513).err().unwrap();
    for part in ["tokenizer.ggml.tokens", "token 3", "513", "tokenizer.json"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_tokenizer_beside_the_file_counts_where_the_folder_is_named() {
    let Some(real) = packed("../../models/tinystories-260k/tokenizer.json") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("m.gguf"),
        crate::storages::q4_k().whole(),
    )
    .unwrap();
    let file = ModelFolder::open(&folder.path().join("m.gguf")).unwrap();
    let error = file.tokenizer().unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.tokens"), "{error}");
    std::fs::copy(real, folder.path().join("tokenizer.json")).unwrap();
    let whole = ModelFolder::open(folder.path()).unwrap();
    assert_eq!(whole.tokenizer().unwrap().vocab_size(), 512);
}
