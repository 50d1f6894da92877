//! Job files. The first byte of an input says which tool's it should be, or that its keys say it.
//! What stands behind the first NUL is the file that it names, if it names one, and each line
//! behind the second a `--set`: no job file has a NUL.

use concord_recipe::{Request, Tool, document, resolve};

use crate::seeds;

/// Files of every tool, ours among them.
const FILES: [(&str, Option<Tool>); 8] = [
    (include_str!("../../examples/questions.yaml"), None),
    (include_str!("../../examples/story.yaml"), None),
    (
        include_str!("../../recipe/tests/files/axolotl.yaml"),
        Some(Tool::Axolotl),
    ),
    (
        include_str!("../../recipe/tests/files/handbook.yaml"),
        Some(Tool::Trl),
    ),
    (
        include_str!("../../recipe/tests/files/trl.yaml"),
        Some(Tool::Trl),
    ),
    (
        include_str!("../../recipe/tests/files/llama_factory.yaml"),
        Some(Tool::LlamaFactory),
    ),
    (
        include_str!("../../recipe/tests/files/torchtune.yaml"),
        Some(Tool::Torchtune),
    ),
    (
        include_str!("../../recipe/tests/files/unsloth.yaml"),
        Some(Tool::Unsloth),
    ),
];

/// LLaMA-Factory's file of data sets.
const DATASETS: &str = include_str!("../../recipe/tests/files/dataset_info.json");

/// Writes the first inputs.
pub fn write_seeds() {
    let by_keys = Tool::ALL.len() as u8;
    let input = |which: u8, text: &str| {
        let sets = "lora_dropout=0\ndatasets.0.path=rows.jsonl";
        [
            &[which],
            text.as_bytes(),
            b"\0",
            DATASETS.as_bytes(),
            b"\0",
            sets.as_bytes(),
        ]
        .concat()
    };
    let inputs = FILES.iter().flat_map(|(text, tool)| {
        let named = tool.and_then(|tool| Tool::ALL.iter().position(|one| *one == tool));
        let named = named.map(|place| input(place as u8, text));
        let alone = [&[by_keys], text.as_bytes()].concat();
        [Some(alone), named].into_iter().flatten()
    });
    seeds::write("recipe", inputs);
}

/// Reads an input: it is a job, perhaps with problems, or refused.
///
/// # Panics
/// Where one of these says nothing, or what is proposed against the problems cannot be set.
pub fn read(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else {
        return;
    };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let [file, named, sets] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let Ok(text) = concord_data::utf8(file.to_vec()) else {
        return;
    };
    let sets = String::from_utf8_lossy(sets);
    let sets: Vec<String> = sets.lines().map(str::to_string).collect();
    let files = |_: &str| String::from_utf8(named.to_vec()).map_err(|error| error.to_string());
    let mut request = Request {
        tool: Tool::ALL
            .get(usize::from(*which) % (Tool::ALL.len() + 1))
            .copied(),
        sets: &sets,
        files: &files,
    };
    let job = match resolve(&text, &request) {
        Ok(job) => job,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(
        job.problems
            .iter()
            .all(|problem| !problem.to_string().is_empty())
    );
    let proposed = job.remedies().into_iter().map(str::to_string);
    let sets: Vec<String> = sets.iter().cloned().chain(proposed).collect();
    let refused = document(&text, &sets).err();
    assert!(refused.is_none(), "{refused:?}");
    request.sets = &sets;
    let _ = resolve(&text, &request);
}
