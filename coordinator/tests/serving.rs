//! Serving over real sockets, with make-believe stages: whatever happens to them, an answer is what
//! it is.

mod pool;

use std::time::{Duration, Instant};

use concord_coordinator::serving::{Answering, Serving, SubmitError};
use concord_proto::serving::{
    AnswerVerdict, Control, Finish, Receipt, StageClaim, tokens_digest,
};
use concord_proto::session::{Role, ToCoordinator, ToWorker};
use concord_proto::{Digest, Domain, Signed};
use pool::stage::Lie;
use pool::worker::{Nature, Wires, Worker};
use pool::{expected, generation, read, ready, serve, served, until};

const ALWAYS: u64 = 1 << 32;

/// A pool of `workers` honest workers.
struct Pool {
    _folder: tempfile::TempDir,
    server: concord_coordinator::server::RunningServer,
    serving: Serving,
    wires: Wires,
    workers: Vec<Worker>,
}

impl Pool {
    async fn start(stages: u32, workers: u8, audit_rate: u64) -> Self {
        Self::of(stages, vec![Nature::default(); workers.into()], audit_rate).await
    }

    async fn of(stages: u32, natures: Vec<Nature>, audit_rate: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let seats = natures.iter().filter(|nature| nature.role == Role::Worker);
        let model = served(stages, seats.count() as u32, audit_rate);
        let (server, serving) = serve(folder.path(), model).await;
        let mut pool = Self {
            _folder: folder,
            server,
            serving,
            wires: Wires::default(),
            workers: Vec::new(),
        };
        for nature in natures {
            pool.join(nature);
        }
        ready(&pool.serving).await;
        pool
    }

    fn join(&mut self, nature: Nature) {
        let number = self.workers.len() as u8 + 1;
        let worker = Worker::start(&self.server.url(), number, &self.wires, nature);
        self.workers.push(worker);
    }

    /// The worker of a seat of the first pipeline.
    fn seated(&self, seat: usize) -> &Worker {
        let view = self.serving.view();
        let id = view.pipelines[0].stages[seat].worker;
        self.workers.iter().find(|worker| worker.id == id).unwrap()
    }

    fn submit(&self, number: u32, max_tokens: u32) -> Answering {
        let generation = generation(&self.serving, number, max_tokens);
        self.serving.submit(generation).unwrap()
    }

    /// Waits until `count` workers stand by.
    async fn stand_by(&self, count: usize) {
        until(&self.serving, "standing by", |serving| {
            let view = serving.view();
            let mut workers = view.workers.iter();
            workers.by_ref().filter(|w| w.doing.starts_with("stands by")).count() >= count
        })
        .await;
    }
}

fn close(answering: &Answering) {
    let text = Digest::of(Domain::Text, b"text");
    answering.control.try_send(Control::Close { text }).unwrap();
}

async fn receipt(pool: &Pool, id: &str) -> (Signed, Receipt) {
    let start = Instant::now();
    loop {
        if let Some(signed) = pool.serving.receipts(id).await.unwrap().pop() {
            let receipt = signed.open().unwrap();
            return (signed, receipt);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no receipt of {id}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_what_they_are_over_any_number_of_stages() {
    for stages in 1..=3 {
        let pool = Pool::start(stages, stages as u8, 0).await;
        let start = Instant::now();
        let mut all: Vec<(u32, Answering)> = (0..64).map(|i| (i, pool.submit(i, 40))).collect();
        let mut tokens = 0;
        for (number, answering) in &mut all {
            let outcome = read(answering).await;
            let spec = generation(&pool.serving, *number, 40).spec;
            assert_eq!(outcome.tokens, expected(&spec), "answer {number}");
            let (finish, usage) = outcome.finish.unwrap();
            assert_eq!(usage.answer as usize, outcome.tokens.len());
            let stopped = outcome.tokens.last() == Some(&7);
            assert_eq!(finish, if stopped { Finish::Stop } else { Finish::Length });
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
        let all: Vec<(u32, Answering)> = (0..64).map(|i| (i, pool.submit(i, 60))).collect();
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
            let seat = kills as usize % stages as usize;
            match kills % 3 {
                0 | 1 => pool.seated(seat).kill(),
                _ => pool.seated(seat).break_lane(),
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
        assert!(view.failovers >= kills && kills > 1, "{kills} kills: {view:#?}");
        println!(
            "{stages} stages, {kills} kills: the last resumed in {:.1} ms",
            view.last_resume_seconds.unwrap() * 1e3
        );
        pool.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_a_receipt_that_all_stages_signed() {
    let pool = Pool::start(3, 3, 0).await;
    for number in 0..4 {
        let mut answering = pool.submit(number, 20);
        let outcome = read(&mut answering).await;
        close(&answering);
        let (signed, receipt) = receipt(&pool, &format!("answer-{number}")).await;
        assert_eq!(signed.signer, pool.server.key);
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
    pool.seated(1).kill();
    pool.join(Nature::default());
    let outcome = read(&mut answering).await;
    assert!(outcome.pauses > 0);
    close(&answering);
    let (_, receipt) = receipt(&pool, "answer-5").await;
    let claim: StageClaim = receipt.claims[1].open().unwrap();
    let (before, own) = claim.drawn.unwrap();
    assert!(before > 0 && (before as usize) < receipt.answer.len());
    assert_eq!(own, tokens_digest(&receipt.answer[before as usize..]));
    pool.server.shutdown().await.unwrap();
}

/// Receipts are signed and written even where whoever asked says nothing more, and are there after
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
    assert_eq!(found[0].signer, key);
    server.shutdown().await.unwrap();
}

fn with(lie: Lie) -> Nature {
    Nature {
        lie,
        ..Nature::default()
    }
}

/// One liar among four workers that hold two stages, two of them standing by. Gives the pool once
/// all is answered.
async fn lied_to(lie: Lie) -> Pool {
    let natures = vec![with(lie), Nature::default(), Nature::default()];
    let mut pool = Pool::of(2, natures, 0).await;
    // The liar gets its seat if it has none.
    let liar = pool.workers[0].id;
    let is_seated = |serving: &Serving| {
        let view = serving.view();
        view.pipelines[0].stages.iter().any(|stage| stage.worker == liar)
    };
    while !is_seated(&pool.serving) {
        let other = pool.seated(0).id;
        pool.workers.iter().find(|worker| worker.id == other).unwrap().kill();
        pool.join(Nature::default());
        until(&pool.serving, "replaced", |serving| {
            let view = serving.view();
            view.ready && view.pipelines[0].stages.iter().all(|stage| stage.worker != other)
        })
        .await;
    }
    let mut all: Vec<(u32, Answering)> = (0..24).map(|i| (i, pool.submit(i, 40))).collect();
    for (number, answering) in &mut all {
        let outcome = read(answering).await;
        assert_eq!(outcome.failed, None);
        let spec = generation(&pool.serving, *number, 40).spec;
        assert_eq!(outcome.tokens, expected(&spec), "{lie:?}: answer {number}");
    }
    pool
}

async fn is_out(pool: &Pool, lie: Lie, reason: &str) {
    let liar = pool.workers[0].id;
    until(&pool.serving, &format!("{lie:?} out"), |serving| {
        let view = serving.view();
        let member = view.workers.iter().find(|worker| worker.id == liar);
        let doing = member.map(|member| member.doing.clone());
        doing.is_none_or(|doing| doing.contains("is out") && doing.contains(reason))
    })
    .await;
    until(&pool.serving, "ready again", |serving| serving.view().ready).await;
    let view = pool.serving.view();
    let honest = view.workers.iter().filter(|worker| worker.doing.contains("is out"));
    assert!(honest.count() <= 1, "{view:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_says_what_cannot_be_is_out() {
    for (lie, reason) in [
        (Lie::Garbage, "cannot be read"),
        (Lie::NoToken, "token"),
    ] {
        let pool = lied_to(lie).await;
        is_out(&pool, lie, reason).await;
        pool.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_says_nothing_is_replaced() {
    let pool = lied_to(Lie::Silent).await;
    assert!(pool.serving.view().failovers > 0);
    pool.server.shutdown().await.unwrap();
}

fn convicted(worker: &Worker) -> Option<String> {
    let heard = worker.heard.lock().unwrap();
    heard.iter().find_map(|message| match message {
        ToWorker::Refused { reason } => Some(reason.clone()),
        _ => None,
    })
}

/// Neighbours that claim different things: what was signed at the time tells who lies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_that_differ_convict_the_one_who_lies() {
    for lie in [Lie::ClaimsOther, Lie::ReceivedOther] {
        let seat = if lie == Lie::ClaimsOther { 0 } else { 1 };
        let pool = Pool::start(2, 2, 0).await;
        let honest: Vec<_> = (0..2).map(|seat| pool.seated(seat).id).collect();
        pool.server.shutdown().await.unwrap();
        // The same keys get the same seats.
        let liar = honest[seat];
        let nature = |worker: &Worker| match worker.id == liar {
            true => with(lie),
            false => Nature::default(),
        };
        let natures = pool.workers.iter().map(nature).collect();
        let pool = Pool::of(2, natures, 0).await;
        let mut answering = pool.submit(3, 20);
        let outcome = read(&mut answering).await;
        assert_eq!(outcome.failed, None);
        let guilty = pool.workers.iter().find(|worker| worker.id == liar).unwrap();
        until(&pool.serving, &format!("{lie:?} convicted"), |_| convicted(guilty).is_some()).await;
        let reason = convicted(guilty).unwrap();
        assert!(reason.contains("equivocation"), "{reason}");
        let others = pool.workers.iter().filter(|worker| worker.id != liar);
        assert!(others.into_iter().all(|worker| convicted(worker).is_none()));
        pool.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_without_its_ticket_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path(), served(1, 1, 0)).await;
    let liar = with(Lie::OtherTicket);
    let worker = Worker::start(&server.url(), 1, &Wires::default(), liar);
    until(&serving, "assigned", |_| {
        let heard = worker.heard.lock().unwrap();
        heard.iter().any(|message| matches!(message, ToWorker::Serve(_)))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!serving.view().ready);
    let refused = serving.submit(generation(&serving, 1, 4)).unwrap_err();
    assert!(matches!(refused, SubmitError::NotReady(_)), "{refused}");
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_holds_nobody_up_and_whoever_goes_is_forgotten() {
    let pool = Pool::start(2, 2, 0).await;
    let slow = pool.submit(9, 300);
    let gone: Vec<Answering> = (20..40).map(|number| pool.submit(number, 300)).collect();
    let mut quick = pool.submit(10, 30);
    assert_eq!(read(&mut quick).await.tokens.len(), 30);
    drop(gone);
    until(&pool.serving, "forgotten", |serving| {
        let pipeline = &serving.view().pipelines[0];
        pipeline.active + pipeline.waiting <= 1
    })
    .await;
    // One end is enough.
    let Answering { updates, control } = pool.submit(11, 2_000);
    drop(control);
    until(&pool.serving, "cancelled", |serving| serving.view().pipelines[0].active <= 1).await;
    drop(updates);
    let Answering { updates, control } = pool.submit(12, 1_500);
    drop(updates);
    until(&pool.serving, "cancelled", |serving| serving.view().pipelines[0].active <= 1).await;
    drop(control);
    let mut slow = slow;
    let spec = generation(&pool.serving, 9, 300).spec;
    assert_eq!(read(&mut slow).await.tokens, expected(&spec));
    until(&pool.serving, "empty", |serving| serving.view().pipelines[0].pages_used == 0).await;
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
    assert!(matches!(too_long, SubmitError::TooLong { prompt: 2_048, .. }), "{too_long}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wants_to_leave_is_replaced_first() {
    let pool = Pool::start(2, 3, 0).await;
    pool.stand_by(1).await;
    let mut answering = pool.submit(4, 400);
    until(&pool.serving, "active", |serving| serving.view().pipelines[0].active > 0).await;
    let leaver = pool.seated(0);
    leaver.say(ToCoordinator::Drain).await;
    until(&pool.serving, "gone", |_| leaver.has_left()).await;
    let spec = generation(&pool.serving, 4, 400).spec;
    assert_eq!(read(&mut answering).await.tokens, expected(&spec));
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_are_there_on_all_stages_or_on_none() {
    let mut pool = Pool::start(2, 2, 0).await;
    let (good, bad) = (Digest([1; 32]), Digest([66; 32]));
    pool.serving.add_adapter(good).await.unwrap();
    let why = pool.serving.add_adapter(bad).await.unwrap_err();
    assert!(why.contains("broken"), "{why}");
    let with = |adapter| {
        let mut asked = generation(&pool.serving, 6, 5);
        asked.spec.adapter = Some(adapter);
        asked
    };
    assert_eq!(pool.serving.submit(with(bad)).unwrap_err(), SubmitError::UnknownAdapter);
    let mut answering = pool.serving.submit(with(good)).unwrap();
    assert_eq!(read(&mut answering).await.failed, None);
    pool.seated(0).kill();
    pool.join(Nature::default());
    until(&pool.serving, "recovered", |serving| serving.view().failovers > 0).await;
    let worker = &pool.workers[2];
    let has_it = worker.heard.lock().unwrap().iter().any(|message| {
        matches!(message, ToWorker::Serve(assignment) if assignment.adapters == [good])
    });
    assert!(has_it, "a new worker is not told of the adapter");
    pool.serving.remove_adapter(good).await.unwrap();
    assert!(pool.serving.remove_adapter(good).await.is_err());
    pool.server.shutdown().await.unwrap();
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
    let mut all: Vec<Answering> = (0..40).map(|number| pool.submit(number, 3)).collect();
    for answering in &mut all {
        assert_eq!(read(answering).await.failed, None);
        close(answering);
    }
    until(&pool.serving, "audited", |serving| serving.view().audits.0 >= 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (agreed, differed) = pool.serving.view().audits;
    assert!((8..=32).contains(&agreed) && differed == 0, "{agreed} of 40 at one half");
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

#[tokio::test]
async fn it_says_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path(), served(1, 1, 0)).await;
    until(&serving, "waiting", |serving| serving.view().state.contains("workers")).await;
    assert!(!serving.view().ready);
    let refused = serving.submit(generation(&serving, 1, 4)).unwrap_err();
    assert!(refused.to_string().contains("0 of 1"), "{refused}");
    server.shutdown().await.unwrap();
}
