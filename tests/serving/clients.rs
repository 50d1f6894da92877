//! Programs that people use, unchanged: the scripts of `tests/clients`, with a Python that has
//! them.
//!
//! `CONCORD_CLIENTS` names that Python: `python3 -m venv V; V/bin/pip install openai
//! langchain-openai`, and for lm-eval `V/bin/pip install 'lm-eval[api]' transformers`.

use std::path::Path;
use std::process::Command;

use crate::pool::run_command;
use crate::server::{Server, tiny};

#[test]
fn openai_langchain_and_lm_eval_work_unchanged() {
    let Some((model, _)) = tiny() else { return };
    let Some(python) = std::env::var_os("CONCORD_CLIENTS") else {
        println!("skipped: CONCORD_CLIENTS names no Python with openai and langchain-openai");
        return;
    };
    let server = Server::with_stages(&model, 2, &[]);
    let text = model.join("../../data/tinyshakespeare.txt");
    let model = model.to_str().unwrap();
    let scripts: [(&str, &str, &[&str]); 3] = [
        ("openai", "openai_client.py", &[]),
        ("langchain_openai", "langchain_client.py", &["tiny"]),
        (
            "lm_eval",
            "lm_eval_client.py",
            &[model, text.to_str().unwrap()],
        ),
    ];
    for (module, script, more) in scripts {
        let found = run_command(Command::new(&python).args(["-c", &format!("import {module}")]));
        if found.code != Some(0) {
            println!("skipped: the Python of CONCORD_CLIENTS lacks {module}");
            continue;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/clients")
            .join(script);
        let mut command = Command::new(&python);
        command
            .arg(path)
            .arg(&server.url)
            .args(more)
            .env("HF_HUB_OFFLINE", "1");
        let ran = run_command(&mut command);
        assert_eq!(ran.code, Some(0), "{script}: {ran:#?}");
        println!("{}", ran.stdout.trim());
    }
}
