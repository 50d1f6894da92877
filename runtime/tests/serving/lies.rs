//! A worker that lies is named.

use concord_proto::serving::{AnswerVerdict, FromStage, StageClaim, ToStage};
use concord_proto::{Layers, merkle};

use crate::bits::prompt;
use crate::case::{claims, receipt, verdict};
use crate::model::{ServedModel, served};
use crate::pool::{Asked, Pipeline, Pool, sampling, soon};

/// The verdict on an answer of two workers, one of whom lies.
async fn judged(model: &ServedModel, lies: [Option<&str>; 2]) -> (Pool, Pipeline, AnswerVerdict) {
    let prompt = prompt(20, model.deployment.vocab);
    let mut pool = Pool::start(model, &lies).await;
    let mut pipeline = pool.serve(&pool.assignment(model, &[2], 1)).await;
    let asked = Asked::new(3, &prompt, &sampling(None));
    let answer = pipeline.answer(&asked).await;
    let claims = claims(model, &mut pipeline, &asked, &answer).await;
    let verdict = verdict(model, &receipt(model, &asked, &answer, claims));
    (pool, pipeline, verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_stages_are_named() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    for lie in ["alter-activation@1", "other-weights"] {
        for liar in [0, 1] {
            let mut lies = [None; 2];
            lies[liar] = Some(lie);
            let (pool, _, verdict) = judged(&model, lies).await;
            let AnswerVerdict::WrongStage { worker, layers, .. } = verdict else {
                panic!("{lie}: {verdict:?}");
            };
            assert_eq!(worker, pool.members[liar].id, "{lie}");
            let all = [0, 2, model.deployment.layers];
            let (start, end) = (all[liar], all[liar + 1]);
            assert_eq!(layers, Layers::new(start, end));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_named() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let (pool, _, verdict) = judged(&model, [None, Some("wrong-token@2")]).await;
    let AnswerVerdict::WrongDraw {
        worker,
        index,
        expected,
        found,
    } = verdict
    else {
        panic!("{verdict:?}");
    };
    assert_eq!((worker, index), (pool.members[1].id, 2));
    assert_eq!(found, (expected + 1) % model.deployment.vocab);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_logprob_is_named() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let prompt = prompt(20, model.deployment.vocab);
    let mut pool = Pool::start(&model, &[None, Some("wrong-logprob@2")]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let mut asked = Asked::new(3, &prompt, &sampling(None));
    asked.logprobs = Some(0);
    let answer = pipeline.answer(&asked).await;
    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let mut receipt = receipt(&model, &asked, &answer, claims);
    receipt.logprobs = pipeline.given.clone();
    let verdict = verdict(&model, &receipt);
    let AnswerVerdict::WrongLogprob {
        worker, position, ..
    } = verdict
    else {
        panic!("{verdict:?}");
    };
    assert_eq!((worker, position), (pool.members[1].id, 22));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_other_rows_than_it_claims_has_signed_both() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let (pool, mut pipeline, verdict) = judged(&model, [Some("alter-sent@1"), None]).await;
    let (sender, receiver) = (pool.members[0].id, pool.members[1].id);
    assert_eq!(verdict, AnswerVerdict::Gap { sender, receiver });

    let (order, sequence) = (5, 3);
    let stream = &mut pipeline.streams[1];
    stream.send(&ToStage::Evidence { order, sequence });
    let said = soon(stream.from.recv()).await.unwrap();
    let FromStage::Evidence { order: 5, headers } = said else {
        panic!("{said:?}");
    };
    assert!(
        headers
            .iter()
            .all(|h| h.is_signed() && h.origin.worker == sender)
    );
    let rows: Vec<_> = headers.iter().flat_map(|h| h.rows.clone()).collect();
    // The sender signed the rows that the receiver claims, and not those that it claims itself.
    let prompt = prompt(20, model.deployment.vocab);
    let asked = Asked::new(3, &prompt, &sampling(None));
    let claims = claims(&model, &mut pipeline, &asked, &[0; 20]).await;
    let claims: Vec<StageClaim> = claims.iter().map(|c| c.open().unwrap()).collect();
    assert_eq!(merkle::root(&rows), claims[1].input);
    assert_ne!(merkle::root(&rows), claims[0].output);
}
