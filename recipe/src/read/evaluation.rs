//! Rows that are held out, or data sets of their own to be evaluated; when the loss on them is
//! taken, and what follows from it: by the keys of transformers' trainer, which all tools but
//! torchtune have.

use crate::builder::JobBuilder;
use crate::length::Saves;

/// Keys that say when the loss is taken.
const TIMES: [&str; 4] = [
    "eval_strategy",
    "evaluation_strategy",
    "eval_steps",
    "evals_per_epoch",
];

/// Keys that say what follows from it, or how it is taken.
const MORE: [&str; 8] = [
    "eval_on_start",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "early_stopping_patience",
    "early_stopping_threshold",
    "eval_delay",
    "do_eval",
];

/// `logging_steps` of a trainer that is not told, which are its `eval_steps`, too.
const LOGGING_STEPS: f64 = 500.0;

/// What is held out here is not what another tool holds out.
const OTHER_ROWS: &str = "rows are held out by keyed digests of `seed`: as many as the other tool \
                          holds out, and others";

/// What to do where the loss is to be taken and nothing is held out.
pub const NO_ROWS: &str = "no rows are held out for it: say how many with val_set_size, or name \
                           files with test_datasets";

/// The number under the tool's key for the rows that are held out, and whether there is something
/// to be evaluated. `sets` is the tool's key for data sets of their own.
pub fn held_out(b: &mut JobBuilder, key: &str, sets: &str) -> bool {
    if let Some(size) = b.number(key) {
        let is_size = (0.0..1.0).contains(&size) || (size >= 1.0 && size.fract() == 0.0);
        match is_size {
            true if size > 0.0 => b.copy(key, "val_set_size"),
            true => b.idle(key, "with this value it changes nothing"),
            false => b.refuse(key, "it is a share below 1, or a whole number", Some("0")),
        }
    }
    let (holds, has_sets) = (
        b.out.setting("val_set_size").is_some(),
        !b.out.test_datasets.is_empty() || b.out.setting("test_datasets").is_some(),
    );
    if holds && has_sets {
        let what = "is given beside data sets to be evaluated";
        b.problem(sets, what, &format!("remove it, or `{key}`"), Some("null"));
    } else if holds {
        b.note(OTHER_ROWS);
    }
    holds || has_sets
}

/// When the loss is taken; `None` where nothing is held out. `usual` is where the file says
/// nothing.
pub fn times(b: &mut JobBuilder, holds: bool, usual: Saves) -> Option<Saves> {
    let strategy = b.word("eval_strategy").or(b.word("evaluation_strategy"));
    let steps = b.number("eval_steps").filter(|steps| *steps > 0.0);
    let epochs = b.number("evals_per_epoch").filter(|times| *times > 0.0);
    if !holds {
        let asks = strategy
            .as_deref()
            .is_some_and(|word| word != "no" && word != "false");
        if asks {
            let key = match b.has("eval_strategy") {
                true => "eval_strategy",
                false => "evaluation_strategy",
            };
            b.refuse(key, NO_ROWS, Some("null"));
        }
        let rest = TIMES.into_iter().skip(if asks { 2 } else { 0 });
        for key in rest.chain(MORE).filter(|key| b.doc.get(key).is_some()) {
            b.idle(key, "no rows are held out to be evaluated");
        }
        b.out
            .settings
            .retain(|setting| !MORE.contains(&setting.key));
        return None;
    }
    let logged = b.number("logging_steps").filter(|steps| *steps > 0.0);
    let by_steps = |steps: f64| match steps < 1.0 {
        true => Saves::Share(steps),
        false => Saves::Every(steps as u64),
    };
    Some(match (strategy.as_deref(), steps, epochs) {
        (_, Some(_), Some(_)) => {
            let what = "is given beside eval_steps";
            b.problem("evals_per_epoch", what, "remove one", Some("null"));
            Saves::End
        }
        (Some("no" | "false"), ..) => {
            b.note("rows are held out, and the loss on them is taken after the last step alone");
            Saves::End
        }
        (Some("epoch"), ..) => Saves::PerEpoch(1.0),
        (_, Some(steps), _) => by_steps(steps),
        (_, None, Some(times)) => Saves::PerEpoch(times),
        (Some(_), None, None) => by_steps(logged.unwrap_or(LOGGING_STEPS)),
        (None, None, None) => usual,
    })
}

/// What follows from the loss. `patience` is the key of the tool for it, if it has one.
pub fn consequences(b: &mut JobBuilder, patience: Option<&str>) {
    b.copy("eval_on_start", "eval_on_start");
    b.copy("load_best_model_at_end", "load_best_model_at_end");
    if let Some(key) = patience.filter(|key| b.number(key).is_some_and(|times| times > 0.0)) {
        b.copy(key, "early_stopping_patience");
        b.copy("early_stopping_threshold", "early_stopping_threshold");
    }
    let metric = b.word("metric_for_best_model");
    match metric.as_deref() {
        None => {}
        Some("loss" | "eval_loss") => {
            b.idle(
                "metric_for_best_model",
                "the loss on held-out rows is what counts",
            );
        }
        Some(_) => {
            let remedy = "the loss on held-out rows alone is computed: set it to eval_loss";
            b.refuse("metric_for_best_model", remedy, Some("eval_loss"));
        }
    }
    match b.flag("greater_is_better") {
        None => {}
        Some(false) => b.idle("greater_is_better", "a lower loss is better"),
        Some(true) => b.refuse("greater_is_better", "a lower loss is better", Some("false")),
    }
    if b.number("eval_delay").is_some_and(|delay| delay > 0.0) {
        let remedy = "evaluations are not delayed: remove it, and look at the later ones";
        b.refuse("eval_delay", remedy, Some("null"));
    }
    if b.flag("do_eval").is_some() {
        b.idle("do_eval", "eval_strategy decides");
    }
}
