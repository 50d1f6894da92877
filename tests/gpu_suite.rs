//! `concord gpu-suite` on an emulated GPU: what it checks, what it prints, what it refuses.
#![cfg(feature = "emulator")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn suite(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_concord"))
        .arg("gpu-suite")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// The objects of a run that went well, in order.
#[track_caller]
fn objects(args: &[&str]) -> Vec<Value> {
    let ran = suite(args);
    let (stdout, stderr) = (text(&ran.stdout), text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{stdout}\n{stderr}");
    let object = |line| serde_json::from_str(line).expect(line);
    stdout.lines().map(object).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn events(objects: &[Value]) -> Vec<&str> {
    let event = |object: &Value| object["event"].as_str().map(str::len);
    assert!(objects.iter().all(|object| event(object).is_some()));
    objects
        .iter()
        .filter_map(|object| object["event"].as_str())
        .collect()
}

#[test]
fn an_emulated_gpu_gives_the_bits_of_the_cpu() {
    for arch in ["61", "80"] {
        let device = format!("emulated:{arch}");
        let objects = objects(&[
            "--device",
            &device,
            "--size",
            "small",
            "--seed",
            "11",
            "--threads",
            "1",
            "--skip-timing",
            "--cases",
            "rmsnorm 3x64",
            "--cases",
            "products 65x31x129 I16 I16",
            "--cases",
            "engines on 3x64x256",
            "--cases",
            "attention 2x5",
            "--cases",
            "digest of 4097",
            "--cases",
            "ranks",
            "--cases",
            "golden",
            "--cases",
            "training",
            "--cases",
            "generation",
            "--json",
        ]);
        let groups = [
            "engines of products",
            "operations",
            "ranks",
            "golden digests",
            "training",
            "generation",
        ];
        let expected = [vec!["gpu"], vec!["group"; groups.len()], vec!["result"]].concat();
        assert_eq!(events(&objects), expected);
        let gpu = &objects[0]["gpu"];
        assert_eq!(gpu["arch"], format!("sm_{arch}"));
        assert_eq!(
            (&gpu["seed"], &gpu["size"]),
            (&Value::from(11), &Value::from("small"))
        );
        for (object, group) in objects[1..].iter().zip(groups) {
            assert_eq!(object["group"], group);
            assert!(object["checks"].as_u64() >= Some(1));
            assert_eq!(
                (&object["failed"], &object["differing"]),
                (&0.into(), &0.into())
            );
        }
        let result = &objects[objects.len() - 1];
        // 4 kinds of numbers a case and shape; 2 groups of ranks; 3 digests, fine-tunes; 2 texts.
        assert_eq!(
            result["checks"],
            4 + 4 * (1 + 1 + 6 + 1) + 2 + 3 + 3 + 2,
            "{result}"
        );
        assert_eq!(
            (&result["failed"], &result["differing"]),
            (&0.into(), &0.into())
        );
    }
}

/// Every operation, product and engine has a rate.
#[track_caller]
fn assert_timed(timing: &Value) {
    let operations = timing["operations"].as_array().expect("a list");
    let names: Vec<&str> = operations
        .iter()
        .filter_map(|o| o["name"].as_str())
        .collect();
    for name in [
        "code",
        "rmsnorm",
        "rmsnorm_dx",
        "rmsnorm_dw",
        "rope",
        "swiglu",
        "swiglu_backward",
        "gelu",
        "layernorm",
        "layernorm_dx",
        "layernorm_dw",
        "soft_cap",
        "take_columns",
        "attention",
        "attention_backward",
        "attention_cached",
        "matmul_dx",
        "matmul_dw",
        "cross_entropy",
        "head_dx",
        "embedding",
        "embedding_gradient",
        "route",
        "gather",
        "combine",
        "adamw",
        "adamw_8bit",
        "lion_8bit",
        "sum_squares",
        "digest",
        "canonicalise",
    ] {
        assert!(names.contains(&name), "{name} is not timed: {names:?}");
    }
    let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    for timed in operations
        .iter()
        .chain(timing["products"].as_array().expect("a list"))
    {
        assert!(
            positive(&timed["seconds"]) && positive(&timed["share"]),
            "{timed}"
        );
    }
    // cuBLAS does not work on a GPU that is emulated.
    assert_eq!(timing["has_cublas"], false);
    assert_eq!(timing["products"][0]["cublas"]["f32"], Value::Null);
    assert_eq!(timing["engines"].as_array().map(Vec::len), Some(2 * 5));
    assert!(positive(&timing["ceilings"]["copy_bytes_per_second"]));
}

#[test]
fn everything_is_timed_soaked_and_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("2026-01-01-emulated");
    let objects = objects(&[
        "--device",
        "emulated:80",
        "--size",
        "small",
        "--threads",
        "1",
        "--cases",
        "sums of 31",
        "--soak",
        "0.001",
        "--record",
        record.to_str().expect("UTF-8"),
        "--json",
    ]);
    assert_eq!(
        events(&objects),
        ["gpu", "group", "timing", "soak", "result"]
    );
    let timing = &objects[2]["timing"];
    assert_timed(timing);
    let soak = &objects[3]["soak"];
    assert_eq!(
        (&soak["wrong_rounds"], &soak["rounds"]),
        (&0.into(), &6.into())
    );
    assert_eq!(soak["first_bytes"], soak["later_bytes"]);

    let read = |name| std::fs::read_to_string(record.join(name)).expect(name);
    let results: Value = serde_json::from_str(&read("results.json")).expect("JSON");
    assert_eq!(results["header"]["arch"], "sm_80");
    assert_eq!(&results["timing"], timing);
    assert_eq!(results["verdicts"].as_array().map(Vec::len), Some(4));
    let page = read("results.md");
    for words in [
        "# emulated sm_80",
        "0 differing bits",
        "attention_backward",
        "soak: ",
    ] {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--device", "cpu"], &["--device cpu"]),
        (&["--device", "cuda:x"], &["cuda:x"]),
        (&["--device", "emulated", "--soak", "-1"], &["--soak -1"]),
        (
            &["--device", "emulated", "--threads", "0"],
            &["--threads 0"],
        ),
        (
            &["--device", "emulated", "--cases", "nothing of the kind"],
            &["nothing of the kind"],
        ),
    ];
    for (args, words) in cases {
        let ran = suite(args);
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?}: no {word:?} in {stderr}");
        }
    }
}

#[test]
fn a_gpu_that_is_lost_ends_the_suite_and_leaves_what_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().to_str().expect("UTF-8");
    let cases = ["--cases", "sums of 31", "--cases", "training"];
    let quick = ["--size", "small", "--threads", "1", "--skip-timing"];
    let lost = ["--device", "emulated:80:200", "--record", record];
    let ran = suite(&[&lost[..], &quick, &cases].concat());
    let stderr = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("in \"training"), "{stderr}");
    assert!(stderr.contains("the GPU is lost"), "{stderr}");
    let results = std::fs::read_to_string(folder.path().join("results.json")).expect("it is there");
    let results: Value = serde_json::from_str(&results).expect("JSON");
    assert_eq!(results["verdicts"].as_array().map(Vec::len), Some(4));
}
