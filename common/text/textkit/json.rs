//! Python's json.dumps over template values.

use crate::fail;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::Error;
use std::fmt::Write;

/// Bounds the native stack; contexts are at most 127 deep, templates may nest a little more.
const MAX_DEPTH: usize = 200;

pub struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>, // one level
    item: String,
    key: String,
}

impl Style {
    pub fn from_args(
        ensure_ascii: Option<Value>,
        indent: Option<Value>,
        separators: Option<Value>,
        kwargs: &Kwargs,
    ) -> Result<Style, Error> {
        let pick = |v: Option<Value>, name: &str| match v {
            Some(v) => Ok(Some(v)),
            None => kwargs.get::<Option<Value>>(name),
        };
        let indent = match pick(indent, "indent")? {
            None => None,
            Some(v) if v.is_none() => None,
            Some(v) => Some(match v.as_str() {
                Some(s) => s.to_string(),
                // Python takes a bool for the int that it is.
                None if v.kind() == ValueKind::Bool => " ".repeat(v.is_true().into()),
                None => " ".repeat(i64::try_from(v)?.clamp(0, 64) as usize),
            }),
        };
        let item = if indent.is_some() { "," } else { ", " };
        let mut style = Style {
            ensure_ascii: pick(ensure_ascii, "ensure_ascii")?.is_some_and(|v| v.is_true()),
            sort_keys: kwargs
                .get::<Option<Value>>("sort_keys")?
                .is_some_and(|v| v.is_true()),
            indent,
            item: item.to_string(),
            key: ": ".to_string(),
        };
        if let Some(pair) = pick(separators, "separators")?.filter(|v| !v.is_none()) {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            let [item, key] = &pair[..] else {
                return Err(fail("separators must be a pair"));
            };
            style.item = item.to_string();
            style.key = key.to_string();
        }
        Ok(style)
    }

    fn newline(&self, depth: usize, out: &mut String) {
        if let Some(one) = &self.indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(one);
            }
        }
    }
}

/// Python's repr of a float: the shortest digits that read back equal; an exponent when the first
/// digit's place is below 1e-4 or from 1e16 on, with at least two exponent digits.
pub fn float_repr(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_string();
    }
    let sci = format!("{x:e}");
    let (digits, exp) = sci.split_once('e').unwrap_or((&sci, "0"));
    let exp: i32 = exp.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exp) {
        return format!(
            "{digits}e{}{:02}",
            if exp < 0 { '-' } else { '+' },
            exp.abs()
        );
    }
    let plain = x.to_string();
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

fn float_json(x: f64) -> String {
    match float_repr(x).as_str() {
        "nan" => "NaN".to_string(),
        "inf" => "Infinity".to_string(),
        "-inf" => "-Infinity".to_string(),
        s => s.to_string(),
    }
}

fn string(s: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && c > '~') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

pub fn is_float(v: &Value) -> bool {
    v.is_number() && !v.is_integer()
}

fn scalar(v: &Value) -> Option<String> {
    match v.kind() {
        ValueKind::None => Some("null".to_string()),
        ValueKind::Bool => Some(if v.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::Number if is_float(v) => f64::try_from(v.clone()).ok().map(float_json),
        ValueKind::Number => Some(v.to_string()),
        _ => None,
    }
}

fn refuse(v: &Value) -> Error {
    fail(format!("a value of type {} is not JSON", v.kind()))
}

fn list(v: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    let mut empty = true;
    out.push('[');
    for item in v.try_iter()?.checked() {
        if !empty {
            out.push_str(&style.item);
        }
        empty = false;
        style.newline(depth + 1, out);
        dumps(&item?, style, depth + 1, out)?;
    }
    if !empty {
        style.newline(depth, out);
    }
    out.push(']');
    Ok(())
}

fn object(v: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    let mut pairs = Vec::new();
    for key in v.try_iter()?.checked() {
        let key = key?;
        let name = match key.as_str() {
            Some(s) => s.to_string(),
            None => scalar(&key).ok_or_else(|| refuse(&key))?,
        };
        pairs.push((name, v.get_item(&key)?));
    }
    if style.sort_keys {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out.push('{');
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push_str(&style.item);
        }
        style.newline(depth + 1, out);
        string(name, style.ensure_ascii, out);
        out.push_str(&style.key);
        dumps(value, style, depth + 1, out)?;
    }
    if !pairs.is_empty() {
        style.newline(depth, out);
    }
    out.push('}');
    Ok(())
}

pub fn dumps(v: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fail("a value is nested too deeply for JSON"));
    }
    if let Some(s) = v.as_str() {
        string(s, style.ensure_ascii, out);
        return Ok(());
    }
    match v.kind() {
        ValueKind::Seq | ValueKind::Iterable => list(v, style, depth, out),
        ValueKind::Map => object(v, style, depth, out),
        _ => {
            out.push_str(&scalar(v).ok_or_else(|| refuse(v))?);
            Ok(())
        }
    }
}
