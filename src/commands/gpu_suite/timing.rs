//! All measured speeds, and their shares of what the GPU can reach.

use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::SuiteSize;
use super::bench::{Timed, TimingBench, percent, rate, time};
use super::ceilings::Ceilings;
use super::check::Subjects;
use super::clock::Clock;
use super::operations;
use super::products::{self, TimedEngine, TimedProduct};
use crate::support::output::Output;
use crate::support::table::table;

/// All measured rates.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// The ceilings of which the rates are shares.
    pub ceilings: Ceilings,
    /// Every operation.
    pub operations: Vec<Timed>,
    /// Products with the shapes of models, compared with cuBLAS.
    pub products: Vec<TimedProduct>,
    /// One product by each engine.
    pub engines: Vec<TimedEngine>,
    /// Whether cuBLAS was found.
    pub has_cublas: bool,
    /// Operations for which the GPU has too little memory.
    pub left_out: Vec<String>,
}

impl Timing {
    /// Times everything.
    ///
    /// # Errors
    /// Where the GPU fails.
    pub fn measure(subjects: &Subjects, size: SuiteSize, output: &Output) -> anyhow::Result<Self> {
        let clock = Clock::new(&subjects.cuda, size);
        let ceilings = Ceilings::measure(&subjects.cuda, &clock, size)?;
        if !output.is_json() {
            output.result(&ceilings.text(), &serde_json::Value::Null);
        }
        let mut bench = TimingBench {
            device: &subjects.gpu,
            clock,
            ceilings: &ceilings,
            timed: Vec::new(),
            left_out: Vec::new(),
            bar: ProgressBar::new_spinner(),
        };
        bench.bar.enable_steady_tick(Duration::from_millis(100));
        operations::time_all(&mut bench, size)?;
        let rivals = products::OtherEngines::open(&subjects.cuda)?;
        let timed_products = products::time_all(&mut bench, &rivals, size)?;
        let engines = products::time_engines(&mut bench, subjects, size)?;
        bench.bar.finish_and_clear();
        let (operations, left_out) = (bench.timed, bench.left_out);
        Ok(Self {
            operations,
            products: timed_products,
            engines,
            has_cublas: rivals.has_cublas(),
            left_out,
            ceilings,
        })
    }

    /// The tables as text.
    pub fn text(&self) -> String {
        let operation = |timed: &Timed| {
            [
                timed.name.clone(),
                timed.shape.clone(),
                time(timed.seconds),
                rate(timed.elements_per_second, "/s"),
                rate(timed.bytes_per_second, "B/s"),
                rate(timed.operations_per_second, "op/s"),
                format!("{} of {}", percent(timed.share), timed.ceiling),
            ]
        };
        let headings = [
            "operation",
            "shape",
            "time",
            "elements",
            "memory",
            "products",
            "share",
        ];
        let rows: Vec<_> = self.operations.iter().map(operation).collect();
        let mut text = format!("\n{}\n\n", table(headings, &rows));
        text += &products::product_table(&self.products);
        text += &products::engine_table(&self.engines);
        if !self.has_cublas {
            text += "no cuBLAS for this GPU is found: \"-\" stands for its ratios\n";
        }
        for left_out in &self.left_out {
            text += &format!("left out: {left_out}\n");
        }
        text
    }
}
