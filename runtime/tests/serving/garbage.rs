//! What does not fit is refused, and the worker goes on.

use concord_proto::serving::{FromStage, Pass, PassHeader, SequenceRun, ToStage, row_digest};
use concord_proto::wire::Frame;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::{Keypair, Origin, canonical};
use concord_runtime::identity;

use crate::bits::{alone, prompt};
use crate::model::{ServedModel, served};
use crate::pool::{Asked, Pipeline, Pool, sampling, soon};

/// A key that no pool knows.
fn stranger() -> Keypair {
    Keypair::from_secret([99; 32])
}

async fn works(pipeline: &mut Pipeline, model: &ServedModel) {
    let prompt = prompt(30, model.deployment.vocab);
    let asked = Asked::new(8, &prompt, &sampling(None));
    let expected = alone(model, &prompt, &sampling(None), 20);
    assert_eq!(pipeline.answer(&asked).await, expected);
}

fn run(count: u32, pages: &[u32]) -> SequenceRun {
    SequenceRun {
        sequence: 1,
        first: 0,
        count,
        pages: pages.to_vec(),
        adapter: None,
    }
}

/// What the coordinator may say that no stage can do.
fn nonsense(model: &ServedModel) -> Vec<(&'static str, Vec<u8>)> {
    let vocab = model.deployment.vocab;
    let pass = |number, run: SequenceRun, tokens: &[u32]| {
        let (runs, tokens) = (vec![run], tokens.to_vec());
        canonical::encode(&ToStage::Pass(Pass {
            number,
            runs,
            tokens,
        }))
    };
    let mut adapted = run(1, &[0]);
    adapted.adapter = Some(concord_proto::Digest([1; 32]));
    vec![
        ("cannot be read", vec![0xff; 50]),
        ("cannot be read", Vec::new()),
        ("was to come", pass(7, run(1, &[0]), &[1])),
        ("lacks", pass(0, run(1, &[64]), &[1])),
        ("hold", pass(0, run(1, &[]), &[1])),
        ("beyond", pass(0, run(u32::MAX, &[0]), &[1])),
        ("0 rows", pass(0, run(1, &[0]), &[])),
        ("no run", pass(0, run(1, &[0]), &[1, 2])),
        ("of 512", pass(0, run(1, &[0]), &[vocab])),
        ("not loaded", pass(0, adapted, &[1])),
    ]
}

async fn failure(pipeline: &mut Pipeline, stage: usize) -> String {
    loop {
        match soon(pipeline.streams[stage].from.recv())
            .await
            .expect("a reason")
        {
            FromStage::Failed { reason } | FromStage::Refused { reason } => return reason,
            FromStage::Passed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_of_the_coordinator_is_refused_in_words() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None]).await;
    let mut epoch = 0;
    for (word, bytes) in nonsense(&model) {
        epoch += 1;
        let mut pipeline = pool.serve(&pool.assignment(&model, &[], epoch)).await;
        let _ = pipeline.streams[0].to.try_send(bytes);
        let reason = failure(&mut pipeline, 0).await;
        assert!(reason.contains(word), "{reason} lacks '{word}'");
    }
    let mut pipeline = pool.serve(&pool.assignment(&model, &[], epoch + 1)).await;
    works(&mut pipeline, &model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draw_that_makes_no_sense_harms_no_other() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[], 1)).await;
    let spec = sampling(None);
    let sample = |allowed| concord_proto::serving::SampleOrder::new(&spec, &[], allowed);
    let mut biased = sample(None);
    biased.bias = vec![(u32::MAX, 1.0.into())];
    let pages: [[u32; 1]; 3] = [[1], [2], [3]];
    let orders = [sample(Some(vec![0; 64])), sample(None), biased];
    let steps: Vec<_> = orders
        .into_iter()
        .enumerate()
        .map(|(index, sample)| crate::pool::Step {
            sequence: index as u64,
            first: 0,
            tokens: &[5, 6, 7],
            pages: &pages[index],
            adapter: None,
            sample: Some(sample),
            wanted: crate::pool::Wanted::default(),
        })
        .collect();
    pipeline.send(&steps);
    let drawn = pipeline.result().await;
    assert_eq!(pipeline.passed[0].broken, [0, 2]);
    assert_eq!(drawn.len(), 1);
    let expected = alone(&model, &[5, 6, 7], &spec, 1);
    assert_eq!(
        (drawn[0].run, drawn[0].token.as_ref().unwrap().token),
        (1, expected[0])
    );
    works(&mut pipeline, &model).await;
}

/// A frame that stage 0 might send, signed by `key`.
fn frame(model: &ServedModel, key: &Keypair, epoch: u32, row: &[f32], sent: &[f32]) -> Frame {
    let id = model.deployment.id();
    let (runs, rows) = (vec![run(1, &[0])], vec![row_digest(row)]);
    let message = PassHeader::message(&id, epoch, 0, &runs, &rows);
    let header = PassHeader {
        deployment: id,
        epoch,
        pass: 0,
        runs,
        rows,
        origin: Origin::sign(key, &message),
    };
    Frame {
        header: canonical::encode(&header),
        data: sent.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_of_strangers_are_refused_and_change_nothing() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None]).await;
    let endpoint = pool.members[1].hello.endpoint.clone();
    let client = concord_runtime::connect(&endpoint, &stranger())
        .await
        .unwrap();
    let mut client = WorkerClient::new(client);
    let row = vec![0.5f32; model.folder.config().hidden];
    let stranger = Keypair::from_secret([1; 32]);
    let previous = identity::load_or_make(pool.dirs[0].path()).unwrap();
    let early = frame(&model, &previous, 1, &row, &row);
    assert!(
        client.pass(tokio_stream::once(early)).await.is_err(),
        "nothing is held yet"
    );

    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let data = |data: Vec<u8>| Frame {
        header: Vec::new(),
        data,
    };
    let cut = frame(&model, &previous, 1, &row, &row[1..]);
    let mut altered = frame(&model, &previous, 1, &row, &row);
    altered.header[40] ^= 1;
    let garbage = Frame {
        header: vec![7; 300],
        data: vec![7; 300],
    };
    for pieces in [
        vec![frame(&model, &stranger, 1, &row, &row)],
        vec![frame(&model, &previous, 9, &row, &row)],
        vec![altered],
        vec![garbage],
        vec![data(vec![1; 1_000])],
        vec![
            frame(&model, &previous, 1, &row, &row[1..]),
            data(vec![0; 9]),
        ],
        vec![cut.clone(), frame(&model, &previous, 1, &row, &row)],
    ] {
        let refused = client.pass(tokio_stream::iter(pieces)).await;
        assert!(refused.is_err());
    }
    // One that ends early is no pass, and no fault of anybody's.
    client.pass(tokio_stream::once(cut)).await.unwrap();
    works(&mut pipeline, &model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passes_of_the_stage_before_are_told_to_the_coordinator() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None]).await;
    let endpoint = pool.members[1].hello.endpoint.clone();
    let client = concord_runtime::connect(&endpoint, &stranger())
        .await
        .unwrap();
    let mut client = WorkerClient::new(client);
    let previous = identity::load_or_make(pool.dirs[0].path()).unwrap();
    let row = vec![0.5f32; model.folder.config().hidden];
    let mut other = row.clone();
    other[3] = 0.25;
    let mut nan = row.clone();
    nan[0] = f32::NAN;
    for (epoch, sent, signed, word) in [(1, &other, &row, "signed"), (2, &nan, &nan, "NaN")] {
        let mut pipeline = pool.serve(&pool.assignment(&model, &[2], epoch)).await;
        let wrong = frame(&model, &previous, epoch, signed, sent);
        assert!(client.pass(tokio_stream::once(wrong)).await.is_err());
        let reason = failure(&mut pipeline, 1).await;
        assert!(reason.contains(word), "{reason} lacks '{word}'");
    }
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 3)).await;
    works(&mut pipeline, &model).await;
}
