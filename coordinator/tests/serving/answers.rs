//! Answers, whatever happens to the stages and to the clients.

use std::time::{Duration, Instant};

use concord_coordinator::serving::{AnswerHandle, SubmitError};
use concord_proto::Digest;
use concord_proto::serving::Finish;

use super::Pool;
use super::pool::worker::Nature;
use super::pool::{expected, generation, read, serve, served, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_what_they_are_over_any_number_of_stages() {
    for stages in 1..=3 {
        let pool = Pool::start(stages, stages as u8, 0).await;
        let start = Instant::now();
        let mut all: Vec<(u32, AnswerHandle)> = (0..64).map(|i| (i, pool.submit(i, 40))).collect();
        let mut tokens = 0;
        for (number, answering) in &mut all {
            let outcome = read(answering).await;
            let spec = generation(&pool.serving, *number, 40).spec;
            assert_eq!(outcome.tokens, expected(&spec), "answer {number}");
            let (finish, usage) = outcome.finish.unwrap();
            assert_eq!(usage.answer as usize, outcome.tokens.len());
            let stopped = outcome.tokens.last() == Some(&7);
            assert_eq!(
                finish,
                if stopped {
                    Finish::StopToken
                } else {
                    Finish::Length
                }
            );
            tokens += outcome.tokens.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{stages} stages: {tokens} tokens in {seconds:.2} s");
        pool.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_that_die_at_any_moment_change_no_answer() {
    for stages in 1..=3_u32 {
        let mut pool = Pool::start(stages, stages as u8 + 1, 0).await;
        pool.stand_by(1).await;
        let all: Vec<(u32, AnswerHandle)> = (0..64).map(|i| (i, pool.submit(i, 60))).collect();
        let serving = pool.serving.clone();
        let reading = tokio::spawn(async move {
            for (number, mut answering) in all {
                let outcome = read(&mut answering).await;
                assert_eq!(outcome.failed, None);
                let spec = generation(&serving, number, 60).spec;
                assert_eq!(outcome.tokens, expected(&spec), "answer {number}");
            }
        });
        let mut kills = 0;
        while !reading.is_finished() && kills < 6 {
            tokio::time::sleep(Duration::from_millis(40 + 17 * kills)).await;
            pool.stand_by(1).await;
            if !pool.serving.view().ready {
                continue;
            }
            let stage = kills as usize % stages as usize;
            match kills % 3 {
                0 | 1 => pool.holder(stage).kill(),
                _ => pool.holder(stage).break_stream(),
            }
            kills += 1;
            pool.join(Nature::default());
            until(&pool.serving, "recovered", |serving| {
                let view = serving.view();
                view.failovers >= kills && view.ready
            })
            .await;
        }
        reading.await.unwrap();
        let view = pool.serving.view();
        assert!(
            view.failovers >= kills && kills > 1,
            "{kills} kills: {view:#?}"
        );
        println!(
            "{stages} stages, {kills} kills: the last resumed in {:.1} ms",
            view.last_resume_seconds.unwrap() * 1e3
        );
        pool.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_holds_nobody_up_and_whoever_goes_is_forgotten() {
    let pool = Pool::start(2, 2, 0).await;
    let slow = pool.submit(9, 300);
    let gone: Vec<AnswerHandle> = (20..40).map(|number| pool.submit(number, 300)).collect();
    let mut quick = pool.submit(10, 30);
    assert_eq!(read(&mut quick).await.tokens.len(), 30);
    drop(gone);
    until(&pool.serving, "forgotten", |serving| {
        let pipeline = &serving.view().pipelines[0];
        pipeline.active + pipeline.waiting <= 1
    })
    .await;
    // One end is enough.
    let AnswerHandle { updates, control } = pool.submit(11, 2_000);
    drop(control);
    until(&pool.serving, "cancelled", |serving| {
        serving.view().pipelines[0].active <= 1
    })
    .await;
    drop(updates);
    let AnswerHandle { updates, control } = pool.submit(12, 1_500);
    drop(updates);
    until(&pool.serving, "cancelled", |serving| {
        serving.view().pipelines[0].active <= 1
    })
    .await;
    drop(control);
    let mut slow = slow;
    let spec = generation(&pool.serving, 9, 300).spec;
    assert_eq!(read(&mut slow).await.tokens, expected(&spec));
    until(&pool.serving, "empty", |serving| {
        serving.view().pipelines[0].pages_used == 0
    })
    .await;
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_refused_at_once() {
    let pool = Pool::start(1, 1, 0).await;
    let refused = |change: fn(&mut concord_proto::serving::Generation)| {
        let mut asked = generation(&pool.serving, 1, 5);
        change(&mut asked);
        pool.serving.submit(asked).unwrap_err()
    };
    let too_long = refused(|asked| asked.spec.prompt = vec![1; 2_048]);
    assert!(
        matches!(too_long, SubmitError::TooLong { prompt: 2_048, .. }),
        "{too_long}"
    );
    let stranger = refused(|asked| asked.spec.adapter = Some(Digest([3; 32])));
    assert_eq!(stranger, SubmitError::UnknownAdapter);
    for change in [
        (|asked| asked.spec.prompt.clear()) as fn(&mut concord_proto::serving::Generation),
        |asked| asked.spec.prompt.push(100_000),
        |asked| asked.spec.deployment.0 = Digest([8; 32]),
    ] {
        assert!(matches!(refused(change), SubmitError::Other(_)));
    }
    let mut all = Vec::new();
    let full = loop {
        match pool.serving.submit(generation(&pool.serving, 2, 1_000)) {
            Ok(answering) => all.push(answering),
            Err(refused) => break refused,
        }
        assert!(all.len() < 10_000, "no bound");
    };
    assert!(matches!(full, SubmitError::Overloaded { .. }), "{full}");
    drop(all);
    let mut answering = loop {
        match pool.serving.submit(generation(&pool.serving, 3, 5)) {
            Ok(answering) => break answering,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(read(&mut answering).await.failed, None);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn it_says_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path(), served(1, 1, 0)).await;
    until(&serving, "waiting", |serving| {
        serving.view().state.contains("workers")
    })
    .await;
    assert!(!serving.view().ready);
    let refused = serving.submit(generation(&serving, 1, 4)).unwrap_err();
    assert!(refused.to_string().contains("0 of 1"), "{refused}");
    server.shutdown().await.unwrap();
}

/// Nobody is there to take over: the answers go on in the other pipeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_move_to_another_pipeline() {
    let mut model = served(1, 2, 0);
    model.pipelines = 2;
    let pool = Pool::with(model, vec![Nature::default(); 2]).await;
    until(&pool.serving, "all running", |serving| {
        let view = serving.view();
        view.pipelines.len() == 2 && view.pipelines.iter().all(|pipeline| pipeline.running)
    })
    .await;
    let mut all: Vec<(u32, AnswerHandle)> = (0..32).map(|i| (i, pool.submit(i, 150))).collect();
    until(&pool.serving, "both busy", |serving| {
        serving
            .view()
            .pipelines
            .iter()
            .all(|pipeline| pipeline.tokens > 100)
    })
    .await;
    pool.holder(0).kill();
    for (number, answering) in &mut all {
        let outcome = read(answering).await;
        assert_eq!(outcome.failed, None);
        let spec = generation(&pool.serving, *number, 150).spec;
        assert_eq!(outcome.tokens, expected(&spec), "answer {number}");
    }
    let view = pool.serving.view();
    assert!(
        view.ready && view.state.contains("pipeline 0 is down"),
        "{}",
        view.state
    );
    let mut cancelled = pool.submit(50, 400);
    cancelled.updates.recv().await.unwrap();
    drop(cancelled);
    until(&pool.serving, "idle", |serving| {
        serving
            .view()
            .pipelines
            .iter()
            .all(|pipeline| pipeline.active == 0)
    })
    .await;
    pool.server.shutdown().await.unwrap();
}
