//! Where a result may go: refused before the first step, not after the last.

use std::fs;

use crate::jobs::Home;
use crate::running::run;

#[test]
fn an_output_folder_that_cannot_be_is_refused_before_the_first_step() {
    let home = Home::new();
    fs::write(home.path("file"), "mine").unwrap();
    let cases = [
        (home.path("file"), "is a file"),
        (home.path("file/out"), "is a file"),
        (home.path("file/a/b"), "is a file"),
        ("/proc/nowhere/out".into(), "cannot make"),
        (
            home.model.dir().to_path_buf(),
            "is the folder of `base_model`",
        ),
        (
            home.model.dir().parent().unwrap().to_path_buf(),
            "contains the folder of `base_model`",
        ),
    ];
    let config = fs::read(home.model.file("config.json")).unwrap();
    for (output, word) in cases {
        let job = home.job_into(&output, 2, "");
        job.run(&[]).refused(&["output_dir", word]);
    }
    assert_eq!(fs::read(home.path("file")).unwrap(), b"mine");
    assert_eq!(fs::read(home.model.file("config.json")).unwrap(), config);
    #[cfg(unix)]
    {
        let link = home.path("link");
        std::os::unix::fs::symlink(home.model.dir(), &link).unwrap();
        let job = home.job_into(&link, 2, "");
        job.run(&[]).refused(&["is the folder of `base_model`"]);
    }
}

#[test]
fn the_state_of_a_pool_has_a_folder_of_its_own() {
    let home = Home::new();
    let job = home.job("out", 2, "");
    for (dir, key) in [
        (home.model.dir(), "base_model"),
        (job.output.as_path(), "output_dir"),
    ] {
        fs::create_dir_all(dir).unwrap();
        let ran = job.run(&["--pool-dir", dir.to_str().unwrap()]);
        ran.refused(&["--pool-dir", &format!("the folder of `{key}`")]);
    }
    assert!(!home.model.dir().join("coordinator").exists());
}

/// The check that a folder can be written follows no link that lies there.
#[cfg(unix)]
#[test]
fn a_link_in_the_output_folder_leads_to_no_harm() {
    let home = Home::new();
    let precious = home.path("precious");
    fs::write(&precious, "mine").unwrap();
    let job = home.job("out", 2, "");
    fs::create_dir_all(&job.output).unwrap();
    let link = job.output.join(".concord-probe");
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    // Whether it trains or refuses a folder with something in it: the file is as it was.
    let _ = job.run(&[]);
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
}

#[test]
fn an_adapter_that_the_training_starts_from_is_not_overwritten() {
    let home = Home::new();
    let first = home.job("first", 2, "");
    first.run(&[]).good();
    let more = format!("initial_adapter: {}", first.output.display());
    let second = home.job("first", 2, &more);
    second
        .run(&["--overwrite"])
        .refused(&["is the folder of `initial_adapter`"]);
    home.job("second", 2, &more).run(&[]).good();
}

#[test]
fn results_are_never_mixed() {
    let home = Home::new();
    let full = "adapter: full";
    let text = |folder: &std::path::Path| {
        let folder = folder.to_str().unwrap();
        let greedy = [
            "--prompt",
            "w3 w4",
            "--temperature",
            "0",
            "--max-tokens",
            "8",
        ];
        run(&[&["generate", "--model", folder][..], &greedy].concat())
            .good()
            .stdout
    };
    for (first, second) in [
        ("", full),
        (full, ""),
        ("", "seed: 7"),
        (full, "adapter: full\nseed: 7"),
    ] {
        println!("{first:?}, then {second:?}");
        let name = format!("out-{}", first.len() + 100 * second.len());
        let old = home.job(&name, 3, first);
        old.run(&[]).good();
        let said = text(&old.output);
        let new = home.job(&name, 4, second);
        new.run(&[])
            .refused(&["result of another job", "--overwrite"]);
        assert_eq!(text(&old.output), said, "a refusal changes nothing");
        let alone = home.job(&format!("{name}-alone"), 4, second);
        alone.run(&[]).good();
        new.run(&["--overwrite"]).good();
        assert_eq!(text(&new.output), text(&alone.output));
        let names = new.entries();
        assert_eq!(names, alone.entries(), "nothing of the old one is left");
        let proof = new.output.join("proof");
        let verify = [
            "verify",
            proof.to_str().unwrap(),
            "--model",
            new.output.to_str().unwrap(),
        ];
        // Without a checker, the pieces drawn for audits are not proven; the weights are those of
        // the job.
        let told = run(&verify).stdout;
        assert!(told.contains("each as the last step left it"), "{told}");
    }
}

#[test]
fn a_model_of_somebody_else_is_left_alone() {
    let home = Home::new();
    for name in [
        "config.json",
        "model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
    ] {
        let job = home.job(&format!("with-{name}"), 2, "");
        fs::create_dir(&job.output).unwrap();
        fs::write(job.output.join(name), "theirs").unwrap();
        for more in [&[][..], &["--overwrite"]] {
            job.run(more).refused(&["output_dir", name]);
            assert_eq!(job.entries(), [name]);
        }
        assert_eq!(fs::read(job.output.join(name)).unwrap(), b"theirs");
    }
}

#[test]
fn two_trainings_do_not_share_a_folder() {
    let home = Home::new();
    let job = home.job("out", 400, "");
    let mut first = job.start(&[]);
    first.until_step(0);
    job.run(&[])
        .refused(&["output_dir", "is in use by another `concord train`"]);
    first.signal("INT");
    assert_eq!(first.end().code, Some(130));
}
