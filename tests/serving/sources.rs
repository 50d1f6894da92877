//! What `--model` may name, and what a preview promises.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::local::{Local, until};
use crate::pool::run;
use crate::server::{essence, get, good, tiny};

/// The adapter as a job writes it: it names its base model.
fn job_output(dir: &Path, adapter: &Path, model: &Path) -> PathBuf {
    let folder = dir.join("mine");
    std::fs::create_dir(&folder).unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(adapter.join(weights), folder.join(weights)).unwrap();
    let config = std::fs::read(adapter.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["base_model_name_or_path"] = json!(model);
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    folder
}

/// The folder of an adapter as --model: a request with its name, or with no name, gets the adapter
/// over its base.
#[test]
fn the_folder_of_an_adapter_is_served_as_generate_takes_it() {
    let Some((model, adapter)) = tiny() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mine = job_output(dir.path(), &adapter, &model);
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 40, "seed": 3,
        "temperature": 0.8, "logprobs": 2 });
    let with = |model: &str| {
        let mut body = body.clone();
        body["model"] = json!(model);
        body
    };
    let options = format!("poet={}", adapter.display());
    let named = Local::serve(&dir.path().join("a"), &model, &["--adapter", &options]);
    named.ready();
    let url = format!("{}/v1/completions", named.url);
    let (base, poet) = (good(&url, &body), good(&url, &with("poet")));
    assert_ne!(
        essence(&base),
        essence(&poet),
        "the adapter changes nothing"
    );
    let server = Local::serve(&dir.path().join("b"), &mine, &["--adapter", &options]);
    server.ready();
    let url = format!("{}/v1/completions", server.url);
    for body in [body.clone(), with("mine"), with("poet")] {
        let answer = good(&url, &body);
        assert_eq!(essence(&answer), essence(&poet), "{body}");
    }
    let models = get(&format!("{}/v1/models", server.url));
    assert_eq!(models["data"][0]["id"], "mine");
    let mine = mine.to_str().unwrap();
    let generated = run(&[
        "generate",
        "--model",
        mine,
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "40",
        "--seed",
        "3",
        "--temperature",
        "0.8",
    ]);
    let text = poet["choices"][0]["text"].as_str();
    assert_eq!(generated.stdout.strip_suffix('\n'), text);
    // And a preview of it.
    let preview = run(&["--json", "serve", "--model", mine, "--preview"]);
    assert_eq!(preview.code, Some(0), "{preview:?}");
}

#[test]
fn names_that_mean_two_things_are_refused() {
    let Some((model, adapter)) = tiny() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mine = job_output(dir.path(), &adapter, &model);
    let adapter = adapter.to_str().unwrap();
    let taken = format!("mine={adapter}");
    let serve = |model: &Path, more: &[&str]| {
        let fixed = ["serve", "--model", model.to_str().unwrap()];
        run(&[&fixed[..], more].concat())
    };
    serve(&mine, &["--adapter", &taken]).refused(&["--adapter mine", "has this name"]);
    let twice = [
        "--adapter",
        &format!("x={adapter}"),
        "--adapter",
        &format!("x={adapter}"),
    ];
    serve(&model, &twice).refused(&["--adapter x", "has this name"]);
    std::fs::copy(model.join("config.json"), mine.join("config.json")).unwrap();
    let both = ["mine", "config.json", "adapter_config.json", "--adapter"];
    serve(&mine, &[]).refused(&both);
    // `generate` refuses it, too: the weights may be left from an older job.
    run(&[
        "generate",
        "--model",
        mine.to_str().unwrap(),
        "--prompt",
        "x",
    ])
    .refused(&both);
    std::fs::remove_file(mine.join("config.json")).unwrap();
    let config = json!({ "base_model_name_or_path": "no/such/folder/at/all", "peft_type": "LORA" });
    std::fs::write(mine.join("adapter_config.json"), config.to_string()).unwrap();
    serve(&mine, &[]).refused(&["--model", "base model", "no/such/folder/at/all"]);
}

/// Stages and pages of each pipeline.
fn shape(pipelines: &Value) -> Vec<(usize, u64)> {
    let of = |pipeline: &Value| {
        let stages = pipeline["stages"].as_array().unwrap();
        (stages.len(), pipeline["pages"].as_u64().unwrap())
    };
    pipelines.as_array().unwrap().iter().map(of).collect()
}

/// A preview's plan is the plan that is made: the same memory for each worker.
#[test]
fn a_preview_is_what_is_then_done() {
    let Some((model, _)) = tiny() else { return };
    for options in [
        &["--memory", "40M"][..],
        &["--memory", "40M", "--workers", "2", "--pipelines", "2"],
        // Half of the free memory holds far more than the most pages.
        &["--workers", "2", "--pipelines", "2"],
        &["--workers", "2", "--pipelines", "2", "--kv-pages", "77"],
    ] {
        let path = model.to_str().unwrap();
        let fixed = ["--json", "serve", "--model", path, "--preview"];
        let preview = run(&[&fixed[..], options].concat());
        let preview: Value = serde_json::from_str(preview.stdout.trim()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Local::serve(dir.path(), &model, options);
        let running = |view: &Value| {
            let pipelines = view["pipelines"].as_array().unwrap().clone();
            pipelines
                .iter()
                .filter(|one| one["running"] == true)
                .count()
        };
        let planned = preview["pipelines"].as_array().unwrap().len();
        until("all pipelines run", || running(&server.view()) == planned);
        let view = server.view();
        assert_eq!(
            shape(&preview["pipelines"]),
            shape(&view["pipelines"]),
            "{options:?}"
        );
        let memory = preview["worker_memory_bytes"].as_u64().unwrap();
        if options.contains(&"--memory") {
            assert_eq!(memory, 40 << 20);
            assert_ne!(
                shape(&view["pipelines"])[0].1,
                4_096,
                "memory is no bound here"
            );
        }
        for worker in view["workers"].as_array().unwrap() {
            let has = worker["memory_bytes"].as_u64().unwrap();
            // What is free changes from one moment to the next.
            let most = memory.max(has);
            assert!(most - memory.min(has) < most / 3, "{has}, not {memory}");
        }
    }
}
