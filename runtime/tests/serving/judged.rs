//! Honest answers are judged right, and receipts that were altered are not.

use std::sync::Mutex;

use concord_proto::serving::{
    AnswerVerdict, AuditedAnswer, BatchedReceipt, GrammarSpec, Receipt, SamplingSpec, StageClaim,
};
use concord_proto::session::{ToCoordinator, ToWorker};
use concord_proto::{Signed, canonical};
use concord_text::{Grammar, GuideFactory, Next, TextTokenizer};

use crate::bits::{alone, prompt};
use crate::case::{claims, key, receipt, verdict};
use crate::coordinator;
use crate::model::{ServedModel, served};
use crate::pool::{Asked, Pool, sampling, soon};

/// An honest receipt of a pipeline with these cuts.
async fn honest(model: &ServedModel, cuts: &[u32], spec: &SamplingSpec) -> Receipt {
    let prompt = prompt(140, model.deployment.vocab);
    let mut pool = Pool::start(model, &vec![None; cuts.len() + 1]).await;
    let mut pipeline = pool.serve(&pool.assignment(model, cuts, 1)).await;
    let asked = Asked::new(3, &prompt, spec);
    let answer = pipeline.answer(&asked).await;
    let claims = claims(model, &mut pipeline, &asked, &answer).await;
    receipt(model, &asked, &answer, claims)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_answers_agree_however_they_were_cut() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut spec = sampling(Some(9));
    spec.frequency_penalty = 0.7.into();
    spec.presence_penalty = 0.2.into();
    spec.logit_bias = vec![(3, (-4.0).into()), (40, 2.5.into())];
    spec.top_k = 50;
    spec.top_p = 0.9.into();
    let cuts: [&[u32]; 3] = [&[], &[2], &[1, 3]];
    for cuts in cuts {
        let receipt = honest(&model, cuts, &spec).await;
        assert_eq!(receipt.claims.len(), cuts.len() + 1);
        assert_eq!(verdict(&model, &receipt), AnswerVerdict::Agrees);
        // Other sampling gives other tokens: the judge would have seen it.
        let mut other = receipt.clone();
        other.spec.sampling.seed += 1;
        assert_ne!(verdict(&model, &other), AnswerVerdict::Agrees);
    }
}

/// Keys and values of 8 bits: one answer, however the model is cut. A receipt that claims other
/// bits
/// than were computed with is found out, though every claim in it is signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bits_of_keys_and_values_are_judged() {
    let (Some(plain), Some(mut model)) = (served("tinystories-260k"), served("tinystories-260k"))
    else {
        return;
    };
    model.deployment.precision.key_values = 8;
    assert_ne!(model.deployment.id(), plain.deployment.id());
    let spec = sampling(Some(4));
    for cuts in [&[][..], &[2]] {
        let receipt = honest(&model, cuts, &spec).await;
        let expected = alone(&model, &receipt.spec.prompt, &spec, 20);
        assert_eq!(receipt.answer, expected, "cuts {cuts:?}");
        assert_eq!(verdict(&model, &receipt), AnswerVerdict::Agrees);
        let mut relabelled = receipt.clone();
        relabelled.deployment = plain.deployment.clone();
        let verdict_of = |receipt: &Receipt| verdict(&plain, receipt);
        let verdict = verdict_of(&relabelled);
        assert!(
            matches!(verdict, AnswerVerdict::Altered { .. }),
            "{verdict:?}"
        );
        relabelled.spec.deployment = plain.deployment.id();
        let digest = relabelled.spec.digest();
        for signed in &mut relabelled.claims {
            let mut claim: StageClaim = signed.open().unwrap();
            (claim.deployment, claim.spec) = (plain.deployment.id(), digest);
            *signed = Signed::new(&key(), &claim);
        }
        let verdict = verdict_of(&relabelled);
        let names_it = matches!(verdict, AnswerVerdict::WrongStage { .. });
        assert!(names_it, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_is_served_and_judged() {
    for name in ["tiny-qwen2", "tiny-qwen3", "tiny-mistral", "tiny-llama31"] {
        let Some(model) = served(name) else {
            return;
        };
        let spec = sampling(Some(1));
        let receipt = honest(&model, &[model.deployment.layers / 2], &spec).await;
        let expected = alone(&model, &receipt.spec.prompt, &spec, 20);
        assert_eq!(receipt.answer, expected, "{name}");
        assert_eq!(verdict(&model, &receipt), AnswerVerdict::Agrees, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_in_the_pages_of_another_sequence_is_claimed_too() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let mut other = prompt(150, model.deployment.vocab);
    let first = other[..140].to_vec();
    other[130] += 1;
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let spec = sampling(Some(3));
    pipeline.answer(&Asked::new(1, &first, &spec)).await;
    let mut asked = Asked::new(2, &other, &spec);
    (asked.pages, asked.cached) = (&[9, 30], 128);
    let answer = pipeline.answer(&asked).await;
    assert_eq!(answer, alone(&model, &other, &spec, 20));
    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let receipt = receipt(&model, &asked, &answer, claims);
    assert_eq!(verdict(&model, &receipt), AnswerVerdict::Agrees);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_coordinator_altered_is_its_fault() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let good = honest(&model, &[2], &sampling(None)).await;
    let altered = |alter: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        alter(&mut receipt);
        verdict(&model, &receipt)
    };
    let is_altered = |alter: &dyn Fn(&mut Receipt)| {
        let verdict = altered(alter);
        assert!(
            matches!(verdict, AnswerVerdict::Altered { .. }),
            "{verdict:?}"
        );
    };
    is_altered(&|r| r.answer[4] = (r.answer[4] + 1) % 512);
    is_altered(&|r| *r.answer.last_mut().unwrap() ^= 1);
    is_altered(&|r| r.answer[4] = 99_999);
    is_altered(&|r| r.answer.truncate(19));
    is_altered(&|r| r.spec.prompt[0] ^= 1);
    is_altered(&|r| r.spec.max_tokens = 30);
    is_altered(&|r| r.spec.max_tokens = 3);
    is_altered(&|r| r.spec.stop_tokens = vec![r.answer[7]]);
    is_altered(&|r| r.usage.answer += 1);
    is_altered(&|r| r.claims.swap(0, 1));
    is_altered(&|r| r.claims[0].signature[3] ^= 1);
    is_altered(&|r| r.deployment.positions -= 1);
    for missing in [0, 1] {
        let verdict = altered(&|r| drop(r.claims.remove(missing)));
        let unclear = matches!(&verdict, AnswerVerdict::Inconclusive { why } if why.contains(".."));
        assert!(unclear, "{verdict:?}");
    }
    assert_eq!(altered(&|_| {}), AnswerVerdict::Agrees);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_under_a_grammar_are_judged_by_it() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let tokenizer = TextTokenizer::open(model.folder.dir()).unwrap();
    let factory = GuideFactory::new(&tokenizer, model.deployment.vocab).unwrap();
    let schema = r#"{"type": "array", "items": {"type": "integer"}, "minItems": 20}"#;
    let grammar = Grammar::JsonSchema(schema.to_string());
    let guide = Mutex::new(factory.start(&grammar, &[]).unwrap());
    let allowed = |answer: &[u32]| {
        let mut guide = guide.lock().unwrap();
        if let Some(last) = answer.last() {
            guide.accept(*last).unwrap();
        }
        match guide.allowed().unwrap() {
            Next::Tokens(bits) => Some(bits),
            Next::End => panic!("twenty numbers are not there yet"),
        }
    };
    let mut spec = sampling(Some(2));
    spec.grammar = Some(GrammarSpec::JsonSchema(schema.to_string()));
    let prompt = prompt(10, model.deployment.vocab);
    let mut pool = Pool::start(&model, &[None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[], 1)).await;
    let mut asked = Asked::new(3, &prompt, &spec);
    asked.allowed = Some(&allowed);
    let answer = pipeline.answer(&asked).await;
    let text = tokenizer.decode(&answer, false).unwrap();
    assert!(text.trim_start().starts_with('['), "{text}");
    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let good = receipt(&model, &asked, &answer, claims);
    assert_eq!(verdict(&model, &good), AnswerVerdict::Agrees);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_judge_what_the_store_has() {
    let Some(mut model) = served("tinystories-260k") else {
        return;
    };
    let receipt = honest(&model, &[3], &sampling(None)).await;
    let mut orders = Vec::new();
    for signer in [coordinator::key(), key()] {
        let signed = BatchedReceipt::alone(&signer, &receipt);
        orders.push(model.blobs.put(canonical::encode(&signed)));
    }
    orders.push(model.blobs.put(b"nothing".to_vec()));
    let mut pool = Pool::start(&model, &[None]).await;
    for (order, receipt) in (0..).zip(&orders) {
        let audited = AuditedAnswer {
            order,
            receipt: *receipt,
        };
        let _ = pool.members[0].to.try_send(ToWorker::AuditAnswer(audited));
        let said = soon(pool.members[0].from.recv()).await.unwrap();
        let ToCoordinator::AnswerVerdict { order: of, verdict } = said else {
            panic!("{said:?}");
        };
        assert_eq!(of, order);
        let fits = match order {
            0 => matches!(verdict, AnswerVerdict::Agrees),
            1 => matches!(verdict, AnswerVerdict::Altered { .. }),
            _ => matches!(verdict, AnswerVerdict::Inconclusive { .. }),
        };
        assert!(fits, "{order}: {verdict:?}");
    }
}
