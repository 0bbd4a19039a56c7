//! Values as a person writes them into the configuration, refused where they would silently mean
//! something else or nothing.
//!
//! An error has two lines: what is wrong, and what to do.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error};

use super::Str;

/// A range of addresses, written by its first address.
pub fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Range(IpNet);
    impl<'de> Deserialize<'de> for Range {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let range: IpNet = text.parse().map_err(|_| {
                D::Error::custom(format!("`{text}` is no range of addresses\nwrite one as `10.0.0.0/8` or `fd00::/8`"))
            })?;
            if range != range.trunc() {
                return Err(D::Error::custom(format!(
                    "`{text}` has bits set behind its prefix\nwrite `{}` for the range, or `{}/{}` for the one address",
                    range.trunc(),
                    range.addr(),
                    range.max_prefix_len()
                )));
            }
            Ok(Self(range))
        }
    }
    Ok(Vec::<Range>::deserialize(deserializer)?.into_iter().map(|Range(range)| range).collect())
}

/// The name of a namespace or a Service.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Str, D::Error> {
    let name = Str::deserialize(deserializer)?;
    if is_label(&name) {
        return Ok(name);
    }
    Err(D::Error::custom(format!(
        "`{name}` is not a name Kubernetes takes here\na name is made of lower-case letters, digits and `-`, 63 at most"
    )))
}

/// A name that may be left out.
pub fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Str>, D::Error> {
    struct Name(Str);
    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            name(deserializer).map(Self)
        }
    }
    Ok(Option::<Name>::deserialize(deserializer)?.map(|Name(name)| name))
}

/// Names of namespaces, or how their names begin, with a `*` behind it.
pub fn name_patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Pattern(String);
    impl<'de> Deserialize<'de> for Pattern {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let start = text.strip_suffix('*');
            let problem = match start {
                Some("") => {
                    "`*` exempts every namespace\nto judge without denying write `mode: audit`; to switch a rule off set its `action`"
                        .to_owned()
                }
                _ if start.unwrap_or(&text).contains('*') => format!(
                    "`{text}` has a `*` that is not its end\nwrite a name, or the beginning of one and a `*`: `team-*`"
                ),
                // The beginning of a name may end in a dash.
                Some(start) if is_label(start.strip_suffix('-').unwrap_or(start)) => return Ok(Self(text)),
                None if is_label(&text) => return Ok(Self(text)),
                _ => format!(
                    "`{text}` is no namespace's name\na name is made of lower-case letters, digits and `-`, 63 at most"
                ),
            };
            Err(D::Error::custom(problem))
        }
    }
    Ok(Vec::<Pattern>::deserialize(deserializer)?.into_iter().map(|Pattern(text)| text).collect())
}

/// A list that nothing would follow from if it were empty.
pub fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let items = Vec::deserialize(deserializer)?;
    if items.is_empty() {
        return Err(D::Error::custom(
            "the list is empty, so the rule would find nothing\nleave the field out for the default; `action: \"off\"` switches the rule off",
        ));
    }
    Ok(items)
}

/// Sets of labels, none of them without one: it would be on every pod, or on none.
pub fn label_sets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BTreeMap<String, String>>, D::Error> {
    struct Set(BTreeMap<String, String>);
    impl<'de> Deserialize<'de> for Set {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let labels = BTreeMap::deserialize(deserializer)?;
            if labels.is_empty() {
                return Err(D::Error::custom(
                    "no label is named, so no pod is meant\nname at least one: `{app: egress-gateway}`",
                ));
            }
            Ok(Self(labels))
        }
    }
    Ok(Vec::<Set>::deserialize(deserializer)?.into_iter().map(|Set(labels)| labels).collect())
}

/// RFC 1123.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}
