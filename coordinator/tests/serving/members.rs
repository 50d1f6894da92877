//! Workers that lie, leave, or are not what they say.

use std::time::Duration;

use concord_coordinator::serving::{AnswerHandle, ModelService, SubmitError};
use concord_proto::address::Address;
use concord_proto::serving::Generation;
use concord_proto::session::{ToCoordinator, ToWorker};
use concord_proto::wire::Body;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::{Digest, Keypair, link};

use super::pool::stage::Lie;
use super::pool::worker::{Nature, POISON, Wires, Worker};
use super::pool::{expected, generation, read, serve, served, until};
use super::{Pool, with};

/// One liar among three workers, two of which hold a stage, while the third stands by. Gives the
/// pool once all is answered.
async fn lied_to(lie: Lie) -> Pool {
    let natures = vec![with(lie), Nature::default(), Nature::default()];
    let mut pool = Pool::of(2, natures, 0).await;
    // The liar gets its stage if it has none.
    let liar = pool.workers[0].id;
    let is_holder = |serving: &ModelService| {
        let view = serving.view();
        view.pipelines[0]
            .stages
            .iter()
            .any(|stage| stage.worker == liar)
    };
    while !is_holder(&pool.serving) {
        let other = pool.holder(0).id;
        pool.workers
            .iter()
            .find(|worker| worker.id == other)
            .unwrap()
            .kill();
        pool.join(Nature::default());
        until(&pool.serving, "replaced", |serving| {
            let view = serving.view();
            view.ready
                && view.pipelines[0]
                    .stages
                    .iter()
                    .all(|stage| stage.worker != other)
        })
        .await;
    }
    let mut all: Vec<(u32, AnswerHandle)> = (0..24).map(|i| (i, pool.submit(i, 40))).collect();
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
    let honest = view
        .workers
        .iter()
        .filter(|worker| worker.doing.contains("is out"));
    assert!(honest.count() <= 1, "{view:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_says_what_cannot_be_is_out() {
    for (lie, reason) in [(Lie::Garbage, "cannot be read"), (Lie::NoToken, "token")] {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_were_not_ordered_are_noticed() {
    let pool = lied_to(Lie::OtherRuns).await;
    assert!(pool.serving.view().failovers > 0);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_stream_without_its_ticket_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (server, serving) = serve(folder.path(), served(1, 1, 0)).await;
    let liar = with(Lie::OtherTicket);
    let worker = Worker::start(&server.url(), 1, &Wires::default(), liar);
    until(&serving, "assigned", |_| {
        let heard = worker.heard.lock().unwrap();
        heard
            .iter()
            .any(|message| matches!(message, ToWorker::Serve(_)))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!serving.view().ready);
    let refused = serving.submit(generation(&serving, 1, 4)).unwrap_err();
    assert!(matches!(refused, SubmitError::NotReady(_)), "{refused}");
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wants_to_leave_is_replaced_first() {
    let pool = Pool::start(2, 3, 0).await;
    pool.stand_by(1).await;
    let mut answering = pool.submit(4, 400);
    until(&pool.serving, "active", |serving| {
        serving.view().pipelines[0].active > 0
    })
    .await;
    let leaver = pool.holder(0);
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
    assert_eq!(
        pool.serving.submit(with(bad)).unwrap_err(),
        SubmitError::UnknownAdapter
    );
    let mut answering = pool.serving.submit(with(good)).unwrap();
    assert_eq!(read(&mut answering).await.failed, None);
    pool.holder(0).kill();
    pool.join(Nature::default());
    until(&pool.serving, "recovered", |serving| {
        serving.view().failovers > 0
    })
    .await;
    let worker = &pool.workers[2];
    until(&pool.serving, "told of the adapter", |_| {
        let heard = worker.heard.lock().unwrap();
        heard.iter().any(|message| {
            matches!(message, ToWorker::Serve(assignment) if assignment.adapters == [good])
        })
    })
    .await;
    pool.serving.remove_adapter(good).await.unwrap();
    assert!(pool.serving.remove_adapter(good).await.is_err());
    pool.server.shutdown().await.unwrap();
}

/// A generation with an adapter.
fn adapted(pool: &Pool, number: u32, adapter: Digest) -> Generation {
    let mut asked = generation(&pool.serving, number, 300);
    asked.spec.adapter = Some(adapter);
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_is_unloaded_ends_its_answers_and_no_others() {
    let pool = Pool::start(2, 2, 0).await;
    let adapter = Digest([1; 32]);
    pool.serving.add_adapter(adapter).await.unwrap();
    let mut plain = pool.submit(11, 300);
    let of = |number| pool.serving.submit(adapted(&pool, number, adapter));
    let mut ended: Vec<AnswerHandle> = (0..40).map(|number| of(number).unwrap()).collect();
    until(&pool.serving, "busy", |serving| {
        serving.view().pipelines[0].tokens > 50
    })
    .await;
    pool.serving.remove_adapter(adapter).await.unwrap();
    assert_eq!(of(41).unwrap_err(), SubmitError::UnknownAdapter);
    let mut failed = 0;
    for answering in &mut ended {
        if let Some(why) = read(answering).await.failed {
            assert!(why.contains("unloaded"), "{why}");
            failed += 1;
        }
    }
    assert!(failed > 0, "all were done before the adapter went");
    let spec = generation(&pool.serving, 11, 300).spec;
    assert_eq!(read(&mut plain).await.tokens, expected(&spec));
    until(&pool.serving, "empty", |serving| {
        serving.view().pipelines[0].pages_used == 0
    })
    .await;
    assert_eq!(pool.serving.view().failovers, 0);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_on_which_every_stage_fails_ends() {
    let pool = Pool::start(1, 5, 0).await;
    pool.serving.add_adapter(POISON).await.unwrap();
    let mut poison = pool.serving.submit(adapted(&pool, 3, POISON)).unwrap();
    let why = read(&mut poison).await.failed.unwrap();
    assert!(why.contains("3 times in a row"), "{why}");
    let mut answering = pool.submit(1, 5);
    assert_eq!(read(&mut answering).await.failed, None);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_stream_that_does_not_say_whose_it_is_ends() {
    let pool = Pool::start(1, 1, 0).await;
    let address = Address::parse(&pool.server.url()).unwrap();
    let channel = link::connect(&address, &Keypair::from_secret([9; 32])).await;
    let mut client = CoordinatorClient::new(channel.unwrap());
    for bytes in [Vec::new(), vec![0; 10], vec![255; 100_000]] {
        let hello = tokio_stream::once(Body { bytes });
        let mut down = client.lane(hello).await.unwrap().into_inner();
        let refused = down.message().await.unwrap_err();
        assert!(refused.message().contains("signed hello"), "{refused}");
    }
    let mut answering = pool.submit(1, 5);
    assert_eq!(read(&mut answering).await.failed, None);
    pool.server.shutdown().await.unwrap();
}
