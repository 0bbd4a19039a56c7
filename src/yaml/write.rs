//! Values written on one line.

use serde_json::Value;

use super::scalar;

/// A value in flow style, its strings plain where they stay strings: `[10.0.0.0/8, "yes"]`.
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(key, value)| format!("{}: {}", flow(&Value::String(key)), flow(value));
            let fields: Vec<_> = fields.iter().map(|(key, value)| field((key.clone(), value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// Whether a string needs no quotes anywhere, within brackets too.
fn is_plain(text: &str) -> bool {
    let is_tame = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'*');
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_tame)
        && scalar::plain(text) == Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::flow;
    use crate::yaml::parse;

    #[test]
    fn strings_are_quoted_only_where_they_would_be_something_else() {
        let value =
            json!({"a": ["kube-system", "10.0.0.0/8", "yes", "0777", "a: b", "", "*", "::/0", "x y"], "1": null});
        let text = flow(&value);
        assert_eq!(text, r#"{a: [kube-system, 10.0.0.0/8, "yes", "0777", "a: b", "", "*", "::/0", "x y"], "1": null}"#);
        assert_eq!(parse(&text).remove(0).unwrap().value(), value);
    }
}
