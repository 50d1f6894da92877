//! Receipts, and what follows from claims and audits.

use std::collections::BTreeSet;
use std::time::Duration;

use concord_coordinator::serving::AnswerHandle;
use concord_proto::serving::{
    AnswerVerdict, BatchedReceipt, Control, Finish, StageClaim, TokenLogprob, Update,
};
use concord_proto::session::Role;
use concord_proto::{Digest, Domain};

use super::pool::stage::{Lie, claimed};
use super::pool::worker::{Nature, Worker};
use super::pool::{generation, read, serve, served, until};
use super::{ALWAYS, Pool, close, convicted, receipt, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_a_receipt_that_all_stages_signed() {
    let pool = Pool::start(3, 3, 0).await;
    for number in 0..4 {
        let mut answering = pool.submit(number, 20);
        let outcome = read(&mut answering).await;
        close(&answering);
        let (signed, receipt) = receipt(&pool, &format!("answer-{number}")).await;
        assert_eq!(signed.signer(), pool.server.key);
        assert_eq!(receipt.answer, outcome.tokens);
        assert_eq!(receipt.claims.len(), 3, "{receipt:?}");
        assert_eq!(receipt.text, Digest::of(Domain::Text, b"text"));
        assert_eq!(receipt.model, "made-up");
        let layers = receipt.claims.iter().map(|claim| {
            let claim: StageClaim = claim.open().unwrap();
            claim.layers
        });
        let view = pool.serving.view();
        let stages = view.pipelines[0].stages.iter().map(|stage| stage.layers);
        assert_eq!(layers.collect::<Vec<_>>(), stages.collect::<Vec<_>>());
    }
    assert!(pool.serving.receipts("answe").await.unwrap().is_empty());
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_loss_the_receipt_says_who_drew_what() {
    let mut pool = Pool::start(2, 3, 0).await;
    pool.stand_by(1).await;
    let mut answering = pool.submit(5, 200);
    for _ in 0..5 {
        answering.updates.recv().await.unwrap();
    }
    pool.holder(1).kill();
    pool.join(Nature::default());
    let outcome = read(&mut answering).await;
    assert!(outcome.pauses > 0);
    close(&answering);
    let (_, receipt) = receipt(&pool, "answer-5").await;
    let claim: StageClaim = receipt.claims[1].open().unwrap();
    let drawn = claim.drawn.unwrap();
    let before = drawn.earlier as usize;
    assert!(before > 0 && before < receipt.answer.len());
    let own = receipt.answer[before..].iter().copied();
    let own: Vec<TokenLogprob> = own.map(TokenLogprob::unasked).collect();
    assert_eq!(drawn.tokens, claimed(&own));
    pool.server.shutdown().await.unwrap();
}

/// What the client was given is in the receipt, bit for bit, as the last stage claims it; also
/// where another one scored the prompt and drew the first tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_has_the_logprobs_that_were_given() {
    for is_lost in [false, true] {
        let mut pool = Pool::start(2, 3, 0).await;
        pool.stand_by(1).await;
        let mut asked = generation(&pool.serving, 6, 120);
        asked.spec.logprobs = Some(2);
        asked.spec.prompt_logprobs = Some(1);
        let prompt = asked.spec.prompt.clone();
        let mut answering = pool.serving.submit(asked).unwrap();
        let (mut scored, mut drawn) = (Vec::new(), Vec::new());
        let mut is_over = false;
        while let Some(update) = answering.updates.recv().await {
            match update {
                Update::Prompt(tokens) => scored = tokens,
                Update::Token(token) => drawn.push(token),
                Update::Finished { .. } => break,
                Update::Failed { reason, .. } => panic!("{reason}"),
                _ => {}
            }
            if is_lost && !is_over && drawn.len() == 3 {
                pool.holder(1).kill();
                pool.join(Nature::default());
                is_over = true;
            }
        }
        close(&answering);
        let (_, receipt) = receipt(&pool, "answer-6").await;
        assert_eq!(scored.len() + 1, prompt.len());
        assert_eq!(receipt.logprobs.prompt, scored);
        assert_eq!(receipt.logprobs.answer, drawn);
        let claim: StageClaim = receipt.claims[1].open().unwrap();
        let claim = claim.drawn.unwrap();
        assert_eq!(claim.tokens, claimed(&drawn[claim.earlier as usize..]));
        match is_lost {
            true => assert_eq!((claim.scored, claim.earlier > 0), (None, true)),
            false => assert_eq!(claim.scored, Some(claimed(&scored))),
        }
        pool.server.shutdown().await.unwrap();
    }
}

/// A last stage that claims another logprob than the client was given has no claim in the receipt,
/// and no place in the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_other_logprobs_is_not_taken() {
    let pool = Pool::of(1, vec![with(Lie::OtherLogprob)], 0).await;
    let mut asked = generation(&pool.serving, 2, 20);
    asked.spec.logprobs = Some(1);
    let mut answering = pool.serving.submit(asked).unwrap();
    read(&mut answering).await;
    close(&answering);
    let (_, receipt) = receipt(&pool, "answer-2").await;
    assert_eq!(receipt.claims, []);
    until(&pool.serving, "it serves no more", |serving| {
        !serving.view().ready
    })
    .await;
    pool.server.shutdown().await.unwrap();
}

/// The gateway says why an answer ended. Where nobody has read to the end, and a stop text may have
/// come before, the receipt claims no reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_why_the_answer_ended_or_that_nobody_knows() {
    let pool = Pool::start(1, 1, 0).await;
    let cases = [
        (true, true, Finish::StopText),
        (true, false, Finish::Cancelled),
        (false, false, Finish::Length),
    ];
    for (number, (has_stop, is_read, finish)) in (10..).zip(cases) {
        let mut asked = generation(&pool.serving, number, 5);
        asked.spec.stop_tokens.clear();
        asked.spec.stop_texts = has_stop.then(|| "END".to_string()).into_iter().collect();
        let mut answering = pool.serving.submit(asked).unwrap();
        let outcome = read(&mut answering).await;
        assert_eq!(outcome.finish.unwrap().0, Finish::Length);
        if is_read {
            let text = Digest::of(Domain::Text, b"text");
            let close = Control::Close { text, finish };
            answering.control.try_send(close).unwrap();
        }
        drop(answering);
        let (_, receipt) = receipt(&pool, &format!("answer-{number}")).await;
        assert_eq!(receipt.finish, finish);
        assert_eq!(receipt.text == Digest::default(), !is_read);
    }
    pool.server.shutdown().await.unwrap();
}

/// Receipts are signed and written even where the client says nothing more, and are there after
/// a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_outlive_the_coordinator() {
    let pool = Pool::start(1, 1, 0).await;
    let mut answering = pool.submit(1, 10);
    read(&mut answering).await;
    drop(answering);
    let Pool {
        _folder: folder,
        server,
        serving,
        ..
    } = pool;
    drop(serving);
    let key = server.key;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown().await.unwrap();
    let (server, serving) = serve(folder.path(), served(1, 1, 0)).await;
    let found = serving.receipts("answer-1").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].signer(), key);
    server.shutdown().await.unwrap();
}

/// What comes while the disk is busy is signed at once; each receipt can be checked alone, and does
/// not fit into the batch of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_wait_for_the_disk_are_signed_together() {
    let pool = Pool::start(1, 1, 0).await;
    let file = pool._folder.path().join("coordinator.db");
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut disk = sqlx::ConnectOptions::connect(&file).await.unwrap();
    let mut run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut disk).await.unwrap();
    };
    run("ALTER TABLE receipts RENAME TO away").await;
    for number in 0..12 {
        let mut answering = pool.submit(number, 3);
        read(&mut answering).await;
        close(&answering);
    }
    // Until the last one is ready, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    run("ALTER TABLE away RENAME TO receipts").await;
    let mut all = Vec::new();
    for number in 0..12 {
        let (batched, receipt) = receipt(&pool, &format!("answer-{number}")).await;
        assert_eq!(receipt.id, format!("answer-{number}"));
        assert_eq!(batched.signer(), pool.server.key);
        all.push(batched);
    }
    let batches: BTreeSet<[u8; 64]> = all.iter().map(|one| one.batch.signature).collect();
    let largest = all.iter().map(|one| one.path.count).max();
    assert!(largest >= Some(8), "{largest:?}");
    assert!(batches.len() <= 5, "{} signatures", batches.len());
    let (first, last) = (&all[0], &all[11]);
    assert_ne!(first.batch, last.batch);
    let lie = BatchedReceipt {
        receipt: first.receipt.clone(),
        ..last.clone()
    };
    let refused = lie.open().unwrap_err().to_string();
    assert!(refused.contains("not in the batch"), "{refused}");
    pool.server.shutdown().await.unwrap();
}

/// Neighbours that claim different things: what was signed at the time tells who lies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_that_differ_convict_the_one_who_lies() {
    for lie in [Lie::ClaimsOther, Lie::ReceivedOther] {
        let stage = if lie == Lie::ClaimsOther { 0 } else { 1 };
        let pool = Pool::start(2, 2, 0).await;
        let honest: Vec<_> = (0..2).map(|stage| pool.holder(stage).id).collect();
        pool.server.shutdown().await.unwrap();
        // The same keys get the same stages.
        let liar = honest[stage];
        let nature = |worker: &Worker| match worker.id == liar {
            true => with(lie),
            false => Nature::default(),
        };
        let natures = pool.workers.iter().map(nature).collect();
        let pool = Pool::of(2, natures, 0).await;
        let mut answering = pool.submit(3, 20);
        let outcome = read(&mut answering).await;
        assert_eq!(outcome.failed, None);
        let guilty = pool
            .workers
            .iter()
            .find(|worker| worker.id == liar)
            .unwrap();
        until(&pool.serving, &format!("{lie:?} convicted"), |_| {
            convicted(guilty).is_some()
        })
        .await;
        let reason = convicted(guilty).unwrap();
        assert!(reason.contains("equivocation"), "{reason}");
        let others = pool.workers.iter().filter(|worker| worker.id != liar);
        assert!(others.into_iter().all(|worker| convicted(worker).is_none()));
        pool.server.shutdown().await.unwrap();
    }
}

fn checker(verdict: AnswerVerdict) -> Nature {
    Nature {
        role: Role::Checker,
        verdict,
        ..Nature::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drawn_answers_are_audited() {
    let natures = vec![Nature::default(), checker(AnswerVerdict::Agrees)];
    let pool = Pool::of(1, natures, ALWAYS / 2).await;
    let mut all: Vec<AnswerHandle> = (0..40).map(|number| pool.submit(number, 3)).collect();
    for answering in &mut all {
        assert_eq!(read(answering).await.failed, None);
        close(answering);
    }
    until(&pool.serving, "audited", |serving| {
        serving.view().audits.0 >= 8
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (agreed, differed) = pool.serving.view().audits;
    assert!(
        (8..=32).contains(&agreed) && differed == 0,
        "{agreed} of 40 at one half"
    );
    pool.server.shutdown().await.unwrap();
}

/// Two checkers that agree convict; one alone only puts the worker out of this deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_have_consequences() {
    for checkers in [1, 2] {
        let pool = Pool::start(1, 1, 0).await;
        let liar = pool.workers[0].id;
        pool.server.shutdown().await.unwrap();
        let accusation = AnswerVerdict::WrongDraw {
            worker: liar,
            index: 0,
            expected: 1,
            found: 2,
        };
        let mut natures = vec![Nature::default()];
        natures.extend(vec![checker(accusation); checkers]);
        let pool = Pool::of(1, natures, ALWAYS).await;
        let mut answering = pool.submit(1, 3);
        read(&mut answering).await;
        close(&answering);
        let worker = &pool.workers[0];
        if checkers == 2 {
            until(&pool.serving, "convicted", |_| convicted(worker).is_some()).await;
            assert!(convicted(worker).unwrap().contains("wrong result"));
        } else {
            until(&pool.serving, "out", |serving| {
                let view = serving.view();
                let member = view.workers.iter().find(|member| member.id == liar);
                member.is_some_and(|member| member.doing.contains("is out"))
            })
            .await;
            assert_eq!(convicted(worker), None);
        }
        assert_eq!(pool.serving.view().audits, (0, 1));
        pool.server.shutdown().await.unwrap();
    }
}
