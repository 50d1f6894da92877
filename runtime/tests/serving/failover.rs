//! A stage is lost, and the answer goes on as if it had not been.

use concord_proto::Layers;
use concord_proto::serving::{AnswerVerdict, StageClaim};
use concord_proto::session::{ToCoordinator, ToWorker};

use crate::bits::{alone, prompt};
use crate::case::{claims, receipt, verdict};
use crate::model::served;
use crate::pool::{Asked, Pool, sampling, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stands_by_takes_over() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut pool = Pool::start(&model, &[None, None, None]).await;
    let mut assignment = pool.assignment(&model, &[2], 1);
    let mut pipeline = pool.serve(&assignment).await;

    // The third worker stands by for the last stage.
    let standby = vec![Layers::new(2, model.deployment.layers)];
    let mut spare = assignment.clone();
    spare.standby.clone_from(&standby);
    let _ = pool.members[2]
        .to
        .try_send(ToWorker::Serve(Box::new(spare)));
    let said = soon(pool.members[2].from.recv()).await.unwrap();
    let ready = ToCoordinator::StandsBy {
        deployment: model.deployment.id(),
        epoch: 1,
        layers: standby,
    };
    assert_eq!(said, ready);

    let prompt = prompt(135, model.deployment.vocab);
    let mut asked = Asked::new(3, &prompt, &sampling(Some(4)));
    asked.tokens = 7;
    let answer = pipeline.answer(&asked).await;

    // The second worker is lost; its neighbour stays.
    pool.leave[1].send(()).await.unwrap();
    let left = soon(pool.members[1].from.recv()).await.unwrap();
    assert_eq!(left, ToCoordinator::Drain);
    let _ = pool.members[1].to.try_send(ToWorker::Leave);
    while soon(pipeline.streams[1].from.recv()).await.is_some() {}

    pool.members.swap(1, 2);
    assignment = pool.assignment(&model, &[2], 2);
    let mut pipeline = pool.serve(&assignment).await;
    asked.tokens = 20;
    let answer = pipeline.go_on(&asked, answer).await;
    assert_eq!(answer, alone(&model, &prompt, &sampling(Some(4)), 20));

    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let last: StageClaim = claims[1].open().unwrap();
    assert_eq!(
        last.drawn.unwrap().earlier,
        7,
        "seven tokens were drawn by the one that left"
    );
    let receipt = receipt(&model, &asked, &answer, claims);
    assert_eq!(verdict(&model, &receipt), AnswerVerdict::Agrees);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_does_not_fit_is_refused_in_words() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let pool = &mut Pool::start(&model, &[None]).await;
    let good = pool.assignment(&model, &[], 1);
    let mut many_pages = good.clone();
    many_pages.pages = u32::MAX;
    let mut other_version = good.clone();
    other_version.deployment.arithmetic += 1;
    let mut no_model = good.clone();
    no_model.deployment.model = concord_proto::Digest([3; 32]);
    for (mut assignment, word, is_permanent) in [
        (many_pages, "bytes", false),
        (other_version, "arithmetic", true),
        (no_model, "not in the store", false),
    ] {
        assignment.stage = Some(0);
        let _ = pool.members[0]
            .to
            .try_send(ToWorker::Serve(Box::new(assignment)));
        let said = soon(pool.members[0].from.recv()).await.unwrap();
        let ToCoordinator::StageFailed {
            epoch: 1,
            reason,
            permanent,
            ..
        } = said
        else {
            panic!("{said:?}");
        };
        assert!(reason.contains(word), "{reason} lacks '{word}'");
        assert_eq!(permanent, is_permanent, "{reason}");
    }
    // It serves what it can hold. The room for pages is checked for a stage that is loaded already,
    // too.
    pool.serve(&good).await;
    let mut more = good.clone();
    (more.pages, more.stage) = (u32::MAX, Some(0));
    let _ = pool.members[0].to.try_send(ToWorker::Serve(Box::new(more)));
    let said = soon(pool.members[0].from.recv()).await.unwrap();
    assert!(
        matches!(said, ToCoordinator::StageFailed { .. }),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_not_needed_closes_its_lane() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let pool = &mut Pool::start(&model, &[None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[], 1)).await;
    let unserve = |deployment| ToWorker::Unserve { deployment };
    let stranger = concord_proto::serving::DeploymentId(concord_proto::Digest::default());
    let prompt = prompt(5, model.deployment.vocab);
    let asked = Asked::new(1, &prompt, &sampling(None));
    let _ = pool.members[0].to.try_send(unserve(stranger));
    let answer = pipeline.answer(&asked).await;
    let _ = pool.members[0].to.try_send(unserve(model.deployment.id()));
    while soon(pipeline.streams[0].from.recv()).await.is_some() {}
    let mut pipeline = pool.serve(&pool.assignment(&model, &[], 2)).await;
    assert_eq!(pipeline.answer(&asked).await, answer);
}
