//! docs/job-keys.md is made of the tables that job files are read by: `CONCORD_WRITE_DOCS=1` writes
//! it, and without that the test fails where it differs.

use std::fmt::Write;
use std::path::Path;

use concord_recipe::{Tool, reference};

/// Columns of the page.
const COLUMNS: usize = 100;

/// What precedes the keys of each tool.
const FOREIGN: &str = "# Job files of other tools

`concord train FILE` reads job files of Axolotl, TRL (and the alignment-handbook), LLaMA-Factory,
torchtune and Unsloth Studio as they are. No file names its tool, so it is guessed from the keys,
and printed; `--tool` says otherwise. The tool's own defaults hold. `--explain` prints the job in
Concord's keys, with the line or the default that each value comes from, and every key without
effect. `--set key=value` sets a key of the file, in the file's own keys (`null` removes it; `.`
leads into mappings and lists: `datasets.0.path=rows.jsonl`).

Every key below is read, changes nothing here, or is refused; all refusals come in one answer, with
the options `--set` that would do instead. A key that is not below is refused. A `*` stands for the
rest of a name, `[]` for each item of a list. Null is as good as no key. Concord's own keys
([job-file.md](job-file.md)) may stand in a file of another tool, too.

What is kept of each tool:

* **Steps.** Axolotl (and Concord): rows times epochs, divided by the rows of a step, rounded up;
  `max_steps` if that is less. Hugging Face's trainer (TRL, LLaMA-Factory, Unsloth): batches of an
  epoch rounded up, divided by the accumulation, rounded up; times epochs, rounded up; `max_steps`
  instead. torchtune: both rounded down. One device is assumed. A step always has all its rows:
  where the last step of an epoch would be smaller, it takes rows of the next.
* **Warm-up** begins at rate 0, so the first step changes nothing; a share is rounded up, by Axolotl
  down.
* **Weight decay** leaves out norms and biases; torchtune's does not. Where they are trained, as in
  a full fine-tune and beside an adapter with `lora_modules_to_save`, `weight_decay_exempt` says so;
  other adapters have none.
* **The base in 4 bits** is NF4 as bitsandbytes makes it, without quantising its scales again; in 8
  bits it is GGUF's Q8_0, not LLM.int8().
* **Data sets to be evaluated** are read by the keys of those that are learnt from: Axolotl's
  `test_datasets` by those of `datasets`, torchtune's `dataset_val` by those of `dataset`.
* **The order of rows** is shuffled by the seed, and is not the order that torch draws.
";

/// Wraps a text to the width of the page. The first line begins with `first`, the others are
/// indented by its length.
fn wrapped(first: &str, text: &str) -> String {
    let mut page = first.to_string();
    let indent = " ".repeat(first.len());
    let mut column = indent.len();
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > indent.len() && column + 1 + len > COLUMNS {
            page += "\n";
            page += &indent;
            column = indent.len();
        } else if column > indent.len() {
            page.push(' ');
            column += 1;
        }
        page += word;
        column += len;
    }
    page
}

/// The text as a sentence, with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence: String = first.chain(letters).collect();
    if !sentence.ends_with(['.', ':']) {
        sentence.push('.');
    }
    sentence
}

#[test]
fn the_page_is_what_the_tables_say() {
    let mut page = FOREIGN.to_string();
    for tool in Tool::ALL.into_iter().filter(|tool| *tool != Tool::Concord) {
        writeln!(page, "\n## {}\n", tool.name()).unwrap();
        for [keys, what] in reference::rows(tool) {
            let row = sentence(&format!("{keys}: {what}"));
            writeln!(page, "{}", wrapped("* ", &row)).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/job-keys.md");
    if std::env::var_os("CONCORD_WRITE_DOCS").is_some() {
        return std::fs::write(&path, page).unwrap();
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == page,
        "docs/job-keys.md is not what the code says: CONCORD_WRITE_DOCS=1 cargo test -p \
         concord-recipe --test reference writes it again"
    );
}
