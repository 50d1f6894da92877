//! Data sets of their own that are evaluated, by the keys of each tool.

use concord_recipe::{Dataset, Learnt, Resolved, RowKind, Saves, TooLong};

use crate::axolotl::AXOLOTL;
use crate::others::{LLAMA_FACTORY, TORCHTUNE};
use crate::{job, job_with, problems};

const TRL: &str = include_str!("trl.yaml");

/// The one data set that is evaluated.
#[track_caller]
fn tested(job: &Resolved) -> &Dataset {
    assert_eq!(problems(job), []);
    match job.test_datasets.as_slice() {
        [one] => one,
        sets => panic!("{sets:#?}"),
    }
}

#[test]
fn test_datasets_of_axolotl_are_read_as_its_datasets_are() {
    let text = AXOLOTL.replace(
        "val_set_size: 0.1\n",
        "test_datasets:\n  - path: owner/tests\n    \
        type: chat_template\n    field_messages: turns\n    roles_to_train: [assistant]\n",
    );
    let found = job(&text);
    let set = tested(&found);
    assert_eq!((&*set.path, set.kind), ("owner/tests", RowKind::Chat));
    assert_eq!(set.fields["messages"], "turns");
    assert_eq!(
        (set.split.as_deref(), set.usual_split),
        (None, Some("test"))
    );
    assert_eq!(set.too_long, TooLong::Drop);
    assert_eq!(found.datasets[0].usual_split, None);
    assert_eq!(found.rules.unwrap().evaluations, Some(Saves::PerEpoch(4.0)));
    let set = job_with(&text, &["test_datasets.0.split=train[:5%]"]);
    assert_eq!(tested(&set).split.as_deref(), Some("train[:5%]"));
    // What is refused within datasets is refused here, and each key has an effect.
    for (key, value) in [("typ", "alpaca"), ("split_thinking", "true")] {
        let set = format!("test_datasets.0.{key}={value}");
        let key = format!("test_datasets[0].{key}");
        assert_eq!(problems(&job_with(&text, &[&set]))[0].0, key);
    }
    let both = job_with(&text, &["val_set_size=0.1"]);
    let expected = [("test_datasets", Some("test_datasets=null"))];
    assert_eq!(problems(&both), expected);
}

#[test]
fn dataset_val_of_torchtune_is_evaluated_every_so_many_steps() {
    let sets = "\ndataset_val:\n  _component_: torchtune.datasets.chat_dataset\n  \
                source: json\n  data_files: tests.json\n  conversation_column: turns\n  \
                conversation_style: sharegpt\n  packed: True\n  split: train\n\
                batch_size_val: ${batch_size}\n";
    let text = TORCHTUNE
        .replace("base: /models\n", "")
        .replace("${base}", "/b")
        + sets;
    let found = job_with(&text, &["run_val_every_n_steps=20"]);
    let set = tested(&found);
    assert_eq!((&*set.path, set.kind), ("tests.json", RowKind::Chat));
    assert_eq!(set.fields["messages"], "turns");
    assert_eq!(found.rules.unwrap().evaluations, Some(Saves::Every(20)));
    assert!(found.setting("sample_packing").unwrap().value == false);
    // Without a number of steps torchtune never looks at it.
    let never = job_with(&text, &["run_val_every_n_steps=null"]);
    assert_eq!((problems(&never), never.test_datasets.len()), (vec![], 0));
    assert!(never.idle.iter().any(|idle| idle.key == "dataset_val"));
    assert_eq!(never.rules.unwrap().evaluations, None);
    let none = job_with(&text, &["run_val_every_n_steps=20", "dataset_val=null"]);
    assert_eq!(problems(&none)[0].0, "run_val_every_n_steps");
}

#[test]
fn eval_dataset_of_llama_factory_is_looked_up_beside_the_other() {
    let sets = [
        "eval_dataset=talks",
        "eval_strategy=steps",
        "eval_steps=0.2",
    ];
    let found = job_with(LLAMA_FACTORY, &sets);
    let set = tested(&found);
    assert_eq!((&*set.path, set.max_rows), ("sets/talks.json", Some(1_000)));
    assert_eq!(set.learnt, Learnt::Answers);
    assert_eq!(found.rules.unwrap().evaluations, Some(Saves::Share(0.2)));
    let both = job_with(LLAMA_FACTORY, &["eval_dataset=talks", "val_size=0.1"]);
    assert_eq!(
        problems(&both),
        [("eval_dataset", Some("eval_dataset=null"))]
    );
    let none = job_with(LLAMA_FACTORY, &["eval_dataset=absent"]);
    assert_eq!(problems(&none), [("eval_dataset", None)]);
}

#[test]
fn the_test_split_of_trl_is_evaluated_where_that_is_asked_for() {
    let found = job(TRL);
    let set = tested(&found);
    assert_eq!(
        (&*set.path, set.name.as_deref()),
        ("owner/chats", Some("all"))
    );
    assert_eq!(set.split.as_deref(), Some("test"));
    assert_eq!(found.rules.unwrap().evaluations, Some(Saves::PerEpoch(1.0)));
    let set = job_with(TRL, &["dataset_test_split=validation"]);
    assert_eq!(tested(&set).split.as_deref(), Some("validation"));
    // Nothing is evaluated, or else a share of the rows by a key of Concord's own.
    for sets in [["eval_strategy=no"], ["val_set_size=0.1"]] {
        let found = job_with(TRL, &sets);
        assert_eq!((problems(&found), found.test_datasets.len()), (vec![], 0));
    }
    // A mixture has no test split of its own.
    let mixture = "{datasets: [{id: a.jsonl}]}";
    let text = TRL.replace(
        "dataset_name: owner/chats\ndataset_config: all",
        "dataset_mixture: M",
    );
    let found = job(&text.replace("M\n", &format!("{mixture}\n")));
    assert_eq!(problems(&found)[0].0, "eval_strategy");
}
