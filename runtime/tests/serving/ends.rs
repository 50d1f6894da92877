//! Why an answer ended, its text and its logprobs: what a receipt says of them is derived again.

use concord_proto::serving::{AnswerVerdict, Finish, Receipt, StageClaim, TokenReading};
use concord_proto::{Digest, Domain, F32Bits, Signed};
use concord_text::TextTokenizer;

use crate::bits::{alone, prompt};
use crate::case::{claims, key, receipt, verdict};
use crate::model::served;
use crate::pool::{Asked, Pool, sampling};

fn is_altered(verdict: &AnswerVerdict, words: &str) {
    let fits = matches!(verdict, AnswerVerdict::Altered { what } if what.contains(words));
    assert!(fits, "{words}: {verdict:?}");
}

/// The smallest change of a number.
fn nudge(bits: &mut F32Bits) {
    bits.0 ^= 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logprobs_are_judged_bit_for_bit() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let prompt = prompt(140, model.deployment.vocab);
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let mut asked = Asked::new(3, &prompt, &sampling(Some(9)));
    (asked.logprobs, asked.prompt_logprobs) = (Some(3), Some(1));
    let answer = pipeline.answer(&asked).await;
    assert_eq!(answer, alone(&model, &prompt, &asked.spec, 20));
    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let mut good = receipt(&model, &asked, &answer, claims);
    good.logprobs = pipeline.given.clone();
    let counts = (good.logprobs.prompt.len(), good.logprobs.answer.len());
    assert_eq!(counts, (139, 20));
    assert_eq!(good.logprobs.answer[0].top.len(), 3);
    assert_eq!(verdict(&model, &good), AnswerVerdict::Agrees);

    // The coordinator signs other logprobs than the last stage claims.
    let changes: [fn(&mut Receipt); 4] = [
        |r| nudge(&mut r.logprobs.answer[7].logprob),
        |r| nudge(&mut r.logprobs.answer[7].top[2].1),
        |r| r.logprobs.answer[7].top.swap(0, 1),
        |r| nudge(&mut r.logprobs.prompt[100].logprob),
    ];
    for change in changes {
        let mut altered = good.clone();
        change(&mut altered);
        is_altered(&verdict(&model, &altered), "logprobs");
    }
    // A last stage that claims what it gave, and it is not what its hidden states give.
    for (change, position) in [(changes[1], 140 + 7), (changes[3], 101)] {
        let mut false_claim = good.clone();
        change(&mut false_claim);
        claim_given(&mut false_claim);
        let verdict = verdict(&model, &false_claim);
        let AnswerVerdict::WrongLogprob {
            worker,
            position: found,
            ..
        } = verdict
        else {
            panic!("{verdict:?}");
        };
        assert_eq!((worker, found), (key().public(), position));
    }
}

/// Has the last stage claim the logprobs that the receipt has.
fn claim_given(receipt: &mut Receipt) {
    let digests = |tokens: &[concord_proto::serving::TokenLogprob]| {
        let digests: Vec<Digest> = tokens.iter().map(|token| token.digest()).collect();
        concord_proto::merkle::root(&digests)
    };
    let last = receipt.claims.last_mut().unwrap();
    let mut claim: StageClaim = last.open().unwrap();
    let drawn = claim.drawn.as_mut().unwrap();
    drawn.tokens = digests(&receipt.logprobs.answer);
    drawn.scored = Some(digests(&receipt.logprobs.prompt));
    *last = Signed::new(&key(), &claim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_answer_ended_follows_from_its_text() {
    let Some(model) = served("tinystories-260k") else {
        return;
    };
    let tokenizer = TextTokenizer::open(model.folder.dir()).unwrap();
    let prompt = tokenizer.encode("Once upon a time", true).unwrap();
    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let mut asked = Asked::new(3, &prompt, &sampling(None));
    let answer = pipeline.answer(&asked).await;
    let text = |tokens: usize| -> String {
        let bytes = answer[..tokens]
            .iter()
            .flat_map(|id| tokenizer.token_bytes(*id));
        String::from_utf8(bytes.collect()).unwrap()
    };
    // A text of two tokens ends the answer with the tenth.
    let stop = text(10)[text(8).len()..].to_string();
    assert!(!text(9).contains(&stop), "{stop:?} in {:?}", text(9));
    asked.stop_texts = vec!["never".to_string(), stop];
    let sent = Digest::of(Domain::Text, text(8).as_bytes());
    // Nine more were drawn before the stop text was seen: they are no part of the answer.
    for tokens in [10, 20] {
        let claims = claims(&model, &mut pipeline, &asked, &answer[..tokens]).await;
        let mut good = receipt(&model, &asked, &answer[..tokens], claims);
        (good.finish, good.text) = (Finish::StopText, sent);
        assert_eq!(verdict(&model, &good), AnswerVerdict::Agrees, "{tokens}");
        let judged = |change: fn(&mut Receipt)| {
            let mut altered = good.clone();
            change(&mut altered);
            verdict(&model, &altered)
        };
        let long = judged(|r| r.finish = Finish::Length);
        let words = match tokens {
            10 => "before its length",
            _ => "a stop text ended the answer after 10 tokens",
        };
        is_altered(&long, words);
        let token = judged(|r| r.finish = Finish::StopToken);
        is_altered(&token, "its last token is none");
        let other = judged(|r| r.text = Digest::of(Domain::Text, b"something else"));
        is_altered(&other, "another text");
        // What nobody could know is no lie, and not shown.
        let cancelled = judged(|r| (r.finish, r.text) = (Finish::Cancelled, Digest::default()));
        assert_eq!(cancelled, AnswerVerdict::Agrees);
    }
    // An answer that a stop text would not have ended there.
    let claims = claims(&model, &mut pipeline, &asked, &answer[..7]).await;
    let mut early = receipt(&model, &asked, &answer[..7], claims);
    early.finish = Finish::StopText;
    is_altered(&verdict(&model, &early), "nothing ends the answer");
    // Another reading of a token is another text; it is in the spec that the claims name.
    let mut read = early.clone();
    read.spec.readings = vec![TokenReading {
        token: answer[6],
        bytes: b"never".to_vec(),
        is_hidden: false,
    }];
    is_altered(&verdict(&model, &read), "another generation");
}
