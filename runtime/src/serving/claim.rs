//! What a stage signs about its share of an answer.

use concord_proto::serving::{ClaimOrder, StageClaim, tokens_digest};
use concord_proto::{ARITHMETIC_VERSION, Digest, merkle};

use super::book::{Book, Entered};
use super::seat::Seat;

/// The claim that an order asks for.
///
/// # Errors
/// A sentence, where a position is not held here any more.
pub(crate) fn claim(
    seat: &Seat,
    book: &Book,
    order: &ClaimOrder,
    device: &str,
) -> Result<StageClaim, String> {
    if order.positions == 0 || order.positions > seat.deployment.positions {
        return Err(format!("a sequence of {} positions", order.positions));
    }
    let positions = book.positions(&order.pages, order.positions)?;
    let left: Vec<Digest> = positions.iter().map(|position| position.left).collect();
    let mut tokens = Vec::new();
    let mut rows = Vec::new();
    for position in &positions {
        match position.entered {
            Entered::Token(token) => tokens.push(token),
            Entered::Row(digest) => rows.push(digest),
        }
    }
    let input = match seat.previous {
        None => tokens_digest(&tokens),
        Some(_) => merkle::root(&rows),
    };
    Ok(StageClaim {
        deployment: seat.id,
        spec: order.spec,
        arithmetic: ARITHMETIC_VERSION,
        layers: seat.layers,
        positions: order.positions,
        input,
        output: merkle::root(&left),
        drawn: seat.is_last().then(|| drawn(book, order)).transpose()?,
        device: device.to_string(),
    })
}

/// How many tokens of the answer somebody else drew, and the digest of the others.
fn drawn(book: &Book, order: &ClaimOrder) -> Result<(u32, Digest), String> {
    // Token i of the answer is drawn at position prompt + i.
    let answer = (order.positions + 1)
        .checked_sub(order.prompt)
        .ok_or("a prompt longer than the sequence")?;
    let drawn = book.drawn(order.sequence);
    if drawn.tokens.is_empty() {
        return Ok((answer, tokens_digest(&[])));
    }
    let earlier = drawn
        .first
        .checked_sub(order.prompt)
        .ok_or("a token was drawn inside the prompt")?;
    let own = answer.saturating_sub(earlier) as usize;
    let own = drawn.tokens.get(..own);
    let own = own.ok_or("the last tokens of the answer were not drawn here")?;
    Ok((earlier.min(answer), tokens_digest(own)))
}

#[cfg(test)]
mod tests {
    use super::super::book::Position;
    use super::super::seat::tests::{run, seat};
    use super::*;

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
    fn a_claim_is_over_what_is_in_the_book() {
        let (seat, mut book) = (seat(), Book::new(8));
        let digest = |n: u32| Digest([n as u8; 32]);
        let rows: Vec<Position> = (0..6)
            .map(|n| Position {
                entered: Entered::Token(n),
                left: digest(n),
            })
            .collect();
        book.pass(&run(5, 0, 6, &[3]), &rows);
        // The prompt has 4 tokens; an earlier holder drew the first of 3.
        book.draw(5, 5, 70);
        book.draw(5, 6, 71);
        let claim = claim(&seat, &book, &order(4, 6), "cpu").unwrap();
        assert_eq!(claim.input, tokens_digest(&[0, 1, 2, 3, 4, 5]));
        let left: Vec<Digest> = (0..6).map(digest).collect();
        assert_eq!(claim.output, merkle::root(&left));
        assert_eq!(claim.drawn, Some((1, tokens_digest(&[70, 71]))));
    }

    #[test]
    fn an_answer_cut_short_is_claimed_as_far_as_it_goes() {
        let mut book = Book::new(8);
        (0..4).for_each(|n| book.draw(5, 10 + n, n));
        assert_eq!(
            drawn(&book, &order(10, 11)),
            Ok((0, tokens_digest(&[0, 1])))
        );
        assert_eq!(
            drawn(&book, &order(8, 12)),
            Ok((2, tokens_digest(&[0, 1, 2])))
        );
        assert_eq!(drawn(&book, &order(8, 8)), Ok((1, tokens_digest(&[]))));
        assert!(drawn(&book, &order(11, 13)).is_err());
        assert!(drawn(&book, &order(10, 14)).is_err());
        book.forget(5);
        assert_eq!(drawn(&book, &order(8, 9)), Ok((2, tokens_digest(&[]))));
    }

    #[test]
    fn what_is_not_held_is_not_claimed() {
        let (seat, book) = (seat(), Book::new(8));
        for order in [order(1, 1), order(1, 0), order(1, 2_000)] {
            assert!(claim(&seat, &book, &order, "cpu").is_err());
        }
    }
}
