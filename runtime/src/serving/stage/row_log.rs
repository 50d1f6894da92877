//! What a stage remembers of the rows that went through it: their digests, beside the
//! pages; those of the tokens that it drew and scored; the signed headers that it received. All of
//! it is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concord_proto::Digest;
use concord_proto::serving::{PAGE_TOKENS, PassHeader, SequenceRun, TokenLogprob};

/// Rows whose headers are remembered, for evidence.
const HEADER_ROWS_MAX: usize = 65_536;
/// Sequences whose drawn and scored tokens are remembered.
const SEQUENCES_MAX: usize = 16_384;

/// What came in at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowInput {
    /// A token, into the first stage.
    Token(u32),
    /// The digest of a row.
    Row(Digest),
}

/// One position of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) entered: RowInput,
    /// Digest of the row that went out.
    pub(crate) left: Digest,
}

/// Tokens of a sequence at positions that follow each other, with their logprobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenRow {
    /// Position of the first.
    pub(crate) first: u32,
    /// [`TokenLogprob::digest`] of each.
    pub(crate) digests: Vec<Digest>,
}

/// By sequence.
#[derive(Debug, Default)]
struct TokenRows(BTreeMap<u64, TokenRow>);

impl TokenRows {
    /// Notes the token at `position`. One that does not follow the last begins anew: somebody else
    /// gave those between.
    fn note(&mut self, sequence: u64, position: u32, token: &TokenLogprob) {
        if !self.0.contains_key(&sequence) && self.0.len() >= SEQUENCES_MAX {
            self.0.pop_first();
        }
        let row = self.0.entry(sequence).or_default();
        match position.checked_sub(row.first) {
            Some(index) if (index as usize) <= row.digests.len() => {
                row.digests.truncate(index as usize);
            }
            _ => row.digests.clear(),
        }
        if row.digests.is_empty() {
            row.first = position;
        }
        row.digests.push(token.digest());
    }

    fn of(&self, sequence: u64) -> TokenRow {
        self.0.get(&sequence).cloned().unwrap_or_default()
    }
}

/// The log of one binding. Another binding begins another log, because its pages are others.
#[derive(Debug)]
pub(crate) struct RowLog {
    pages: Vec<Vec<Position>>,
    drawn: TokenRows,
    scored: TokenRows,
    headers: VecDeque<PassHeader>,
    header_rows: usize,
}

impl RowLog {
    pub(crate) fn new(pages: u32) -> Self {
        Self {
            pages: vec![Vec::new(); pages as usize],
            drawn: TokenRows::default(),
            scored: TokenRows::default(),
            headers: VecDeque::new(),
            header_rows: 0,
        }
    }

    /// Notes the rows of a run that has been checked. What stood behind them in the last
    /// page was of another sequence, or of a time when this one was longer.
    pub(crate) fn pass(&mut self, run: &SequenceRun, rows: &[Position]) {
        for (position, row) in (run.first..).zip(rows) {
            let page = run.pages[(position / PAGE_TOKENS) as usize];
            let offset = (position % PAGE_TOKENS) as usize;
            let page = &mut self.pages[page as usize];
            page.truncate(offset);
            // Fewer than `offset` are there where the coordinator skips positions: then nothing of
            // this page can be claimed.
            if page.len() == offset {
                page.push(*row);
            }
        }
    }

    /// What is noted of the first `count` positions of a sequence with these pages.
    ///
    /// # Errors
    /// A sentence naming the position that is not there.
    pub(crate) fn positions(&self, pages: &[u32], count: u32) -> Result<Vec<Position>, String> {
        let held = |position: u32| {
            let page = *pages.get((position / PAGE_TOKENS) as usize)?;
            let page = self.pages.get(page as usize)?;
            page.get((position % PAGE_TOKENS) as usize).copied()
        };
        if u64::from(count) > pages.len() as u64 * u64::from(PAGE_TOKENS) {
            return Err(format!("{count} positions in {} pages", pages.len()));
        }
        let missing = |position| format!("position {position} is not held here");
        (0..count)
            .map(|position| held(position).ok_or_else(|| missing(position)))
            .collect()
    }

    /// Notes the token drawn at `position` of a sequence.
    pub(crate) fn draw(&mut self, sequence: u64, position: u32, token: &TokenLogprob) {
        self.drawn.note(sequence, position, token);
    }

    /// Notes tokens of a prompt, scored from `position` on.
    pub(crate) fn score(&mut self, sequence: u64, position: u32, tokens: &[TokenLogprob]) {
        for (position, token) in (position..).zip(tokens) {
            self.scored.note(sequence, position, token);
        }
    }

    /// The tokens drawn for a sequence.
    pub(crate) fn drawn(&self, sequence: u64) -> TokenRow {
        self.drawn.of(sequence)
    }

    /// The tokens of its prompt that were scored.
    pub(crate) fn scored(&self, sequence: u64) -> TokenRow {
        self.scored.of(sequence)
    }

    /// Forgets the tokens of a sequence.
    pub(crate) fn forget(&mut self, sequence: u64) {
        self.drawn.0.remove(&sequence);
        self.scored.0.remove(&sequence);
    }

    /// Adds a header as it was received.
    pub(crate) fn receive(&mut self, header: PassHeader) {
        self.header_rows += header.rows.len();
        self.headers.push_back(header);
        while self.header_rows > HEADER_ROWS_MAX
            && let Some(oldest) = self.headers.pop_front()
        {
            self.header_rows -= oldest.rows.len();
        }
    }

    /// The headers with rows in the pages of a sequence, in the order of their passes: what it has
    /// from the prefix cache came with other sequences.
    pub(crate) fn headers_of(&self, sequence: u64) -> Vec<PassHeader> {
        let runs = self.headers.iter().flat_map(|header| &header.runs);
        let own = runs.filter(|run| run.sequence == sequence);
        let pages: BTreeSet<u32> = own.flat_map(|run| run.pages.iter().copied()).collect();
        let shares = |run: &SequenceRun| run.pages.iter().any(|page| pages.contains(page));
        let of_it = |header: &&PassHeader| header.runs.iter().any(shares);
        self.headers.iter().filter(of_it).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::serving::DeploymentId;
    use concord_proto::{Keypair, Origin};

    use super::super::fixtures::run;
    use super::*;

    fn row(n: u8) -> Position {
        Position {
            entered: RowInput::Token(u32::from(n)),
            left: Digest([n; 32]),
        }
    }

    fn left(log: &RowLog, pages: &[u32], count: u32) -> Vec<u8> {
        let positions = log.positions(pages, count).unwrap();
        positions
            .iter()
            .map(|position| position.left.0[0])
            .collect()
    }

    #[test]
    fn positions_are_found_over_pages_and_end_where_they_were_written_last() {
        let mut log = RowLog::new(3);
        let rows: Vec<Position> = (0..130).map(|n| row(n as u8)).collect();
        log.pass(&run(1, 0, 130, &[2, 0]), &rows);
        assert_eq!(left(&log, &[2, 0], 130)[126..], [126, 127, 128, 129]);
        assert!(log.positions(&[2, 0], 131).unwrap_err().contains("130"));
        assert!(log.positions(&[2], 129).is_err());
        assert!(log.positions(&[9], 1).is_err());
        // Another sequence takes page 2: what was behind its rows is gone.
        log.pass(&run(2, 0, 2, &[2]), &[row(7), row(8)]);
        assert_eq!(left(&log, &[2], 2), [7, 8]);
        assert!(log.positions(&[2], 3).is_err());
        // A gap can never be claimed.
        log.pass(&run(3, 5, 1, &[1]), &[row(9)]);
        assert!(log.positions(&[1], 6).is_err());
    }

    #[test]
    fn drawn_tokens_follow_each_other() {
        let mut log = RowLog::new(1);
        let token = TokenLogprob::unasked;
        for (position, id) in [(5, 50), (6, 60), (7, 70), (6, 61)] {
            log.draw(1, position, &token(id));
        }
        let row = |first, tokens: &[u32]| TokenRow {
            first,
            digests: tokens.iter().map(|id| token(*id).digest()).collect(),
        };
        assert_eq!(log.drawn(1), row(5, &[50, 61]));
        log.draw(1, 20, &token(1));
        assert_eq!(log.drawn(1), row(20, &[1]));
        log.draw(1, 3, &token(2));
        assert_eq!(log.drawn(1).first, 3);
        // A prompt that is scored anew begins anew.
        log.score(1, 1, &[token(7), token(8)]);
        log.score(1, 3, &[token(9)]);
        assert_eq!(log.scored(1), row(1, &[7, 8, 9]));
        log.score(1, 1, &[token(7)]);
        assert_eq!(log.scored(1), row(1, &[7]));
        log.forget(1);
        assert_eq!(log.drawn(1), TokenRow::default());
        assert_eq!(log.scored(1), TokenRow::default());
        let more = SEQUENCES_MAX as u64 + 10;
        (0..more).for_each(|sequence| log.draw(sequence, 0, &token(1)));
        assert_eq!(log.drawn.0.len(), SEQUENCES_MAX);
        assert_eq!(log.drawn(more - 1), row(0, &[1]));
    }

    #[test]
    fn the_newest_headers_are_kept() {
        let mut log = RowLog::new(1);
        let key = Keypair::from_secret([1; 32]);
        let header = |pass: u64| PassHeader {
            deployment: DeploymentId(Digest::default()),
            epoch: 0,
            pass,
            runs: vec![run(pass % 2, 0, 1_000, &[(pass % 2) as u32])],
            rows: vec![Digest::default(); 1_000],
            origin: Origin::sign(&key, &Digest::default()),
        };
        (0..100).for_each(|pass| log.receive(header(pass)));
        let passes = |sequence| -> Vec<u64> {
            let headers = log.headers_of(sequence);
            headers.iter().map(|header| header.pass).collect()
        };
        assert_eq!(passes(0).len() + passes(1).len(), HEADER_ROWS_MAX / 1_000);
        assert_eq!(passes(1).last(), Some(&99));
        // Sequence 7 has its first page from sequence 1.
        let mut later = header(100);
        later.runs = vec![run(7, 128, 1_000, &[1, 5])];
        log.receive(later);
        assert_eq!(log.headers_of(7).len(), 1 + HEADER_ROWS_MAX / 2_000);
    }
}
