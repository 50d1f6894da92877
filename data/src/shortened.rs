//! Conversations that are longer than a sequence, shortened turn by turn by LLaMA-Factory's rule:
//! an answer is kept before its question, and where both are long each gives up its share.

use crate::example::Example;

/// The first tokens of each question and of each answer of an example, at most `len` together. A
/// question is what is not learnt in front of an answer.
pub(crate) fn shortened(example: &Example, len: usize) -> Example {
    let mut out = Example::default();
    let mut start = 0;
    while start < example.ids.len() && out.ids.len() < len {
        let answer = start + run(&example.mask[start..], 0);
        let end = answer + run(&example.mask[answer..], 1);
        let room = len - out.ids.len();
        let (asked, answered) = lengths(answer - start, end - answer, room);
        out.add(&example.ids[start..start + asked], false);
        out.add(&example.ids[answer..answer + answered], true);
        start = end;
    }
    out
}

/// How many times a value stands at the beginning.
fn run(mask: &[u8], value: u8) -> usize {
    mask.iter().take_while(|found| **found == value).count()
}

/// What is kept of a question and its answer in so much room.
fn lengths(question: usize, answer: usize, room: usize) -> (usize, usize) {
    let most = if answer * 2 < room {
        room
    } else if question * 2 < room {
        room - question
    } else {
        // In floating point, since that is how the other tool rounds.
        (room as f64 * (answer as f64 / (question + answer) as f64)) as usize
    };
    let answer = answer.min(most);
    (question.min(room.saturating_sub(answer)), answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_before_its_question() {
        for (question, answer, expected) in [
            // Both fit.
            (40, 60, (40, 60)),
            // The answer is less than half of the room: the question gives way.
            (200, 49, (51, 49)),
            // The question is: the answer gives way.
            (49, 200, (49, 51)),
            // Neither is: each gives up its share, rounded down for the answer.
            (100, 200, (34, 66)),
            (200, 100, (67, 33)),
            (50, 50, (50, 50)),
            (0, 200, (0, 100)),
            (200, 0, (100, 0)),
        ] {
            assert_eq!(
                lengths(question, answer, 100),
                expected,
                "{question} {answer}"
            );
        }
    }

    #[test]
    fn turns_are_shortened_until_nothing_is_left() {
        let mut example = Example::default();
        let ids: Vec<u32> = (0..100).collect();
        example.add(&ids[..4], false);
        example.add(&ids[10..16], true);
        example.add(&ids[20..40], false);
        example.add(&ids[50..58], true);
        example.add(&ids[60..90], false);
        let short = shortened(&example, 20);
        // The first turns fit. Of the 10 that are left the second answer has 10 * 8 / 28.
        let expected = [&ids[..4], &ids[10..16], &ids[20..28], &ids[50..52]].concat();
        assert_eq!(short.ids, expected);
        let mask = [vec![0; 4], vec![1; 6], vec![0; 8], vec![1; 2]].concat();
        assert_eq!(short.mask, mask);
        assert_eq!(shortened(&example, 200).ids, example.ids);
    }
}
