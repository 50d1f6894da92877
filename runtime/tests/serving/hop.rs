//! What a hop costs beside computing.

use std::time::Instant;

use crate::bits::prompt;
use crate::model::served;
use crate::pool::{Asked, Pool, sampling};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_takes_little() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let prompt = prompt(8, model.deployment.vocab);
    let mut pool = Pool::start(&model, &[None, None, None]).await;
    let mut micros = Vec::new();
    let cuts: [&[u32]; 3] = [&[], &[2], &[2, 3]];
    for (epoch, cuts) in (1..).zip(cuts) {
        let mut pipeline = pool.serve(&pool.assignment(&model, cuts, epoch)).await;
        let mut asked = Asked::new(1, &prompt, &sampling(None));
        asked.tokens = 100;
        let mut best = u128::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            pipeline.answer(&asked).await;
            best = best.min(started.elapsed().as_micros() / 100);
        }
        let last = pipeline.passed.last().unwrap();
        println!(
            "{} stages: {best} us a token; the last stage computes {} us of a pass",
            cuts.len() + 1,
            last.compute_us
        );
        micros.push(best);
    }
    let hop = micros[2].saturating_sub(micros[0]) / 2;
    println!("a hop: {hop} us");
    // Ten times what it takes on an idle machine.
    assert!(hop < 5_000, "{hop} us a hop");
}
