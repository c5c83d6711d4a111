//! What the outcome of a request means for the caller.

use hyper::StatusCode;

use crate::error::{Refusal, StoreError};

/// Characters of a service's message that are repeated.
const MESSAGE_CHARS_MAX: usize = 200;

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// It does not.
    Read,
    /// It does: an answer that is lost leaves the outcome open.
    Write,
}

/// How far a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was not sent.
    NotSent,
    /// There was no connection for it.
    NotConnected(String),
    /// It was sent, as a whole or in part, and there is no answer.
    NoAnswer(String),
    /// The answer is longer than what was asked for.
    TooLong,
    /// It was answered.
    Answered(Answer),
}

/// An answer without its body, except for what an error says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// S3's name of the error; empty where there is none.
    pub(super) code: String,
    /// What the service says about it.
    pub(super) message: String,
}

impl Answer {
    /// Of a status and the body of an answer that is no success: `<Error><Code>…</Code><Message>…</Message></Error>`
    /// (Amazon S3 API Reference, Error responses).
    pub(super) fn of_error(status: StatusCode, body: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(body);
        Answer { status, code: element(&text, "Code"), message: element(&text, "Message") }
    }

    fn text(&self) -> String {
        let words = [self.status.as_str(), &self.code, &self.message];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

fn element(text: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = text.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(inner, _)| inner);
    inner.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// The error of a request that did not succeed. `text` says what `object_store` says.
pub(super) fn error(outcome: &Outcome, intent: Intent, text: String) -> StoreError {
    let no_answer = |text: String| match intent {
        Intent::Read => StoreError::Again(text),
        Intent::Write => StoreError::Unknown(text),
    };
    match outcome {
        Outcome::NotSent => StoreError::request(text),
        Outcome::NotConnected(reason) => StoreError::Again(reason.clone()),
        // A timeout leaves no reason.
        Outcome::NoAnswer(reason) if reason.is_empty() => no_answer(text),
        Outcome::NoAnswer(reason) => no_answer(reason.clone()),
        Outcome::TooLong => {
            let text = "the answer is longer than what was asked for".to_owned();
            match intent {
                Intent::Read => StoreError::Refused(Refusal::TooLarge, text),
                Intent::Write => StoreError::Unknown(text),
            }
        }
        Outcome::Answered(answer) if answer.status.is_success() => match intent {
            Intent::Read => StoreError::Refused(Refusal::Answer, text),
            Intent::Write => StoreError::Unknown(text),
        },
        Outcome::Answered(answer) => of_answer(answer, intent, no_answer),
    }
}

fn of_answer(answer: &Answer, intent: Intent, no_answer: impl FnOnce(String) -> StoreError) -> StoreError {
    let text = answer.text();
    let refused = |refusal| StoreError::Refused(refusal, text.clone());
    match (answer.status.as_u16(), answer.code.as_str()) {
        (_, "NoSuchBucket") => refused(Refusal::Bucket),
        (_, "RequestTimeTooSkewed") => refused(Refusal::Clock),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
        | (301 | 302 | 307 | 308, _) => refused(Refusal::Region),
        (404, "NoSuchKey") => StoreError::NotFound,
        // Not of S3: another service answers there.
        (404, "") => refused(Refusal::Answer),
        (_, "ExpiredToken" | "InvalidToken") => refused(Refusal::Credentials),
        (_, "RequestTimeout") => StoreError::Again(text),
        (501, _) | (_, "NotImplemented") => refused(Refusal::Request),
        (304 | 412, _) if intent == Intent::Write => StoreError::AlreadyExists,
        (401 | 403, _) => refused(Refusal::Credentials),
        (409, _) => StoreError::Conflict(text),
        // 408: the body did not come in time.
        (408 | 429 | 503, _) => StoreError::Again(text),
        // A failure of the service, or of a proxy before it, may come after the change.
        (500.., _) => no_answer(text),
        _ => refused(Refusal::Request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, code: &str, intent: Intent) -> StoreError {
        let body = format!("<Error><Code>{code}</Code><Message>Why.</Message></Error>");
        let answer = Answer::of_error(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        error(&Outcome::Answered(answer), intent, "unused".into())
    }

    #[test]
    fn a_create_that_is_undecided_is_not_one_that_found_an_object() {
        assert_eq!(of(412, "PreconditionFailed", Intent::Write), StoreError::AlreadyExists);
        let text = "409 ConditionalRequestConflict Why.".to_owned();
        assert_eq!(of(409, "ConditionalRequestConflict", Intent::Write), StoreError::Conflict(text));
    }

    #[test]
    fn a_failure_leaves_the_outcome_of_a_write_open_and_a_busy_store_does_not() {
        for status in [500, 502, 504] {
            assert!(matches!(of(status, "InternalError", Intent::Write), StoreError::Unknown(_)), "{status}");
            assert!(matches!(of(status, "InternalError", Intent::Read), StoreError::Again(_)), "{status}");
        }
        assert!(matches!(of(503, "SlowDown", Intent::Write), StoreError::Again(_)));
        let silence = Outcome::NoAnswer(String::new());
        assert_eq!(error(&silence, Intent::Write, "late".into()), StoreError::Unknown("late".into()));
        assert_eq!(error(&silence, Intent::Read, "late".into()), StoreError::Again("late".into()));
        let refused = Outcome::NotConnected("refused".into());
        assert_eq!(error(&refused, Intent::Write, String::new()), StoreError::Again("refused".into()));
    }

    #[test]
    fn what_must_change_is_said() {
        let cases = [
            (404, "NoSuchBucket", Refusal::Bucket),
            (403, "SignatureDoesNotMatch", Refusal::Credentials),
            (403, "RequestTimeTooSkewed", Refusal::Clock),
            (400, "AuthorizationHeaderMalformed", Refusal::Region),
            (301, "PermanentRedirect", Refusal::Region),
            (416, "InvalidRange", Refusal::Request),
            (400, "ExpiredToken", Refusal::Credentials),
            (501, "NotImplemented", Refusal::Request),
        ];
        for (status, code, refusal) in cases {
            let text = format!("{status} {code} Why.");
            assert_eq!(of(status, code, Intent::Read), StoreError::Refused(refusal, text));
        }
        assert_eq!(of(404, "NoSuchKey", Intent::Read), StoreError::NotFound);
        let page = Outcome::Answered(Answer::of_error(StatusCode::NOT_FOUND, b"<html>"));
        let not_s3 = StoreError::Refused(Refusal::Answer, "404".into());
        assert_eq!(error(&page, Intent::Write, "unused".into()), not_s3);
        let no_etag = Outcome::Answered(Answer::of_error(StatusCode::OK, b""));
        assert_eq!(error(&no_etag, Intent::Write, "no ETag".into()), StoreError::Unknown("no ETag".into()));
    }

    #[test]
    fn a_body_that_is_no_error_of_s3_says_nothing() {
        for body in ["", "<html>", "<Code>", "<Code></Message>", "\u{0}<Message><Code>"] {
            let answer = Answer::of_error(StatusCode::BAD_GATEWAY, body.as_bytes());
            assert_eq!(answer.text(), "502", "{body}");
        }
        let long = format!("<Message>{}\n</Message>", "x".repeat(9000));
        let answer = Answer::of_error(StatusCode::BAD_GATEWAY, long.as_bytes());
        assert_eq!(answer.message.len(), MESSAGE_CHARS_MAX);
    }
}
