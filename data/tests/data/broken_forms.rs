//! Files of every form, broken in ten ways or more, with what is said of each. The tests of the
//! command line take them, too.

use concord_data::DatasetKind;

/// What stands in a broken file, and what is said of it.
type Broken = (Vec<u8>, Vec<&'static str>);

/// A file that is right, and files that are not.
pub struct Form {
    pub name: &'static str,
    pub kind: DatasetKind,
    pub sequence_len: u32,
    pub good: Vec<u8>,
    pub broken: Vec<Broken>,
}

const ROW: &str = r#"{"instruction": "a", "output": "b"}"#;

/// Every form of a file.
pub fn forms() -> Vec<Form> {
    let rows = |name, good: Vec<u8>, broken| Form {
        name,
        kind: DatasetKind::AlpacaTurns,
        sequence_len: 64,
        good,
        broken,
    };
    let two = format!("{ROW}\n{ROW}\n");
    vec![
        rows("rows.json", format!("[{ROW},\n{ROW}]").into(), arrays()),
        rows("rows.csv", table(&[b"a,b"], b','), tables(b',')),
        rows("rows.tsv", table(&[b"a,b"], b'\t'), tables(b'\t')),
        rows("rows.jsonl.gz", gzip(two.as_bytes()), packed(gzip, 10)),
        rows("rows.jsonl.zst", zstd(two.as_bytes()), packed(zstd, 9)),
        Form {
            name: "text.txt",
            kind: DatasetKind::Text,
            sequence_len: 16,
            good: b"abcdefghijklmnopqrstuvwxyz".to_vec(),
            broken: texts(),
        },
        Form {
            name: "tokens.safetensors",
            kind: DatasetKind::Tokens,
            sequence_len: 2,
            good: tokens("[2,1,1,2]", &[1, 2, 3, 299]),
            broken: tensors(),
        },
    ]
}

fn arrays() -> Vec<Broken> {
    let ends = "line 3: the rows of an array have a comma between two, and ] at the end";
    let no_object = "line 3: not a JSON object";
    let said = |content: String, words| (content.into_bytes(), vec![words]);
    vec![
        said(
            format!("[\n{ROW},\n"),
            "line 3: the array of rows is cut off",
        ),
        said(format!("[\n{ROW}\n{ROW}]"), ends),
        said(format!("[\n{ROW}\n}}"), ends),
        said(
            format!("[\n{ROW}\n]\n{ROW}"),
            "line 4: there is more behind the end",
        ),
        said(format!("[\n{ROW},\n]"), no_object),
        said(format!("[\n{ROW},\n7]"), no_object),
        said(format!("[\n{ROW},\nnull]"), no_object),
        said(format!("[\n{ROW},\n[{ROW}]]"), no_object),
        said(
            format!("[\n{ROW},\n{{\"output\": \"b\"}}]"),
            "line 3: there is no field `instruction`",
        ),
        said(
            format!("[\n{ROW},\n{{\"instruction\": \"a\",\n\"output\": 1}}]"),
            "line 3: the field `output` is 1, not a string",
        ),
        said(
            format!("[\n{ROW},\n{{\"instruction\": \"a\",\n\"output\": b}}]"),
            "1 lines below",
        ),
        said("[]".to_string(), "it is empty"),
    ]
}

/// Lines of a table of instructions and outputs. Commas stand for the separator.
fn table(lines: &[&[u8]], separator: u8) -> Vec<u8> {
    let lines = [&[&b"instruction,output"[..]], lines].concat().join(&b'\n');
    let lines = lines.into_iter();
    lines
        .map(|byte| if byte == b',' { separator } else { byte })
        .collect()
}

fn tables(separator: u8) -> Vec<Broken> {
    let said = |lines: &[&[u8]], words: &[&'static str]| (table(lines, separator), words.to_vec());
    let named = |names: &[u8], words: &[&'static str]| {
        let whole = table(&[b"a,b\n"], separator);
        let rest = whole.iter().position(|byte| *byte == b'\n').unwrap();
        let separated = names
            .iter()
            .map(|byte| if *byte == b',' { separator } else { *byte });
        let bytes = separated.chain(whole[rest..].iter().copied());
        (bytes.collect(), words.to_vec())
    };
    vec![
        said(
            &[b"\"a\"\r\"b,c\n"],
            &["line 2", "behind the closing quote"],
        ),
        said(&[b"a,b", b"c\n"], &["line 3", "it has 1 fields", "names 2"]),
        said(&[b"a,b,c\n"], &["line 2", "it has 3 fields"]),
        said(&[b"\"a,b\n"], &["line 2", "no closing one"]),
        said(&[b"\"a\"x,b\n"], &["line 2", "behind the closing quote"]),
        said(&[b"a,\xff\n"], &["line 2", "not UTF-8"]),
        said(&[b"\"a\n\n\",b", b"c,\n"], &["line 5", "`output` is empty"]),
        said(&[], &["it is empty"]),
        named(
            b"instruction,instruction",
            &["line 1", "`instruction` is there twice"],
        ),
        named(b"instruction,", &["line 1", "field 2 has no name"]),
        named(b"c,d", &["line 2", "no field `instruction`", "c, d"]),
    ]
}

/// Rows that are wrong within, and packed bytes that are: `head` bytes stand before the first
/// block.
fn packed(pack: fn(&[u8]) -> Vec<u8>, head: usize) -> Vec<Broken> {
    let within = |content: &[u8], words: &[&'static str]| (pack(content), words.to_vec());
    let whole = pack(format!("{ROW}\n{ROW}\n").as_bytes());
    let unread = |bytes: Vec<u8>| (bytes, vec!["cannot read"]);
    let line = |text: &str| format!("{ROW}\n{text}\n").into_bytes();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    vec![
        within(b"", &["it is empty"]),
        within(
            &line("{\"instruction\": \"a\"}"),
            &["line 2", "no field `output`"],
        ),
        within(
            &line("{\"instruction\": \"a\", \"output\": 1}"),
            &["line 2", "`output` is 1"],
        ),
        within(&line("[]"), &["line 2", "not a JSON object"]),
        within(
            &[&line("")[..], b"{\"instruction\": \"\xff\"}"].concat(),
            &["line 3", "not a JSON object"],
        ),
        within(b"\xff\xfe{\0", &["UTF-16"]),
        unread(ROW.as_bytes().to_vec()),
        unread(whole[..head].to_vec()),
        unread(whole[..head + 20].to_vec()),
        unread(changed(0)),
        unread([&whole[..], b"more"].concat()),
    ]
}

fn texts() -> Vec<Broken> {
    let said = |bytes: &[u8], words: &[&'static str]| (bytes.to_vec(), words.to_vec());
    vec![
        said(b"", &["it is empty"]),
        said(b"\xef\xbb\xbf", &["it is empty"]),
        said(
            b"abcdef",
            &["7 tokens do not fill one sequence of 16", "add text"],
        ),
        said(b"abc\xff", &["byte 3 begins no character", "UTF-8"]),
        said(b"caf\xe9 au lait, for the whole family", &["byte 3"]),
        said(
            b"a text that ends within a character \xe2\x82",
            &["byte 36"],
        ),
        said(
            b"\xef\xbb\xbfa text with a mark, and more \xff",
            &["byte 32"],
        ),
        said(b"\xff\xfea\0b\0", &["UTF-16", "save it as UTF-8"]),
        said(b"\xfe\xff\0a\0b", &["UTF-16"]),
        said(b"\0\0\xfe\xff\0\0\0a", &["UTF-32"]),
        said(b"a\0b\0c\0", &["byte 1 is NUL", "UTF-16"]),
        said(
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            &["byte 0 begins no character"],
        ),
    ]
}

/// A safetensors file from a header and data, however wrong.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A file of tokens of this shape.
fn tokens(shape: &str, ids: &[i64]) -> Vec<u8> {
    let end = ids.len() * 8;
    let header =
        format!(r#"{{"tokens":{{"dtype":"I64","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
    let data: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    raw_safetensors(&header, &data)
}

fn tensors() -> Vec<Broken> {
    let two = concat!(
        r#"{"tokens":{"dtype":"I64","shape":[1,1,1,2],"data_offsets":[0,16]},"#,
        r#""labels":{"dtype":"I64","shape":[1,1,1,2],"data_offsets":[16,32]}}"#
    );
    let other = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let floats = r#"{"tokens":{"dtype":"F32","shape":[1,1,1,2],"data_offsets":[0,8]}}"#;
    let whole = tokens("[1,1,1,2]", &[1, 2]);
    vec![
        (
            tokens("[2,2]", &[1, 2, 3, 4]),
            vec!["[2, 2]", "[step, microbatch, batch, sequence]"],
        ),
        (
            tokens("[1,1,1,4]", &[1, 2, 3, 4]),
            vec!["sequences have 4 tokens", "sequence_len is 2"],
        ),
        (tokens("[1,1,1,2]", &[1, -2]), vec!["-2 is not a token id"]),
        (
            tokens("[1,1,1,2]", &[1, 1 << 40]),
            vec!["1099511627776 is not a token id"],
        ),
        (
            tokens("[1,1,1,2]", &[1, 300]),
            vec!["token 1", "id 300", "only 300 embeddings"],
        ),
        (tokens("[0,1,1,2]", &[]), vec!["empty"]),
        (
            raw_safetensors(other, &[0; 8]),
            vec!["`ids`, which is not read"],
        ),
        (raw_safetensors("{}", &[]), vec!["`tokens` is missing"]),
        (
            raw_safetensors(two, &[0; 32]),
            vec!["`labels`, which is not read"],
        ),
        (raw_safetensors(floats, &[0; 8]), vec!["F32", "I64"]),
        (b"abc".to_vec(), vec!["not a safetensors file"]),
        (
            whole[..whole.len() - 4].to_vec(),
            vec!["not a safetensors file"],
        ),
    ]
}

/// A gzip file that holds the bytes as they are.
fn gzip(content: &[u8]) -> Vec<u8> {
    let crc = content.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    let len = content.len() as u16;
    [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1],
        &len.to_le_bytes()[..],
        &(!len).to_le_bytes(),
        content,
        &(!crc).to_le_bytes(),
        &u32::from(len).to_le_bytes(),
    ]
    .concat()
}

/// A zstd file that holds fewer than 256 bytes as they are.
fn zstd(content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).expect("few bytes");
    let block = 1 | u32::from(len) << 3;
    [
        &[0x28, 0xb5, 0x2f, 0xfd, 0x20, len],
        &block.to_le_bytes()[..3],
        content,
    ]
    .concat()
}
