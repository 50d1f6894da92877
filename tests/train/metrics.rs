//! What other programs read of a run: event files, the report, and runs side by side.

use std::fs;

use crate::jobs::Home;
use crate::running::run;

#[test]
fn a_run_can_be_looked_at_and_compared() {
    let home = Home::new();
    let job = home.job("out", 40, "report_to: tensorboard");
    let mut train = job.start(&[]);
    train.until_step(12);
    train.signal("INT");
    train.end();
    let result = job.run(&[]).result();
    let runs = fs::read_dir(job.output.join("runs")).unwrap();
    let names: Vec<String> = runs
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 1, "one file for the job: {names:?}");
    assert!(names[0].starts_with("events.out.tfevents."), "{names:?}");
    let events = fs::read(job.output.join("runs").join(&names[0])).unwrap();
    let tags = events.windows(10).filter(|bytes| bytes == b"train/loss");
    assert_eq!(tags.count(), 40, "each step once");
    let page = fs::read_to_string(job.output.join("report.html")).unwrap();
    let hash = result["record_digest"].as_str().unwrap();
    for words in [hash, "<svg", "checkpoint-40", "learning_rate", "report_to"] {
        assert!(page.contains(words), "no {words}");
    }

    let other = home.job("other", 30, "lora_r: 4");
    let other_hash = other.run(&[]).result();
    let other_hash = other_hash["record_digest"].as_str().unwrap();
    let dirs = [job.output.to_str().unwrap(), other.output.to_str().unwrap()];
    let table = run(&["compare", dirs[0], dirs[1]]).good().stdout;
    for words in [
        "lora_r",
        "max_steps",
        "report_to",
        "last loss",
        hash,
        other_hash,
    ] {
        assert!(table.contains(words), "no {words} in {table}");
    }
    assert!(!table.contains("sequence_len"), "they agree in it: {table}");
    let whole = run(&["compare", dirs[0], dirs[1], "--all"]).good().stdout;
    assert!(whole.contains("sequence_len"), "{whole}");
    let nothing = home.path("data.txt");
    let refused = run(&[
        "compare",
        dirs[0],
        nothing.parent().unwrap().to_str().unwrap(),
    ]);
    refused.refused(&["no output folder of `concord train`"]);
    // Its files go with the job that they are of.
    home.job("out", 3, "seed: 1").run(&["--overwrite"]).good();
    assert!(!job.output.join("runs").exists());
}

#[test]
fn a_folder_for_events_without_events_is_refused() {
    let home = Home::new();
    home.job("out", 3, "logging_dir: x")
        .run(&[])
        .refused(&["`logging_dir`", "report_to: tensorboard"]);
}
