//! Values of keys that a few public files have.

use concord_recipe::{Resolved, RowKind, TokenRole, TooLong};

use crate::axolotl::AXOLOTL;
use crate::{job, job_with, problems, values};

fn is_idle(job: &Resolved, key: &str) -> bool {
    job.idle.iter().any(|idle| idle.key == key)
}

#[test]
fn types_of_axolotl_with_words_of_their_own() {
    let with = |kind: &str| job(&AXOLOTL.replace("type: alpaca", &format!("type: \"{kind}\"")));
    let alpaca = "Below is an instruction that describes a task. Write a response that \
                  appropriately completes the request.";
    for (kind, fields, format) in [
        (
            "alpaca:chat",
            ("instruction", "output"),
            format!("SYSTEM: {alpaca}\nUSER: {{instruction}}\nASSISTANT:"),
        ),
        (
            "alpaca:phi",
            ("instruction", "output"),
            format!(
                "<|system|>\n{alpaca}<|end|>\n<|user|>\n{{instruction}}<|end|>\n<|assistant|>\n"
            ),
        ),
        (
            "oasst",
            ("INSTRUCTION", "RESPONSE"),
            format!("{alpaca}\n\n### Instruction:\n{{instruction}}\n\n### Response:\n"),
        ),
        (
            "alpaca_chat.load_no_prompt",
            ("instruction", "output"),
            "USER: {instruction}\nASSISTANT:".to_string(),
        ),
    ] {
        let found = with(kind);
        assert_eq!(problems(&found), [], "{kind}");
        let set = &found.datasets[0];
        assert_eq!((set.kind, set.too_long), (RowKind::Instruct, TooLong::Drop));
        let named = (&*set.fields["instruction"], &*set.fields["output"]);
        assert_eq!(named, fields, "{kind}");
        assert_eq!(set.no_input_format.as_deref(), Some(&*format), "{kind}");
    }
    assert_eq!(with("alpaca").datasets[0].kind, RowKind::Alpaca);
    for kind in [
        "alpaca:nemo",
        "alpaca_chat:phi",
        "jeopardy",
        "completion:chat",
    ] {
        assert_eq!(
            problems(&with(kind)),
            [("datasets[0].type", None)],
            "{kind}"
        );
    }
}

#[test]
fn fields_of_turns_reach_the_template_of_axolotl() {
    let text = AXOLOTL.replace(
        "type: alpaca",
        "type: chat_template\n    field_thinking: thinking\n    template_thinking_key: \
         thought\n    message_property_mappings: {role: who, weather: sky}",
    );
    let found = job(&text);
    assert_eq!(problems(&found), []);
    let set = &found.datasets[0];
    let named = |name: &str| set.properties.get(name).map(String::as_str);
    assert_eq!(
        (named("thought"), named("weather")),
        (Some("thinking"), Some("sky"))
    );
    assert_eq!((named("role"), &*set.fields["role"]), (None, "who"));
}

#[test]
fn what_would_change_the_model_must_be_so_already() {
    let found = job_with(AXOLOTL, &["resize_token_embeddings_to_32x=true"]);
    assert_eq!(problems(&found), []);
    let roles: Vec<TokenRole> = found
        .expected
        .iter()
        .map(|expected| expected.role)
        .collect();
    assert_eq!(roles, [TokenRole::End, TokenRole::RowsOf32]);
    let found = job_with(
        AXOLOTL,
        &["model_config={output_router_logits: true, a: 1}"],
    );
    let expected = [
        ("model_config.output_router_logits", "router"),
        ("model_config.a", "config.json"),
    ];
    for (problem, (key, word)) in found.problems.iter().zip(expected) {
        assert_eq!(problem.key, key);
        assert!(problem.remedy.contains(word), "{problem}");
    }
    assert_eq!(problems(&job_with(AXOLOTL, &found.remedies())), []);
    let found = job_with(AXOLOTL, &["model_config=3"]);
    assert_eq!(problems(&found)[0].0, "model_config");
}

#[test]
fn a_revision_belongs_to_the_model() {
    for (text, key) in [
        (AXOLOTL, "revision_of_model"),
        (
            "model_name_or_path: owner/base\ndataset_name: a.jsonl\n",
            "model_revision",
        ),
    ] {
        let found = job_with(text, &[&format!("{key}=v2")]);
        assert_eq!(problems(&found), []);
        values(&found, &[("base_model", "owner/base")]);
        let revision = found.model_revision.unwrap();
        assert_eq!(
            (revision.value.as_str(), &*revision.source.key),
            (Some("v2"), key)
        );
        let usual = job_with(text, &[&format!("{key}=main")]);
        assert!(is_idle(&usual, key) && usual.model_revision.is_none());
    }
}

#[test]
fn measures_and_states_of_axolotl() {
    let found = job_with(AXOLOTL, &["optimizer=adamw_torch_4bit"]);
    values(&found, &[("optimizer", "adamw_8bit")]);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("8 bits here, and 4"))
    );
    let asks = "do_causal_lm_eval=true";
    let found = job_with(AXOLOTL, &[asks, "eval_causal_lm_metrics=[perplexity]"]);
    assert_eq!(problems(&found), []);
    assert!(is_idle(&found, "do_causal_lm_eval"));
    for metrics in ["null", "[perplexity, ter]"] {
        let found = job_with(
            AXOLOTL,
            &[asks, &format!("eval_causal_lm_metrics={metrics}")],
        );
        assert_eq!(problems(&found)[0].0, "do_causal_lm_eval");
    }
    let plugin = "plugins=[axolotl.integrations.swanlab.SwanLabPlugin]";
    assert_eq!(problems(&job_with(AXOLOTL, &[plugin])), []);
}

#[test]
fn texts_that_share_a_sequence_are_joined_or_packed() {
    let text = AXOLOTL.replace(
        "datasets:\n  - path: rows.jsonl\n    type: alpaca",
        "pretraining_dataset: [{path: a.jsonl}]\nmax_steps: 9",
    );
    for (sets, kind) in [
        (&[][..], RowKind::Completion),
        (&["pretrain_multipack_attn=false"], RowKind::Text),
        (&["sample_packing=false"], RowKind::Text),
    ] {
        let found = job_with(&text, sets);
        assert_eq!(problems(&found), []);
        assert_eq!(found.datasets[0].kind, kind, "{sets:?}");
    }
}

#[test]
fn ways_to_pack_of_trl() {
    let text = "model_name_or_path: m\ndataset_name: a.jsonl\npacking: true\n";
    for (strategy, kind, too_long) in [
        ("ffd", RowKind::ByColumns, TooLong::Truncate),
        ("bfd", RowKind::ByColumns, TooLong::Truncate),
        ("bfd_split", RowKind::ByColumns, TooLong::Split),
        ("wrapped", RowKind::Text, TooLong::Truncate),
    ] {
        let found = job_with(text, &[&format!("packing_strategy={strategy}")]);
        assert_eq!(problems(&found), [], "{strategy}");
        let set = &found.datasets[0];
        assert_eq!((set.kind, set.too_long), (kind, too_long), "{strategy}");
        assert_eq!(
            found.setting("sample_packing").is_some(),
            strategy != "wrapped"
        );
    }
    let found = job_with(text, &["packing_strategy=best"]);
    assert_eq!(
        problems(&found),
        [("packing_strategy", Some("packing_strategy=bfd"))]
    );
}
