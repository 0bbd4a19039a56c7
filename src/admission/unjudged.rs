//! Answers to reviews that were not judged: too large, too late, or failed on the way.
//!
//! An answer needs the review's uid and nothing else. It is taken from the text itself, as far as
//! that came, without building the objects in it.

use serde_json::json;

use super::{Answer, Record};
use crate::rules::Action;

/// The answer to a review nobody judged: `action` says what becomes of it and `why` goes to the
/// user, one line. Nothing where the body has no uid.
pub fn unjudged(body: &[u8], action: Action, why: &str) -> Option<Answer> {
    let envelope = Envelope::find(body)?;
    Some(match action {
        Action::Deny => envelope.denied(500, "InternalError", why),
        Action::Warn => envelope.allowed(json!({ "warnings": [why] }), action),
        Action::Audit => envelope.allowed(json!({ "auditAnnotations": { "unjudged": why } }), action),
        Action::Off => envelope.allowed(json!({}), action),
    })
}

/// What an answer must repeat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    uid: String,
}

impl Envelope {
    /// Finds the uid of a review in its text, or in the start of it.
    pub(super) fn find(text: &[u8]) -> Option<Self> {
        let mut review = Members::of(text)?;
        while let Some((key, value)) = review.next_value() {
            if key != b"request" {
                review.skip_value()?;
                continue;
            }
            let mut request = Members::of(value)?;
            while let Some((key, value)) = request.next_value() {
                if key == b"uid" {
                    return Some(Self { uid: string(value).filter(|uid| !uid.is_empty())? });
                }
                request.skip_value()?;
            }
            return None;
        }
        None
    }

    pub(super) fn denied(self, code: u16, reason: &str, message: &str) -> Answer {
        let status = json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
        self.answer(false, json!({ "status": status }), Action::Deny)
    }

    fn allowed(self, response: serde_json::Value, verdict: Action) -> Answer {
        self.answer(true, response, verdict)
    }

    fn answer(self, allowed: bool, mut response: serde_json::Value, verdict: Action) -> Answer {
        if let Some(response) = response.as_object_mut() {
            response.insert("uid".to_owned(), self.uid.as_str().into());
            response.insert("allowed".to_owned(), allowed.into());
        }
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
        Answer {
            status: 200,
            body: review.to_string().into_bytes(),
            record: Record { uid: self.uid, allowed, verdict: Some(verdict), ..Record::default() },
        }
    }
}

/// Walks the members of one JSON object whose text may break off.
struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        Some(Self { rest: text.trim_ascii_start().strip_prefix(b"{")? })
    }

    /// The next key, undecoded, and the text from its value on.
    fn next_value(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let text = self.rest.trim_ascii_start();
        let text = text.strip_prefix(b",").unwrap_or(text).trim_ascii_start();
        let end = string_end(text)?;
        let key = text.get(1..end.checked_sub(1)?)?;
        let value = text.get(end..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        self.rest = value;
        Some((key, value))
    }

    /// Goes past the value that [`Self::next_value`] stopped at.
    fn skip_value(&mut self) -> Option<()> {
        let end = match self.rest.first()? {
            b'"' => string_end(self.rest)?,
            b'{' | b'[' => nested_end(self.rest)?,
            _ => self.rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']'))?,
        };
        self.rest = self.rest.get(end..)?;
        Some(())
    }
}

/// Where the string at the start of a text ends, quotes included.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut bytes = text.iter().enumerate();
    if *bytes.next()?.1 != b'"' {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next()?;
            }
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Where the object or list at the start of a text ends, brackets included.
fn nested_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => {
                at += string_end(text.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The string at the start of a text.
fn string(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text.get(..string_end(text)?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(text: &str) -> Option<String> {
        Envelope::find(text.as_bytes()).map(|envelope| envelope.uid)
    }

    #[test]
    fn the_uid_is_found_wherever_it_stands() {
        let found = Some("u-1".to_owned());
        assert_eq!(uid(r#"{"request":{"uid":"u-1"}}"#), found);
        assert_eq!(uid(r#" { "kind" : "AdmissionReview" , "request" : { "dryRun" : false , "uid" : "u-1" "#), found);
        assert_eq!(
            uid(r#"{"a":[{"uid":"no"},"]}\"",1.5],"request":{"object":{"uid":"no"},"n":null,"uid":"u-1""#),
            found
        );
        assert_eq!(uid(r#"{"request":{"uid":"u\u002d1"}}"#), found);
    }

    #[test]
    fn only_the_uid_of_the_request_counts() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"uid":"no"}"#,
            r#"{"request":null,"uid":"no"}"#,
            r#"{"request":{"object":{"metadata":{"uid":"no"}}}}"#,
            r#"{"response":{"uid":"no"}}"#,
            r#"{"request":{"uid":""}}"#,
            r#"{"request":{"uid":7}}"#,
            r#"{"request":{"uid":"cut off"#,
        ] {
            assert_eq!(uid(text), None, "{text}");
        }
    }

    #[test]
    fn the_action_decides_what_becomes_of_it() {
        let response = |action: Action| {
            let answer = unjudged(br#"{"request":{"uid":"u-1"}}"#, action, "too late").unwrap();
            assert_eq!((answer.record.verdict, answer.record.uid.as_str()), (Some(action), "u-1"));
            let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["response"]["allowed"], answer.record.allowed);
            body["response"].take()
        };
        assert_eq!(
            response(Action::Deny),
            json!({ "uid": "u-1", "allowed": false, "status": {
                "status": "Failure", "code": 500, "reason": "InternalError", "message": "too late" } })
        );
        assert_eq!(response(Action::Warn), json!({ "uid": "u-1", "allowed": true, "warnings": ["too late"] }));
        assert_eq!(
            response(Action::Audit),
            json!({ "uid": "u-1", "allowed": true, "auditAnnotations": { "unjudged": "too late" } })
        );
        assert_eq!(response(Action::Off), json!({ "uid": "u-1", "allowed": true }));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\uid request"#.to_vec()), 0..80)) {
            Envelope::find(&bytes);
        }

        #[test]
        fn the_scan_and_a_parser_agree(before in json_value(), uid in "[a-z\"\\\\]{1,8}") {
            let text = json!({ "aaa": before, "request": { "aaa": before, "uid": uid } }).to_string();
            prop_assert_eq!(Envelope::find(text.as_bytes()).map(|envelope| envelope.uid), Some(uid));
        }
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a-z{}\\[\\]\"\\\\:,]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z\"]{1,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
