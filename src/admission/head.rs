//! What a review says of itself before its objects: enough to answer it without judging it, and to
//! know whose share of the gate it takes.
//!
//! It is taken from the text itself, as far as that came, without building the objects in it.

use std::borrow::Cow;

/// The longest field of a head. All that an API server writes is shorter by far, and an answer repeats
/// some of it: a client that chooses it does not choose how long its answer is.
pub(super) const LONGEST: usize = 1024;

/// The head of a review. An API server writes all of this before the objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// `request.uid`, never empty: without it no answer can be given.
    pub uid: Cow<'a, str>,
    /// `request.kind.group`.
    pub group: Cow<'a, str>,
    /// `request.kind.kind`.
    pub kind: Cow<'a, str>,
    /// `request.name`; empty where the object is given its name by the API server.
    pub name: Cow<'a, str>,
    /// `request.namespace`; of a Namespace, its own name; empty for other cluster-scoped kinds.
    pub namespace: Cow<'a, str>,
    /// `request.operation`.
    pub operation: Cow<'a, str>,
    /// `request.userInfo.username`.
    pub username: Cow<'a, str>,
}

impl<'a> Head<'a> {
    /// Finds the head of a review in its text, or in the start of it; nothing where it has no uid.
    pub fn find(text: &'a [u8]) -> Option<Self> {
        let mut review = Members::of(text)?;
        while let Some((key, value)) = review.next_value() {
            if key == b"request" {
                let head = Self::of_request(value)?;
                return (!head.uid.is_empty()).then_some(head);
            }
            review.skip_value()?;
        }
        None
    }

    fn of_request(request: &'a [u8]) -> Option<Self> {
        let mut head = Self::default();
        let mut request = Members::of(request)?;
        while let Some((key, value)) = request.next_value() {
            match key {
                b"uid" => head.uid = string(value)?,
                b"name" => head.name = string(value).unwrap_or_default(),
                b"namespace" => head.namespace = string(value).unwrap_or_default(),
                b"operation" => head.operation = string(value).unwrap_or_default(),
                b"kind" => {
                    head.group = member(value, b"group").unwrap_or_default();
                    head.kind = member(value, b"kind").unwrap_or_default();
                }
                b"userInfo" => head.username = member(value, b"username").unwrap_or_default(),
                // The objects are most of the text, and an API server has said all by then.
                b"object" | b"oldObject" if head.is_whole() => break,
                _ => {}
            }
            if request.skip_value().is_none() {
                break;
            }
        }
        Some(head)
    }

    /// Whether it has all that every review has.
    fn is_whole(&self) -> bool {
        ![&self.uid, &self.kind, &self.operation, &self.username].iter().any(|field| field.is_empty())
    }
}

/// A member of the object at the start of a text that is a string.
fn member<'a>(text: &'a [u8], name: &[u8]) -> Option<Cow<'a, str>> {
    let mut members = Members::of(text)?;
    while let Some((key, value)) = members.next_value() {
        if key == name {
            return string(value);
        }
        members.skip_value()?;
    }
    None
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

/// The string at the start of a text, where one is there, whole, and no longer than [`LONGEST`].
fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    let quoted = text.get(..string_end(text)?).filter(|quoted| quoted.len() <= LONGEST)?;
    if quoted.contains(&b'\\') {
        return serde_json::from_slice(quoted).ok().map(Cow::Owned);
    }
    std::str::from_utf8(quoted.get(1..quoted.len().checked_sub(1)?)?).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn uid(text: &str) -> Option<String> {
        Head::find(text.as_bytes()).map(|head| head.uid.into_owned())
    }

    /// A head as an API server writes it, before the objects.
    const WRITTEN: &str = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","kind":{"group":"apps","version":"v1","kind":"Deployment"},"resource":{"group":"apps","version":"v1","resource":"deployments"},"requestKind":{"group":"apps","version":"v1","kind":"Deployment"},"name":"cart","namespace":"shop","operation":"UPDATE","userInfo":{"username":"system:serviceaccount:ci:\u0064eployer","groups":["a"]},"object":"#;

    #[test]
    fn all_of_it_is_found_before_the_objects() {
        let head = Head::find(WRITTEN.as_bytes()).unwrap();
        let Head { uid, group, kind, name, namespace, operation, username } = &head;
        assert_eq!([uid, group, kind], ["u-1", "apps", "Deployment"]);
        assert_eq!([name, namespace, operation], ["cart", "shop", "UPDATE"]);
        assert_eq!(username, "system:serviceaccount:ci:deployer");
        let text = format!(r#"{WRITTEN}{{"namespace":"other"}},"namespace":"other"}}}}"#);
        assert_eq!(Head::find(text.as_bytes()), Some(head), "nothing is read past the objects");
    }

    #[test]
    fn in_another_order_it_is_found_behind_them() {
        let text = r#"{"request":{"kind":{"kind":"Pod"},"object":{"namespace":"no"},"namespace":"shop","uid":"u-1"}}"#;
        let head = Head::find(text.as_bytes()).unwrap();
        assert_eq!([head.namespace, head.uid, head.group], ["shop", "u-1", ""]);
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
    fn a_field_that_no_api_server_writes_is_not_repeated() {
        let long = "a".repeat(LONGEST);
        assert_eq!(uid(&format!(r#"{{"request":{{"uid":"{long}"}}}}"#)), None);
        let text = format!(r#"{{"request":{{"uid":"u-1","namespace":"{long}","kind":{{"kind":"{long}"}}}}}}"#);
        let head = Head::find(text.as_bytes()).unwrap();
        assert_eq!([head.namespace, head.kind], ["", ""]);
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

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\uid request"#.to_vec()), 0..80)) {
            Head::find(&bytes);
        }

        #[test]
        fn the_scan_and_a_parser_agree(before in json_value(), uid in "[a-z\"\\\\]{1,8}") {
            let text = json!({ "aaa": before, "request": { "aaa": before, "uid": uid } }).to_string();
            prop_assert_eq!(self::uid(&text), Some(uid));
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
