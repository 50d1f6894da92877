//! Job files of fine-tuning tools: the text of a YAML in, a job in Concord's keys out, with the
//! source of every value, all problems at once, and the keys that change nothing here.
//!
//! A file does not name its tool, so it is guessed from its keys; each tool's own defaults hold.
//! Concord's own files are recognised and passed on: Concord's table of keys, which is not here,
//! reads them.
//!
//! ```
//! let text = "
//! base_model: models/small
//! datasets: [{path: a.jsonl, type: completion}]
//! adapter: lora
//! lora_r: 8
//! lora_alpha: 16
//! lora_target_linear: true
//! s2_attention: true
//! learning_rate: 2e-4
//! num_epochs: 3
//! bf16: auto
//! ";
//! let job = concord_recipe::resolve(text, &concord_recipe::Request::default()).unwrap();
//! assert_eq!(job.tool, concord_recipe::Tool::Axolotl);
//! assert_eq!(job.remedies(), ["s2_attention=false"]);
//! assert_eq!(job.idle.len(), 1); // bf16
//! ```

mod builder;
mod dataset;
mod document;
mod guess;
mod length;
mod read;
mod references;
mod resolved;
mod shown;
mod tables;
mod templates;
mod tool;
mod walk;

pub mod reference;

pub use dataset::{Dataset, Learnt, RowKind, TooLong, TurnTemplate};
pub use document::{Document, NotAJob, Place, TEXT_BYTES_MAX};
pub use length::{Length, Saves, StepsRule, Warmup};
pub use resolved::{Expected, Idle, Problem, Resolved, Rules, Setting, TokenRole, ValueSource};
pub use tables::OWN_KEYS;
pub use templates::{TEMPLATE_NAMES, named_template};
pub use tool::Tool;

use builder::JobBuilder;

/// Reads another file that a job file names, such as dataset_info.json; or says why it cannot.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What is asked beside the text.
pub struct Request<'a> {
    /// The tool, where the user names it.
    pub tool: Option<Tool>,
    /// Arguments of `--set`, such as `lora_dropout=0`, in the keys of the file.
    pub sets: &'a [String],
    /// Reads other files.
    pub files: Files<'a>,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            tool: None,
            sets: &[],
            files: &|path| Err(format!("{path} is not read here")),
        }
    }
}

/// Reads a job file of any tool, with the keys that are set from outside.
///
/// # Errors
/// [`NotAJob`] where it is no YAML mapping, or an argument of `--set` cannot be read. All that is
/// wrong with its keys is in the answer.
pub fn resolve(text: &str, request: &Request) -> Result<Resolved, NotAJob> {
    let given = document(text, request.sets)?;
    let (tool, because) = match request.tool {
        Some(tool) => (tool, "--tool".to_string()),
        None => guess::tool_of(&Document::read(text)?),
    };
    let document = match tool {
        Tool::Torchtune => references::replaced(&given),
        _ => given.clone(),
    };
    let mut builder = JobBuilder::new(&document, tool, because);
    if tool != Tool::Concord {
        walk::all(&mut builder);
        read::tool(&mut builder, request.files);
        ignore_fields(&mut builder);
        references::left(&mut builder);
        walk::left(&mut builder);
    }
    let mut out = builder.out;
    out.problems.sort_by_key(|problem| order(problem.place));
    out.idle.sort_by_key(|idle| order(idle.place));
    drop_unsettable(given, &mut out.problems);
    Ok(out)
}

/// Takes back what is proposed and cannot be set, such as a key within a single value.
fn drop_unsettable(mut given: Document, problems: &mut [Problem]) {
    for problem in problems {
        let set = problem.set.take();
        problem.set = set.filter(|set| given.set(set).is_ok());
    }
}

/// Fields of rows that the file says to leave out, in a key of Concord's own.
fn ignore_fields(builder: &mut JobBuilder) {
    if let Some(names) = builder.names("ignore_fields") {
        let sets = &mut builder.out;
        for dataset in sets.datasets.iter_mut().chain(&mut sets.test_datasets) {
            dataset.ignored.extend(names.iter().cloned());
        }
    }
}

/// The text with `sets` in it.
///
/// # Errors
/// [`NotAJob`] where it is no YAML mapping, or an argument cannot be read.
pub fn document(text: &str, sets: &[String]) -> Result<Document, NotAJob> {
    let mut document = Document::read(text)?;
    for argument in sets {
        document.set(argument)?;
    }
    Ok(document)
}

fn order(place: Place) -> usize {
    match place {
        Place::Line(line) => line,
        Place::File => usize::MAX - 1,
        Place::Set => usize::MAX,
    }
}
