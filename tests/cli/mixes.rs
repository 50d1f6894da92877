//! Data sets that alternate, parts of their rows, and examples that share a sequence: what a job
//! learns, and what a preview shows of it.

use std::fs;

use serde_json::Value;

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

/// Two data sets, of 3 rows and of 5, and a job on them.
struct Mixed {
    model: TinyModel,
}

impl Mixed {
    fn new() -> Self {
        let model = TinyModel::new();
        for (name, words) in [
            ("a.jsonl", &["w3 w3", "w3 w4", "w3 w5"][..]),
            ("b.jsonl", &["w6 w3", "w6 w4", "w6 w5", "w6 w7", "w6 w8"]),
        ] {
            let rows = words
                .iter()
                .map(|text| format!("{{\"text\": \"{text}\"}}\n"));
            fs::write(model.file(name), rows.collect::<String>()).unwrap();
        }
        Self { model }
    }

    fn job(&self, of_b: &str, keys: &str) -> String {
        let path = |name: &str| self.model.file(name).display().to_string();
        let text = format!(
            "{{base_model: {}, max_steps: 1, sequence_len: 16, learning_rate: 1e-3, lora_r: 1,\n\
             datasets: [{{path: {}, type: completion}}, {{path: {}, type: completion{of_b}}}],\n\
             output_dir: {}{keys}}}",
            self.model.dir().display(),
            path("a.jsonl"),
            path("b.jsonl"),
            path("out")
        );
        fs::write(self.model.file("job.yaml"), text).unwrap();
        arg(&self.model.file("job.yaml")).to_string()
    }

    fn train(&self, of_b: &str, keys: &str) -> Ran {
        let job = self.job(of_b, keys);
        concord(["train", &job, "--json", "--checkers", "0", "--overwrite"])
    }

    fn preview(&self, of_b: &str, keys: &str) -> Vec<Value> {
        let job = self.job(of_b, keys);
        let ran = concord(["data", "preview", &job, "--json", "-n", "99"]);
        ran.good().objects()
    }
}

fn events<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["event"] == name)
        .collect()
}

/// The first words of the sequences of a preview.
fn firsts(objects: &[Value]) -> Vec<String> {
    let first = |sequence: &&Value| {
        let texts = sequence["parts"].as_array().unwrap().iter();
        let texts: String = texts.map(|part| part["text"].as_str().unwrap()).collect();
        let mut words = texts
            .split_whitespace()
            .filter(|word| word.starts_with('w'));
        words.next().unwrap().to_string()
    };
    events(objects, "sequence").iter().map(first).collect()
}

#[test]
fn data_sets_take_turns_until_one_or_all_are_taken_whole() {
    let mixed = Mixed::new();
    let joined = firsts(&mixed.preview("", ""));
    assert_eq!(joined.concat(), "w3w3w3w6w6w6w6w6");
    let under = firsts(&mixed.preview("", ", mix_strategy: interleave_under"));
    assert_eq!(under.concat(), "w3w6w3w6w3w6");
    let over = mixed.preview("", ", mix_strategy: interleave_over");
    assert_eq!(firsts(&over).concat(), "w3w6".repeat(5));
    let notes = events(&over, "note");
    let words = "data sets alternate: 10 sequences, 5 of ";
    assert!(
        notes
            .iter()
            .any(|note| note["note"].as_str().unwrap().starts_with(words)),
        "{notes:?}"
    );

    let shares = ", mix_strategy: interleave_over, interleave_probs: [0.7, 0.3], shuffle: false";
    let told = mixed.train("", shares).good().objects();
    let mix = events(&told, "mix")[0];
    let of = |set: usize, key: &str| mix["sets"][set][key].as_u64().unwrap();
    assert_eq!((of(0, "distinct"), of(1, "distinct")), (3, 5));
    assert_eq!(
        of(0, "sequences") + of(1, "sequences"),
        mix["sequences"].as_u64().unwrap()
    );
    assert_eq!(
        firsts(&mixed.preview("", shares)).len(),
        mix["sequences"].as_u64().unwrap() as usize
    );
    // The same again, and another for another seed.
    let id = |keys: &str| {
        let objects = mixed.train("", keys).good().objects();
        events(&objects, "result")[0]["job"].to_string()
    };
    let job = events(&told, "result")[0]["job"].to_string();
    assert_eq!(id(shares), job);
    assert_ne!(id(&format!("{shares}, seed: 1")), job);
}

#[test]
fn choices_that_contradict_the_data_sets_are_refused() {
    let mixed = Mixed::new();
    for (of_b, keys, words) in [
        (
            "",
            ", interleave_probs: [0.5, 0.5]",
            "`interleave_probs` has no effect",
        ),
        (
            "",
            ", mix_strategy: interleave_under, interleave_probs: [0.2, 0.3, 0.5]",
            "a list of 2 numbers, one for each data set",
        ),
        (
            "",
            ", mix_strategy: interleave_under, interleave_probs: [0.5, 0.6]",
            "numbers above 0 that add up to 1",
        ),
        (
            "",
            ", mix_strategy: blend",
            "concat, interleave_under, interleave_over",
        ),
        (
            ", shards: 2, shards_idx: 2",
            "",
            "a whole number below 2 (shards)",
        ),
        (
            ", shards_idx: 1",
            "",
            "`datasets[1].shards_idx` has no effect without `shards`",
        ),
        (
            ", shards: 2, weight: 0.5",
            "",
            "`datasets[1].weight` has no effect beside `shards`",
        ),
    ] {
        mixed.train(of_b, keys).refused(&[words]);
    }
}

#[test]
fn parts_of_rows_are_taken_by_their_number() {
    let mixed = Mixed::new();
    let mut taken = 0;
    for index in 0..2 {
        let part = format!(", shards: 2, shards_idx: {index}");
        let objects = mixed.preview(&part, "");
        taken += firsts(&objects).iter().filter(|word| *word == "w6").count();
        assert_eq!(events(&objects, "data")[1]["rows"], 3 - index);
    }
    assert_eq!(taken, 5);
}

#[test]
fn a_preview_shows_where_documents_begin_in_packed_sequences() {
    let mixed = Mixed::new();
    let objects = mixed.preview("", ", sample_packing: true");
    let sequences = events(&objects, "sequence");
    let documents = |sequence: &&Value| sequence["documents"].as_array().unwrap().len();
    assert_eq!(sequences.iter().map(documents).sum::<usize>(), 8);
    assert!(sequences.len() < 8, "{sequences:?}");
    for sequence in &sequences {
        let positions = sequence["positions"].as_array().unwrap();
        let starts = (0..).zip(positions).filter(|(_, position)| **position == 0);
        let starts: Vec<u64> = starts.map(|(start, _)| start).collect();
        let told = sequence["documents"].as_array().unwrap().iter();
        let told: Vec<u64> = told.map(|one| one["start"].as_u64().unwrap()).collect();
        assert_eq!(starts, told);
        assert_eq!(
            positions.len(),
            sequence["tokens"].as_array().unwrap().len()
        );
    }
    // As many sequences as the job learns.
    let told = mixed.train("", ", sample_packing: true").good().objects();
    let words = format!("8 examples in {} sequences", sequences.len());
    let has_words = |note: &&Value| note["note"].as_str().unwrap().contains(&words);
    assert!(events(&told, "note").iter().any(has_words), "{told:?}");
    let job = mixed.job("", ", sample_packing: true");
    let text = concord(["data", "preview", &job]).good().stdout;
    assert!(text.contains("-- document 2 of"), "{text}");
    assert!(text.contains("positions 0 to"), "{text}");
}
