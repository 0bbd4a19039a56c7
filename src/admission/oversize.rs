//! The answer to a review that is larger than any an API server sends.
//!
//! A plain `413` would let the request through where the webhook's `failurePolicy` is `Ignore`, so
//! a denial is made of what came before the limit: the uid stands near the start.

use super::{Answer, Head};

/// A denial of a review of which only the start was kept; nothing where no uid is in it.
pub fn too_large(prefix: &[u8]) -> Option<Answer> {
    let message = "the request is larger than 7 MiB, so it was not judged: split the object";
    Some(Head::find(prefix)?.too_large(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_denied_by_the_uid_at_its_start() {
        let start =
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","kind":{"gro"#;
        let answer = too_large(start).unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.record.allowed);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["response"]["uid"], "u-1");
        assert_eq!(body["response"]["allowed"], false);
        assert_eq!(body["response"]["status"]["code"], 413);
        assert_eq!(body["response"]["status"]["reason"], "RequestEntityTooLarge");
    }

    #[test]
    fn without_a_uid_there_is_no_denial() {
        assert!(too_large(br#"{"kind":"AdmissionReview","request":{"object":{"spec":"aaaa"#).is_none());
    }
}
