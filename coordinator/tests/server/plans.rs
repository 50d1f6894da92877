//! Plans that a job cannot have.

use concord_proto::client::{ClientRequest, ClientResponse, PlanChoice};

use super::{ask, connect, serve, submission};

#[tokio::test]
async fn a_job_that_is_known_is_refused_under_a_plan_that_it_cannot_have() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let mut submission = submission(&mut client).await;
    let layers = submission.spec.layers;
    for round in 0..2 {
        let mut other = submission.clone();
        other.options.plan = PlanChoice::Fixed {
            stages: layers + 1,
            replicas: 1,
            shares: Vec::new(),
        };
        let submit = ClientRequest::Submit(Box::new(other));
        let refused = ask(&mut client, &submit).await;
        let words = format!("the plan: {} stages for {layers} layers", layers + 1);
        let is_it = matches!(&refused, ClientResponse::Refused(why) if why.contains(&words));
        assert!(is_it, "{round}: {refused:?}");
        submission.options.plan = PlanChoice::Auto;
        let submit = ClientRequest::Submit(Box::new(submission.clone()));
        let id = submission.spec.id();
        let response = ask(&mut client, &submit).await;
        assert_eq!(response, ClientResponse::Submitted(id));
    }
}
