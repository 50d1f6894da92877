//! `report.html`: a run on one page, with plots of its steps. The page needs no other file.

use serde_json::Value;

/// Name of the file.
pub const FILE: &str = "report.html";

/// Most points of a plot; of longer runs each point is the mean of some steps.
const POINTS_MAX: usize = 800;

/// Size of a plot, and the room for its labels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 24.0;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 820px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 .3em; }
table { border-collapse: collapse; } td, th { padding: .15em 1.2em .15em 0; text-align: left;
vertical-align: top; } code { word-break: break-all; } td { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } .line { fill: none; stroke: #2a78d6; stroke-width: 1.5; }
.axis { stroke: #8888; stroke-width: 1; } text { fill: currentColor; font-size: 11px; }
";

/// One value of each step.
struct Series {
    title: &'static str,
    points: Vec<(f64, f64)>,
}

/// The page of a run: `name`, its settings, the lines of its log, and its result as it was printed.
pub fn page(
    name: &str,
    settings: &[(String, String)],
    history: &[Value],
    result: &Value,
    checkpoints: &[u32],
) -> String {
    let title = escaped(name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    for (what, value) in facts(history, result, checkpoints) {
        page += &format!(
            "<tr><th>{what}</th><td><code>{}</code></td></tr>\n",
            escaped(&value)
        );
    }
    page += "</table>\n";
    for series in all_series(history) {
        page += &format!("<h2>{}</h2>\n{}\n", series.title, plot(&series.points));
    }
    page += "<h2>Settings</h2>\n<table>\n";
    for (key, value) in settings {
        page += &format!(
            "<tr><th>{}</th><td>{}</td></tr>\n",
            escaped(key),
            escaped(value)
        );
    }
    page + "</table></body></html>\n"
}

fn facts(history: &[Value], result: &Value, checkpoints: &[u32]) -> Vec<(&'static str, String)> {
    let text = |key: &str| match &result[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let sum = |key: &str| -> u64 {
        let updates = history.iter().filter(|line| line["event"] != "evaluation");
        updates.filter_map(|line| line[key].as_u64()).sum()
    };
    let (tokens, micros) = (sum("tokens"), sum("micros"));
    let rate = result["tokens_per_second"].as_f64().unwrap_or_default();
    let folders = checkpoints
        .iter()
        .map(|steps| format!("checkpoint-{steps}"));
    let folders: Vec<String> = folders.collect();
    let mut facts = vec![
        ("hash", text("record_digest")),
        ("job", text("job")),
        ("steps", text("steps")),
        ("loss of the last step", text("loss")),
    ];
    let held_out = [
        ("loss of the result on held-out data", "eval_loss"),
        ("the lowest of them after a step", "best_eval_loss"),
        ("the step of that", "best_step"),
        ("before the first step", "base_eval_loss"),
        ("stopped early", "stopped_early"),
    ];
    let is_there = |(_, key): &(&str, &str)| !result[*key].is_null();
    let held_out = held_out.into_iter().filter(is_there);
    facts.extend(held_out.map(|(what, key)| (what, text(key))));
    facts.extend([
        ("tokens", tokens.to_string()),
        ("seconds in steps", format!("{:.1}", micros as f64 / 1e6)),
        ("tokens a second", format!("{rate:.0}")),
        ("audits that agreed", text("audits")),
        ("audits that could not be re-run", text("inconclusive")),
        ("checkpoints", folders.join(", ")),
        ("output", text("output_dir")),
    ]);
    facts
}

fn all_series(history: &[Value]) -> Vec<Series> {
    let of = |title, value: &dyn Fn(&Value) -> Option<f64>| {
        let points = history.iter().filter_map(|line| {
            let step = line["step"].as_f64()?;
            Some((step, value(line).filter(|value| value.is_finite())?))
        });
        Series {
            title,
            points: thinned(points.collect()),
        }
    };
    let rate = |line: &Value| {
        if line["event"] == "evaluation" {
            return None;
        }
        let seconds = line["micros"].as_f64()? / 1e6;
        Some(line["tokens"].as_f64()? / seconds.max(1e-6))
    };
    vec![
        of("Loss", &|line| line["loss"].as_f64()),
        of("Loss on held-out data", &|line| line["eval_loss"].as_f64()),
        of("Gradient norm", &|line| line["grad_norm"].as_f64()),
        of("Learning rate", &|line| line["learning_rate"].as_f64()),
        of("Tokens a second", &rate),
    ]
}

/// At most [`POINTS_MAX`] points, each the mean of its neighbours.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |run: &[(f64, f64)]| {
        let sums = run.iter().fold((0.0, 0.0), |sums, point| {
            (sums.0 + point.0, sums.1 + point.1)
        });
        let count = run.len() as f64;
        (sums.0 / count, sums.1 / count)
    };
    points.chunks(run).map(mean).collect()
}

/// A line through the points, with the ends of both axes, as SVG.
fn plot(points: &[(f64, f64)]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return "<p>no steps</p>".to_string();
    };
    let low = points
        .iter()
        .map(|point| point.1)
        .fold(f64::INFINITY, f64::min);
    let high = points
        .iter()
        .map(|point| point.1)
        .fold(f64::NEG_INFINITY, f64::max);
    let span = |from: f64, to: f64| if to > from { to - from } else { 1.0 };
    let x = |step: f64| LEFT + (step - first.0) / span(first.0, last.0) * (WIDTH - LEFT - 10.0);
    let floor = HEIGHT - BOTTOM;
    let y = |value: f64| floor - (value - low) / span(low, high) * (floor - 14.0);
    let line: Vec<String> = points
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
        .collect();
    let label = |x: f64, y: f64, anchor: &str, value: f64| {
        format!(
            "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{}</text>",
            number(value)
        )
    };
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><path class=\"axis\" fill=\"none\" \
         d=\"M{LEFT},8 V{floor} H{WIDTH}\"/><polyline class=\"line\" points=\"{}\"/>{}{}{}{}</svg>",
        line.join(" "),
        label(LEFT - 6.0, y(high) + 4.0, "end", high),
        label(LEFT - 6.0, floor, "end", low),
        label(LEFT, HEIGHT - 6.0, "start", first.0),
        label(WIDTH - 10.0, HEIGHT - 6.0, "end", last.0),
    )
}

/// A number in four digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        1e3..1e7 => format!("{value:.0}"),
        0.001..1e3 => {
            let text = format!("{value:.4}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            text.to_string()
        }
        _ => format!("{value:.2e}"),
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_every_plot_and_nothing_from_elsewhere() {
        let line = |step: u64| {
            json!({
                "step": step, "loss": 3.0 / step as f64, "grad_norm": 1.0,
                "learning_rate": 1e-5 * step as f64, "tokens": 64, "micros": 1_000,
            })
        };
        let history: Vec<Value> = (1..=5_000).map(line).collect();
        let settings = [("seed".to_string(), "<7>".to_string())];
        let result = json!({
            "record_digest": "abc", "steps": 5_000, "loss": 0.1, "eval_loss": 0.25, "best_step": 77,
        });
        let page = page("a & b", &settings, &history, &result, &[10, 20]);
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("a &amp; b") && page.contains("&lt;7&gt;"));
        assert!(page.contains("abc") && page.contains("checkpoint-20"));
        let held_out = "the step of that</th><td><code>77<";
        assert!(page.contains(held_out) && !page.contains("before the first step"));
        assert!(
            !page.contains("http") && !page.contains("<script"),
            "{page}"
        );
        let longest = page.split("points=\"").map(|part| {
            part.split('"')
                .next()
                .unwrap_or_default()
                .split(' ')
                .count()
        });
        assert!(longest.max() <= Some(POINTS_MAX));
        assert!(plot(&[]).contains("no steps"));
        assert_eq!(
            [number(0.0), number(2.5), number(1e-5), number(1234.5)],
            ["0", "2.5", "1.00e-5", "1234"]
        );
    }
}
