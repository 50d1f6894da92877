//! Text to ids and back, whole and piece by piece.

use std::fs;

use concord_text::TextTokenizer;

use crate::fixtures::{says, shared, write_tokenizer};

/// Decodes piece by piece, and checks that no piece is taken back or broken.
fn streamed(tokenizer: &TextTokenizer, ids: &[u32]) -> (String, usize) {
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    let count = pieces.iter().filter(|piece| !piece.is_empty()).count();
    (pieces.concat() + &stream.finish().unwrap(), count)
}

#[test]
fn the_prompt_of_the_reference() {
    let Some(folder) = shared("models/tinystories-260k") else {
        return;
    };
    let tokenizer = TextTokenizer::open(&folder).unwrap();
    assert_eq!(
        tokenizer.encode("Once upon a time", true).unwrap(),
        [1, 403, 407, 261, 378]
    );
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.eos_ids()),
        (512, [2].as_slice())
    );
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some("<s>"), Some("</s>"))
    );
    // What transformers generates from it.
    let story = [
        432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410, 408,
        419, 292, 411, 322, 265, 282, 295, 433, 426, 385, 328, 432, 358, 394, 261, 370, 432, 352,
        266, 268, 388, 426, 338, 391, 266, 267, 337, 335, 312, 432, 398, 312, 286, 267, 414, 270,
        333, 415, 426, 13, 438, 310, 439, 419, 357, 336,
    ];
    let whole = tokenizer.decode(&story, true).unwrap();
    let (pieces, count) = streamed(&tokenizer, &story);
    assert_eq!(pieces, whole);
    assert!(count > 40, "{count} pieces of 64 tokens");
    tokenizer.check(512).unwrap();
}

#[test]
fn pieces_are_whole_characters() {
    let text = "na\u{EF}ve \u{1F980}\u{1F468}\u{200D}\u{1F469} \u{4F60}\u{597D}\n ok";
    let made = tempfile::tempdir().unwrap();
    write_tokenizer(made.path());
    let mut folders = vec![made.path().to_path_buf()];
    folders.extend(shared("models/tinystories-260k"));
    for folder in folders {
        let tokenizer = TextTokenizer::open(&folder).unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        let mut stream = tokenizer.stream();
        let mut so_far = String::new();
        for id in &ids {
            let piece = stream.push(*id).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{piece:?}");
            so_far += &piece;
            assert!(text.starts_with(&so_far), "{so_far:?}");
        }
        assert_eq!(so_far, text);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn broken_bytes_come_out_at_last() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let tokenizer = TextTokenizer::open(folder.path()).unwrap();
    // A character that lacks its end, a lone follower, then text: the ids are the bytes.
    let ids = [0xF0, 0x9F, 0xA6, 0x41, 0xBF, 0x42, 0x43];
    let (text, _) = streamed(&tokenizer, &ids);
    assert_eq!(text, "\u{FFFD}A\u{FFFD}BC");
    assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
    let mut stream = tokenizer.stream();
    let held: String = (0..40).map(|_| stream.push(0xBF).unwrap()).collect();
    assert!(held.chars().count() >= 27, "nothing waits for ever");
    assert_eq!((held + &stream.finish().unwrap()).chars().count(), 40);
}

#[test]
fn the_files_own_cut_and_padding_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let tokenizer = TextTokenizer::open(folder.path()).unwrap();
    assert_eq!(
        tokenizer.encode("abcdef", true).unwrap(),
        [256, 97, 98, 99, 100, 101, 102]
    );
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [97, 98]);
    assert_eq!(tokenizer.decode(&[256, 97, 257], true).unwrap(), "a");
    assert_eq!(
        tokenizer.decode(&[256, 97, 257], false).unwrap(),
        "<s>a</s>"
    );
    assert_eq!(tokenizer.eos_ids(), [257]);
}

#[test]
fn a_tokenizer_of_another_model() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let tokenizer = TextTokenizer::open(folder.path()).unwrap();
    tokenizer.check(300).unwrap();
    tokenizer.check(258).unwrap();
    says(
        tokenizer.check(257).unwrap_err(),
        &["tokenizer.json", "\"</s>\"", "257", "only 257 embeddings"],
    );
}

#[test]
fn a_tokenizer_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    says(
        TextTokenizer::open(folder.path()).unwrap_err(),
        &["read", "tokenizer.json"],
    );
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    says(
        TextTokenizer::open(folder.path()).unwrap_err(),
        &["tokenizer.json"],
    );
}

#[test]
fn a_flipped_byte_of_a_tokenizer_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    let path = folder.path().join("tokenizer.json");
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 7);
        fs::write(&path, &bytes).unwrap();
        if let Ok(tokenizer) = TextTokenizer::open(folder.path()) {
            // The tokens may be nonsense, but the call must return.
            let _ = tokenizer.check(300);
            let _ = tokenizer.encode("some text\u{E9}", true);
            let _ = tokenizer.decode(&[0, 97, 256, 9999], true);
            let _ = tokenizer.token_bytes(97);
        }
    }
}
