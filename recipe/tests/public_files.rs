//! Public job files of other tools, which are not in this repository: `CONCORD_RECIPES` names a
//! folder with a folder of them for each tool, and LLaMA-Factory's dataset_info.json. Each is
//! accepted but for its paths, or refused with every reason at once.

use std::path::{Path, PathBuf};

use concord_recipe::{Request, Tool, resolve};

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_public_file_is_accepted_or_refused_in_one_answer() {
    let Some(dir) = std::env::var_os("CONCORD_RECIPES") else {
        println!("skipped: public job files, because CONCORD_RECIPES names no folder of them");
        return;
    };
    let info = std::fs::read_to_string(Path::new(&dir).join("dataset_info.json"));
    let beside = |_: &str| info.as_ref().cloned().map_err(|error| error.to_string());
    for tool in Tool::ALL {
        for path in files(&Path::new(&dir).join(tool.word())) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let asked = Request {
                tool: Some(tool),
                files: &beside,
                ..Request::default()
            };
            let job = match resolve(&text, &asked) {
                Ok(job) => job,
                Err(why) => {
                    println!("{name}: {why}");
                    continue;
                }
            };
            let guessed = resolve(&text, &Request::default()).unwrap();
            let keys: Vec<&str> = job.problems.iter().map(|p| p.key.as_str()).collect();
            println!(
                "{name} | {} | {} settings, {} without effect | {}",
                guessed.tool.name(),
                job.settings.len(),
                job.idle.len(),
                match keys.is_empty() {
                    true => "accepted".to_string(),
                    false => keys.join(", "),
                }
            );
            // With all that is proposed, what has a proposal is gone.
            let sets: Vec<String> = job.remedies().iter().map(|set| set.to_string()).collect();
            let asked = Request {
                tool: Some(tool),
                sets: &sets,
                files: &beside,
            };
            let again = resolve(&text, &asked).unwrap();
            assert_eq!(again.remedies(), [""; 0], "{name}");
        }
    }
}
