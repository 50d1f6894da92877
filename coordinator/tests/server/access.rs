//! Who sees, stops and fetches what, by the key of its connection.

use concord_coordinator::server::access;

use super::*;

/// Asks, and gives the refusal, of the coordinator or of the transport.
async fn refused(client: &mut Client, request: &ClientRequest) -> String {
    let bytes = canonical::encode(request);
    match client.call(Body { bytes }).await {
        Err(status) => status.message().to_string(),
        Ok(body) => match canonical::decode(&body.into_inner().bytes).unwrap() {
            ClientResponse::Refused(why) => why,
            other => panic!("{request:?}: {other:?}"),
        },
    }
}

async fn jobs(client: &mut Client) -> usize {
    match ask(client, &ClientRequest::Jobs).await {
        ClientResponse::Jobs(jobs) => jobs.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_is_seen_and_stopped_by_who_submitted_it_and_by_admins() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut owner = connect_as(&server, 1).await;
    let submission = submission(&mut owner).await;
    let job = submission.spec.id();
    let submit = ClientRequest::Submit(Box::new(submission));
    assert_eq!(
        ask(&mut owner, &submit).await,
        ClientResponse::Submitted(job)
    );

    let mut stranger = connect_as(&server, 2).await;
    assert_eq!(jobs(&mut stranger).await, 0);
    for request in [ClientRequest::Cancel(job), ClientRequest::Bundle(job)] {
        let why = refused(&mut stranger, &request).await;
        assert!(why.contains("no job") && why.contains("of yours"), "{why}");
    }
    assert!(
        refused(&mut stranger, &ClientRequest::Status)
            .await
            .contains("admins")
    );
    let bytes = canonical::encode(&WatchRequest { job, from: 0 });
    let watched = stranger.watch(Body { bytes }).await.unwrap_err();
    assert_eq!(watched.code(), Code::NotFound);

    // Who has the whole job may join it, and not stop it.
    let mut second = connect_as(&server, 3).await;
    assert_eq!(
        ask(&mut second, &submit).await,
        ClientResponse::Submitted(job)
    );
    assert_eq!(jobs(&mut second).await, 1);
    let why = refused(&mut second, &ClientRequest::Cancel(job)).await;
    assert!(why.contains("another key before yours"), "{why}");

    // All of it outlives a restart.
    server.shutdown().await.unwrap();
    let server = serve(folder.path()).await;
    assert_eq!(jobs(&mut connect_as(&server, 2).await).await, 0);
    assert_eq!(jobs(&mut connect_as(&server, 3).await).await, 1);
    let mut admin = connect(&server).await;
    assert_eq!(jobs(&mut admin).await, 1);
    let mut owner = connect_as(&server, 1).await;
    assert_eq!(
        ask(&mut owner, &ClientRequest::Cancel(job)).await,
        ClientResponse::Cancelled
    );
}

#[tokio::test]
async fn a_key_that_is_not_listed_does_nothing_and_a_revoked_one_is_out_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let [worker, client] = [1, 2].map(|number| number_key(number).public());
    let listed = format!("worker {worker}\nclient {client}\n");
    std::fs::write(&file, &listed).unwrap();
    let admin = number_key(77).public();
    let access = access::follow(file.clone(), admin).unwrap();
    let server = serve_to(&folder.path().join("data"), access).await;

    let mut stranger = connect_as(&server, 9).await;
    let key = number_key(9).public().to_string();
    for request in [
        ClientRequest::Jobs,
        ClientRequest::Status,
        ClientRequest::MissingBlobs(vec![]),
    ] {
        let why = refused(&mut stranger, &request).await;
        assert!(
            why.contains("not among them") && why.contains(&key),
            "{why}"
        );
    }
    let denied = |status: Status| assert_eq!(status.code(), Code::PermissionDenied);
    denied(put(&mut stranger, b"filler").await.unwrap_err());
    denied(get(&mut stranger, &Digest([1; 32])).await.unwrap_err());
    let mut line = Line::join(&server, 9, hello(Role::Worker)).await;
    assert!(reason(line.hear().await).contains("not among them"));
    // A worker's key is not a checker's.
    let mut line = Line::join(&server, 1, hello(Role::Checker)).await;
    assert!(reason(line.hear().await).contains("not among them"));

    let mut line = Line::join(&server, 1, hello(Role::Worker)).await;
    assert!(matches!(line.hear().await, Some(ToWorker::Welcome { .. })));
    let mut known = connect_as(&server, 2).await;
    assert_eq!(jobs(&mut known).await, 0);
    // A file that cannot be read changes nothing.
    std::fs::write(&file, "").unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(jobs(&mut known).await, 0);
    std::fs::write(
        &file,
        format!("{listed}revoked {worker}\nrevoked {client}\n"),
    )
    .unwrap();
    let over = tokio::time::timeout(Duration::from_secs(5), line.is_over()).await;
    assert!(over.expect("its session ends"));
    assert!(
        refused(&mut known, &ClientRequest::Jobs)
            .await
            .contains("not among them")
    );
    let mut line = Line::join(&server, 1, hello(Role::Worker)).await;
    assert!(reason(line.hear().await).contains("not among them"));
}
