//! The exact bytes of tokens, and the text of an answer made of them.

use std::fs;
use std::sync::{Arc, OnceLock};

use concord_text::{AnswerText, TextStream, TextTokenizer, TokenReader};
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{SHARED_MODELS, byte_level, shared, tokenizer, words};

/// Byte-level with merges, an added token that is text and two special ones.
fn chat_tokenizer() -> TextTokenizer {
    let merged = [("h", "e"), ("l", "l"), ("he", "ll"), ("\u{120}", "he")];
    let added = [
        ("<tool_call>", false),
        ("<|im_end|>", true),
        ("a  b", false),
    ];
    tokenizer(&byte_level(&added, &merged))
}

/// Opened once for all cases.
fn all_tokenizers() -> Vec<Arc<TextTokenizer>> {
    static ALL: OnceLock<Vec<Arc<TextTokenizer>>> = OnceLock::new();
    let open = || {
        let folders = SHARED_MODELS.map(|name| shared(&format!("models/{name}")));
        let opened = folders.into_iter().flatten();
        let opened = opened.map(|folder| TextTokenizer::open(&folder).unwrap());
        opened.chain([chat_tokenizer()]).map(Arc::new).collect()
    };
    ALL.get_or_init(open).clone()
}

fn text_after(tokenizer: &Arc<TextTokenizer>, prompt: &[u32], kept: &[u32]) -> TextStream {
    let others = tokenizer.read_otherwise(kept, u32::MAX);
    TextStream::new(TokenReader::new(tokenizer.clone(), others), prompt)
}

fn bytes(tokenizer: &TextTokenizer, ids: &[u32]) -> Vec<u8> {
    ids.iter()
        .flat_map(|id| tokenizer.token_bytes(*id))
        .collect()
}

#[test]
fn tokens_of_each_kind() {
    let chat = chat_tokenizer();
    assert_eq!(chat.token_bytes(0), [0]);
    assert_eq!(chat.token_bytes(0xAD), [0xAD]);
    assert_eq!(
        chat.token_bytes(chat.token_id("\u{120}he").unwrap()),
        b" he"
    );
    assert_eq!(chat.token_bytes(260), b"<tool_call>");
    assert_eq!(chat.token_bytes(261), b"<|im_end|>");
    assert_eq!(chat.token_bytes(262), b"a  b");
    assert_eq!(chat.token_bytes(999), b"");
    let special: Vec<u32> = (0..300).filter(|id| chat.is_special(*id)).collect();
    assert_eq!(special, [261]);
    assert_eq!(chat.token_text(0xF0), "\u{FFFD}");
    let Some(folder) = shared("models/tinystories-260k") else {
        return;
    };
    let story = TextTokenizer::open(&folder).unwrap();
    let of = |name: &str| story.token_bytes(story.token_id(name).unwrap());
    assert_eq!(of("<0x0A>"), b"\n");
    assert_eq!(of("<0xE9>"), [0xE9]);
    assert_eq!(of("\u{2581}a"), b" a");
    assert_eq!(of("</s>"), b"</s>");
}

#[test]
fn decoders_of_other_families() {
    let cases = [
        (json!(null), ["a", "b", "c"], "a b c"),
        (
            json!({"type": "WordPiece", "prefix": "##", "cleanup": false}),
            ["a", "##b", "c"],
            "ab c",
        ),
        (
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first",
                   "split": true}),
            ["_a", "b", "_c"],
            "ab c",
        ),
        (json!({"type": "Fuse"}), ["a", "b", "c"], "abc"),
    ];
    for (decoder, names, expected) in cases {
        let tokenizer = Arc::new(words(&names, decoder));
        assert_eq!(tokenizer.decode(&[0, 1, 2], true).unwrap(), expected);
        let mut stream = text_after(&tokenizer, &[], &[]);
        let text: String = [0, 1, 2].map(|id| stream.push(id)).concat();
        assert_eq!(text + &stream.finish(), expected);
        // After a prompt, nothing is removed from the front.
        let mut behind = text_after(&tokenizer, &[1], &[]);
        let text: String = [0, 2].map(|id| behind.push(id)).concat();
        let whole = tokenizer.decode(&[1, 0, 2], true).unwrap();
        assert_eq!(tokenizer.decode(&[1], true).unwrap() + &text, whole);
    }
}

#[test]
fn special_tokens_are_kept_where_asked() {
    let added = [("<|end|>", true), ("[TOOL_CALLS]", true)];
    let tokenizer = Arc::new(tokenizer(&byte_level(&added, &[])));
    let ids = [0x41, 256, 257, 0x42];
    let text = |mut stream: TextStream| ids.map(|id| stream.push(id)).concat();
    let new = |kept| text_after(&tokenizer, &[0x40], kept);
    assert_eq!(text(new(&[])), "AB");
    assert_eq!(text(new(&[256, 257])), "A<|end|>[TOOL_CALLS]B");
    assert_eq!(text(new(&[257])), "A[TOOL_CALLS]B");
    // A special token that is not hidden parts a stop text.
    let ends = |kept: &[u32], stop: &str| {
        let reader = TokenReader::new(tokenizer.clone(), tokenizer.read_otherwise(kept, 300));
        let mut text = AnswerText::new(reader, &[0x40], vec![stop.to_string()]);
        ids.map(|id| text.push(id).is_stopped)
    };
    assert_eq!(ends(&[], "AB"), [false, false, false, true]);
    assert_eq!(ends(&[256], "AB"), [false; 4]);
    assert_eq!(ends(&[], "A<|end|>"), [false, true, true, true]);
}

/// What the files beside `tokenizer.json` change is listed, and who has that file alone reads the
/// same with the list.
#[test]
fn tokens_are_read_alike_without_the_other_files() {
    let file = byte_level(&[("<|end|>", true), ("<think>", false)], &[]);
    let config = json!({"added_tokens_decoder": {
        "256": {"content": "<|end|>", "special": false},
        "257": {"content": "<think>", "special": true},
    }});
    let bytes = |value: &serde_json::Value| value.to_string().into_bytes();
    let open =
        |config: Option<&[u8]>| Arc::new(TextTokenizer::from_bytes(&bytes(&file), config).unwrap());
    let (alone, whole) = (open(None), open(Some(&bytes(&config))));
    assert_eq!(alone.read_otherwise(&[], 300), []);
    let others = whole.read_otherwise(&[], 300);
    let listed: Vec<_> = others
        .iter()
        .map(|one| (one.token, one.is_hidden))
        .collect();
    assert_eq!(listed, [(256, false), (257, true)]);
    assert_eq!(
        whole.read_otherwise(&[], 257).len(),
        1,
        "below the vocabulary"
    );
    let text = |tokenizer: &Arc<TextTokenizer>| {
        let reader = TokenReader::new(tokenizer.clone(), others.clone());
        let mut stream = TextStream::new(reader, &[0x40]);
        [0x41, 256, 257, 0x42].map(|id| stream.push(id)).concat()
    };
    assert_eq!(text(&whole), "A<|end|>B");
    assert_eq!(text(&alone), text(&whole));
}

/// An added token is the text that it is matched by, though its letters could be bytes.
#[test]
fn added_tokens_of_latin_letters() {
    let names = [
        "\u{111}em",
        "il\u{d6}veyou",
        "\u{e9}t\u{e9}",
        "\u{f1}and\u{fa}",
        "stra\u{df}e",
        "\u{65e5}\u{672c}",
    ];
    let added: Vec<(&str, bool)> = names.iter().map(|name| (*name, false)).collect();
    let latin = Arc::new(tokenizer(&byte_level(&added, &[])));
    for (index, name) in names.iter().enumerate() {
        let id = 256 + index as u32;
        let ids = [0x41, id, 0x42, id];
        let text = format!("A{name}B{name}");
        assert_eq!(latin.encode(&text, false).unwrap(), ids, "{name}");
        assert_eq!(latin.token_bytes(id), name.as_bytes());
        assert_eq!(latin.token_text(id), *name);
        assert_eq!(latin.decode(&ids, true).unwrap(), text);
        let mut stream = text_after(&latin, &[0x40], &[]);
        let streamed: String = ids.iter().map(|id| stream.push(*id)).collect();
        assert_eq!(streamed + &stream.finish(), text);
        let mut stream = latin.stream();
        let streamed: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        assert_eq!(streamed + &stream.finish().unwrap(), text);
    }
    // Bytes of characters around them stay bytes.
    let ids = latin.encode("\u{fc} \u{e9}t\u{e9} \u{e9}", false).unwrap();
    assert!(ids.contains(&258));
    assert_eq!(
        latin.decode(&ids, true).unwrap(),
        "\u{fc} \u{e9}t\u{e9} \u{e9}"
    );
}

#[test]
fn broken_characters_do_not_hold_up_what_follows() {
    let tokenizer = Arc::new(tokenizer(&byte_level(&[], &[])));
    let mut stream = text_after(&tokenizer, &[], &[]);
    // A character that lacks its end, a lone follower, a whole character.
    let ids = [0xF0, 0x9F, 0xA6, 0x41, 0xBF, 0x42, 0xC3, 0xA9, 0xE2];
    let pieces = ids.map(|id| stream.push(id));
    let expected = ["", "", "", "\u{FFFD}A", "\u{FFFD}", "B", "", "\u{E9}", ""];
    assert_eq!(pieces, expected);
    assert_eq!(stream.finish(), "\u{FFFD}");
}

#[test]
fn from_bytes_is_open() {
    let Some(folder) = shared("models/tiny-qwen2") else {
        return;
    };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let config = read("tokenizer_config.json");
    let made = TextTokenizer::from_bytes(&read("tokenizer.json"), Some(&config)).unwrap();
    let opened = TextTokenizer::open(&folder).unwrap();
    let text = "Two cats\n\u{1F408}";
    assert_eq!(
        made.encode(text, true).unwrap(),
        opened.encode(text, true).unwrap()
    );
    assert_eq!(made.eos_ids(), opened.eos_ids());
    assert_eq!((made.bos(), made.eos()), (Some("<s>"), Some("</s>")));
}

proptest! {
    #[test]
    fn the_bytes_of_a_text_are_those_of_its_tokens(text in "(\\PC|[ \\n\\t]){0,40}") {
        for tokenizer in all_tokenizers() {
            let ids = tokenizer.encode(&text, false).unwrap();
            let spelt = bytes(&tokenizer, &ids);
            // One family puts a space in front of every text, and takes it off as it decodes.
            let is_framed = spelt.len() == text.len() + 1 && spelt[0] == b' ';
            let own = if is_framed { &spelt[1..] } else { &spelt[..] };
            prop_assert_eq!(own, text.as_bytes());
        }
    }

    #[test]
    fn a_stream_gives_what_the_library_decodes(
        prompt in prop::collection::vec(0u32..512, 0..6),
        answer in prop::collection::vec(0u32..512, 0..40),
    ) {
        for tokenizer in all_tokenizers() {
            let all = [&prompt[..], &answer].concat();
            let shown = |ids: &[u32]| -> Vec<u32> {
                ids.iter().copied().filter(|id| !tokenizer.is_special(*id)).collect()
            };
            let mut stream = text_after(&tokenizer, &prompt, &[]);
            let mut text = String::new();
            for id in &answer {
                text += &stream.push(*id);
            }
            text += &stream.finish();
            let own = bytes(&tokenizer, &shown(&answer));
            let before = bytes(&tokenizer, &shown(&prompt));
            let (own, before) = (String::from_utf8(own), String::from_utf8(before));
            if let (Ok(own), Ok(_)) = (own, before) {
                prop_assert!(own.ends_with(&text));
                let whole = tokenizer.decode(&all, true).unwrap();
                prop_assert_eq!(tokenizer.decode(&prompt, true).unwrap() + &text, whole);
            } else {
                prop_assert!(text.len() <= 3 * bytes(&tokenizer, &answer).len());
            }
        }
    }
}
