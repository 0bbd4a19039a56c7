//! What a plain scalar is: a number, a truth value, null or a string.
//!
//! The answer is go-yaml v2's, which `kubectl` and the API server have always used: YAML 1.1 truth
//! values (`yes`, `on`, `y`), octal both as `0777` and `0o777`, underscores in numbers, and no
//! sexagesimals. The table in the tests was printed by sigs.k8s.io/yaml 1.6.

use serde_json::{Number, Value};

/// A scalar with a tag that does not fit its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// A plain scalar without a tag. Fails for infinities and NaN, which JSON cannot hold.
pub(super) fn plain(text: &str) -> Result<Value, Misfit> {
    if let Some(value) = word(text)? {
        return Ok(value);
    }
    let value = match text.as_bytes().first() {
        Some(b'.') => float(text),
        Some(b'+' | b'-' | b'0'..=b'9') => number(&text.replace('_', "")),
        _ => None,
    };
    Ok(value.unwrap_or_else(|| Value::String(text.to_owned())))
}

/// A scalar with a tag of the YAML core (`int` of `!!int`), in whatever style it is written.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Value, Misfit> {
    let fits =
        |fit: fn(&Value) -> bool| plain(text).and_then(|value| if fit(&value) { Ok(value) } else { Err(Misfit) });
    match tag {
        "null" => fits(Value::is_null),
        "bool" => fits(Value::is_boolean),
        "int" => fits(|value| value.is_i64() || value.is_u64()),
        "float" => fits(Value::is_number),
        "binary" => Err(Misfit),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn word(text: &str) -> Result<Option<Value>, Misfit> {
    Ok(Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => return Err(Misfit),
        _ => return Ok(None),
    }))
}

/// A number from which the underscores were taken out.
fn number(text: &str) -> Option<Value> {
    integer(text).or_else(|| float(text)).or_else(|| {
        // go-yaml takes a sign behind the prefix of a binary number too.
        let signed = text.strip_prefix("0b")?;
        digits(signed.strip_prefix(['+', '-']).unwrap_or(signed), 2)?;
        i64::from_str_radix(signed, 2).ok().map(Value::from)
    })
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Value> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => ("-", text.get(1..)?),
        b'+' => ("+", text.get(1..)?),
        _ => ("", text),
    };
    let (base, body) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, unsigned.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, unsigned.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, unsigned.get(2..)?),
        [b'0', _, ..] => (8, unsigned.get(1..)?),
        _ => (10, unsigned),
    };
    digits(body, base)?;
    if let Ok(value) = i64::from_str_radix(&format!("{sign}{body}"), base) {
        return Some(Value::from(value));
    }
    if sign.is_empty() { u64::from_str_radix(body, base).ok().map(Value::from) } else { None }
}

fn digits(text: &str, base: u32) -> Option<()> {
    (!text.is_empty() && text.chars().all(|c| c.is_digit(base))).then_some(())
}

/// A decimal float: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and finite.
fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty());
    let exponent_reads = exponent.is_none_or(|exponent| {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !unsigned.is_empty() && all_digits(unsigned)
    });
    if !has_digits || !all_digits(whole) || !fraction.is_none_or(all_digits) || !exponent_reads {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then(|| json_number(value))
}

/// A float as it reads once it went through JSON, which is how it reaches the API server: Go prints
/// one without a fraction as an integer, up to 1e21.
fn json_number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number within 2^53 is exact in both types")]
        let whole = value as i64;
        return Value::from(whole);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_read_as_go_yaml_reads_them() {
        // Left what is written, right the JSON that sigs.k8s.io/yaml 1.6.0 makes of it.
        let table: &[(&[&str], Value)] = &[
            (&["yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "true", "True", "TRUE"], json!(true)),
            (&["no", "No", "NO", "off", "Off", "OFF", "n", "N", "false", "False", "FALSE"], json!(false)),
            (&["", "~", "null", "Null", "NULL"], json!(null)),
            (&["0777", "0o777", "0O777", "+0777"], json!(511)),
            (&["0x1F", "0X1f", "+0x1f", "0x1_F"], json!(31)),
            (&["-0x1F"], json!(-31)),
            (&["0b101", "+5", "5.", "5"], json!(5)),
            (&["-0b11", "0b-11"], json!(-3)),
            (&["-0o7", "-07"], json!(-7)),
            (&["0_7", "0o_7"], json!(7)),
            (&["1_000", "1e3", "1e+3", "+1e3", "1.e3", "1_e3"], json!(1000)),
            (&["09"], json!(9)),
            (&["0128"], json!(128)),
            (&["-0128"], json!(-128)),
            (&["08.5"], json!(8.5)),
            (&[".5", "+.5"], json!(0.5)),
            (&["-.5", "-.5_"], json!(-0.5)),
            (&["1.5"], json!(1.5)),
            (&["1.10"], json!(1.1)),
            (&["1.0", "1_", "0.1e1", "1.", "0x_1"], json!(1)),
            (&["6._5"], json!(6.5)),
            (&["1E-3"], json!(0.001)),
            (&["685_230.15", "685.230_15e+03"], json!(685_230.15)),
            (&["0", "00", "-0", "0.0", "0e0", "-0.0"], json!(0)),
            (&["9223372036854775807"], json!(i64::MAX)),
            (&["9223372036854775808"], json!(9_223_372_036_854_775_808_u64)),
            (&["18446744073709551615", "0xFFFFFFFFFFFFFFFF", "01777777777777777777777"], json!(u64::MAX)),
            (&["-9223372036854775808"], json!(i64::MIN)),
            (&["1e100"], json!(1e100)),
        ];
        for (texts, value) in table {
            for text in *texts {
                assert_eq!(plain(text).as_ref(), Ok(value), "{text}");
            }
        }
        let strings = [
            "tRue",
            "yEs",
            "nULL",
            "0b2",
            "_1",
            "0x",
            "0o",
            "0b",
            ".",
            "1e",
            "1.5e",
            "+",
            "-",
            "--1",
            "+-1",
            "0o-7",
            "0x-1",
            "0x+1",
            "-0b-11",
            "0x1p3",
            "inf",
            "Infinity",
            "nan",
            "NaN",
            "190:20:30",
            "12:30",
            "1:2",
            "2001-01-01",
            "2001-01-01T00:00:00Z",
            "1e400",
            "._5",
            "_.5",
            "__1",
            "1 2",
            "=",
            "<<",
            "0x10000000000000000",
            "1e2147483648",
            "ja",
            "10.0.0.0/8",
            "1.2.3",
        ];
        for text in strings {
            assert_eq!(plain(text), Ok(json!(text)), "{text}");
        }
        for text in [".inf", "-.Inf", "+.INF", ".nan", ".NaN"] {
            assert_eq!(plain(text), Err(Misfit), "{text}");
        }
    }

    #[test]
    fn large_numbers_keep_their_size() {
        for (text, value) in [
            ("18446744073709551616", 18_446_744_073_709_552_000.0),
            ("07777777777777777777777", 7.777_777_777_777_777e21),
        ] {
            assert_eq!(plain(text).unwrap().as_f64(), Some(value), "{text}");
        }
    }

    #[test]
    fn a_tag_decides_over_the_text() {
        for (tag, text, value) in [
            ("str", "5", json!("5")),
            ("str", "", json!("")),
            ("int", "5", json!(5)),
            ("float", "1", json!(1)),
            ("bool", "yes", json!(true)),
            ("timestamp", "2001-01-01", json!("2001-01-01")),
        ] {
            assert_eq!(tagged(tag, text), Ok(value), "!!{tag} {text}");
        }
        for (tag, text) in [("null", "foo"), ("int", "foo"), ("int", "5.5"), ("bool", "5"), ("binary", "aGVsbG8=")] {
            assert_eq!(tagged(tag, text), Err(Misfit), "!!{tag} {text}");
        }
    }
}
