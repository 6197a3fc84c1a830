//! A whole log line.

use super::{
    MASK,
    buffer::copy,
    report,
    sql::{self, Also},
    taint::Taint,
    text,
};
use std::borrow::Cow;

/// What the server is about to log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line<'a> {
    /// Raised by this extension, whose texts hold no values.
    pub ours: bool,
    /// A function that values go through has run in this statement: raised texts of the host's code
    /// may hold what it was given or returned, in any shape.
    pub ran: bool,
    /// The statement has parameters that could not be read.
    pub unknown_parameters: bool,
    /// SQLSTATE.
    pub state: [u8; 5],
    /// The format that the message was made from, untranslated.
    pub format: &'a [u8],
    /// The message.
    pub message: Option<&'a [u8]>,
    /// DETAIL for the client, and for the log where there is none of its own.
    pub detail: Option<&'a [u8]>,
    /// DETAIL for the log.
    pub detail_log: Option<&'a [u8]>,
    /// HINT.
    pub hint: Option<&'a [u8]>,
    /// CONTEXT.
    pub context: Option<&'a [u8]>,
    /// QUERY: a statement of a function, that failed to parse.
    pub internal_query: Option<&'a [u8]>,
    /// STATEMENT.
    pub statement: Option<&'a [u8]>,
    /// Character of the statement, counted from 1; 0 is none.
    pub position: usize,
    /// Character of the internal query.
    pub internal_position: usize,
    /// The statement's parameters, as far as they were read.
    pub parameters: &'a [Cow<'a, [u8]>],
}

/// The line as it may be logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskedLine {
    /// The message.
    pub message: Option<Vec<u8>>,
    /// DETAIL.
    pub detail: Option<Vec<u8>>,
    /// DETAIL for the log.
    pub detail_log: Option<Vec<u8>>,
    /// HINT.
    pub hint: Option<Vec<u8>>,
    /// CONTEXT.
    pub context: Option<Vec<u8>>,
    /// QUERY.
    pub internal_query: Option<Vec<u8>>,
    /// STATEMENT.
    pub statement: Option<Vec<u8>>,
    /// Character of the masked statement; 0 is none.
    pub position: usize,
    /// Character of the masked internal query.
    pub internal_position: usize,
}

impl Line<'_> {
    /// Masks what may be a value.
    pub fn mask(&self) -> MaskedLine {
        let mut taint = Taint::default();
        for statement in [self.statement, self.internal_query].into_iter().flatten() {
            taint.add_statement(statement);
        }
        self.parameters.iter().for_each(|value| taint.add(value));
        taint.sort();
        let known = &taint;
        let clean = |text: Vec<u8>| known.remove_from(&text);

        let raised = self.is_raised();
        let hidden = raised && (self.ran || self.unknown_parameters);
        type Mask = fn(&[u8], &Taint) -> Vec<u8>;
        let free = |text: &[u8], mask: Mask| match (self.ours, hidden) {
            (true, _) => None,
            (_, true) => Some(MASK.to_vec()),
            _ => Some(mask(text, known)),
        };
        let part = |text: Option<&[u8]>, mask: Mask| {
            text.map(|text| free(text, mask).map_or_else(|| copy(text), clean))
        };
        let at_data: Mask = |text, known| text::cut(text, text::STOPS, known);
        let at_quotations: Mask = |text, known| text::cut(text, b"", known);
        let detail = if raised { at_data } else { text::detail };
        let hint = if raised { at_data } else { at_quotations };

        let mut masked = MaskedLine {
            detail: part(self.detail, detail),
            detail_log: part(self.detail_log, detail),
            hint: part(self.hint, hint),
            ..MaskedLine::default()
        };
        masked.message = self.message.map(|message| {
            if self.ours {
                return copy(message);
            }
            if let Some(report) = report::message(message, self.format, self.statement, known) {
                return report;
            }
            if hidden {
                return MASK.to_vec();
            }
            let by_format = if raised {
                text::cut(message, b"", known)
            } else if self.names_only_objects() {
                copy(message)
            } else {
                text::message(message, self.format, known)
            };
            clean(by_format)
        });
        // Lists of parameters are masked already; known values may be anywhere else.
        masked.context = self.context.map(|context| clean(text::context(context, known)));

        let also = self.repeated();
        let (statement, position) = mask_statement(self.statement, self.position, also);
        let (query, internal) = mask_statement(self.internal_query, self.internal_position, also);
        MaskedLine {
            statement,
            position,
            internal_query: query,
            internal_position: internal,
            ..masked
        }
    }

    /// Whether the message was given whole, as RAISE, foreign servers and other languages do: then
    /// nothing is known about it.
    fn is_raised(&self) -> bool {
        if report::carries_statement(self.format) {
            return false;
        }
        let mut bytes = self.format.iter();
        while let Some(byte) = bytes.next() {
            if *byte == b'%' {
                // The conversion ends at its letter: %s, %ld, %.*s.
                bytes.by_ref().find(|byte| byte.is_ascii_alphabetic() && **byte != b'l');
            } else if byte.is_ascii_alphabetic() {
                return false;
            }
        }
        true
    }

    /// Whether what messages of this SQLSTATE have in quotes are names of tables and constraints, or
    /// of nothing that comes from a statement.
    fn names_only_objects(&self) -> bool {
        matches!(&self.state[..2], b"23" | b"25" | b"40" | b"53" | b"55" | b"57")
            || &self.state == b"42501"
    }

    /// The part of the statement that the message repeats in double quotes.
    fn repeated(&self) -> Also<'_> {
        if self.ours || self.names_only_objects() || &self.state == b"00000" {
            return Also::default();
        }
        Also {
            quoted: self.message.and_then(text::quotation),
            unquoted: &self.state == b"42703",
            ..Also::default()
        }
    }
}

fn mask_statement(
    statement: Option<&[u8]>,
    position: usize,
    also: Also,
) -> (Option<Vec<u8>>, usize) {
    // A place in a statement that is not logged says nothing of it.
    let Some(statement) = statement else { return (None, position) };
    let (masked, position) = sql::mask_at(statement, also, position);
    (Some(masked), position)
}
