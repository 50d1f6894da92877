//! A conversation in the words of a chat template, and which of its tokens are learnt.
//!
//! A template may mark what the assistant says (`{% generation %}`). For one that does not, the
//! part of a turn that is learnt is found from what the model would see at that point:
//!
//! * It begins where the prompt for an answer ends: the turns before are rendered alone, with that
//!   prompt, and what stands behind the last of them there must stand there in the whole
//!   conversation, too, up to the answer. What follows of it is what the model has to write, such
//!   as the words that a template puts in front of a thought.
//! * It ends with the token that ends the turn: the first control token behind the message's own
//!   text, before the next message.
//!
//! Where each message stands is known: letters of a rendered conversation remember from which
//! message they are ([`concord_text::RenderedChat::message`]).

use std::ops::Range;

use concord_text::{ChatTemplate, RenderedChat};
use serde_json::{Map, Value};

use crate::conversation::Conversation;
use crate::error::DataError;
use crate::example::Example;
use crate::maker::ExampleMaker;
use crate::rows::Row;
use crate::source::TrainedEnds;

/// A token, and the bytes of the text that it stands for.
type PlacedToken = (u32, Range<usize>);

/// The example of a conversation.
pub(crate) fn example(
    maker: &ExampleMaker,
    row: &Row,
    conversation: &Conversation,
) -> Result<Example, DataError> {
    let turns = Turns {
        maker,
        template: maker.template()?,
        row,
        conversation,
    };
    let whole = turns.rendered(conversation.messages.len(), false)?;
    let tokens = maker.tokenizer.encode_chat_placed(&whole, false);
    let tokens = tokens.map_err(|error| row.fail(error.to_string()))?;
    let spans = match maker.source.train_on_inputs {
        true => std::iter::once(0..whole.text().len()).collect(),
        false => turns.learnt(&whole, &tokens)?,
    };
    let mut example = Example::of_spans(tokens, &spans);
    example.shortened = turns.shortened(&whole);
    match example.trained() {
        0 => Err(row.fail("the chat template leaves nothing of it to learn; remove the row")),
        _ => Ok(example),
    }
}

struct Turns<'a> {
    maker: &'a ExampleMaker<'a>,
    template: &'a ChatTemplate,
    row: &'a Row<'a>,
    conversation: &'a Conversation,
}

impl Turns<'_> {
    /// The first messages, as the template writes them.
    fn rendered(&self, count: usize, asks: bool) -> Result<RenderedChat, DataError> {
        let messages = self.conversation.messages[..count].iter();
        let messages: Vec<Value> = messages.cloned().map(Value::Object).collect();
        let variables: &Map<String, Value> = &self.maker.source.template_variables;
        let tools = self.conversation.tools.as_ref();
        let rendered = self
            .template
            .render(&Value::Array(messages), tools, asks, variables);
        rendered.map_err(|error| self.row.fail(error.to_string()))
    }

    /// The parts that are learnt, in their order.
    fn learnt(
        &self,
        whole: &RenderedChat,
        tokens: &[PlacedToken],
    ) -> Result<Vec<Range<usize>>, DataError> {
        let places = self.places(whole)?;
        let marks = match self
            .template
            .marks_answers(self.conversation.tools.is_some())
        {
            true => Some(self.marked(whole, &places)?),
            false => None,
        };
        let ends = self.maker.source.train_on_eos;
        let (count, mut spans) = (places.len(), Vec::new());
        for (index, place) in places.iter().enumerate() {
            let is_learnt = self.conversation.learnt[index];
            let is_said = self.conversation.messages[index]["role"] == "assistant";
            if let (Some(marks), true) = (&marks, is_said) {
                let own = marks.iter().filter(|(of, _)| is_learnt && *of == index);
                let own: Vec<&Range<usize>> = own.map(|(_, mark)| mark).collect();
                self.check_marked_end(whole, tokens, (index, place.as_ref()), &own)?;
                own.iter().for_each(|mark| add(&mut spans, (*mark).clone()));
                continue;
            }
            let ends_turn = match ends {
                TrainedEnds::Turn => is_learnt,
                TrainedEnds::All => true,
                TrainedEnds::Last => index + 1 == count,
                TrainedEnds::None => false,
            };
            if !is_learnt && !ends_turn {
                continue;
            }
            let next = places[index + 1..].iter().flatten().next();
            let until = next.map_or(whole.text().len(), |next| next.start);
            let Some(place) = place else {
                // A turn without text of its own, such as an empty one of the user.
                continue;
            };
            let end = self.end(tokens, place.end, until);
            if is_learnt {
                let start = match is_said {
                    true => self.start(whole, &places, index)?,
                    false => place.start,
                };
                let stop = end.as_ref().map_or(place.end, |end| end.start);
                add(&mut spans, start..stop);
            }
            match end {
                Some(end) if ends_turn => add(&mut spans, end),
                None if ends_turn && is_learnt => return Err(self.no_end(index)),
                _ => {}
            }
        }
        Ok(spans)
    }

    /// How many messages take less room in the text than their own text has, so that something of
    /// them is not in it.
    fn shortened(&self, whole: &RenderedChat) -> u32 {
        let messages = self.conversation.messages.iter().enumerate();
        let is_short = |(index, message): (usize, &Map<String, Value>)| {
            let content = message.get("content").and_then(Value::as_str);
            let own = content.unwrap_or_default().trim().len();
            let there = whole.message(index).map_or(0, |place| place.len());
            there < own
        };
        messages.filter(|message| is_short(*message)).count() as u32
    }

    /// Where the text of each message stands; `None` for one that left none.
    fn places(&self, whole: &RenderedChat) -> Result<Vec<Option<Range<usize>>>, DataError> {
        let count = self.conversation.messages.len();
        if count > RenderedChat::MESSAGES_MAX {
            return Err(self.row.fail(format!(
                "it has {count} messages, and at most {} are read; split the row",
                RenderedChat::MESSAGES_MAX
            )));
        }
        let places: Vec<Option<Range<usize>>> = (0..count).map(|at| whole.message(at)).collect();
        let mut end = 0;
        for (index, place) in places.iter().enumerate() {
            let is_learnt = self.conversation.learnt[index];
            match place {
                Some(place) if place.start >= end => end = place.end,
                Some(_) => {
                    return Err(self.row.fail(format!(
                        "the chat template writes message {index} before the end of another one, \
                         so what is learnt of them cannot be told apart; take a template that \
                         marks answers with {{% generation %}}, or set `train_on_inputs: true`"
                    )));
                }
                None if is_learnt => {
                    return Err(self.row.fail(format!(
                        "the chat template leaves message {index} out, which is to be learnt; \
                         remove it, or take another template"
                    )));
                }
                None => {}
            }
        }
        Ok(places)
    }

    /// The parts that the template marks, each with its message.
    fn marked(
        &self,
        whole: &RenderedChat,
        places: &[Option<Range<usize>>],
    ) -> Result<Vec<(usize, Range<usize>)>, DataError> {
        if self.maker.source.train_on_eos != TrainedEnds::Turn {
            return Err(self.maker.source.fail(
                "`train_on_eos` has no effect, because the chat template marks what is learnt with \
                 {% generation %}; remove it",
            ));
        }
        let of = |mark: &Range<usize>| {
            let touches = |place: &Range<usize>| place.start < mark.end && place.end > mark.start;
            places
                .iter()
                .position(|place| place.as_ref().is_some_and(touches))
        };
        // A mark that holds no message's text is of the turn that follows or precedes; nothing
        // says which, and nothing of it was said by anyone.
        let marks = whole.generated().iter();
        Ok(marks
            .filter_map(|mark| Some((of(mark)?, mark.clone())))
            .collect())
    }

    /// The token that ends a turn, between the end of its text and the next one's: by its place.
    fn end(&self, tokens: &[PlacedToken], from: usize, until: usize) -> Option<Range<usize>> {
        let between = |(_, place): &&PlacedToken| place.start >= from && place.end <= until;
        let is_end = |(id, _): &&PlacedToken| self.maker.ends.contains(id);
        let is_control = |(id, _): &&PlacedToken| self.maker.tokenizer.is_special(*id);
        let first = tokens.partition_point(|(_, place)| place.start < from);
        let behind = || {
            tokens[first..]
                .iter()
                .take_while(|(_, place)| place.start < until)
        };
        let found = behind().filter(between).find(is_end);
        let found = found.or_else(|| behind().filter(between).find(is_control));
        found.map(|(_, place)| place.clone())
    }

    /// What is marked behind an answer's own text ends it: words there that hold no control token
    /// would be learnt as a text that the tuned model goes on to write.
    fn check_marked_end(
        &self,
        whole: &RenderedChat,
        tokens: &[PlacedToken],
        (index, place): (usize, Option<&Range<usize>>),
        marks: &[&Range<usize>],
    ) -> Result<(), DataError> {
        let (Some(place), Some(last)) = (place, marks.last()) else {
            return Ok(());
        };
        let behind = whole.text().get(place.end..last.end).unwrap_or_default();
        if behind.trim().is_empty() || self.end(tokens, place.end, last.end).is_some() {
            return Ok(());
        }
        Err(self.row.fail(format!(
            "the chat template ends message {index} with {:?}, which has no control token of this \
             tokenizer, so the tuned model would not know where to stop; take a template that is \
             of this model",
            behind.trim()
        )))
    }

    /// Where the learnt part of an assistant's turn begins: see the top of this file.
    fn start(
        &self,
        whole: &RenderedChat,
        places: &[Option<Range<usize>>],
        index: usize,
    ) -> Result<usize, DataError> {
        let own = places[index].as_ref().map_or(0, |place| place.start);
        let asked = self.rendered(index, true)?;
        let last = |ends: &mut dyn Iterator<Item = usize>| ends.max().unwrap_or(0);
        let before = last(&mut places[..index].iter().flatten().map(|place| place.end));
        let ends = (0..index).filter_map(|at| asked.message(at));
        let behind = last(&mut ends.map(|place| place.end));
        let (prompt, gap) = (&asked.text()[behind..], &whole.text()[before..own]);
        let same = common(prompt, gap);
        // Of a prompt that begins a thought, an answer without one has the beginning alone.
        match same < prompt.len().min(gap.len()) {
            true => Err(self.row.fail(format!(
                "the chat template writes other words in front of message {index} when the \
                 conversation goes on than when it asks for an answer, so what is learnt of it is \
                 not known; take a template that marks answers with {{% generation %}}, or set \
                 `train_on_inputs: true`"
            ))),
            false => Ok(before + same),
        }
    }

    fn no_end(&self, index: usize) -> DataError {
        self.row.fail(format!(
            "the chat template ends message {index} with no control token, so the tuned model \
             would not know where to stop; take a template that does, or set `train_on_eos: none`"
        ))
    }
}

/// Adds a part behind all others; one that follows the last without a gap becomes one with it,
/// since a token may stand for nothing between the two.
fn add(spans: &mut Vec<Range<usize>>, span: Range<usize>) {
    match spans.last_mut() {
        Some(last) if last.end == span.start => last.end = span.end,
        _ => spans.push(span),
    }
}

/// The bytes that two texts begin with alike, up to the end of a character.
fn common(a: &str, b: &str) -> usize {
    let pairs = a.char_indices().zip(b.chars());
    let same = pairs.take_while(|((_, x), y)| x == y);
    same.last().map_or(0, |((at, x), _)| at + x.len_utf8())
}
