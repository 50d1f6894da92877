//! Files with the keys of public ones, one or more of each tool: what they become, and what is
//! refused.

mod axolotl;
mod evaluation;
mod mix;
mod others;
mod rates;
mod wider;

use concord_recipe::{Request, Resolved, Tool, resolve};

const INFO: &str = include_str!("dataset_info.json");

fn files(path: &str) -> Result<String, String> {
    match path {
        "sets/dataset_info.json" => Ok(INFO.to_string()),
        _ => Err("no such file".to_string()),
    }
}

fn job_with(text: &str, sets: &[&str]) -> Resolved {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let request = Request {
        tool: None,
        sets: &sets,
        files: &files,
    };
    resolve(text, &request).expect(text)
}

fn job(text: &str) -> Resolved {
    job_with(text, &[])
}

/// A setting as text.
fn value(job: &Resolved, key: &str) -> String {
    let setting = job
        .setting(key)
        .unwrap_or_else(|| panic!("no {key} in {job:#?}"));
    serde_json::to_string(&setting.value)
        .unwrap()
        .replace('"', "")
}

#[track_caller]
fn values(job: &Resolved, expected: &[(&str, &str)]) {
    for (key, expected) in expected {
        assert_eq!(value(job, key), *expected, "{key}");
    }
}

/// Keys of problems, with what `--set` would be.
fn problems(job: &Resolved) -> Vec<(&str, Option<&str>)> {
    let problems = job.problems.iter();
    problems
        .map(|problem| (problem.key.as_str(), problem.set.as_deref()))
        .collect()
}

use axolotl::AXOLOTL;

#[test]
fn concords_own_files_are_passed_on() {
    for text in [
        "base_model: m\ndatasets: [{path: a, type: text}]\nsample_packing: true\n",
        "base_model: m\nrecompute: true\nnum_epochs: 1\nbf16: true\n",
        "base_model: m\nlora_rr: 8\n",
        "adapter: qlora\n",
        "max_steps: 3\n",
    ] {
        let found = job(text);
        assert_eq!(found.tool, Tool::Concord, "{text}");
        assert!(
            found.settings.is_empty() && found.problems.is_empty(),
            "{text}"
        );
    }
}

#[test]
fn unknown_keys_and_wrong_values_are_all_told_at_once() {
    let text = AXOLOTL
        .replace("lora_r: 16", "lora_r: 16\nlora_rr: 3\nlora_alhpa: 1")
        .replace("num_epochs: 1", "num_epochs: many")
        .replace(
            "micro_batch_size: 2",
            "micro_batch_size: -2\ndatasset: !x 3",
        );
    let found = job(&text);
    let texts: Vec<String> = found
        .problems
        .iter()
        .map(|problem| problem.to_string())
        .collect();
    for expected in [
        "`lora_rr` is 3: no such key of Axolotl is known; did you mean `lora_r`?",
        "`lora_alhpa` is 1: no such key of Axolotl is known; did you mean `lora_alpha`?",
        "`num_epochs` is \"many\", but must be a number",
        "`micro_batch_size` is -2, but must be a whole number, 0 or more",
        "`datasset` has a tag of YAML (!...), which means nothing here; remove it",
    ] {
        assert!(
            texts.iter().any(|text| text == expected),
            "{expected}\nis not in {texts:#?}"
        );
    }
}

#[test]
fn what_cannot_be_set_is_not_proposed() {
    let of_optimizer = |found: &Resolved| {
        let mut problems = found.problems.iter();
        let one = problems.find(|problem| problem.key == "optimizer._component_");
        one.expect("a problem").set.clone()
    };
    let other = job_with(
        others::TORCHTUNE,
        &["optimizer={_component_: torch.optim.Rprop}"],
    );
    assert!(of_optimizer(&other).is_some());
    // Nothing is within a single value.
    let single = job_with(others::TORCHTUNE, &["optimizer=torch.optim.Rprop"]);
    assert_eq!(of_optimizer(&single), None);
}

#[test]
fn no_text_makes_it_fail() {
    // Each line of each file is cut, doubled or changed.
    let values = [
        "", "null", "[]", "{}", "-1", "[[1]]", "{a: b}", "\"\"", "1e309", ".nan", "*x",
    ];
    for base in [
        AXOLOTL,
        "model_name_or_path: m\ndataset_mixture: 3\ntemplate: x\n",
    ] {
        let lines: Vec<&str> = base.lines().collect();
        for index in 0..lines.len() {
            for value in values {
                let mut changed: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
                let key = lines[index].split(':').next().unwrap_or_default();
                changed[index] = format!("{key}: {value}");
                for tool in Tool::ALL {
                    let request = Request {
                        tool: Some(tool),
                        sets: &[],
                        files: &files,
                    };
                    let _ = resolve(&changed.join("\n"), &request);
                }
            }
        }
    }
}
