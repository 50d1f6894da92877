//! Which rows and fields of a data set are taken, and what of a conversation.

use std::fs;
use std::path::Path;

use concord_data::{DataError, DatasetKind, DatasetSource, Shard};
use serde_json::{Value, json};

use crate::fixtures::{Model, says, taught};

/// The texts of the rows that are taken of ten, `a` to `j`.
fn taken(change: impl Fn(&mut DatasetSource)) -> Result<String, DataError> {
    let rows: Vec<Value> = ('a'..='j')
        .map(|c| json!({ "text": format!("{c}{c}") }))
        .collect();
    let parts = taught(&Model::bytes(), DatasetKind::Completion, &rows, change)?;
    // The first token of a sequence is not learnt.
    Ok(parts
        .iter()
        .filter_map(|part| part.chars().next())
        .collect())
}

#[test]
fn parts_shares_and_numbers_of_rows_are_taken_one_after_the_other() {
    for (split, expected) in [
        ("train", "abcdefghij"),
        ("train[:30%]", "abc"),
        ("train[2:4]", "cd"),
        ("train[-2:]", "ij"),
    ] {
        let found = taken(|source| source.split = Some(split.parse().unwrap()));
        assert_eq!(found.unwrap(), expected, "{split}");
    }
    let drawn = taken(|source| source.weight = Some(0.39)).unwrap();
    assert_eq!(drawn.len(), 3, "{drawn}");
    assert!(drawn.chars().is_sorted(), "{drawn}");
    let seeds = (0..9).map(|seed| {
        let drawn = taken(|source| {
            source.weight = Some(0.39);
            source.seed = seed;
        });
        drawn.unwrap()
    });
    let mut seeds: Vec<String> = seeds.collect();
    seeds.dedup();
    assert!(seeds.len() > 4, "{seeds:?}");
    let both = taken(|source| {
        source.split = Some("train[5:]".parse().unwrap());
        source.weight = Some(0.8);
        source.max_samples = Some(2);
    });
    let both = both.unwrap();
    assert_eq!(both.len(), 2, "{both}");
    assert!(both.chars().all(|c| c >= 'f'), "{both}");
    let none = taken(|source| source.split = Some("train[10:]".parse().unwrap()));
    assert!(none.is_err());
    let none = taken(|source| source.weight = Some(0.05)).unwrap_err();
    says(none, &["`weight: 0.05` takes none of its 10 rows"]);
    let shard = |of, index| taken(|source| source.shard = Some(Shard { of, index }));
    let mut all: Vec<char> = (0..4)
        .flat_map(|i| shard(4, i).unwrap().chars().collect::<Vec<_>>())
        .collect();
    all.sort_unstable();
    assert_eq!(all, ('a'..='j').collect::<Vec<_>>());
    assert_eq!(shard(4, 0).unwrap().len(), 3);
    assert_ne!(
        shard(2, 0).unwrap(),
        "abcde",
        "rows are shuffled before they are divided"
    );
    says(
        shard(11, 10).unwrap_err(),
        &["`shards: 11, shards_idx: 10` takes none of its 10 rows"],
    );
    let none = taken(|source| source.split = Some("test".parse().unwrap())).unwrap_err();
    says(none, &["the split `train`, and not `test`"]);
}

#[test]
fn parts_of_documents_are_taken_too() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"text\": \"abcd\"}\n{\"text\": \"efgh\"}\n{\"text\": \"ijkl\"}\n";
    fs::write(folder.path().join("a.jsonl"), rows).unwrap();
    let mut source = DatasetSource::new(folder.path().join("a.jsonl"), DatasetKind::Text);
    source.split = Some("train[1:2]".parse().unwrap());
    let loaded = Model::bytes().load(&source, 4).unwrap();
    assert_eq!(loaded.counts.rows, 1);
    assert_eq!(loaded.tokens[..4], [256, 101, 102, 103]);
    fs::write(folder.path().join("b.txt"), "words").unwrap();
    source.path = folder.path().to_path_buf();
    let error = Model::bytes().load(&source, 4).unwrap_err();
    says(error, &["both texts and files of rows", "*.txt"]);
}

#[test]
fn all_fields_that_are_left_out_are_named_at_once() {
    let row = json!({ "text": "ab", "label": 1, "note": "x", "other": "y", "id": 3 });
    let of = |change: &dyn Fn(&mut DatasetSource)| {
        let rows = std::slice::from_ref(&row);
        taught(&Model::bytes(), DatasetKind::Completion, rows, change)
    };
    let error = of(&|_| {}).unwrap_err();
    says(
        error,
        &[
            "line 1",
            "3 fields are not used by type `completion`: label, note, other",
            "`ignore_fields: [label, note, other]`",
        ],
    );
    let all = ["label", "note", "other"].map(str::to_string);
    assert!(of(&|source| source.ignore_fields = all.to_vec()).is_ok());
    assert!(of(&|source| source.columns = vec!["text".to_string()]).is_ok());
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Ends turns with a text that is no control token, but a token.
const MARKED: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}#{% endfor %}\
                      {% if add_generation_prompt %}[assistant]{% endif %}";

fn talk() -> Value {
    json!({ "messages": [
        {"role": "system", "content": "S"}, {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"},
        {"role": "assistant", "content": "D"}] })
}

fn learnt(template: &str, change: impl Fn(&mut DatasetSource)) -> Result<Vec<String>, DataError> {
    let mut model = Model::bytes().with_template(template);
    model.max_positions = 512;
    taught(&model, DatasetKind::ChatTemplate, &[talk()], change)
}

#[test]
fn turns_are_left_out_as_the_data_set_says() {
    let last = learnt(CHATML, |source| source.mask_history = true).unwrap();
    assert_eq!(last, ["D<|im_end|>"]);
    let whole = |drops: bool| {
        let parts = learnt(CHATML, |source| {
            source.train_on_inputs = true;
            source.drop_system_message = drops;
        });
        parts.unwrap().concat()
    };
    assert!(whole(false).contains("system\nS"));
    assert!(!whole(true).contains("system"));
    // Without a control token behind a turn nothing says where to stop, unless it is named.
    says(learnt(MARKED, |_| {}).unwrap_err(), &["no control token"]);
    let named = learnt(MARKED, |source| source.eot_tokens = vec!["#".to_string()]);
    assert_eq!(named.unwrap(), ["B#", "D#"]);
    let error = learnt(CHATML, |source| {
        source.eot_tokens = vec!["<end>".to_string()]
    });
    says(
        error.unwrap_err(),
        &["`eot_tokens` has \"<end>\"", "no token"],
    );
}

#[test]
fn turns_that_a_template_shortens_are_counted() {
    const DROPS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</t>')[-1] }}{% endif %}\
        <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let folder = tempfile::tempdir().unwrap();
    let row = json!({ "messages": [
        {"role": "user", "content": " A "}, {"role": "assistant", "content": "<t>hm</t>B"},
        {"role": "user", "content": "C"}, {"role": "assistant", "content": "<t>hm</t>D"}] });
    let path = folder.path().join("a.jsonl");
    fs::write(&path, row.to_string()).unwrap();
    let mut model = Model::bytes().with_template(DROPS);
    model.max_positions = 512;
    let source = DatasetSource::new(path, DatasetKind::ChatTemplate);
    let counts = model.load(&source, 512).unwrap().counts;
    assert_eq!((counts.shortened, counts.examples), (1, 1));
}

/// Opening a pipe would wait for someone to write into it.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    let source = DatasetSource::new(Path::new("/dev/null"), DatasetKind::Completion);
    says(source.files().unwrap_err(), &["/dev/null", "it is no file"]);
}

#[test]
fn instructions_have_the_format_that_the_data_set_gives() {
    let rows = [
        json!({ "q": "A", "input": "{input}", "output": "x" }),
        json!({ "q": "B", "output": "y" }),
    ];
    let whole = |change: &dyn Fn(&mut DatasetSource)| {
        let parts = taught(&Model::bytes(), DatasetKind::Instruct, &rows, |source| {
            source.field_instruction = "q".to_string();
            source.train_on_inputs = true;
            source.format = Some("[{instruction}|{input}]{{}}".to_string());
            change(source);
        });
        parts.unwrap()
    };
    assert_eq!(whole(&|_| {}), ["[A|{input}]{}x</s>", "[B|]{}y</s>"]);
    let other = whole(&|source| source.no_input_format = Some("({instruction})".to_string()));
    assert_eq!(other, ["[A|{input}]{}x</s>", "(B)y</s>"]);
}
