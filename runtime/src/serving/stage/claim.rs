//! What a stage signs about its share of an answer.

use concord_proto::serving::{ClaimOrder, ClaimedDraws, StageClaim, tokens_digest};
use concord_proto::{ARITHMETIC_VERSION, Digest, merkle};

use super::binding::StageBinding;
use super::row_log::{RowInput, RowLog};

/// The claim that an order asks for.
///
/// # Errors
/// A sentence, where a position is not held here any more.
pub(crate) fn claim(
    binding: &StageBinding,
    log: &RowLog,
    order: &ClaimOrder,
    device: &str,
) -> Result<StageClaim, String> {
    if order.positions == 0 || order.positions > binding.deployment.positions {
        return Err(format!("a sequence of {} positions", order.positions));
    }
    let positions = log.positions(&order.pages, order.positions)?;
    let left: Vec<Digest> = positions.iter().map(|position| position.left).collect();
    let mut tokens = Vec::new();
    let mut rows = Vec::new();
    for position in &positions {
        match position.entered {
            RowInput::Token(token) => tokens.push(token),
            RowInput::Row(digest) => rows.push(digest),
        }
    }
    let input = match binding.previous {
        None => tokens_digest(&tokens),
        Some(_) => merkle::root(&rows),
    };
    Ok(StageClaim {
        deployment: binding.id,
        spec: order.spec,
        arithmetic: ARITHMETIC_VERSION,
        layers: binding.layers,
        positions: order.positions,
        input,
        output: merkle::root(&left),
        drawn: binding.is_last().then(|| drawn(log, order)).transpose()?,
        device: device.to_string(),
    })
}

/// What was drawn and scored here, and how many tokens of the answer somebody else drew before.
fn drawn(log: &RowLog, order: &ClaimOrder) -> Result<ClaimedDraws, String> {
    // Token i of the answer is drawn at position prompt + i.
    let answer = (order.positions + 1)
        .checked_sub(order.prompt)
        .ok_or("a prompt longer than the sequence")?;
    // The prompt is scored as a whole, or an earlier holder has done it.
    let scored = log.scored(order.sequence);
    let is_whole = scored.first == 1 && scored.digests.len() as u64 + 1 == u64::from(order.prompt);
    let scored = is_whole.then(|| merkle::root(&scored.digests));
    let drawn = log.drawn(order.sequence);
    if drawn.digests.is_empty() {
        return Ok(ClaimedDraws {
            earlier: answer,
            tokens: merkle::root(&[]),
            scored,
        });
    }
    let earlier = drawn
        .first
        .checked_sub(order.prompt)
        .ok_or("a token was drawn inside the prompt")?;
    let own = answer.saturating_sub(earlier) as usize;
    let own = drawn.digests.get(..own);
    let own = own.ok_or("the last tokens of the answer were not drawn here")?;
    Ok(ClaimedDraws {
        earlier: earlier.min(answer),
        tokens: merkle::root(own),
        scored,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{binding, run};
    use concord_proto::serving::TokenLogprob;

    use super::super::row_log::Position;
    use super::*;

    fn token(id: u32) -> TokenLogprob {
        TokenLogprob {
            token: id,
            logprob: (-0.5).into(),
            top: vec![(id, (-0.5).into())],
        }
    }

    fn draws(earlier: u32, tokens: &[u32]) -> ClaimedDraws {
        ClaimedDraws {
            earlier,
            tokens: root(tokens),
            scored: None,
        }
    }

    fn root(tokens: &[u32]) -> Digest {
        let digests: Vec<Digest> = tokens.iter().map(|id| token(*id).digest()).collect();
        merkle::root(&digests)
    }

    fn order(prompt: u32, positions: u32) -> ClaimOrder {
        ClaimOrder {
            order: 1,
            sequence: 5,
            spec: Digest([9; 32]),
            prompt,
            positions,
            pages: vec![3],
        }
    }

    #[test]
    fn a_claim_is_over_what_is_in_the_log() {
        let (binding, mut log) = (binding(), RowLog::new(8));
        let digest = |n: u32| Digest([n as u8; 32]);
        let rows: Vec<Position> = (0..6)
            .map(|n| Position {
                entered: RowInput::Token(n),
                left: digest(n),
            })
            .collect();
        log.pass(&run(5, 0, 6, &[3]), &rows);
        // The prompt has 4 tokens; an earlier holder drew the first of 3.
        log.draw(5, 5, &token(70));
        log.draw(5, 6, &token(71));
        log.score(5, 1, &[1, 2, 3].map(token));
        let claim = claim(&binding, &log, &order(4, 6), "cpu").unwrap();
        assert_eq!(claim.input, tokens_digest(&[0, 1, 2, 3, 4, 5]));
        let left: Vec<Digest> = (0..6).map(digest).collect();
        assert_eq!(claim.output, merkle::root(&left));
        let scored = Some(root(&[1, 2, 3]));
        let expected = ClaimedDraws {
            scored,
            ..draws(1, &[70, 71])
        };
        assert_eq!(claim.drawn, Some(expected));
    }

    #[test]
    fn an_answer_cut_short_is_claimed_as_far_as_it_goes() {
        let mut log = RowLog::new(8);
        (0..4).for_each(|n| log.draw(5, 10 + n, &token(n)));
        // A part of the prompt that was scored is not claimed.
        log.score(5, 1, &[1, 2].map(token));
        assert_eq!(drawn(&log, &order(10, 11)), Ok(draws(0, &[0, 1])));
        assert_eq!(drawn(&log, &order(8, 12)), Ok(draws(2, &[0, 1, 2])));
        assert_eq!(drawn(&log, &order(8, 8)), Ok(draws(1, &[])));
        assert!(drawn(&log, &order(11, 13)).is_err());
        assert!(drawn(&log, &order(10, 14)).is_err());
        log.forget(5);
        assert_eq!(drawn(&log, &order(8, 9)), Ok(draws(2, &[])));
    }

    #[test]
    fn what_is_not_held_is_not_claimed() {
        let (binding, log) = (binding(), RowLog::new(8));
        for order in [order(1, 1), order(1, 0), order(1, 2_000)] {
            assert!(claim(&binding, &log, &order, "cpu").is_err());
        }
    }
}
